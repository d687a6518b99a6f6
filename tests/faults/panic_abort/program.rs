//! Built with `panic = "abort"` by the test beside it: a panic in a worker is an abort there, and
//! still a typed error here.
#![allow(clippy::print_stdout, reason = "what the test reads")]

use rowfork::{Error, SharedArray, fork};

fn main() {
    let name = std::env::args().nth(1).expect("a name");
    let m = SharedArray::from_shape_fn(name, (100, 3), |(i, j)| (i + j) as f64).expect("placed");

    let outcome = fork().workers(2).block_rows(10).map_rows(&m, |row| {
        assert!(row.index() != 57, "bad row {}", row.index());
        row.sum()
    });
    match outcome {
        Err(Error::KernelPanicked { row, message, location, .. }) => {
            println!("{row}|{message}|{location}");
        }
        other => println!("{other:?}"),
    }

    let sums = fork().workers(2).row_sums(&m).expect("the next call is none the worse for it");
    println!("{}", sums.as_slice()[99]);
}
