//! `row_sums`: the exact sum of each row.

use std::ops::ControlFlow;

use ndarray::{Ix1, Ix2};

use super::{one_value_per_row, with_new_output};
use crate::array::SharedArray;
use crate::error::Result;
use crate::fork::{Fork, RowCost};
use crate::kernel::Kernel;
use crate::report::{Output, Report};

/// Bytes of input between two notes of the row that a worker is at, some 50 us. (Every 64 KiB costs 3 %.)
const NOTE_BYTES: usize = 1 << 20;

/// The exact sum of each row of a slice, in the calling thread: what [`Fork::row_sums`] runs in its workers, for those
/// who bring threads of their own.
///
/// `rows` holds `sums.len()` rows of `n_columns` elements, one after the other. As fast as several rows at a time allow,
/// which for short rows is a good deal faster than [`exact_sum`](crate::exact_sum) row by row.
///
/// # Panics
/// If `rows.len()` is not `n_columns * sums.len()`.
///
/// # Examples
/// ```
/// use rayon::prelude::*;
///
/// let (rows, n_columns) = (vec![0.1; 30_000], 10);
/// let mut sums = vec![0.0; 3000];
/// rows.par_chunks(500 * n_columns).zip(sums.par_chunks_mut(500)).for_each(|(rows, sums)| {
///     rowfork::exact_row_sums(rows, n_columns, sums);
/// });
/// assert!(sums.iter().all(|&sum| sum == 1.0));
/// ```
pub fn exact_row_sums(rows: &[f64], n_columns: usize, sums: &mut [f64]) {
    Kernel::get().row_sums(rows, n_columns, sums);
}

impl Fork<'_> {
    /// The sum of each row, correctly rounded: the double nearest to the exact sum of the row's elements, as Python's
    /// `math.fsum` (see [`exact_sum`](crate::exact_sum) for NaN, infinities and zeros). The same bits, therefore, for
    /// every number of workers, block size, machine and crash.
    ///
    /// `input` has shape `(rows, columns)`; the result has shape `(rows,)` and is nameless until
    /// [published](SharedArray::publish). Rows of no columns have the sum 0.
    ///
    /// # Errors
    /// Those of the options; [`ShmFull`](crate::Error::ShmFull) and the like where the output cannot be made;
    /// [`ForkFailed`](crate::Error::ForkFailed), [`WorkerSetup`](crate::Error::WorkerSetup) or [`Os`](crate::Error::Os)
    /// where no worker can be had; [`Truncated`](crate::Error::Truncated) where another process has cut the input;
    /// [`RowKillsWorkers`](crate::Error::RowKillsWorkers), [`WorkersKeepDying`](crate::Error::WorkersKeepDying) or
    /// [`ControlCorrupted`](crate::Error::ControlCorrupted) where somebody kills, or writes to, what is not theirs.
    ///
    /// # Fork safety
    /// Workers run no code but rowfork's own, which takes no lock: safe to call from a program of many threads.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::copy_from(None, &array![[1e16, 1.0, -1e16], [0.1, 0.2, 0.3]])?;
    /// let sums = rowfork::fork().row_sums(&m)?;
    /// assert_eq!(sums.view(), array![1.0, 0.6]);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_sums(&self, input: &SharedArray<f64, Ix2>) -> Result<Output<SharedArray<f64, Ix1>>> {
        with_new_output(self, input.n_rows(), |output| self.row_sums_into(input, output))
    }

    /// As [`row_sums`](Self::row_sums), into an output of shape `(rows,)` that is there already: repeated calls then
    /// place nothing.
    ///
    /// # Errors
    /// As [`row_sums`](Self::row_sums), and [`WrongShape`](crate::Error::WrongShape) for an output of another length. On
    /// an error the output holds the sums of some rows and what it held before in the others.
    pub fn row_sums_into(&self, input: &SharedArray<f64, Ix2>, output: &mut SharedArray<f64, Ix1>) -> Result<Report> {
        let n_columns = input.shape()[1];
        // Chosen here: the choice reads the environment, which a worker should not.
        let kernel = Kernel::get();
        let elements = input.as_slice();
        let step = (NOTE_BYTES / (n_columns * size_of::<f64>()).max(1)).max(1);
        one_value_per_row(self, input, output, RowCost::MemoryBound, |rows, values, slot| {
            for (index, values) in rows.step_by(step).zip(values.chunks_mut(step)) {
                slot.set_row(index);
                kernel.row_sums(&elements[index * n_columns..][..values.len() * n_columns], n_columns, values);
            }
            ControlFlow::Continue(())
        })
    }
}
