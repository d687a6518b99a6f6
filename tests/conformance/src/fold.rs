//! `fold_rows` and `fold_rows_array`: one value, or one array, of all rows.

use ndarray::{Array, ArrayView, ArrayViewMut, Axis, RemoveAxis};
use rowfork::{Error, Row, SharedArray};

use crate::case::{Case, Fallible, Input, Operation};
use crate::isolated;
use crate::table::{CASES, CASES_WITHOUT_ELEMENTS, calls_of};
use crate::value::{Value, hash};

#[test]
fn fold_rows_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<FoldRows>(), 3 * CASES));
}

/// An accumulator of no elements is refused, so there is one call of the three forms.
#[test]
fn fold_rows_array_equals_a_plain_loop() {
    isolated(|| {
        let calls = 3 * (CASES - CASES_WITHOUT_ELEMENTS) + CASES_WITHOUT_ELEMENTS;
        assert_eq!(calls_of::<FoldRowsArray>(), calls);
    });
}

/// Composes x -> a x + b over all rows, in words: associative, but in no other order.
struct FoldRows;

impl Operation for FoldRows {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let mut expected = [1, 0];
        case.each_row(|index, row| [hash(index, &row), index as u64])
            .iter()
            .for_each(|row| compose(&mut expected, row));
        let fold = |f: &mut [u64; 2], row: Row<'_, A, D::Smaller>| {
            compose(f, &[hash(row.index(), &row), row.index() as u64]);
        };
        let folded =
            case.succeeds("plain", case.call().fold_rows(input.clone(), [1, 0], fold, compose));
        assert_eq!(*folded, expected, "{case}, plain");
        let mut out = [7, 7];
        case.succeeds(
            "into",
            case.call().fold_rows_into(input.clone(), [1, 0], &mut out, fold, compose),
        );
        assert_eq!(out, expected, "{case}, into");
        let fallible = move |f: &mut [u64; 2], row: Row<'_, A, D::Smaller>| {
            fold(f, row);
            Fallible::Ok(())
        };
        let folded = case
            .succeeds("Result", case.call().fold_rows(input, [1, 0], fallible, compose_fallibly));
        assert_eq!(*folded, expected, "{case}, Result");
    }
}

fn compose(f: &mut [u64; 2], g: &[u64; 2]) {
    *f = [f[0].wrapping_mul(g[0]), f[1].wrapping_mul(g[0]).wrapping_add(g[1])];
}

#[expect(clippy::unnecessary_wraps, reason = "the form that returns a `Result` is tried")]
fn compose_fallibly(f: &mut [u64; 2], g: &[u64; 2]) -> Fallible {
    compose(f, g);
    Ok(())
}

/// Sums over the rows, place by place. A row of no elements is an accumulator of none.
struct FoldRowsArray;

impl Operation for FoldRowsArray {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let identity = Array::from_elem(case.row_shape(), A::zeroed());
        let mut expected = identity.clone();
        for row in case.serial.axis_iter(Axis(0)) {
            expected.zip_mut_with(&row, |sum, &x| *sum = sum.plus(x));
        }
        let fold = |sums: &mut ArrayViewMut<'_, A, D::Smaller>, row: Row<'_, A, D::Smaller>| {
            sums.zip_mut_with(&row, |sum, &x| *sum = sum.plus(x));
        };
        let combine = |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                       others: &ArrayView<'_, A, D::Smaller>| {
            sums.zip_mut_with(others, |sum, &x| *sum = sum.plus(x));
        };
        let folded = case.call().fold_rows_array(input.clone(), &identity, fold, combine);
        if identity.is_empty() {
            assert!(
                matches!(folded.unwrap_err(), Error::EmptyAccumulator { found: 0, needed: 1, .. }),
                "{case}"
            );
            return;
        }
        let folded = case.succeeds("plain", folded);
        case.same("plain", &folded, &expected);
        let mut out = SharedArray::copy_from(None, &identity.mapv(|_| A::at(5))).unwrap();
        case.succeeds(
            "into",
            case.call().fold_rows_array_into(input.clone(), &identity, &mut out, fold, combine),
        );
        case.same("into", &out, &expected);
        let fallible = move |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                             row: Row<'_, A, D::Smaller>| {
            fold(sums, row);
            Fallible::Ok(())
        };
        let combine = move |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                            others: &ArrayView<'_, A, D::Smaller>| {
            combine(sums, others);
            Fallible::Ok(())
        };
        let folded = case
            .succeeds("Result", case.call().fold_rows_array(input, &identity, fallible, combine));
        case.same("Result", &folded, &expected);
    }
}
