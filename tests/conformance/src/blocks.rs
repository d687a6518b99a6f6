//! `map_blocks`: to rows of two words, and to rows of the input's own shape and type.

use ndarray::{ArrayViewMut, Axis, Ix2, RemoveAxis};
use rowfork::{Block, SharedArray};

use crate::case::{Case, Fallible, Input, Operation, Stacked};
use crate::isolated;
use crate::table::{CASES, calls_of};
use crate::value::{Value, dim_of, hash};

#[test]
fn map_blocks_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<MapBlocks>(), 4 * CASES));
}

struct MapBlocks;

impl Operation for MapBlocks {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let words = case.two_words();
        let fill = |block: Block<'_, A, D>, out: &mut ArrayViewMut<'_, u64, Ix2>| {
            assert_eq!(
                (block.len_of(Axis(0)), out.nrows()),
                (block.row_range().len(), block.row_range().len())
            );
            for ((index, row), mut out) in
                block.row_range().zip(block.axis_iter(Axis(0))).zip(out.rows_mut())
            {
                out[0] = index as u64;
                out[1] = hash(index, &row);
            }
        };
        let mapped = case.succeeds("plain", case.call().map_blocks(input.clone(), 2, fill));
        case.same("plain", &mapped, &words);
        let mut out = SharedArray::zeros(None, (case.n_rows(), 2)).unwrap();
        case.succeeds(
            "into",
            case.call().block_rows(3).map_blocks_into(input.clone(), 2, &mut out, fill),
        );
        case.same("into, 3 rows a block", &out, &words);
        let fallible = move |block: Block<'_, A, D>, out: &mut ArrayViewMut<'_, u64, Ix2>| {
            fill(block, out);
            Fallible::Ok(())
        };
        let mapped = case.succeeds("Result", case.call().map_blocks(input.clone(), 2, fallible));
        case.same("Result", &mapped, &words);
        let mut out =
            SharedArray::<A, _>::zeros(None, dim_of::<Stacked<D>>(case.serial.shape())).unwrap();
        let into = case
            .call()
            .map_blocks_into(input, case.row_shape(), &mut out, |block, out| out.assign(&block));
        case.succeeds("to its own shape", into);
        case.same(
            "to its own shape",
            &out,
            &case.serial.to_shape(out.view().raw_dim()).unwrap().to_owned(),
        );
    }
}
