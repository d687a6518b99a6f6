//! `row_sums`: the exact sum of each row, and [`exact_row_sums`] for threads of the caller's own.
//!
//! The kernel is rowfork's own, so a small call is done by the calling thread, and a guard changes
//! nothing. The arithmetic is in `kernel/`.

use std::ops::Range;

use ndarray::{Ix1, RemoveAxis};

use super::operation::{Task, run_built_in};
use super::reader::RowReader;
use super::run::{check, check_shape, new_output, with_report};
use crate::array::{Bool, Element, Selection, SharedArray};
use crate::engine::control::{BlockContext, SumOverflow};
use crate::engine::report::{Output, Report};
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::Mode;
use crate::kernel::{Kernels, Overflow};

/// The exact sum of each row of a slice, in the calling thread: what [`Executor::row_sums`] runs in
/// its workers, for those who bring threads of their own.
///
/// `rows` holds `sums.len()` rows of `n_columns` elements, one after the other. As fast as several
/// rows at a time allow, which for short rows is a good deal faster than
/// [`exact_sum`](crate::exact_sum) row by row.
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
    Kernels::get().row_sums(rows, n_columns, sums);
}

/// An element type whose rows [`Executor::row_sums`] adds up, and the type of the sums. Implemented
/// for every [`Element`].
///
/// | elements | sums | |
/// |---|---|---|
/// | `f64` | `f64` | the double nearest the exact sum |
/// | `f32` | `f32` | the `f32` nearest the exact sum: rounded once, not by way of a double |
/// | `i8` to `i64` | `i64` | exact, or [`SumOverflow`](crate::Error::SumOverflow) |
/// | `u8` to `u64` | `u64` | exact, or [`SumOverflow`](crate::Error::SumOverflow) |
/// | [`Bool`] | `u64` | how many are true |
pub trait Summand: Element {
    /// The type of the sums.
    type Sum: Element;

    /// The sums of rows on end; stops at the first that does not fit, with its place and the exact
    /// sum.
    #[doc(hidden)]
    fn sum_rows(
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self::Sum],
    ) -> Result<(), (usize, i128)>;
}

macro_rules! summands {
    ($($type:ty => $sum:ty),+) => {$(
        impl Summand for $type {
            type Sum = $sum;

            fn sum_rows(rows: &[Self], n_columns: usize, sums: &mut [$sum]) -> Result<(), (usize, i128)> {
                let summed = <$type as crate::kernel::ExactSum>::row_sums(Kernels::get(), rows, n_columns, sums);
                summed.map_err(|Overflow { row, sum }| (row, sum))
            }
        }
    )+};
}

summands!(f64 => f64, f32 => f32, i8 => i64, i16 => i64, i32 => i64, i64 => i64, u8 => u64, u16 => u64, u32 => u64, u64 => u64);

impl Summand for Bool {
    type Sum = u64;

    fn sum_rows(rows: &[Self], n_columns: usize, sums: &mut [u64]) -> Result<(), (usize, i128)> {
        Kernels::get().row_counts(bytemuck::cast_slice(rows), n_columns, sums);
        Ok(())
    }
}

impl<M: Mode> Executor<'_, M> {
    /// The exact sum of each row, rounded once to the type of the sums: for doubles the double
    /// nearest to the exact sum of the row's elements, as Python's `math.fsum` (see
    /// [`exact_sum`](crate::exact_sum) for NaN, infinities and zeros); for `f32` the nearest `f32`;
    /// for integers the sum itself, as `i64` or `u64` (see [`Summand`]). The same bits, therefore,
    /// for every number of workers, block size, machine and crash.
    ///
    /// `input` is an array or a [part](Selection) of one, of shape `(rows, columns)` or of more
    /// axes, whose elements are then summed over all but the first. The result has shape `(rows,)`
    /// and is nameless until [published](SharedArray::publish). Rows of no elements have the sum 0.
    /// Where the elements of a row do not lie on end (every other column), each worker holds a copy
    /// of one row at a time, or of some short ones.
    ///
    /// # Errors
    /// [`SumOverflow`](crate::Error::SumOverflow) with the lowest row of integers whose sum does
    /// not fit; those of the options; [`ShmFull`](crate::Error::ShmFull) and the like where the
    /// output cannot be made; [`ForkFailed`](crate::Error::ForkFailed),
    /// [`WorkerSetup`](crate::Error::WorkerSetup) or [`Os`](crate::Error::Os) where no worker can
    /// be had; [`Truncated`](crate::Error::Truncated) and
    /// [`HolesPunched`](crate::Error::HolesPunched) where another process has cut an array or taken
    /// memory out of it; [`PoisonedRows`](crate::Error::PoisonedRows),
    /// [`WorkersKeepDying`](crate::Error::WorkersKeepDying) or
    /// [`ControlCorrupted`](crate::Error::ControlCorrupted) where somebody kills, or writes to,
    /// what is not theirs.
    ///
    /// # Fork safety
    /// Workers run no code but rowfork's own, which takes no lock: safe to call from a program of
    /// many threads.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::copy_from(None, &array![[1e16, 1.0, -1e16], [0.1, 0.2, 0.3]])?;
    /// let sums = rowfork::fork().row_sums(&m)?;
    /// assert_eq!(sums.view(), array![1.0, 0.6]);
    ///
    /// let images = SharedArray::from_shape_fn(None, (10, 64, 64), |(i, _, _)| i as u8)?;
    /// assert_eq!(rowfork::fork().row_sums(&images)?.view()[9], 9 * 64 * 64);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_sums<'s, A: Summand, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, A, D>>,
    ) -> Result<Output<SharedArray<A::Sum, Ix1>>> {
        let input = input.into();
        check(self, &input)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.row_sums_into(input, &mut output);
        with_report(output, report)
    }

    /// As [`row_sums`](Self::row_sums), into an output of shape `(rows,)` that is there already:
    /// repeated calls then place nothing.
    ///
    /// # Errors
    /// As [`row_sums`](Self::row_sums), and [`WrongShape`](crate::Error::WrongShape) for an output
    /// of another length. On an error the output holds the sums of some rows and what it held
    /// before in the others.
    pub fn row_sums_into<'s, A: Summand, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, A, D>>,
        output: &mut SharedArray<A::Sum, Ix1>,
    ) -> Result<Report> {
        let input = input.into();
        check(self, &input)?;
        check_shape(&Ix1(input.n_rows()), output)?;
        run_built_in(self, &input, output, (), |Task { input, .. }| {
            let rows_of = RowReader::new(input)?;
            let signed = A::Sum::DESCR == i64::DESCR;
            Ok(move |rows: Range<usize>, sums: &mut [A::Sum], context: &BlockContext<'_>| {
                let start = rows.start;
                rows_of.pieces(rows, context, |piece, elements| {
                    let sums = &mut sums[piece.start - start..piece.end - start];
                    let summed = A::sum_rows(elements, rows_of.row_len(), sums);
                    summed.map_err(|(row, sum)| (row, SumOverflow { sum, signed }))
                })
            })
        })
    }
}
