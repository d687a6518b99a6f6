//! The main job: a matrix in a named segment, forked workers over its rows, exact sums out, checked
//! and compared.
//!
//! cargo run --release --example `row_sums` -- [--rows N] [--cols N] [--workers N] [FILE.npy]
//! [--out SUMS.npy]

mod support;

use ndarray::parallel::prelude::*;
use ndarray::{Axis, Zip};
use rowfork::SharedArray;
use support::{Options, line, medians, rows_that_fit, timed};

const USAGE: &str = "row_sums [--rows N] [--cols N] [--workers N] [FILE.npy] [--out SUMS.npy]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args(USAGE, &["--rows", "--cols", "--workers", "--out"]);
    let name = format!("rowfork-row-sums-{}", std::process::id());

    // Place the matrix: straight from the file, or computed in place. Either way the data are in
    // the segment once, and any other process could open it by its name.
    let (placing, matrix) = if let Some(path) = options.plain() {
        timed(|| SharedArray::<f64, ndarray::Ix2>::from_npy_file(name.as_str(), path))
    } else {
        let n_columns = options.number("--cols").unwrap_or(128);
        let n_rows = rows_that_fit(options.number("--rows").unwrap_or(1 << 20), n_columns * 8);
        timed(|| {
            SharedArray::from_shape_fn(name.as_str(), (n_rows, n_columns), |(i, j)| {
                (i * 31 + j) as f64 * 0.1
            })
        })
    };
    let matrix = matrix?;

    // Sum: each call forks its workers, and they are gone when it returns.
    let fork = options.number("--workers").map_or(rowfork::fork(), |n| rowfork::fork().workers(n));
    let sums = fork.row_sums(&matrix)?;

    // Check every sum against a serial pass, bit for bit.
    let rows = matrix.view();
    for (row, sum) in rows.rows().into_iter().zip(sums.view()) {
        assert_eq!(sum.to_bits(), rowfork::exact_sum(row.as_slice().expect("C order")).to_bits());
    }

    // Compare with what one would do without rowfork.
    let mut by_row = vec![0.0; sums.len()];
    let mut by_rayon = by_row.clone();
    let [forked, rayon, serial] = medians([
        &mut || drop(fork.row_sums(&matrix)),
        &mut || {
            rows.axis_iter(Axis(0))
                .into_par_iter()
                .map(|row| row.sum())
                .collect_into_vec(&mut by_rayon);
        },
        &mut || Zip::from(&mut by_row[..]).and(rows.rows()).for_each(|sum, row| *sum = row.sum()),
    ]);
    let (bytes, shape) = (matrix.len() * 8, matrix.shape());
    println!(
        "{} x {} f64, {:.2} GiB, in /dev/shm/{name}",
        shape[0],
        shape[1],
        bytes as f64 / (1u64 << 30) as f64
    );
    let huge = matrix.pages().map_or(0, |pages| pages.huge_bytes);
    line(
        "placed",
        placing,
        bytes,
        &format!("{} of {} MiB in 2 MiB pages", huge >> 20, bytes >> 20),
    );
    line(
        "rowfork, exact",
        forked,
        bytes,
        &format!("{} workers, every sum checked", sums.report().workers.len()),
    );
    line("rayon + ndarray", rayon, bytes, "not exact");
    line("ndarray, one thread", serial, bytes, "not exact");
    print!("{}", fork.measure_memory(true).row_sums(&matrix)?.report());
    if let Some(out) = options.text("--out") {
        sums.write_npy(out)?;
    }
    Ok(())
}
