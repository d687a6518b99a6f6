//! `fold_rows`: all rows to one value, or to one array.
//!
//! The rows are cut into at most 64 groups. The cut follows from the number of rows alone. Workers
//! fold each group, beginning with the identity, into an accumulator of its own in shared memory.
//! Then one worker combines the accumulators in order. So the order of all operations, and with it
//! every bit of the result, depends on nothing but the number of rows.
//!
//! The last step is a call of its own, and the caller does not do it itself: the function that
//! combines is the user's, and a crash in it must not be the caller's.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use bytemuck::Pod;
use ndarray::{ArrayRef, ArrayView, ArrayViewMut, CowArray, Dimension, Ix1, Ix2};

use super::input::tasks;
use super::operation::{Task, each_row, run};
use super::run::{Plan, check, check_shape, new_output, with_report};
use super::{KernelReturn, Rows};
use crate::array::{Element, SharedArray};
use crate::engine::args::{ByValue, PodArg, ShapeArg};
use crate::engine::blocks::RowBlocks;
use crate::engine::control::BlockContext;
use crate::engine::report::{Output, Report};
use crate::error::{Error, FailedRow, Result};
use crate::executor::Executor;
use crate::executor::mode::{KernelArg, KernelFor, Mode};

/// How far apart accumulators lie that different workers write to all the time: two cache lines,
/// since processors fetch them in pairs.
const APART_BYTES: usize = 128;

const FITS: &str = "as many elements as the shape has";

fn shaped<'a, A, D: Dimension>(dim: &D, elements: &'a [A]) -> ArrayView<'a, A, D> {
    ArrayView::from_shape(dim.clone(), elements).expect(FITS)
}

fn shaped_mut<'a, A, D: Dimension>(dim: &D, elements: &'a mut [A]) -> ArrayViewMut<'a, A, D> {
    ArrayViewMut::from_shape(dim.clone(), elements).expect(FITS)
}

fn bytes_of<'a, A: Element, D: Dimension>(in_c_order: &'a CowArray<'_, A, D>) -> &'a [u8] {
    bytemuck::cast_slice(in_c_order.as_slice().expect("elements in C order lie side by side"))
}

/// The elements of a row of a matrix in C order.
fn row_of<'v, A>(matrix: &'v ArrayView<'_, A, Ix2>, row: usize) -> &'v [A] {
    let len = matrix.ncols();
    &matrix.as_slice().expect("a whole array")[row * len..][..len]
}

/// Refuses an accumulator of no bytes: a fold needs something to fold into.
fn check_accumulator(shape: &[usize], bytes: usize) -> Result<()> {
    if bytes > 0 {
        Ok(())
    } else {
        Err(Error::EmptyAccumulator { shape: shape.to_vec(), found: bytes, needed: 1 })
    }
}

/// The groups whose rows are all missing. Nothing has been written to their accumulators.
fn missing_groups<'a>(
    groups: &'a RowBlocks,
    report: &'a Report,
) -> impl Iterator<Item = usize> + 'a {
    let missing = |rows: &Range<usize>| {
        report
            .missing_rows
            .iter()
            .any(|missing| missing.start <= rows.start && rows.end <= missing.end)
    };
    (0..groups.len())
        .filter(move |&group| groups.get(group).is_some_and(|group| missing(&group.rows())))
}

/// The first row of a group. For the number past the last group, the number of rows.
fn first_row(groups: &RowBlocks, group: usize) -> usize {
    groups.get(group).map_or(groups.n_rows(), |group| group.rows().start)
}

/// Turns groups in the report of the last step into the rows that they stand for.
fn rows_of(groups: &RowBlocks) -> impl Fn(Range<usize>) -> Range<usize> {
    |indices| first_row(groups, indices.start)..first_row(groups, indices.end)
}

/// Turns an error of the last step, which names groups, into one that names rows.
fn in_rows(error: Error, groups: &RowBlocks) -> Error {
    let first_row = |group| first_row(groups, group);
    match error {
        Error::KernelFailed { row, message } => {
            Error::KernelFailed { row: first_row(row), message }
        }
        Error::KernelPanicked { row, message, location } => {
            Error::KernelPanicked { row: first_row(row), message, location }
        }
        Error::PoisonedRows { rows } => Error::PoisonedRows {
            rows: rows
                .into_iter()
                .map(|failed| FailedRow { row: first_row(failed.row), ..failed })
                .collect(),
        },
        Error::UnguardedCrash { row, worker, cause, runs } => {
            Error::UnguardedCrash { row: row.map(first_row), worker, cause, runs }
        }
        Error::DeadlineExceeded { limit, caller_threads, .. } => Error::DeadlineExceeded {
            limit,
            rows_done: 0,
            rows_total: groups.n_rows(),
            caller_threads,
        },
        Error::Cancelled { .. } => Error::Cancelled { rows_done: 0, rows_total: groups.n_rows() },
        Error::WorkersKeepDying { deaths, cause, .. } => {
            Error::WorkersKeepDying { deaths, rows: 0..groups.n_rows(), cause }
        }
        other => other,
    }
}

impl<M: Mode> Executor<'_, M> {
    /// Folds all rows into one value: `fold` takes a row into an accumulator that began as
    /// `identity`, `combine` takes one accumulator into another. For accumulators that are arrays
    /// (column sums) see [`fold_rows_array`](Self::fold_rows_array).
    ///
    /// The accumulator is any [`Pod`] type: a number, an array like `[f64; 3]`, a `#[repr(C)]`
    /// struct that derives it. The rows are cut into up to 64 groups, and each group begins with
    /// `identity`, so `combine` with `identity` must change nothing. The groups follow from the
    /// number of rows alone and are combined in order, so the result has the same bits for every
    /// number of workers, every option and every machine of the same arithmetic. `fold` and
    /// `combine` may return `()` or a `Result`.
    ///
    /// Where the [policy](Self::policy) is to fill, rows that cannot be had are left out, and
    /// groups that were not run when time was over; [`missing_rows`](Output::missing_rows) tells
    /// which. A group is not divided, since the result depends on the cut: a row is poisoned when
    /// three workers in a row have died on it. `combine` has to work.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows); [`EmptyAccumulator`](crate::Error::EmptyAccumulator) for a
    /// type of no bytes. When `combine` fails, the row that is named is the first of the group that
    /// was to be taken in.
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool). It is two calls: to fold, and by
    /// one worker to combine; on a pool that of another thread may come between.
    ///
    /// # Examples
    /// ```
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (1000, 4), |(i, j)| (i * j) as f64)?;
    /// // The row with the largest sum: its index and the sum.
    /// let best = rowfork::fork().fold_rows(
    ///     &m,
    ///     [-1.0, f64::NEG_INFINITY],
    ///     |best, row| if row.sum() > best[1] { *best = [row.index() as f64, row.sum()] },
    ///     |best, other| if other[1] > best[1] { *best = *other },
    /// )?;
    /// assert_eq!(*best, [999.0, 999.0 * 6.0]);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn fold_rows<I: Rows, T: Pod, R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>>(
        &self,
        input: I,
        identity: T,
        fold: impl Fn(&mut T, I::Row) -> R + KernelFor<M>,
        combine: impl Fn(&mut T, &T) -> C + KernelFor<M>,
    ) -> Result<Output<T>> {
        let mut value = identity;
        let report = self.fold_rows_into(input, identity, &mut value, fold, combine)?;
        Ok(Output::new(value, report))
    }

    /// As [`fold_rows`](Self::fold_rows), into a value that is there already. On an error it is as
    /// it was.
    ///
    /// # Errors
    /// As [`fold_rows`](Self::fold_rows).
    pub fn fold_rows_into<
        I: Rows,
        T: Pod,
        R: KernelReturn<Value = ()>,
        C: KernelReturn<Value = ()>,
    >(
        &self,
        input: I,
        identity: T,
        output: &mut T,
        fold: impl Fn(&mut T, I::Row) -> R + KernelFor<M>,
        combine: impl Fn(&mut T, &T) -> C + KernelFor<M>,
    ) -> Result<Report> {
        let since = Instant::now();
        check(self, &input)?;
        check_accumulator(&[], size_of::<T>())?;
        let groups = RowBlocks::fold_groups(input.n_rows());
        let (fold, combine) = (&fold, &combine);
        fold_as_bytes(
            &groups,
            bytemuck::bytes_of(&identity),
            bytemuck::bytes_of_mut(output),
            &mut |parts| {
                let kernel_arg = KernelArg::to(self.mode(), fold);
                run(self, &input, parts, Plan::Groups, kernel_arg, PodArg(identity), |task| {
                    let Task { input, kernel: fold, extra: PodArg(identity) } = task;
                    Ok(move |rows: Range<usize>, part: &mut [u8], context: &BlockContext<'_>| {
                        let mut accumulator = identity;
                        each_row(&input, rows, context, |_, row| {
                            fold(&mut accumulator, row).into_result()
                        })?;
                        part.copy_from_slice(bytemuck::bytes_of(&accumulator));
                        ControlFlow::Continue(())
                    })
                })
            },
            &mut |parts, whole| {
                let kernel_arg = KernelArg::to(self.mode(), combine);
                run(self, &parts, whole, Plan::Whole(since), kernel_arg, (), |task| {
                    let Task { input, kernel: combine, .. } = task;
                    Ok(move |groups: Range<usize>, whole: &mut [u8], context: &BlockContext<'_>| {
                        let part = |group: usize| -> T {
                            bytemuck::pod_read_unaligned(row_of(&input, group))
                        };
                        let mut accumulator = part(0);
                        each_row(&tasks(groups.end), 1..groups.end, context, |_, group| {
                            combine(&mut accumulator, &part(group)).into_result()
                        })?;
                        whole.copy_from_slice(bytemuck::bytes_of(&accumulator));
                        ControlFlow::Continue(())
                    })
                })
            },
        )
    }

    /// Folds all rows into one array of the shape of `identity`: as [`fold_rows`](Self::fold_rows),
    /// with accumulators that are arrays in shared memory, so that no worker holds one of its own.
    /// There are as many as groups, at most 64; with 1,000,000 columns of doubles they take 512 MB
    /// while the call runs, and an error about memory speaks of them all.
    ///
    /// # Errors
    /// As [`fold_rows`](Self::fold_rows), [`EmptyAccumulator`](crate::Error::EmptyAccumulator) for
    /// an identity without elements, and [`ShmFull`](crate::Error::ShmFull) and the like where the
    /// accumulators find no room.
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool). It is two calls: to fold, and by
    /// one worker to combine; on a pool that of another thread may come between.
    ///
    /// # Examples
    /// ```
    /// use ndarray::Array1;
    /// use rowfork::SharedArray;
    ///
    /// let m = SharedArray::from_shape_fn(None, (1000, 4), |(i, j)| (i * j) as f64)?;
    /// let sums = rowfork::fork().fold_rows_array(
    ///     &m,
    ///     &Array1::zeros(4),
    ///     |sums, row| *sums += &row,
    ///     |sums, others| *sums += others,
    /// )?;
    /// assert_eq!(sums.view()[3], 3.0 * 499_500.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn fold_rows_array<I, A, D, R, C>(
        &self,
        input: I,
        identity: &ArrayRef<A, D>,
        fold: impl Fn(&mut ArrayViewMut<'_, A, D>, I::Row) -> R + KernelFor<M>,
        combine: impl Fn(&mut ArrayViewMut<'_, A, D>, &ArrayView<'_, A, D>) -> C + KernelFor<M>,
    ) -> Result<Output<SharedArray<A, D>>>
    where
        I: Rows,
        A: Element,
        D: Dimension,
        R: KernelReturn<Value = ()>,
        C: KernelReturn<Value = ()>,
    {
        check(self, &input)?;
        check_accumulator(identity.shape(), identity.len().saturating_mul(size_of::<A>()))?;
        let mut output = new_output(identity.raw_dim())?;
        let report = self.fold_rows_array_into(input, identity, &mut output, fold, combine);
        with_report(output, report)
    }

    /// As [`fold_rows_array`](Self::fold_rows_array), into an array that is there already, of the
    /// shape of `identity`. What it holds does not enter the fold.
    ///
    /// # Errors
    /// As [`fold_rows_array`](Self::fold_rows_array), and [`WrongShape`](crate::Error::WrongShape)
    /// for an output of another shape. On an error the output may hold some of the result.
    pub fn fold_rows_array_into<I, A, D, R, C>(
        &self,
        input: I,
        identity: &ArrayRef<A, D>,
        output: &mut SharedArray<A, D>,
        fold: impl Fn(&mut ArrayViewMut<'_, A, D>, I::Row) -> R + KernelFor<M>,
        combine: impl Fn(&mut ArrayViewMut<'_, A, D>, &ArrayView<'_, A, D>) -> C + KernelFor<M>,
    ) -> Result<Report>
    where
        I: Rows,
        A: Element,
        D: Dimension,
        R: KernelReturn<Value = ()>,
        C: KernelReturn<Value = ()>,
    {
        let since = Instant::now();
        check(self, &input)?;
        let groups = RowBlocks::fold_groups(input.n_rows());
        let (fold, combine) = (&fold, &combine);
        fold_as_arrays(
            &groups,
            &identity.view(),
            output,
            &mut |parts| {
                let (kernel_arg, identity) =
                    (KernelArg::to(self.mode(), fold), ByValue(identity.view()));
                run(self, &input, parts, Plan::Groups, kernel_arg, identity, |task| {
                    let Task { input, kernel: fold, extra: ByValue(identity) } = task;
                    Ok(move |rows: Range<usize>, part: &mut [A], context: &BlockContext<'_>| {
                        let mut accumulator =
                            shaped_mut(&identity.raw_dim(), &mut part[..identity.len()]);
                        accumulator.assign(&identity);
                        // The kernel gets a new view for every row: it may turn the view round, and
                        // the next row must not see that.
                        each_row(&input, rows, context, |_, row| {
                            fold(&mut accumulator.view_mut(), row).into_result()
                        })
                    })
                })
            },
            &mut |parts, whole| {
                let (kernel_arg, dim) =
                    (KernelArg::to(self.mode(), combine), ShapeArg(identity.raw_dim()));
                run(self, &parts, whole, Plan::Whole(since), kernel_arg, dim, |task| {
                    let Task { input, kernel: combine, extra: ShapeArg(dim) } = task;
                    Ok(move |groups: Range<usize>, whole: &mut [A], context: &BlockContext<'_>| {
                        let part =
                            |group: usize| shaped(&dim, &row_of(&input, group)[..dim.size()]);
                        let mut accumulator = shaped_mut(&dim, whole);
                        accumulator.assign(&part(0));
                        each_row(&tasks(groups.end), 1..groups.end, context, |_, group| {
                            combine(&mut accumulator.view_mut(), &part(group)).into_result()
                        })
                    })
                })
            },
        )
    }
}

/// Folds the rows of each group into its part, a row of an array of parts.
type FoldFn<'f, A> = dyn FnMut(&mut SharedArray<A, Ix2>) -> Result<Report> + 'f;

/// Combines the parts into the whole.
type CombineFn<'f, A, D> =
    dyn FnMut(&SharedArray<A, Ix2>, &mut SharedArray<A, D>) -> Result<Report> + 'f;

/// A fold of groups into parts that are arrays, and of the parts into one whole: the part of it that
/// depends on no kernel. It is compiled once for each type and dimension of accumulators.
fn fold_as_arrays<A: Element, D: Dimension>(
    groups: &RowBlocks,
    identity: &ArrayView<'_, A, D>,
    output: &mut SharedArray<A, D>,
    fold: &mut FoldFn<'_, A>,
    combine: &mut CombineFn<'_, A, D>,
) -> Result<Report> {
    check_accumulator(identity.shape(), identity.len().saturating_mul(size_of::<A>()))?;
    let dim = identity.raw_dim();
    check_shape(&dim, output)?;
    output.segment().check_length()?; // or it would be found after all the work
    let part_len = dim.size().next_multiple_of(APART_BYTES / size_of::<A>());
    let mut parts = new_output(Ix2(groups.len(), part_len))?;
    let folded = fold(&mut parts)?;
    for group in missing_groups(groups, &folded) {
        let mut parts = parts.view_mut();
        let mut part = parts.row_mut(group);
        part.iter_mut().zip(identity).for_each(|(element, &value)| *element = value);
    }
    if groups.len() < 2 {
        let whole = if groups.len() == 0 {
            identity.as_standard_layout()
        } else {
            shaped(&dim, &parts.as_slice()[..dim.size()]).into()
        };
        // The caller itself writes here, so it writes by system call: another process may cut the
        // memory meanwhile, and a store would then kill the caller.
        output.segment().write_at(0, bytes_of(&whole))?;
        let bytes_written = identity.len() as u64 * size_of::<A>() as u64;
        return Ok(Report { bytes_written, output_pages: output.pages(), ..folded });
    }
    let combined = combine(&parts, output).map_err(|error| in_rows(error, groups))?;
    Ok(folded.followed_by(&combined, rows_of(groups)))
}

/// A fold of groups into parts, and of the parts into one whole: the part of it that depends on no
/// type. Accumulators are bytes, since an accumulator need not be an element, and the parts of a
/// segment need not be aligned to it.
fn fold_as_bytes(
    groups: &RowBlocks,
    identity: &[u8],
    output: &mut [u8],
    fold: &mut FoldFn<'_, u8>,
    combine: &mut CombineFn<'_, u8, Ix1>,
) -> Result<Report> {
    let bytes = identity.len();
    let mut parts = new_output(Ix2(groups.len(), bytes))?;
    let mut whole = new_output(Ix1(bytes))?;
    let folded = fold(&mut parts)?;
    for group in missing_groups(groups, &folded) {
        parts.view_mut().row_mut(group).assign(&ArrayView::from(identity));
    }
    if groups.len() < 2 {
        let only = if groups.len() == 0 { identity } else { parts.as_slice() };
        output.copy_from_slice(only);
        let (bytes_written, output_pages) = (bytes as u64, whole.pages());
        return Ok(Report { bytes_written, output_pages, ..folded });
    }
    let combined = combine(&parts, &mut whole).map_err(|error| in_rows(error, groups))?;
    output.copy_from_slice(whole.as_slice());
    Ok(folded.followed_by(&combined, rows_of(groups)))
}
