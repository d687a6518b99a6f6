//! `transform_rows`: rows to rows of any shape and type. The kernel fills its row of the output in
//! place.

use std::ops::Range;

use ndarray::{ArrayViewMut, Axis, Dimension, IntoDimension};

use super::operation::{Task, each_row, run};
use super::run::{Plan, check, check_shape, new_output, stacked, with_report};
use super::{KernelReturn, Rows};
use crate::array::{Element, SharedArray};
use crate::engine::args::ShapeArg;
use crate::engine::control::BlockContext;
use crate::engine::report::{Output, Report};
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{KernelArg, KernelFor, Mode};

/// One axis more than a shape given as `S`.
pub(super) type Larger<S> = <<S as IntoDimension>::Dim as Dimension>::Larger;

impl<M: Mode> Executor<'_, M> {
    /// Calls `kernel` for every row with the row and a row of the output to fill, in workers.
    /// `row_shape` is the shape of the output's rows: a width, or `(height, width)` for images. The
    /// output has the rows of the input as axis 0, and is nameless until
    /// [published](SharedArray::publish).
    ///
    /// The output may have any element type, which follows from what the kernel does with it, or is
    /// said: `transform_rows::<f32, _, _, _>(...)`. The kernel must write all of its row, and not
    /// read it before: a row that is run again after a death holds what the dead worker wrote, and
    /// under [guard](Self::guard) it holds zeros. For the rest see [`map_rows`](Self::map_rows).
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows). A kernel that assigns a row of another shape panics, which
    /// is [`KernelPanicked`](crate::Error::KernelPanicked).
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool).
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (100, 4), |(i, j)| (i * j) as f64)?;
    /// // The least and the largest of each row, as f32.
    /// let ranges = rowfork::fork().transform_rows(&m, 2, |row, out| {
    ///     out[0] = row.fold(f64::INFINITY, |a, &b| a.min(b)) as f32;
    ///     out[1] = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b)) as f32;
    /// })?;
    /// assert_eq!(ranges.shape(), [100, 2]);
    /// assert_eq!(ranges.view()[[7, 1]], 21.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn transform_rows<T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>>(
        &self,
        input: I,
        row_shape: S,
        kernel: impl Fn(I::Row, &mut ArrayViewMut<'_, T, <Larger<S> as Dimension>::Smaller>) -> R
        + KernelFor<M>,
    ) -> Result<Output<SharedArray<T, Larger<S>>>> {
        check(self, &input)?;
        let row_shape = row_shape.into_dimension();
        let dim = stacked(input.n_rows(), &row_shape);
        let mut output = new_output(dim)?;
        let report = self.transform_rows_into(input, row_shape, &mut output, kernel);
        with_report(output, report)
    }

    /// As [`transform_rows`](Self::transform_rows), into an output that is there already, of as
    /// many rows as the input and of rows of shape `row_shape`.
    ///
    /// # Errors
    /// As [`transform_rows`](Self::transform_rows), and [`WrongShape`](crate::Error::WrongShape)
    /// for an output of another shape. On an error the output holds some new rows, perhaps one
    /// half-written for each worker, and what it held before in the others.
    pub fn transform_rows_into<
        T: Element,
        I: Rows,
        S: IntoDimension,
        R: KernelReturn<Value = ()>,
    >(
        &self,
        input: I,
        row_shape: S,
        output: &mut SharedArray<T, Larger<S>>,
        kernel: impl Fn(I::Row, &mut ArrayViewMut<'_, T, <Larger<S> as Dimension>::Smaller>) -> R
        + KernelFor<M>,
    ) -> Result<Report> {
        check(self, &input)?;
        let dim = stacked(input.n_rows(), &row_shape.into_dimension());
        check_shape(&dim, output)?;
        run(
            self,
            &input,
            output,
            Plan::Rows,
            KernelArg::to(self.mode(), &kernel),
            ShapeArg(dim),
            |Task { input, kernel, extra: ShapeArg(dim) }| {
                Ok(move |rows: Range<usize>, values: &mut [T], context: &BlockContext<'_>| {
                    let mut block = block_view(&dim, rows.len(), values);
                    each_row(&input, rows, context, |at, row| {
                        kernel(row, &mut block.index_axis_mut(Axis(0), at)).into_result()
                    })
                })
            },
        )
    }
}

/// `n_rows` rows of an array of shape `dim`, given their elements.
pub(super) fn block_view<'a, T: Element, D: Dimension>(
    dim: &D,
    n_rows: usize,
    values: &'a mut [T],
) -> ArrayViewMut<'a, T, D> {
    let mut dim = dim.clone();
    dim[0] = n_rows;
    ArrayViewMut::from_shape(dim, values).expect("the share of a block is its rows")
}
