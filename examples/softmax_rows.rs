//! Rows to rows, of another type: scores as f64 in, probabilities as f32 out (the softmax of each
//! row).
//!
//! cargo run --release --example `softmax_rows` -- [--rows N]
#![allow(clippy::cast_possible_truncation, reason = "the result is rounded to f32 on purpose")]

mod support;

use rowfork::SharedArray;
use support::{Options, rows_that_fit};

const CLASSES: usize = 100;

fn main() -> Result<(), rowfork::Error> {
    let options = Options::from_args("softmax_rows [--rows N]", &["--rows"]);
    let n_rows = rows_that_fit(
        options.count("--rows", 100_000),
        CLASSES * (size_of::<f64>() + size_of::<f32>()),
    );

    // Scores of up to 2000: exp of these is infinite, so the largest of a row has to be taken out
    // first.
    let scores = SharedArray::from_shape_fn(None, (n_rows, CLASSES), |(i, j)| {
        2000.0 - ((i * 37 + j * 101) % 997) as f64 / 20.0
    })?;

    // `CLASSES` is the width of the output's rows; their type follows from what is written to
    // `out`. The kernel computes in f64 and rounds once, at the end. Its error, if it returns one,
    // ends the call and names the row.
    let probabilities = rowfork::fork().transform_rows(&scores, CLASSES, |row, out| {
        let highest = row.fold(f64::NEG_INFINITY, |highest, &score| highest.max(score));
        if !highest.is_finite() {
            return Err(format!("the highest score is {highest}"));
        }
        let total: f64 = row.iter().map(|score| (score - highest).exp()).sum();
        for (probability, score) in out.iter_mut().zip(&row) {
            *probability = ((score - highest).exp() / total) as f32;
        }
        Ok(())
    })?;
    println!("{n_rows} x {CLASSES} scores (f64) to probabilities (f32)");
    for row in probabilities.view().rows().into_iter().take(3) {
        let (best, p) =
            row.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1)).expect("a hundred classes");
        println!(
            "most probable class {best:3}, with {p:.4}; the first ones {:.2e}",
            row.slice(ndarray::s![..4])
        );
    }

    // Every row is a distribution: its exact sum, by the same workers, is 1 but for the rounding to
    // f32.
    let sums = rowfork::fork().row_sums(&probabilities)?;
    let furthest = sums.view().fold(0.0, |furthest, &sum: &f32| (sum - 1.0).abs().max(furthest));
    assert!(furthest < 1e-6, "a row sums to 1 within {furthest:e}");
    // And one element by hand: the odds of two classes are exp of the difference of their scores.
    let (p, score) = (probabilities.view(), scores.view());
    let odds = f64::from(p[[0, 0]]) / f64::from(p[[0, 1]]);
    assert!((odds / (score[[0, 0]] - score[[0, 1]]).exp() - 1.0).abs() < 1e-6);
    println!("{n_rows} row sums checked; the furthest is {furthest:.1e} off 1");
    print!("{}", probabilities.report());
    Ok(())
}
