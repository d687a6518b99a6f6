//! `row_means`, `row_dot`, `row_weighted_means`, `row_sums_fast`: built-in kernels over rows of
//! doubles. The arithmetic is in `kernel/`.
//!
//! # Safety
//! Weights are unpacked here as they were packed; `engine/args.rs` says what else that requires.
#![allow(unsafe_code, reason = "unpacks weights in workers that are no copies of the caller")]

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{ArrayView1, Ix1, RemoveAxis};

use super::operation::{Task, run_built_in};
use super::reader::RowReader;
use super::run::{check, check_shape, new_output, with_report};
use crate::array::{Selection, SharedArray};
use crate::engine::args::{ArgReader, ByValue, Marshal, PackedArgs};
use crate::engine::control::BlockContext;
use crate::engine::report::{Output, Report};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::mode::Mode;
use crate::kernel::{Kernels, Weights};

impl<M: Mode> Executor<'_, M> {
    /// The exact mean of each row: the double nearest to the exact sum of its elements over their
    /// number, rounded once. See [`exact_mean`](crate::exact_mean) for NaN, infinities and zeros.
    /// The same bits, therefore, for every number of workers, block size, machine and crash.
    ///
    /// `input` is an array of `f64` or a [part](Selection) of one, of shape `(rows, columns)` or of
    /// more axes, over all of which but the first the mean is then taken. The result has shape
    /// `(rows,)` and is nameless until [published](SharedArray::publish). Rows of no elements have
    /// the mean NaN. Where the elements of a row do not lie on end (every other column), each
    /// worker holds a copy of one row at a time, or of some short ones.
    ///
    /// Available for `f64` only. For other types convert each row in [`map_rows`](Self::map_rows),
    /// as below; this is exact except for integers above 2<sup>53</sup>.
    ///
    /// # Errors
    /// Those of [`row_sums`](Self::row_sums), but for sums that overflow.
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
    /// let m = SharedArray::copy_from(None, &array![[0.1, 0.1, 0.1], [1e16, 1.0, -1e16], [1e308, 1e308, 1e308]])?;
    /// assert_eq!(rowfork::fork().row_means(&m)?.view(), array![0.1, 1.0 / 3.0, 1e308]);
    ///
    /// let bytes = SharedArray::copy_from(None, &array![[250_u8, 255], [3, 4]])?;
    /// let means = rowfork::fork().map_rows(&bytes, |row| {
    ///     let doubles: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    ///     rowfork::exact_mean(&doubles)
    /// })?;
    /// assert_eq!(means.view(), array![252.5, 3.5]);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_means<'s, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
    ) -> Result<Output<SharedArray<f64, Ix1>>> {
        let input = input.into();
        check(self, &input)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.row_means_into(input, &mut output);
        with_report(output, report)
    }

    /// As [`row_means`](Self::row_means), into an output of shape `(rows,)` that is there already.
    ///
    /// # Errors
    /// As [`row_means`](Self::row_means), and [`WrongShape`](crate::Error::WrongShape) for an
    /// output of another length. On an error the output holds the means of some rows and what it
    /// held before in the others.
    pub fn row_means_into<'s, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        output: &mut SharedArray<f64, Ix1>,
    ) -> Result<Report> {
        each_piece(self, &input.into(), output, (), |(), rows, row_len, means| {
            Kernels::get().row_means(rows, row_len, means);
        })
    }

    /// The exact dot product of each row with a vector: the double nearest to the sum of the exact
    /// products, rounded once. See [`exact_dot`](crate::exact_dot) for NaN, infinities and zeros.
    /// The same bits for every number of workers, block size, machine and crash.
    ///
    /// `input` is an array of `f64` or a [part](Selection) of one, of shape `(rows, columns)`, or
    /// of more axes, whose rows then count as their elements in C order. `vector` has as many
    /// elements as a row, and is a slice, a `Vec` or an ndarray of one axis, by reference, in
    /// memory of the caller's own (workers read it where it is), or the `view()` of a shared array.
    /// The result has shape `(rows,)`. Where the elements of a row do not lie on end, each worker
    /// holds a copy of one row at a time, or of some short ones.
    ///
    /// # Errors
    /// [`WrongShape`](crate::Error::WrongShape) for a vector of another length; those of
    /// [`row_sums`](Self::row_sums), but for sums that overflow.
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
    /// let positions = SharedArray::copy_from(None, &array![[100.0, -3.0, 1.0], [1e200, 1e200, 5.0]])?;
    /// let worth = rowfork::fork().row_dot(&positions, &[0.5, 2.0, 3.0])?;
    /// assert_eq!(worth.view()[0], 47.0);
    ///
    /// let cancelling = rowfork::fork().row_dot(&positions, &array![1e200, -1e200, 0.1])?;
    /// assert_eq!(cancelling.view()[1], 0.5);
    ///
    /// let prices = SharedArray::copy_from(None, &array![0.5, 2.0, 3.0])?;
    /// let worth = rowfork::fork().row_dot(&positions, prices.view())?;
    /// assert_eq!(worth.view()[0], 47.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_dot<'s, 'v, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        vector: impl Into<ArrayView1<'v, f64>>,
    ) -> Result<Output<SharedArray<f64, Ix1>>> {
        let (input, vector) = (input.into(), vector.into());
        check(self, &input)?;
        check_len("vector", &input, &vector)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.row_dot_into(input, vector, &mut output);
        with_report(output, report)
    }

    /// As [`row_dot`](Self::row_dot), into an output of shape `(rows,)` that is there already.
    ///
    /// # Errors
    /// As [`row_dot`](Self::row_dot), and [`WrongShape`](crate::Error::WrongShape) for an output of
    /// another length. On an error the output holds the dot products of some rows and what it held
    /// before in the others.
    pub fn row_dot_into<'s, 'v, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        vector: impl Into<ArrayView1<'v, f64>>,
        output: &mut SharedArray<f64, Ix1>,
    ) -> Result<Report> {
        let (input, vector) = (input.into(), vector.into());
        check(self, &input)?;
        check_len("vector", &input, &vector)?;
        let vector = on_end(&vector);
        each_piece(
            self,
            &input,
            output,
            ByValue(ArrayView1::from(&*vector)),
            |ByValue(vector), rows, _, dots| {
                Kernels::get().row_dots(rows, elements_of(vector), dots);
            },
        )
    }

    /// The exact weighted mean of each row: the double nearest to its exact dot product with
    /// `weights` over the exact sum of these, rounded once. See
    /// [`exact_weighted_mean`](crate::exact_weighted_mean) for weights whose sum is zero (NaN or an
    /// infinity, no error), NaN, infinities and zeros. The same bits for every number of workers,
    /// block size, machine and crash.
    ///
    /// Shapes and memory are those of [`row_dot`](Self::row_dot). The weights may be of either sign
    /// and have any sum.
    ///
    /// # Errors
    /// Those of [`row_dot`](Self::row_dot).
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
    /// let marks = SharedArray::copy_from(None, &array![[1.5, 10.0], [0.1, 0.1]])?;
    /// let means = rowfork::fork().row_weighted_means(&marks, &[2.0, 1.0])?;
    /// assert_eq!(means.view(), array![13.0 / 3.0, 0.1]);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_weighted_means<'s, 'v, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        weights: impl Into<ArrayView1<'v, f64>>,
    ) -> Result<Output<SharedArray<f64, Ix1>>> {
        let (input, weights) = (input.into(), weights.into());
        check(self, &input)?;
        check_len("array of weights", &input, &weights)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.row_weighted_means_into(input, weights, &mut output);
        with_report(output, report)
    }

    /// As [`row_weighted_means`](Self::row_weighted_means), into an output of shape `(rows,)` that
    /// is there already.
    ///
    /// # Errors
    /// As [`row_weighted_means`](Self::row_weighted_means), and
    /// [`WrongShape`](crate::Error::WrongShape) for an output of another length. On an error the
    /// output holds the means of some rows and what it held before in the others.
    pub fn row_weighted_means_into<'s, 'v, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        weights: impl Into<ArrayView1<'v, f64>>,
        output: &mut SharedArray<f64, Ix1>,
    ) -> Result<Report> {
        let (input, weights) = (input.into(), weights.into());
        check(self, &input)?;
        check_len("array of weights", &input, &weights)?;
        let weights = on_end(&weights);
        let weights = Weighed(Kernels::get().weigh(&weights));
        each_piece(self, &input, output, weights, |&Weighed(weights), rows, _, means| {
            Kernels::get().row_weighted_means(rows, weights, means);
        })
    }

    /// The plain sum of each row, rounded at every addition, in the order that
    /// [`fast_sum`](crate::fast_sum) documents: one addition per element, and the same bits for
    /// every number of workers, block size, machine and crash all the same. For those who know
    /// their data. [`row_sums`](Self::row_sums) is exact; where it waits for memory rather than for
    /// the processor, as it mostly does on arrays larger than the caches, there is little or
    /// nothing to be gained here.
    ///
    /// `input` is an array of `f64` or a [part](Selection) of one, of shape `(rows, columns)` or of
    /// more axes, whose elements are then summed over all but the first, in C order. The result has
    /// shape `(rows,)`. Rows of no elements have the sum 0. Where the elements of a row do not lie
    /// on end, each worker holds a copy of one row at a time, or of some short ones.
    ///
    /// # Errors
    /// Those of [`row_sums`](Self::row_sums), but for sums that overflow.
    ///
    /// # Fork safety
    /// Workers run no code but rowfork's own, which takes no lock: safe to call from a program of
    /// many threads.
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
    /// assert_eq!(rowfork::fork().row_sums_fast(&m)?.view()[7], 24.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn row_sums_fast<'s, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
    ) -> Result<Output<SharedArray<f64, Ix1>>> {
        let input = input.into();
        check(self, &input)?;
        let mut output = new_output(Ix1(input.n_rows()))?;
        let report = self.row_sums_fast_into(input, &mut output);
        with_report(output, report)
    }

    /// As [`row_sums_fast`](Self::row_sums_fast), into an output of shape `(rows,)` that is there
    /// already.
    ///
    /// # Errors
    /// As [`row_sums_fast`](Self::row_sums_fast), and [`WrongShape`](crate::Error::WrongShape) for
    /// an output of another length. On an error the output holds the sums of some rows and what it
    /// held before in the others.
    pub fn row_sums_fast_into<'s, D: RemoveAxis>(
        &self,
        input: impl Into<Selection<'s, f64, D>>,
        output: &mut SharedArray<f64, Ix1>,
    ) -> Result<Report> {
        each_piece(self, &input.into(), output, (), |(), rows, row_len, sums| {
            Kernels::get().row_plain_sums(rows, row_len, sums);
        })
    }
}

/// Weights, and what is known of their sum. Only the weights are packed; a worker weighs them
/// again.
#[derive(Clone, Copy)]
struct Weighed<'w>(Weights<'w>);

impl Marshal for Weighed<'_> {
    fn pack(&self, args: &mut PackedArgs<'_>) {
        ByValue(ArrayView1::from(self.0.values())).pack(args);
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        // SAFETY: as the caller promises.
        let ByValue(values) = unsafe { ByValue::<'_, f64, Ix1>::unpack(words) };
        Self(Kernels::get().weigh(values.to_slice().expect("packed on end")))
    }
}

/// The elements of a vector, which lie on end.
fn elements_of<'v>(vector: &'v ArrayView1<'_, f64>) -> &'v [f64] {
    vector.as_slice().expect("on end")
}

/// One call of a built-in kernel. The kernel gets `extra`, rows on end, the length of a row, and as
/// many elements of the output as rows. (`run_call` chooses the instructions before any fork, since
/// the choice reads the environment.)
fn each_piece<M: Mode, D: RemoveAxis, X: Marshal>(
    executor: &Executor<'_, M>,
    input: &Selection<'_, f64, D>,
    output: &mut SharedArray<f64, Ix1>,
    extra: X,
    kernel: impl Fn(&X, &[f64], usize, &mut [f64]) + Copy,
) -> Result<Report> {
    check(executor, input)?;
    check_shape(&Ix1(input.n_rows()), output)?;
    run_built_in(executor, input, output, extra, move |Task { input, extra, .. }| {
        let rows_of = RowReader::new(input)?;
        Ok(move |rows: Range<usize>, results: &mut [f64], context: &BlockContext<'_>| {
            let start = rows.start;
            rows_of.pieces(rows, context, |piece, elements| {
                kernel(
                    &extra,
                    elements,
                    rows_of.row_len(),
                    &mut results[piece.start - start..piece.end - start],
                );
                Ok(())
            })
        })
    })
}

/// Refuses a vector of another length than the rows.
fn check_len<D: RemoveAxis>(
    what: &'static str,
    input: &Selection<'_, f64, D>,
    vector: &ArrayView1<'_, f64>,
) -> Result<()> {
    let expected = input.shape().iter().skip(1).product();
    if vector.len() == expected {
        return Ok(());
    }
    Err(Error::WrongShape { what, expected: vec![expected], found: vec![vector.len()] })
}

/// The elements of a vector on end. A vector whose elements do not lie on end is copied, before any
/// worker is forked.
fn on_end<'v>(vector: &'v ArrayView1<'_, f64>) -> Cow<'v, [f64]> {
    vector.as_slice().map_or_else(|| Cow::Owned(vector.to_vec()), Cow::Borrowed)
}
