//! `map_rows`: one value of each row.

use ndarray::RemoveAxis;
use rowfork::{Row, SharedArray};

use crate::case::{Case, Fallible, Input, Operation};
use crate::isolated;
use crate::table::{CASES, calls_of};
use crate::value::{Value, digest};

#[test]
fn map_rows_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<MapRows>(), 4 * CASES));
}

struct MapRows;

impl Operation for MapRows {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let expected = case.each_row(|index, row| digest(index, &row));
        let kernel = |row: Row<'_, A, D::Smaller>| digest(row.index(), &row);
        let mapped = case.succeeds("plain", case.call().map_rows(input.clone(), kernel));
        case.same("plain", &mapped, &expected);
        assert_eq!(mapped.report().rows, case.n_rows(), "{case}: the report");
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        case.succeeds("into", case.call().map_rows_into(input.clone(), &mut out, kernel));
        case.same("into", &out, &expected);
        let fallible = move |row: Row<'_, A, D::Smaller>| Fallible::Ok(digest(row.index(), &row));
        let mapped = case.succeeds("Result", case.call().map_rows(input.clone(), fallible));
        case.same("Result", &mapped, &expected);
        case.succeeds("Result, into", case.call().map_rows_into(input, &mut out, fallible));
        case.same("Result, into", &out, &expected);
    }
}
