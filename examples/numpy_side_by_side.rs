//! Side by side with NumPy: a matrix and a result are published under names, and the Python lines
//! that read them are printed. They map the same memory; nothing is copied.
//!
//! cargo run --release --example `numpy_side_by_side` -- [--rows N]

mod support;

use rowfork::SharedArray;
use support::{Options, rows_that_fit};

const COLUMNS: usize = 128;

fn main() -> Result<(), rowfork::Error> {
    let options = Options::from_args("numpy_side_by_side [--rows N]", &["--rows"]);
    let n_rows = rows_that_fit(options.count("--rows", 10_000), COLUMNS * size_of::<f64>());
    let id = std::process::id(); // so that two of these do not get in each other's way
    let (prices_name, ranges_name) =
        (format!("rowfork-prices-{id}"), format!("rowfork-ranges-{id}"));

    // Named from birth: /dev/shm/rowfork-prices-1234 is there as soon as it is filled, never
    // before.
    let prices = SharedArray::from_shape_fn(&prices_name, (n_rows, COLUMNS), |(i, j)| {
        100.0 + ((i * 7 + j * 13) % 101) as f64 / 8.0
    })?;

    // A result is nameless until it is published. Columns: the lowest and the highest price of each
    // row.
    let mut ranges = rowfork::fork().transform_rows(&prices, 2, |row, out| {
        out[0] = row.fold(f64::INFINITY, |lowest, &price| lowest.min(price));
        out[1] = row.fold(f64::NEG_INFINITY, |highest, &price| highest.max(price));
    })?;
    ranges.publish(&ranges_name)?;

    // What Python will see, seen from here: a copy read through the name.
    assert_eq!(SharedArray::<f64, ndarray::Ix2>::read_copy(&ranges_name)?, ranges.view());

    println!("In Python, while this program waits:\n");
    println!("    import numpy as np");
    println!("    prices = np.load(\"/dev/shm/{prices_name}\", mmap_mode=\"r\")");
    println!("    ranges = np.load(\"/dev/shm/{ranges_name}\", mmap_mode=\"r\")");
    println!("    print(prices.shape, prices.dtype, ranges.shape)");
    println!(
        "    print((prices.min(axis=1) == ranges[:, 0]).all(), (prices.max(axis=1) == ranges[:, 1]).all())"
    );
    println!("\nIt prints {:?} float64 {:?}, and True True.", (n_rows, COLUMNS), (n_rows, 2));
    println!(
        "Press Enter to end. The names go with this program; call `persist` on an array that is to stay."
    );

    // Returns at once where standard input is closed, as in a pipe.
    let _ = std::io::stdin().read_line(&mut String::new());
    println!("gone: {prices_name} and {ranges_name}");
    Ok(())
}
