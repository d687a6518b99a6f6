//! `row_means`, `row_dot` and `row_weighted_means`. Sums and products are exact, so that a division
//! is the one rounding.

use ndarray::{Array1, ArrayView, Dimension, RemoveAxis};
use rowfork::SharedArray;

use crate::case::{Case, Input, OperationOnDoubles};
use crate::isolated;
use crate::table::{CASES_OF_DOUBLES, calls_on_doubles_of};

#[test]
fn row_means_equal_a_plain_loop() {
    isolated(|| assert_eq!(calls_on_doubles_of::<RowMeans>(), 2 * CASES_OF_DOUBLES));
}

#[test]
fn row_dot_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_on_doubles_of::<RowDot>(), 2 * CASES_OF_DOUBLES));
}

#[test]
fn row_weighted_means_equal_a_plain_loop() {
    isolated(|| assert_eq!(calls_on_doubles_of::<RowWeightedMeans>(), 2 * CASES_OF_DOUBLES));
}

struct RowMeans;

impl OperationOnDoubles for RowMeans {
    fn check<'a, D: RemoveAxis>(case: &Case<'a, f64, D>, input: impl Input<'a, f64, D>) {
        let expected = case.each_row(|_, row| flat(&row).mean().unwrap_or(f64::NAN));
        let means = case.succeeds("plain", case.call().row_means(input.clone()));
        case.same("plain", &means, &expected);
        case.was_in_its_place(means.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_means_into(input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }
}

struct RowDot;

impl OperationOnDoubles for RowDot {
    fn check<'a, D: RemoveAxis>(case: &Case<'a, f64, D>, input: impl Input<'a, f64, D>) {
        let vector = weights(case);
        let expected = case.each_row(|_, row| flat(&row).dot(&vector));
        let dots = case.succeeds("plain", case.call().row_dot(input.clone(), &vector));
        case.same("plain", &dots, &expected);
        case.was_in_its_place(dots.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_dot_into(input, &vector, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }
}

struct RowWeightedMeans;

impl OperationOnDoubles for RowWeightedMeans {
    fn check<'a, D: RemoveAxis>(case: &Case<'a, f64, D>, input: impl Input<'a, f64, D>) {
        let weights = weights(case);
        let mean = |row: Array1<f64>| {
            if row.is_empty() { f64::NAN } else { row.dot(&weights) / weights.sum() }
        };
        let expected = case.each_row(|_, row| mean(flat(&row)));
        let means = case.succeeds("plain", case.call().row_weighted_means(input.clone(), &weights));
        case.same("plain", &means, &expected);
        case.was_in_its_place(means.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report =
            case.succeeds("into", case.call().row_weighted_means_into(input, &weights, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }
}

/// A number for each element of a row, with which products and their sums are exact.
fn weights<D: RemoveAxis>(case: &Case<'_, f64, D>) -> Array1<f64> {
    let row_len = case.serial.shape()[1..].iter().product::<usize>();
    (0..row_len).map(|place| (place % 5) as f64 + 0.5).collect()
}

/// The elements of a row in C order.
fn flat<D: Dimension>(row: &ArrayView<'_, f64, D>) -> Array1<f64> {
    row.iter().copied().collect()
}
