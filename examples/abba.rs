//! Claims about speed, each measured in pairs and in turns (A B B A), so that a slow moment of the machine cancels; with
//! A against A as the control. Every answer is checked before it is timed.
//!
//! cargo run --profile dist --example abba -- [--rows N] [--cols N] [--quadruples N]
//!
//! `ROWFORK_ISA=avx2` (or `scalar`) for other instructions than the best. Without a shape those of docs/BENCHMARKS.md.

#[path = "../benches/rivals/mod.rs"]
mod rivals;
mod support;

use ndarray::{Ix1, Ix2};
use rivals::{Ceiling, DATA, Data, are_close, ndarray_serial, rayon_ndarray, threads_exact};
use rowfork::SharedArray;
use support::{Options, paired, rows_that_fit};

const USAGE: &str = "abba [--rows N] [--cols N] [--quadruples N]";

/// 1 GiB each, in rows of every length.
const SHAPES: [(usize, usize); 4] = [(131_072, 1024), (16_384, 8192), (1_342_177, 100), (16_777_216, 8)];

fn main() -> rowfork::Result<()> {
    let options = Options::from_args(USAGE, &["--rows", "--cols", "--quadruples"]);
    let quadruples = options.count("--quadruples", 21);
    let asked = options.number("--cols").map(|n_columns| {
        let gib = (1 << 27) / n_columns.max(1);
        vec![(options.count("--rows", gib), n_columns)]
    });
    for (n_rows, n_columns) in asked.unwrap_or(SHAPES.to_vec()) {
        // Two matrices at a time, and what is left to others.
        let n_rows = rows_that_fit(n_rows * 2, n_columns * 8) / 2;
        claims(n_rows, n_columns, quadruples)?;
    }
    Ok(())
}

/// A matrix whose row sums everybody gets right.
fn placed(data: Data, n_rows: usize, n_columns: usize) -> rowfork::Result<SharedArray<f64, Ix2>> {
    let matrix = SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| (data.element)(i, j, n_columns))?;
    let rows = matrix.view();
    let (mut exact, mut sums) = (vec![0.0; n_rows], vec![0.0; n_rows]);
    threads_exact(&rows, &mut exact);
    let is_exact = |(row, sum): (&[f64], &f64)| rowfork::exact_sum(row).to_bits() == sum.to_bits();
    assert!(matrix.as_slice().chunks_exact(n_columns).zip(&exact).all(is_exact));
    for rival in [ndarray_serial, rayon_ndarray] {
        rival(&rows, &mut sums);
        assert!(are_close(&sums, &exact, &rows));
    }
    assert_eq!(rowfork::fork().row_sums(&matrix)?.as_slice(), exact);
    Ok(matrix)
}

fn claims(n_rows: usize, n_columns: usize, quadruples: usize) -> rowfork::Result<()> {
    let bytes = n_rows * n_columns * 8;
    let uniform = placed(DATA[0], n_rows, n_columns)?;
    let rows = uniform.view();
    // All outputs in segments: what the caller holds of its own costs a fork, and is copied when it is next written.
    let (mut sums, mut others) = (SharedArray::zeros(None, n_rows)?, SharedArray::zeros(None, n_rows)?);
    let mut forked = SharedArray::<f64, Ix1>::zeros(None, n_rows)?;
    let sums = sums.view_mut().into_slice().expect("C order");
    let others = others.view_mut().into_slice().expect("C order");
    let fork = rowfork::fork();

    let ceiling = Ceiling::of(uniform.as_slice());
    println!(
        "\n{n_rows} x {n_columns}, {:.2} GiB; rates, A to B\nceiling: {ceiling:?}",
        bytes as f64 / f64::from(1 << 30)
    );
    let measure = |name: &str, a: &mut dyn FnMut(), b: &mut dyn FnMut()| paired(name, bytes, quadruples, a, b);
    let threads = &mut || threads_exact(&rows, sums);
    measure("control: exact by threads, to itself", threads, &mut || threads_exact(&rows, others));
    measure("exact by threads, to the ceiling", threads, &mut || ceiling.read(uniform.as_slice()));
    measure("exact by threads, to rayon + ndarray", threads, &mut || rayon_ndarray(&rows, others));
    let by_fork = &mut || drop(fork.row_sums_into(&uniform, &mut forked).expect("sums"));
    measure("exact by fork, to threads", by_fork, threads);
    measure("exact by fork, to rayon + ndarray", by_fork, &mut || rayon_ndarray(&rows, others));
    for data in &DATA[1..] {
        let hard = placed(*data, n_rows, n_columns)?;
        let what = format!("exact by threads, {} to uniform rows", data.name);
        measure(&what, &mut || threads_exact(&hard.view(), others), threads);
    }
    Ok(())
}
