//! `map_rows`: one value per row, by any function.

use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;

use ndarray::{Axis, Ix1, RemoveAxis};

use super::{Row, one_value_per_row, with_new_output};
use crate::array::{Element, SharedArray};
use crate::control::MessageKind;
use crate::error::Result;
use crate::fork::{Fork, RowCost};
use crate::report::{Output, Report};

/// What a kernel may return: a value, or a `Result` whose error ends the call and names the row.
///
/// Implemented for every [`Element`] and for `Result` of one with any error that can be displayed.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot return `{Self}`",
    label = "the kernel returns this",
    note = "a kernel returns an element (`f64`), or a `Result` of one with an error that implements `Display`"
)]
pub trait KernelReturn {
    /// The value that goes into the output.
    type Value: Element;
    /// The error, if the kernel can fail.
    type Error: fmt::Display;

    /// The value or the error.
    ///
    /// # Errors
    /// The kernel's own.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T: Element> KernelReturn for T {
    type Value = T;
    type Error = Infallible;

    fn into_result(self) -> Result<T, Infallible> {
        Ok(self)
    }
}

impl<T: Element, E: fmt::Display> KernelReturn for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Result<T, E> {
        self
    }
}

impl Fork<'_> {
    /// Calls `kernel` for every row, in forked workers, and gives its values in order: an array of shape `(rows,)`,
    /// nameless until [published](SharedArray::publish).
    ///
    /// The kernel may capture anything, but what it changes in captured values stays in the worker, and is lost with it.
    /// It must be pure: a row is run again when its worker dies.
    ///
    /// # Errors
    /// [`KernelFailed`](crate::Error::KernelFailed) or [`KernelPanicked`](crate::Error::KernelPanicked) with the lowest
    /// row that failed; [`RowKillsWorkers`](crate::Error::RowKillsWorkers) for a row that is fatal to three workers;
    /// [`ShmFull`](crate::Error::ShmFull) and the like where the output cannot be made;
    /// [`Truncated`](crate::Error::Truncated) where another process has cut the input;
    /// [`ForkFailed`](crate::Error::ForkFailed), [`WorkerSetup`](crate::Error::WorkerSetup) or [`Os`](crate::Error::Os)
    /// where no worker can be had; [`WorkersKeepDying`](crate::Error::WorkersKeepDying),
    /// [`ControlCorrupted`](crate::Error::ControlCorrupted); the errors of the options.
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()).
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
    pub fn map_rows<A, D, R>(
        &self,
        input: &SharedArray<A, D>,
        kernel: impl Fn(Row<'_, A, D::Smaller>) -> R,
    ) -> Result<Output<SharedArray<R::Value, Ix1>>>
    where
        A: Element,
        D: RemoveAxis,
        R: KernelReturn,
    {
        with_new_output(self, input.n_rows(), |output| self.map_rows_into(input, output, kernel))
    }

    /// As [`map_rows`](Self::map_rows), into an output that is there already, of shape `(rows,)`.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows), and [`WrongShape`](crate::Error::WrongShape) for an output of another length. On
    /// an error the output holds the values of some rows and what it held before in the others.
    pub fn map_rows_into<A, D, R>(
        &self,
        input: &SharedArray<A, D>,
        output: &mut SharedArray<R::Value, Ix1>,
        kernel: impl Fn(Row<'_, A, D::Smaller>) -> R,
    ) -> Result<Report>
    where
        A: Element,
        D: RemoveAxis,
        R: KernelReturn,
    {
        let rows = input.view();
        one_value_per_row(self, input, output, RowCost::Unknown, |block_rows, values, slot| {
            for (index, value) in block_rows.zip(values) {
                slot.set_row(index);
                match kernel(Row::new(index, rows.index_axis(Axis(0), index))).into_result() {
                    Ok(result) => *value = result,
                    Err(error) => {
                        slot.leave_message(MessageKind::KernelError, error, "");
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })
    }
}
