//! `row_sums` and `row_sums_fast`. The values have sums that are exact in any order, so that a plain
//! loop is an oracle.

use ndarray::RemoveAxis;
use rowfork::SharedArray;

use crate::case::{Case, Input, Operation, OperationOnDoubles};
use crate::isolated;
use crate::table::{CASES, CASES_OF_DOUBLES, calls_of, calls_on_doubles_of};
use crate::value::Value;

#[test]
fn row_sums_equal_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<RowSums>(), 2 * CASES));
}

#[test]
fn row_sums_fast_equal_a_plain_loop() {
    isolated(|| assert_eq!(calls_on_doubles_of::<RowSumsFast>(), 2 * CASES_OF_DOUBLES));
}

struct RowSums;

impl Operation for RowSums {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let expected = case.each_row(|_, row| A::sum(&row.iter().copied().collect::<Vec<A>>()));
        let sums = case.succeeds("plain", case.call().row_sums(input.clone()));
        case.same("plain", &sums, &expected);
        case.was_in_its_place(sums.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_sums_into(input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }
}

struct RowSumsFast;

impl OperationOnDoubles for RowSumsFast {
    fn check<'a, D: RemoveAxis>(case: &Case<'a, f64, D>, input: impl Input<'a, f64, D>) {
        let expected = case.each_row(|_, row| row.sum());
        let sums = case.succeeds("plain", case.call().row_sums_fast(input.clone()));
        case.same("plain", &sums, &expected);
        case.was_in_its_place(sums.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_sums_fast_into(input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }
}
