//! Reducing all rows to one: the mean of each column, by folding rows into an array. Same bits for
//! any number of workers.
//!
//! cargo run --release --example `column_means` -- [--rows N] [--workers N]

mod support;

use ndarray::{Array1, Axis};
use rowfork::{Output, SharedArray};
use support::{Options, rows_that_fit};

const COLUMNS: usize = 16;

fn main() -> Result<(), rowfork::Error> {
    let options =
        Options::from_args("column_means [--rows N] [--workers N]", &["--rows", "--workers"]);
    let n_rows = rows_that_fit(options.count("--rows", 1_000_000), COLUMNS * size_of::<f64>());
    let n_workers = options.count("--workers", 4);

    let m = SharedArray::from_shape_fn(None, (n_rows, COLUMNS), |(i, j)| {
        (i * 31 % 1009) as f64 / 10.0 + j as f64
    })?;

    // A fold has three parts: what an accumulator begins with, how a row enters it, how one
    // accumulator enters another. Rows are cut into groups by their number alone, and the groups
    // are combined in order: sums of doubles round differently in another order, so this is what
    // makes the answer the same for every number of workers.
    let column_means = |n_workers: usize| -> Result<Output<SharedArray<f64, _>>, rowfork::Error> {
        let mut means = rowfork::fork().workers(n_workers).fold_rows_array(
            &m,
            &Array1::zeros(COLUMNS),
            |sums, row| *sums += &row,
            |sums, others| *sums += others,
        )?;
        means.view_mut().mapv_inplace(|sum| sum / n_rows as f64);
        Ok(means)
    };
    let means = column_means(n_workers)?;
    for (j, mean) in means.view().iter().enumerate().take(4) {
        println!("mean of column {j}: {mean:10.6}");
    }

    // The same by one worker: equal to the last bit. (`==` on doubles is meant here.)
    let by_one = column_means(1)?;
    assert_eq!(means.as_slice(), by_one.as_slice());
    println!("1 worker and {n_workers}: the same bits");

    // And in this process alone, in ndarray's order: equal but for rounding.
    let serial = m.view().mean_axis(Axis(0)).expect("one row at least");
    let apart =
        means.view().iter().zip(&serial).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    assert!(apart < 1e-12, "{apart:e} apart");
    println!("serial ndarray: within {apart:.1e} of it");
    print!("{}", means.report());
    Ok(())
}
