//! `update_rows` and `update_rows_with`: rows changed in place.

use ndarray::{Array, Axis, Ix2, Ix3, RemoveAxis};
use rowfork::{Row, RowMut, SharedArray};

use crate::case::{Case, Fallible, Input, Operation};
use crate::isolated;
use crate::table::{CASES, calls_of};
use crate::value::{Value, digest, dim_of, values};

#[test]
fn update_rows_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<UpdateRows>(), 2 * CASES));
}

#[test]
fn update_rows_with_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<UpdateRowsWith>(), 2 * CASES));
}

struct UpdateRows;

impl Operation for UpdateRows {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, _: impl Input<'a, A, D>) {
        check_update(case);
    }
}

/// Apart, because no type of input is a parameter here: selections add no instance.
fn check_update<A: Value, D: RemoveAxis>(case: &Case<'_, A, D>) {
    let expected = case.mixed();
    let mix = |row: &mut RowMut<'_, A, D::Smaller>| {
        let index = row.index();
        row.mapv_inplace(|x| A::at(index).mix(x));
    };
    let mut array = SharedArray::copy_from(None, &case.serial).unwrap();
    let report = case.succeeds("plain", case.call().update_rows(&mut array, mix));
    case.same("plain", &array, &expected);
    assert_eq!(report.rows, case.n_rows(), "{case}: the report");
    let mut array = SharedArray::copy_from(None, &case.serial).unwrap();
    let fallible = move |row: &mut RowMut<'_, A, D::Smaller>| {
        mix(row);
        Fallible::Ok(())
    };
    case.succeeds("Result", case.call().update_rows(&mut array, fallible));
    case.same("Result", &array, &expected);
}

struct UpdateRowsWith;

impl Operation for UpdateRowsWith {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let shape = [&[case.n_rows()], &[2, 2][..]].concat();
        let before: Array<f64, Ix3> = values(dim_of(&shape));
        let mut expected = before.clone();
        for (index, (mut out, row)) in
            expected.outer_iter_mut().zip(case.serial.axis_iter(Axis(0))).enumerate()
        {
            out[[1, 0]] += digest(index, &row).bits() as f64;
        }
        let add = |out: &mut RowMut<'_, f64, Ix2>, row: Row<'_, A, D::Smaller>| {
            assert_eq!(out.index(), row.index());
            out[[1, 0]] += digest(row.index(), &row).bits() as f64;
        };
        let mut array = SharedArray::copy_from(None, &before).unwrap();
        case.succeeds("plain", case.call().update_rows_with(&mut array, input.clone(), add));
        case.same("plain", &array, &expected);
        let mut array = SharedArray::copy_from(None, &before).unwrap();
        let fallible = move |out: &mut RowMut<'_, f64, Ix2>, row: Row<'_, A, D::Smaller>| {
            add(out, row);
            Fallible::Ok(())
        };
        case.succeeds("Result", case.call().update_rows_with(&mut array, input, fallible));
        case.same("Result", &array, &expected);
    }
}
