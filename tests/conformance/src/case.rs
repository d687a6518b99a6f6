//! One case of the table: what is called, and what it must give.

use std::fmt;

use ndarray::{Array, Array1, Array2, ArrayView, Axis, Dimension, RemoveAxis};
use rowfork::{Block, Element, Report, Row, Rows, Selection, SharedArray, bytemuck};

use crate::executors::{Either, Place};
use crate::table::Table;
use crate::value::{Value, hash};

/// What a kernel returns that may fail, but does not.
pub(crate) type Fallible<T = ()> = Result<T, String>;

/// What rows of an array of dimension `D` are stacked to: `D` again, which the compiler does not
/// know.
pub(crate) type Stacked<D> = <<D as Dimension>::Smaller as Dimension>::Larger;

/// What operations take where an array of `A` and `D` is wanted: a reference to one, or a part of
/// one.
pub(crate) trait Input<'a, A: Value, D: RemoveAxis>:
    Rows<Row = Row<'a, A, D::Smaller>, Block = Block<'a, A, D>> + Into<Selection<'a, A, D>> + Clone
{
}

impl<'a, A: Value, D: RemoveAxis, I> Input<'a, A, D> for I where
    I: Rows<Row = Row<'a, A, D::Smaller>, Block = Block<'a, A, D>>
        + Into<Selection<'a, A, D>>
        + Clone
{
}

/// An operation on rows of any type, in its forms: as it is, into an output that was there before,
/// and with a kernel that returns a `Result`.
pub(crate) trait Operation {
    /// Calls it in each form. The elements of `input` are those of the case.
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>);
}

/// The same on rows of doubles alone.
pub(crate) trait OperationOnDoubles {
    /// Calls it in each form. The elements of `input` are those of the case.
    fn check<'a, D: RemoveAxis>(case: &Case<'a, f64, D>, input: impl Input<'a, f64, D>);
}

/// One case of the table: an executor, a number of workers, and an ordinary array with the elements
/// of the input, which lies in shared memory.
pub(crate) struct Case<'a, A, D: Dimension> {
    pub(crate) table: &'a Table,
    pub(crate) place: Place,
    pub(crate) serial: ArrayView<'a, A, D>,
    pub(crate) workers: usize,
    pub(crate) block_rows: Option<usize>,
}

impl<A: Value, D: RemoveAxis> Case<'_, A, D> {
    /// For one call, which is counted.
    pub(crate) fn call(&self) -> Either<'_> {
        let call = self.table.call_at(self.place).workers(self.workers);
        if let Some(block_rows) = self.block_rows { call.block_rows(block_rows) } else { call }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.serial.len_of(Axis(0))
    }

    pub(crate) fn row_shape(&self) -> D::Smaller {
        self.serial.raw_dim().remove_axis(Axis(0))
    }

    /// One value for every row, by a plain loop.
    pub(crate) fn each_row<T>(
        &self,
        kernel: impl Fn(usize, ArrayView<'_, A, D::Smaller>) -> T,
    ) -> Array1<T> {
        self.serial.axis_iter(Axis(0)).enumerate().map(|(index, row)| kernel(index, row)).collect()
    }

    /// The rows' index and hash, by a plain loop.
    pub(crate) fn two_words(&self) -> Array2<u64> {
        let mut words = Array2::zeros((self.n_rows(), 2));
        for (index, row) in self.serial.axis_iter(Axis(0)).enumerate() {
            words[[index, 0]] = index as u64;
            words[[index, 1]] = hash(index, &row);
        }
        words
    }

    /// Every element mixed with the index of its row, by a plain loop.
    pub(crate) fn mixed(&self) -> Array<A, D> {
        let mut mixed = self.serial.to_owned();
        for (index, mut row) in mixed.axis_iter_mut(Axis(0)).enumerate() {
            row.mapv_inplace(|x| A::at(index).mix(x));
        }
        mixed
    }

    /// The result of a call that must succeed.
    pub(crate) fn succeeds<T>(&self, form: &str, outcome: rowfork::Result<T>) -> T {
        outcome.unwrap_or_else(|error| panic!("{self}, {form}: {error}"))
    }

    /// A call of an operation that runs no code but rowfork's was made where it was to be made.
    pub(crate) fn was_in_its_place(&self, report: &Report) {
        assert_eq!(report.inline, self.place == Place::Inline, "{self}: the place of the call");
    }

    /// What a call gave is what the plain loop gave.
    pub(crate) fn same<T: Element, E: Dimension>(
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

impl<A: Value, D: RemoveAxis> fmt::Display for Case<'_, A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, serial, workers, .. } = self;
        write!(f, "{place}: {} of shape {:?}, {workers} workers", A::DESCR, serial.shape())?;
        self.block_rows.map_or(Ok(()), |rows| write!(f, ", {rows} rows a block"))
    }
}
