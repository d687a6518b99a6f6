//! `map_rows`: one value per row, by any function of the row.

use std::ops::Range;

use ndarray::Ix1;

use super::operation::{Task, each_row, run};
use super::run::{Plan, check, check_shape, new_output, with_report};
use super::{KernelReturn, Rows};
use crate::array::{Element, SharedArray};
use crate::engine::control::BlockContext;
use crate::engine::report::{Output, Report};
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{KernelArg, KernelFor, Mode};

impl<M: Mode> Executor<'_, M> {
    /// Calls `kernel` for every row, in workers, and gives its values in order: an array of shape
    /// `(rows,)`, nameless until [published](SharedArray::publish).
    ///
    /// `input` is an array, a part of one, or several whose rows are taken together: see [`Rows`].
    /// In fork mode the kernel may capture anything, but what it changes in captured values stays
    /// in the worker, and is lost with it; on a [`Pool`](crate::Pool) it captures nothing, and what
    /// it needs goes with the input ([`param`](crate::param), [`broadcast`](crate::broadcast)). It
    /// must be pure: a row is run again when its worker dies.
    ///
    /// # Errors
    /// [`KernelFailed`](crate::Error::KernelFailed) or
    /// [`KernelPanicked`](crate::Error::KernelPanicked) with the lowest row that failed;
    /// [`PoisonedRows`](crate::Error::PoisonedRows) for a row that is fatal to every worker:
    /// neither where the [policy](Self::policy) is to fill such rows.
    /// [`DeadlineExceeded`](crate::Error::DeadlineExceeded), [`Cancelled`](crate::Error::Cancelled)
    /// likewise. [`UnguardedCrash`](crate::Error::UnguardedCrash) for crashes that do not end,
    /// without a [guard](Self::guard); [`UnequalRows`](crate::Error::UnequalRows),
    /// [`NoRows`](crate::Error::NoRows) for inputs that do not fit;
    /// [`UnfitFill`](crate::Error::UnfitFill) for a fill value that is none of the output's;
    /// [`ShmFull`](crate::Error::ShmFull) and the like where the output cannot be made;
    /// [`Truncated`](crate::Error::Truncated) and [`HolesPunched`](crate::Error::HolesPunched)
    /// where another process has cut the input; [`ForkFailed`](crate::Error::ForkFailed),
    /// [`WorkerSetup`](crate::Error::WorkerSetup) or [`Os`](crate::Error::Os) where no worker can
    /// be had; [`WorkersKeepDying`](crate::Error::WorkersKeepDying),
    /// [`WorkerUnkillable`](crate::Error::WorkerUnkillable),
    /// [`ControlCorrupted`](crate::Error::ControlCorrupted); the errors of the options; on a pool
    /// [`PoolBroken`](crate::Error::PoolBroken), [`PoolReentered`](crate::Error::PoolReentered),
    /// [`KernelCaptures`](crate::Error::KernelCaptures),
    /// [`KernelNotInZygote`](crate::Error::KernelNotInZygote),
    /// [`TooManyArrays`](crate::Error::TooManyArrays).
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool).
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (100, 4), |(i, j)| (i * 4 + j) as f64)?;
    /// let means = rowfork::fork().map_rows(&m, |row| row.mean().ok_or("an empty row"))?;
    /// assert_eq!(means.view()[1], 5.5);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn map_rows<I: Rows, R: KernelReturn<Value: Element>>(
        &self,
        input: I,
        kernel: impl Fn(I::Row) -> R + KernelFor<M>,
    ) -> Result<Output<SharedArray<R::Value, Ix1>>> {
        check(self, &input)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.map_rows_into(input, &mut output, kernel);
        with_report(output, report)
    }

    /// As [`map_rows`](Self::map_rows), into an output that is there already, of shape `(rows,)`.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows), and [`WrongShape`](crate::Error::WrongShape) for an output
    /// of another length. On an error the output holds the values of some rows and what it held
    /// before in the others.
    pub fn map_rows_into<I: Rows, R: KernelReturn<Value: Element>>(
        &self,
        input: I,
        output: &mut SharedArray<R::Value, Ix1>,
        kernel: impl Fn(I::Row) -> R + KernelFor<M>,
    ) -> Result<Report> {
        check(self, &input)?;
        check_shape(&Ix1(input.n_rows()), output)?;
        run(
            self,
            &input,
            output,
            Plan::Rows,
            KernelArg::to(self.mode(), &kernel),
            (),
            |Task { input, kernel, .. }| {
                Ok(
                    move |rows: Range<usize>,
                          values: &mut [R::Value],
                          context: &BlockContext<'_>| {
                        each_row(&input, rows, context, |at, row| {
                            kernel(row).into_result().map(|value| values[at] = value)
                        })
                    },
                )
            },
        )
    }
}
