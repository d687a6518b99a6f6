//! A library function that nobody can trust: it aborts on two rows, never returns from one, and on
//! another writes to a result that is not its own. The program survives all four, every other row
//! is right, and the report names the four.
//!
//! `cargo run --release --example survive_a_crash`
#![allow(unsafe_code, reason = "stands for a function of a C library")]

use std::time::Duration;

use rowfork::{Policy, SharedArray};

const BAD: [usize; 4] = [1_234, 20_000, 31_415, 77_777];

/// `double c_norm(const double *row, size_t n, double *result)`, as C has it: with no idea of what
/// these point to.
unsafe extern "C" fn c_norm(row: *const f64, n: usize, result: *mut f64, index: usize) -> f64 {
    match BAD.iter().position(|&bad| bad == index) {
        Some(0 | 1) => std::process::abort(), // assert(n % 7 != 3)
        Some(2) => loop {
            std::hint::spin_loop(); // while (error > tolerance)
        },
        Some(_) => {
            let before = result.wrapping_sub(1); // result[-1] = norm, off by one
            // SAFETY: none. It writes to the result of another row.
            unsafe { before.write_volatile(f64::MAX) };
        }
        None => {}
    }
    // SAFETY: the caller's row.
    let row = unsafe { std::slice::from_raw_parts(row, n) };
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let m = SharedArray::from_shape_fn(None, (100_000, 64), |(i, j)| ((i + j) % 100) as f64)?;
    let mut norms = SharedArray::<f64, _>::zeros(None, m.n_rows())?;
    let results = norms.as_mut_ptr();
    let report = rowfork::fork()
        .guard(true)
        .stall_limit(Duration::from_millis(200))
        .policy(Policy::fill(f64::NAN))
        // SAFETY: the row is 64 elements on end; for the rest see above.
        .map_rows_into(&m, &mut norms, |row| unsafe {
            c_norm(row.as_ptr(), row.len(), results.wrapping_add(row.index()), row.index())
        })?;

    for (row, &norm) in norms.as_slice().iter().enumerate() {
        let expected = m.view().row(row).dot(&m.view().row(row)).sqrt();
        assert!(
            if BAD.contains(&row) { norm.is_nan() } else { (norm - expected).abs() < 1e-9 },
            "row {row}: {norm}"
        );
    }
    println!("{} rows, {} missing, all others are right:", norms.len(), report.failed_rows.len());
    for failed in &report.failed_rows {
        println!("  {failed}");
    }
    println!("{:.0} ms in all", report.elapsed.as_secs_f64() * 1e3);
    Ok(())
}
