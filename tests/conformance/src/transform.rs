//! `transform_rows`: to rows of two words, and to rows of the input's own shape and type.

use ndarray::{ArrayViewMut, Ix1, RemoveAxis};
use rowfork::{Row, SharedArray};

use crate::case::{Case, Fallible, Input, Operation, Stacked};
use crate::isolated;
use crate::table::{CASES, calls_of};
use crate::value::{Value, dim_of, hash};

#[test]
fn transform_rows_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<TransformRows>(), 3 * CASES));
}

struct TransformRows;

impl Operation for TransformRows {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let words = case.two_words();
        let mixed = case.mixed();
        let fill = |row: Row<'_, A, D::Smaller>, out: &mut ArrayViewMut<'_, u64, Ix1>| {
            out[0] = row.index() as u64;
            out[1] = hash(row.index(), &row);
        };
        let transformed =
            case.succeeds("plain", case.call().transform_rows(input.clone(), 2, fill));
        case.same("plain", &transformed, &words);
        let mut out = SharedArray::zeros(None, dim_of::<Stacked<D>>(case.serial.shape())).unwrap();
        let (input_again, row_shape) = (input.clone(), case.row_shape());
        let into = case.call().transform_rows_into(input_again, row_shape, &mut out, |row, out| {
            out.zip_mut_with(&row, |out, &x| *out = A::at(row.index()).mix(x));
        });
        case.succeeds("into", into);
        case.same("into", &out, &mixed.to_shape(out.view().raw_dim()).unwrap().to_owned());
        let fallible = move |row: Row<'_, A, D::Smaller>, out: &mut ArrayViewMut<'_, u64, Ix1>| {
            fill(row, out);
            Fallible::Ok(())
        };
        let transformed = case.succeeds("Result", case.call().transform_rows(input, 2, fallible));
        case.same("Result", &transformed, &words);
    }
}
