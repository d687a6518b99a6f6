//! Every operation, over every executor, element type, dimension, number of workers and form, gives
//! bit for bit what a plain loop over an ordinary ndarray gives.
//!
//! One table: [`each_case`] walks it, and each operation has one function in [`operations`] that is
//! called for every case of it. What fails says for which executor, type, shape, number of workers
//! and form.

#[path = "support/executors.rs"]
mod executors;
#[path = "support/isolated.rs"]
mod isolated;
#[path = "support/value.rs"]
mod value;

use std::fmt;

use ndarray::{Array, Array1, ArrayView, Axis, Dimension, Ix1, Ix2, Ix3, Ix4, RemoveAxis, Slice};
use rowfork::{Block, Bool, Element, Report, Row, Rows, Selection, SharedArray};

use executors::{Either, Executors, Place};
use value::{Value, dim_of, values};

/// Numbers of workers, and of rows in a block where the default would make short ones only.
const CREWS: [(usize, Option<usize>); 4] = [(1, None), (2, None), (5, None), (2, Some(400))];

/// As many as any call asks for.
const MOST_WORKERS: usize = 5;

/// None, one, and both sides of where the cut into fold groups, blocks and cache lines changes.
const ROW_COUNTS: [usize; 6] = [0, 1, 64, 65, 1024, 1025];

/// What operations take where an array of `A` and `D` is wanted: a reference to one, or a part of
/// one.
trait Input<'a, A: Value, D: RemoveAxis>:
    Rows<Row = Row<'a, A, D::Smaller>, Block = Block<'a, A, D>> + Into<Selection<'a, A, D>> + Copy
{
}

impl<'a, A: Value, D: RemoveAxis, I> Input<'a, A, D> for I where
    I: Rows<Row = Row<'a, A, D::Smaller>, Block = Block<'a, A, D>>
        + Into<Selection<'a, A, D>>
        + Copy
{
}

/// One cell of the table: an input in shared memory, the same elements in an ordinary array, an
/// executor, a number of workers.
struct Case<'a, A, D: Dimension, I> {
    executors: &'a Executors,
    place: Place,
    input: I,
    serial: ArrayView<'a, A, D>,
    workers: usize,
    block_rows: Option<usize>,
}

impl<A: Value, D: RemoveAxis, I> Case<'_, A, D, I> {
    fn call(&self) -> Either<'_> {
        let call = self.executors.at(self.place).workers(self.workers);
        if let Some(block_rows) = self.block_rows { call.block_rows(block_rows) } else { call }
    }

    fn n_rows(&self) -> usize {
        self.serial.len_of(Axis(0))
    }

    /// One value for every row, by a plain loop.
    fn each_row<T>(&self, kernel: impl Fn(usize, ArrayView<'_, A, D::Smaller>) -> T) -> Array1<T> {
        self.serial.axis_iter(Axis(0)).enumerate().map(|(index, row)| kernel(index, row)).collect()
    }

    /// The result of a call that must succeed.
    fn succeeds<T>(&self, form: &str, outcome: rowfork::Result<T>) -> T {
        outcome.unwrap_or_else(|error| panic!("{self}, {form}: {error}"))
    }

    /// A call of an operation that runs no code but rowfork's was made where it was to be made.
    fn was_in_its_place(&self, report: &Report) {
        assert_eq!(report.inline, self.place == Place::Inline, "{self}: who has done it");
    }

    /// What a call gave is what the plain loop gave.
    fn same<T: Element, E: Dimension>(
        &self,
        form: &str,
        found: &SharedArray<T, E>,
        expected: &Array<T, E>,
    ) {
        assert_eq!(found.shape(), expected.shape(), "{self}, {form}: the shape");
        for (at, (found, expected)) in found.as_slice().iter().zip(expected).enumerate() {
            let same_bits = bytemuck::bytes_of(found) == bytemuck::bytes_of(expected);
            assert!(same_bits, "{self}, {form}: element {at} is {found:?}, not {expected:?}");
        }
    }
}

impl<A: Value, D: RemoveAxis, I> fmt::Display for Case<'_, A, D, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, serial, workers, .. } = self;
        write!(f, "{place}: {} of shape {:?}, {workers} workers", A::DESCR, serial.shape())?;
        self.block_rows.map_or(Ok(()), |rows| write!(f, ", {rows} rows a block"))
    }
}

/// Every executor and number of workers, for one input.
fn each_place(mut check: impl FnMut(Place, usize, Option<usize>)) {
    for place in Place::ALL {
        for (workers, block_rows) in CREWS {
            check(place, workers, block_rows);
        }
    }
}

/// Every number of rows and of workers, for one type and one shape of rows.
fn each_case<A: Value, D: RemoveAxis>(
    executors: &Executors,
    row_shape: &[usize],
    check: impl for<'a> Fn(&Case<'a, A, D, &'a SharedArray<A, D>>),
) {
    let mut shapes: Vec<Vec<usize>> =
        ROW_COUNTS.iter().map(|&n| [&[n], row_shape].concat()).collect();
    if let Some((_, others)) = row_shape.split_last() {
        shapes.push([&[5], others, &[0]].concat()); // rows of no elements
    }
    for shape in shapes {
        let serial = values::<A, D>(dim_of(&shape));
        let input = SharedArray::copy_from(None, &serial).unwrap();
        each_place(|place, workers, block_rows| {
            check(&Case {
                executors,
                place,
                input: &input,
                serial: serial.view(),
                workers,
                block_rows,
            });
        });
    }
}

/// Selections of a larger array: some of its rows, turned round, and every other place along its
/// last axis.
fn each_selection<A: Value, D: RemoveAxis + Copy>(
    executors: &Executors,
    row_shape: &[usize],
    check: impl for<'a> Fn(&Case<'a, A, D, Selection<'a, A, D>>),
) {
    let last = Axis(row_shape.len());
    for n_rows in [7, 70, 1030] {
        let serial = values::<A, D>(dim_of(&[&[n_rows], row_shape].concat()));
        let whole = SharedArray::copy_from(None, &serial).unwrap();
        for (rows, others) in [
            (Slice::new(2, Some(-1), 1), Slice::from(..)),
            (Slice::new(0, None, -3), Slice::new(1, None, 2)),
            (Slice::from(..), Slice::new(0, None, -1)),
            (Slice::from(3..3), Slice::from(1..2)),
        ] {
            let input = whole.rows(rows).unwrap().slice_axis(last, others).unwrap();
            let mut serial = serial.view();
            serial.slice_axis_inplace(Axis(0), rows);
            serial.slice_axis_inplace(last, others);
            each_place(|place, workers, block_rows| {
                check(&Case { executors, place, input, serial, workers, block_rows });
            });
        }
    }
}

/// The tests: every operation over the table.
macro_rules! conforms {
    ($($operation:ident)+) => {
        isolated_tests! {$(
            fn $operation() {
                let executors = Executors::new(MOST_WORKERS);
                conforms!(@table executors $operation f64 f32 i64 u8);
                each_case::<Bool, Ix2>(&executors, &[3], |case| operations::$operation(case));
                each_selection::<f64, Ix2>(&executors, &[4], |case| operations::$operation(case));
                each_selection::<u8, Ix3>(&executors, &[2, 4], |case| operations::$operation(case));
            }
        )+}
    };
    (@table $executors:ident $operation:ident $($A:ty)+) => {$(
        each_case::<$A, Ix1>(&$executors, &[], |case| operations::$operation(case));
        each_case::<$A, Ix2>(&$executors, &[3], |case| operations::$operation(case));
        each_case::<$A, Ix3>(&$executors, &[2, 3], |case| operations::$operation(case));
        each_case::<$A, Ix4>(&$executors, &[2, 1, 3], |case| operations::$operation(case));
    )+};
}

conforms! {
    map_rows transform_rows map_blocks update_rows update_rows_with fold_rows fold_rows_array row_sums run_tasks
}

/// The same for operations on rows of doubles alone.
macro_rules! conforms_for_doubles {
    ($($operation:ident)+) => {
        isolated_tests! {$(
            fn $operation() {
                let executors = Executors::new(MOST_WORKERS);
                conforms!(@table executors $operation f64);
                each_selection::<f64, Ix2>(&executors, &[4], |case| operations::$operation(case));
                each_selection::<f64, Ix3>(&executors, &[2, 4], |case| operations::$operation(case));
            }
        )+}
    };
}

conforms_for_doubles! { row_means row_dot row_weighted_means row_sums_fast }

/// Each operation in its forms: as it is, into an output that was there before, and with a kernel
/// that returns a `Result`.
mod operations {
    use ndarray::{
        Array, Array1, Array2, ArrayView, ArrayViewMut, Axis, Dimension, Ix1, Ix2, RemoveAxis,
    };
    use rowfork::{Block, Error, Row, RowMut, SharedArray, broadcast, param, tasks};

    use super::{Case, Input};
    use crate::value::{Value, digest, dim_of, hash, values};

    type Fallible<T = ()> = Result<T, String>;

    /// What rows of an array of dimension `D` are stacked to: `D` again, which the compiler does
    /// not know.
    type Stacked<D> = <<D as Dimension>::Smaller as Dimension>::Larger;

    pub(super) fn map_rows<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let expected = case.each_row(|index, row| digest(index, &row));
        let kernel = |row: Row<'_, A, D::Smaller>| digest(row.index(), &row);
        let mapped = case.succeeds("plain", case.call().map_rows(case.input, kernel));
        case.same("plain", &mapped, &expected);
        assert_eq!(mapped.report().rows, case.n_rows(), "{case}: the report");
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        case.succeeds("into", case.call().map_rows_into(case.input, &mut out, kernel));
        case.same("into", &out, &expected);
        let fallible = move |row: Row<'_, A, D::Smaller>| Fallible::Ok(digest(row.index(), &row));
        let mapped = case.succeeds("Result", case.call().map_rows(case.input, fallible));
        case.same("Result", &mapped, &expected);
        case.succeeds("Result, into", case.call().map_rows_into(case.input, &mut out, fallible));
        case.same("Result, into", &out, &expected);
    }

    /// To rows of two words, and to rows of the input's own shape and type.
    pub(super) fn transform_rows<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let words = two_words(case);
        let mixed = mixed(case);
        let fill = |row: Row<'_, A, D::Smaller>, out: &mut ArrayViewMut<'_, u64, Ix1>| {
            out[0] = row.index() as u64;
            out[1] = hash(row.index(), &row);
        };
        let transformed = case.succeeds("plain", case.call().transform_rows(case.input, 2, fill));
        case.same("plain", &transformed, &words);
        let row_shape = case.serial.raw_dim().remove_axis(Axis(0));
        let mut out = SharedArray::zeros(None, dim_of::<Stacked<D>>(case.serial.shape())).unwrap();
        let into = case.call().transform_rows_into(case.input, row_shape, &mut out, |row, out| {
            out.zip_mut_with(&row, |out, &x| *out = A::at(row.index()).mix(x));
        });
        case.succeeds("into", into);
        case.same("into", &out, &mixed.to_shape(out.view().raw_dim()).unwrap().to_owned());
        let fallible = move |row: Row<'_, A, D::Smaller>, out: &mut ArrayViewMut<'_, u64, Ix1>| {
            fill(row, out);
            Fallible::Ok(())
        };
        let transformed =
            case.succeeds("Result", case.call().transform_rows(case.input, 2, fallible));
        case.same("Result", &transformed, &words);
    }

    pub(super) fn map_blocks<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let words = two_words(case);
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
        let mapped = case.succeeds("plain", case.call().map_blocks(case.input, 2, fill));
        case.same("plain", &mapped, &words);
        let mut out = SharedArray::zeros(None, (case.n_rows(), 2)).unwrap();
        case.succeeds(
            "into",
            case.call().block_rows(3).map_blocks_into(case.input, 2, &mut out, fill),
        );
        case.same("into, 3 rows a block", &out, &words);
        let fallible = move |block: Block<'_, A, D>, out: &mut ArrayViewMut<'_, u64, Ix2>| {
            fill(block, out);
            Fallible::Ok(())
        };
        let mapped = case.succeeds("Result", case.call().map_blocks(case.input, 2, fallible));
        case.same("Result", &mapped, &words);
        let row_shape = case.serial.raw_dim().remove_axis(Axis(0));
        let mut out =
            SharedArray::<A, _>::zeros(None, dim_of::<Stacked<D>>(case.serial.shape())).unwrap();
        let into = case
            .call()
            .map_blocks_into(case.input, row_shape, &mut out, |block, out| out.assign(&block));
        case.succeeds("to its own shape", into);
        case.same(
            "to its own shape",
            &out,
            &case.serial.to_shape(out.view().raw_dim()).unwrap().to_owned(),
        );
    }

    pub(super) fn update_rows<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let expected = mixed(case);
        let mix = |row: &mut RowMut<'_, A, D::Smaller>| {
            let index = row.index();
            row.mapv_inplace(|x| A::at(index).mix(x));
        };
        let mut array = SharedArray::copy_from(None, &case.serial).unwrap();
        let report = case.succeeds("plain", case.call().update_rows(&mut array, mix));
        case.same("plain", &array, &expected);
        assert_eq!(report.rows, case.n_rows(), "{case}: the report");
        let mut array = SharedArray::copy_from(None, &case.serial).unwrap();
        let fallible = move |row: &mut RowMut<'_, A, D::Smaller>| {
            mix(row);
            Fallible::Ok(())
        };
        case.succeeds("Result", case.call().update_rows(&mut array, fallible));
        case.same("Result", &array, &expected);
    }

    pub(super) fn update_rows_with<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let shape = [&[case.n_rows()], &[2, 2][..]].concat();
        let before: Array<f64, ndarray::Ix3> = values(dim_of(&shape));
        let mut expected = before.clone();
        for (index, (mut out, row)) in
            expected.outer_iter_mut().zip(case.serial.axis_iter(Axis(0))).enumerate()
        {
            out[[1, 0]] += digest(index, &row).bits() as f64;
        }
        let add = |out: &mut RowMut<'_, f64, Ix2>, row: Row<'_, A, D::Smaller>| {
            assert_eq!(out.index(), row.index());
            out[[1, 0]] += digest(row.index(), &row).bits() as f64;
        };
        let mut array = SharedArray::copy_from(None, &before).unwrap();
        case.succeeds("plain", case.call().update_rows_with(&mut array, case.input, add));
        case.same("plain", &array, &expected);
        let mut array = SharedArray::copy_from(None, &before).unwrap();
        let fallible = move |out: &mut RowMut<'_, f64, Ix2>, row: Row<'_, A, D::Smaller>| {
            add(out, row);
            Fallible::Ok(())
        };
        case.succeeds("Result", case.call().update_rows_with(&mut array, case.input, fallible));
        case.same("Result", &array, &expected);
    }

    /// Composes x -> a x + b over all rows, in words: associative, but in no other order.
    pub(super) fn fold_rows<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let compose = |f: &mut [u64; 2], g: &[u64; 2]| {
            *f = [f[0].wrapping_mul(g[0]), f[1].wrapping_mul(g[0]).wrapping_add(g[1])];
        };
        let mut expected = [1, 0];
        case.each_row(|index, row| [hash(index, &row), index as u64])
            .iter()
            .for_each(|row| compose(&mut expected, row));
        let fold = move |f: &mut [u64; 2], row: Row<'_, A, D::Smaller>| {
            compose(f, &[hash(row.index(), &row), row.index() as u64]);
        };
        let folded =
            case.succeeds("plain", case.call().fold_rows(case.input, [1, 0], fold, compose));
        assert_eq!(*folded, expected, "{case}, plain");
        let mut out = [7, 7];
        case.succeeds(
            "into",
            case.call().fold_rows_into(case.input, [1, 0], &mut out, fold, compose),
        );
        assert_eq!(out, expected, "{case}, into");
        let fallible = move |f: &mut [u64; 2], row: Row<'_, A, D::Smaller>| {
            fold(f, row);
            Fallible::Ok(())
        };
        let combine = move |f: &mut [u64; 2], g: &[u64; 2]| {
            compose(f, g);
            Fallible::Ok(())
        };
        let folded =
            case.succeeds("Result", case.call().fold_rows(case.input, [1, 0], fallible, combine));
        assert_eq!(*folded, expected, "{case}, Result");
    }

    /// Sums over the rows, place by place. A row of no elements is an accumulator of none.
    pub(super) fn fold_rows_array<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let identity = Array::from_elem(case.serial.raw_dim().remove_axis(Axis(0)), A::zeroed());
        let mut expected = identity.clone();
        for row in case.serial.axis_iter(Axis(0)) {
            expected.zip_mut_with(&row, |sum, &x| *sum = sum.plus(x));
        }
        let fold = |sums: &mut ArrayViewMut<'_, A, D::Smaller>, row: Row<'_, A, D::Smaller>| {
            sums.zip_mut_with(&row, |sum, &x| *sum = sum.plus(x));
        };
        let combine = move |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                            others: &ArrayView<'_, A, D::Smaller>| {
            sums.zip_mut_with(others, |sum, &x| *sum = sum.plus(x));
        };
        let folded = case.call().fold_rows_array(case.input, &identity, fold, combine);
        if identity.is_empty() {
            assert!(
                matches!(folded.unwrap_err(), Error::EmptyAccumulator { found: 0, needed: 1, .. }),
                "{case}"
            );
            return;
        }
        let folded = case.succeeds("plain", folded);
        case.same("plain", &folded, &expected);
        let mut out = SharedArray::copy_from(None, &identity.mapv(|_| A::at(5))).unwrap();
        case.succeeds(
            "into",
            case.call().fold_rows_array_into(case.input, &identity, &mut out, fold, combine),
        );
        case.same("into", &out, &expected);
        let fallible = move |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                             row: Row<'_, A, D::Smaller>| {
            fold(sums, row);
            Fallible::Ok(())
        };
        let combine = move |sums: &mut ArrayViewMut<'_, A, D::Smaller>,
                            others: &ArrayView<'_, A, D::Smaller>| {
            combine(sums, others);
            Fallible::Ok(())
        };
        let folded = case.succeeds(
            "Result",
            case.call().fold_rows_array(case.input, &identity, fallible, combine),
        );
        case.same("Result", &folded, &expected);
    }

    /// The values have sums that are exact in any order, so that a plain loop is an oracle.
    pub(super) fn row_sums<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let expected = case.each_row(|_, row| A::sum(&row.iter().copied().collect::<Vec<A>>()));
        let sums = case.succeeds("plain", case.call().row_sums(case.input));
        case.same("plain", &sums, &expected);
        case.was_in_its_place(sums.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_sums_into(case.input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }

    /// The mean by ndarray: the sum is exact, so that its division is the one rounding.
    pub(super) fn row_means<'a, D: RemoveAxis>(case: &Case<'a, f64, D, impl Input<'a, f64, D>>) {
        let expected = case.each_row(|_, row| flat(&row).mean().unwrap_or(f64::NAN));
        let means = case.succeeds("plain", case.call().row_means(case.input));
        case.same("plain", &means, &expected);
        case.was_in_its_place(means.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_means_into(case.input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }

    pub(super) fn row_dot<'a, D: RemoveAxis>(case: &Case<'a, f64, D, impl Input<'a, f64, D>>) {
        let vector = weights(case);
        let expected = case.each_row(|_, row| flat(&row).dot(&vector));
        let dots = case.succeeds("plain", case.call().row_dot(case.input, &vector));
        case.same("plain", &dots, &expected);
        case.was_in_its_place(dots.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_dot_into(case.input, &vector, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }

    pub(super) fn row_weighted_means<'a, D: RemoveAxis>(
        case: &Case<'a, f64, D, impl Input<'a, f64, D>>,
    ) {
        let weights = weights(case);
        let mean = |row: Array1<f64>| {
            if row.is_empty() { f64::NAN } else { row.dot(&weights) / weights.sum() }
        };
        let expected = case.each_row(|_, row| mean(flat(&row)));
        let means = case.succeeds("plain", case.call().row_weighted_means(case.input, &weights));
        case.same("plain", &means, &expected);
        case.was_in_its_place(means.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case
            .succeeds("into", case.call().row_weighted_means_into(case.input, &weights, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }

    pub(super) fn row_sums_fast<'a, D: RemoveAxis>(
        case: &Case<'a, f64, D, impl Input<'a, f64, D>>,
    ) {
        let expected = case.each_row(|_, row| row.sum());
        let sums = case.succeeds("plain", case.call().row_sums_fast(case.input));
        case.same("plain", &sums, &expected);
        case.was_in_its_place(sums.report());
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        let report = case.succeeds("into", case.call().row_sums_fast_into(case.input, &mut out));
        case.was_in_its_place(&report);
        case.same("into", &out, &expected);
    }

    /// A number for each element of a row, with which products and their sums are exact.
    fn weights<'a, D: RemoveAxis>(case: &Case<'a, f64, D, impl Input<'a, f64, D>>) -> Array1<f64> {
        let row_len = case.serial.shape()[1..].iter().product::<usize>();
        (0..row_len).map(|place| (place % 5) as f64 + 0.5).collect()
    }

    /// The elements of a row in C order.
    fn flat<D: Dimension>(row: &ArrayView<'_, f64, D>) -> Array1<f64> {
        row.iter().copied().collect()
    }

    /// As many tasks as there are rows. They read theirs in a table that all of them get.
    pub(super) fn run_tasks<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) {
        let numbers: Array1<A> =
            (0..case.n_rows()).map(|index| A::at(index).mix(A::at(index + 1))).collect();
        let number = |index: usize| A::at(index).mix(A::at(index + 1));
        let done = case.succeeds("plain", case.call().run_tasks(case.n_rows(), number));
        case.same("plain", &done, &numbers);
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        case.succeeds("into", case.call().run_tasks_into(&mut out, number));
        case.same("into", &out, &numbers);
        let fallible = move |index: usize| Fallible::Ok(number(index));
        let done = case.succeeds("Result", case.call().run_tasks(case.n_rows(), fallible));
        case.same("Result", &done, &numbers);
        let expected = case.each_row(|index, row| digest(index, &row));
        let with_a_table = (tasks(case.n_rows()), broadcast(case.input), param(A::at(1)));
        let done = case.call().map_rows(
            with_a_table,
            |(index, table, one): (usize, ArrayView<'_, A, D>, A)| {
                assert!(one == A::at(1), "another parameter");
                digest(index, table.index_axis(Axis(0), index))
            },
        );
        let done = case.succeeds("with a table", done);
        case.same("with a table", &done, &expected);
    }

    /// The rows' index and digest, by a plain loop.
    fn two_words<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) -> Array2<u64> {
        let mut words = Array2::zeros((case.n_rows(), 2));
        for (index, row) in case.serial.axis_iter(Axis(0)).enumerate() {
            words[[index, 0]] = index as u64;
            words[[index, 1]] = hash(index, &row);
        }
        words
    }

    /// Every element mixed with the index of its row, by a plain loop.
    fn mixed<'a, A: Value, D: RemoveAxis>(
        case: &Case<'a, A, D, impl Input<'a, A, D>>,
    ) -> Array<A, D> {
        let mut mixed = case.serial.to_owned();
        for (index, mut row) in mixed.axis_iter_mut(Axis(0)).enumerate() {
            row.mapv_inplace(|x| A::at(index).mix(x));
        }
        mixed
    }
}
