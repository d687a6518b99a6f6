//! `update_rows`: rows changed in place. The output is the input, so rows are saved in an undo
//! buffer before the kernel changes them (`output.rs`, `engine/undo.rs`).

use std::ops::Range;

use ndarray::{Axis, RemoveAxis};

use super::input::sealed::RowCheck;
use super::input::tasks;
use super::operation::{Task, each_row, run};
use super::run::Plan;
use super::transform::block_view;
use super::{KernelReturn, RowMut, Rows};
use crate::array::{Element, SharedArray};
use crate::engine::args::ShapeArg;
use crate::engine::control::BlockContext;
use crate::engine::report::Report;
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{KernelArg, KernelFor, Mode};

impl<M: Mode> Executor<'_, M> {
    /// Calls `kernel` for every row with a [`RowMut`] to change in place, in workers. There is no
    /// second array: the memory stays that of the input. It is always all rows of an array; a
    /// kernel that is to change some of the columns slices its row.
    ///
    /// A worker saves some rows (8 KiB of them, or one) before it lets the kernel at them. When it
    /// dies they are put back and run again: the array becomes what it would be without the death.
    /// When the call fails, they are put back: every row is either new or as it was, and the error
    /// says which are new. Not so where a crash (SIGSEGV, SIGABRT, ...) may have written to other
    /// rows, which ends the call, unless it is [guarded](Self::guard).
    ///
    /// Where the [policy](Self::policy) is to fill, rows that fail hold the value; rows that were
    /// not run when the call ended early are as they were, so that they can be updated later.
    /// `missing_rows` of the report names both.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows), but once any row is new the error is
    /// [`UpdateInterrupted`](crate::Error::UpdateInterrupted) with the rows, and the former is its
    /// `cause`.
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool).
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let mut m = SharedArray::from_shape_fn(None, (100, 4), |(i, j)| (i * 4 + j) as f32)?;
    /// rowfork::fork().update_rows(&mut m, |row| {
    ///     row.mapv_inplace(|x| x.min(50.0));
    ///     *row /= 50.0;
    /// })?;
    /// assert_eq!(m.view()[[99, 0]], 1.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn update_rows<A: Element, D: RemoveAxis, R: KernelReturn<Value = ()>>(
        &self,
        array: &mut SharedArray<A, D>,
        kernel: impl Fn(&mut RowMut<'_, A, D::Smaller>) -> R + KernelFor<M>,
    ) -> Result<Report> {
        let (rows, dim) = (tasks(rows_of(array)?), array.dim());
        run(
            self,
            &rows,
            array,
            Plan::InPlace,
            KernelArg::to(self.mode(), &kernel),
            ShapeArg(dim),
            |Task { kernel, extra: ShapeArg(dim), .. }| {
                Ok(move |rows: Range<usize>, values: &mut [A], context: &BlockContext<'_>| {
                    let start = rows.start;
                    let mut block = block_view(&dim, rows.len(), values);
                    each_row(&tasks(rows.end), rows, context, |at, _| {
                        kernel(&mut RowMut::new(start + at, block.index_axis_mut(Axis(0), at)))
                            .into_result()
                    })
                })
            },
        )
    }

    /// As [`update_rows`](Self::update_rows), with the rows of other arrays beside: `inputs` is
    /// what [`map_rows`](Self::map_rows) takes, with as many rows as `array`.
    ///
    /// # Errors
    /// As [`update_rows`](Self::update_rows).
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let mut y = SharedArray::from_shape_fn(None, (100, 4), |(i, _)| i as f64)?;
    /// let x = SharedArray::from_shape_fn(None, (100, 4), |(_, j)| j as f64)?;
    /// rowfork::fork().update_rows_with(&mut y, &x, |y, x| y.scaled_add(2.0, &x))?; // y += 2 x
    /// assert_eq!(y.view()[[10, 3]], 16.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn update_rows_with<A: Element, D: RemoveAxis, I: Rows, R: KernelReturn<Value = ()>>(
        &self,
        array: &mut SharedArray<A, D>,
        inputs: I,
        kernel: impl Fn(&mut RowMut<'_, A, D::Smaller>, I::Row) -> R + KernelFor<M>,
    ) -> Result<Report> {
        let dim = array.dim();
        let mut check = RowCheck::default();
        check.part(array.shape())?;
        inputs.check_rows(&mut check)?;
        let both = (tasks(array.n_rows()), inputs);
        run(
            self,
            &both,
            array,
            Plan::InPlace,
            KernelArg::to(self.mode(), &kernel),
            ShapeArg(dim),
            |Task { input, kernel, extra: ShapeArg(dim) }| {
                Ok(move |rows: Range<usize>, values: &mut [A], context: &BlockContext<'_>| {
                    let start = rows.start;
                    let mut block = block_view(&dim, rows.len(), values);
                    each_row(&input, rows, context, |at, (_, others)| {
                        kernel(
                            &mut RowMut::new(start + at, block.index_axis_mut(Axis(0), at)),
                            others,
                        )
                        .into_result()
                    })
                })
            },
        )
    }
}

/// The number of rows, if there are axes.
fn rows_of<A: Element, D: RemoveAxis>(array: &SharedArray<A, D>) -> Result<usize> {
    RowCheck::default().part(array.shape())?;
    Ok(array.n_rows())
}
