//! Changing a matrix where it is: readings are clipped to a range and rescaled to 0..=1, without a
//! second array.
//!
//! cargo run --release --example `in_place` -- [--rows N]

mod support;

use rowfork::SharedArray;
use support::{Options, rows_that_fit};

const SENSORS: usize = 32;
const HIGHEST: f32 = 1000.0;

/// What sensor `j` says at time `i`: mostly 0 to 1000, now and then beyond.
fn reading(i: usize, j: usize) -> f32 {
    f32::from(u16::try_from((i * 7919 + j * 104_729) % 1200).expect("below 1200")) - 100.0
}

fn main() -> Result<(), rowfork::Error> {
    let options = Options::from_args("in_place [--rows N]", &["--rows"]);
    let n_rows = rows_that_fit(options.count("--rows", 1_000_000), SENSORS * size_of::<f32>());

    // 128 MB in a segment, unless said otherwise. `mut`, because it is to be changed.
    let mut readings = SharedArray::from_shape_fn(None, (n_rows, SENSORS), |(i, j)| reading(i, j))?;
    println!("{n_rows} x {SENSORS} f32, {} MB", (readings.len() * size_of::<f32>()) / 1_000_000);
    println!("before: {:7.3?} ...", &readings.as_slice()[..6]);

    // How many are out of range, row by row. The workers only read here.
    let outliers = rowfork::fork().map_rows(&readings, |row| {
        row.iter().map(|reading| u64::from(!(0.0..=HIGHEST).contains(reading))).sum::<u64>()
    })?;
    let n_outliers: u64 = outliers.view().sum();

    // The kernel gets each row to write to. The array is borrowed mutably, so nobody of this
    // program reads it meanwhile.
    let report = rowfork::fork().update_rows(&mut readings, |row| {
        row.mapv_inplace(|reading| reading.clamp(0.0, HIGHEST));
        *row /= HIGHEST;
    })?;
    println!("after:  {:7.3?} ...", &readings.as_slice()[..6]);
    println!("{n_outliers} readings of {} were clipped", readings.len());

    // What it should be, one element at a time.
    let as_it_should_be =
        |((i, j), &now): ((usize, usize), &f32)| now == reading(i, j).clamp(0.0, HIGHEST) / HIGHEST;
    assert!(readings.view().indexed_iter().all(as_it_should_be));

    println!(
        "{} rows changed in place by {} workers, all checked",
        report.rows,
        report.workers.len()
    );
    print!("{report}");
    Ok(())
}
