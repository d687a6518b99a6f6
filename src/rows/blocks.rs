//! `map_blocks`: blocks of rows to blocks of rows, for vectorised code.
//!
//! The kernel gets a whole block, so the row that it is at is not known: a block whose worker dies
//! is divided in halves until the row is found.

use std::ops::Range;

use ndarray::{ArrayViewMut, IntoDimension};

use super::input::sealed::RowAccess;
use super::operation::{Task, record_failure, run};
use super::run::{Plan, check, check_shape, new_output, stacked, with_report};
use super::transform::{Larger, block_view};
use super::{KernelReturn, Rows};
use crate::array::{Element, SharedArray};
use crate::engine::args::ShapeArg;
use crate::engine::control::BlockContext;
use crate::engine::report::{Output, Report};
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{KernelArg, KernelFor, Mode};

impl<M: Mode> Executor<'_, M> {
    /// Calls `kernel` for blocks of rows on end, with a [`Block`](crate::Block) of the input and
    /// the rows of the output to fill, in workers: for functions that are quick on many rows at
    /// once, such as a matrix product or ndarray's operations along an axis. `row_shape` is the
    /// shape of the output's rows: a width, `()` for one value per row, `(height, width)` for
    /// images.
    ///
    /// A block has 64 KiB to 4 MiB of rows, or [`block_rows`](Self::block_rows) of them. Where the
    /// cuts lie is not promised, and the last block may be shorter: each row of the output should
    /// depend on its own row of the input alone, up to its last bit.
    ///
    /// # Errors
    /// As [`transform_rows`](Self::transform_rows); the row that is named is the first of its
    /// block.
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool).
    ///
    /// # Examples
    /// ```
    /// use ndarray::{Axis, array};
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (1000, 3), |(i, j)| (i + j) as f64)?;
    /// let turn = array![[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]];
    /// let turned = rowfork::fork().map_blocks(&m, 2, |block, out| out.assign(&block.dot(&turn)))?;
    /// assert_eq!(turned.shape(), [1000, 2]);
    /// assert_eq!(turned.view()[[5, 0]], 6.0 + 7.0);
    ///
    /// let means = rowfork::fork().map_blocks(&m, (), |block, out| {
    ///     out.assign(&block.mean_axis(Axis(1)).expect("three columns"));
    /// })?;
    /// assert_eq!(means.view()[9], 10.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn map_blocks<T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>>(
        &self,
        input: I,
        row_shape: S,
        kernel: impl Fn(I::Block, &mut ArrayViewMut<'_, T, Larger<S>>) -> R + KernelFor<M>,
    ) -> Result<Output<SharedArray<T, Larger<S>>>> {
        check(self, &input)?;
        let row_shape = row_shape.into_dimension();
        let dim = stacked(input.n_rows(), &row_shape);
        let mut output = new_output(dim)?;
        let report = self.map_blocks_into(input, row_shape, &mut output, kernel);
        with_report(output, report)
    }

    /// As [`map_blocks`](Self::map_blocks), into an output that is there already, of as many rows
    /// as the input and of rows of shape `row_shape`.
    ///
    /// # Errors
    /// As [`map_blocks`](Self::map_blocks), and [`WrongShape`](crate::Error::WrongShape) for an
    /// output of another shape. On an error the output holds some new rows, perhaps a block
    /// half-written for each worker, and what it held before in the others.
    pub fn map_blocks_into<T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>>(
        &self,
        input: I,
        row_shape: S,
        output: &mut SharedArray<T, Larger<S>>,
        kernel: impl Fn(I::Block, &mut ArrayViewMut<'_, T, Larger<S>>) -> R + KernelFor<M>,
    ) -> Result<Report> {
        check(self, &input)?;
        let dim = stacked(input.n_rows(), &row_shape.into_dimension());
        check_shape(&dim, output)?;
        run(
            self,
            &input,
            output,
            Plan::Blocks,
            KernelArg::to(self.mode(), &kernel),
            ShapeArg(dim),
            |Task { input, kernel, extra: ShapeArg(dim) }| {
                Ok(move |rows: Range<usize>, values: &mut [T], context: &BlockContext<'_>| {
                    let mut out = block_view(&dim, rows.len(), values);
                    record_failure(kernel(input.block(rows), &mut out).into_result(), context)
                })
            },
        )
    }
}
