//! The table: every element type, shape, executor and number of workers.
//!
//! Doubles have arrays of each fixed dimension. The other types have the same shapes in arrays of
//! dynamic dimension, which are one instance of an operation to compile instead of four.

use std::cell::Cell;

use ndarray::{Axis, Ix1, Ix2, Ix3, Ix4, IxDyn, RemoveAxis, Slice};
use rowfork::{Bool, Selection, SharedArray};

use crate::case::{Case, Operation, OperationOnDoubles};
use crate::executors::{Either, Executors, Place};
use crate::value::{Value, dim_of, values};

/// The cases of an operation on every type: for each of five types 27 shapes, as
/// [`Table::each_array`] has them, and 24 selections; for each of these 3 places and 4 numbers of
/// workers.
pub(crate) const CASES: usize = 1_908;

/// Those of them whose rows have no elements: one shape of each dimension but the first.
pub(crate) const CASES_WITHOUT_ELEMENTS: usize = 180;

/// The cases of an operation on doubles alone: 27 shapes and 24 selections.
pub(crate) const CASES_OF_DOUBLES: usize = 612;

/// Numbers of workers, and of rows in a block where the default would make short ones only.
const WORKERS: [(usize, Option<usize>); 4] = [(1, None), (2, None), (5, None), (2, Some(400))];

/// As many as any call asks for.
const MOST_WORKERS: usize = 5;

/// None, one, and both sides of where the cut into fold groups, blocks and cache lines changes.
const ROW_COUNTS: [usize; 6] = [0, 1, 64, 65, 1024, 1025];

/// The shape of a row, for each dimension of an array.
const ROW_SHAPES: [&[usize]; 4] = [&[], &[3], &[2, 3], &[2, 1, 3]];

/// The executors that all cases of an operation share.
pub(crate) struct Table {
    executors: Executors,
    calls: Cell<usize>,
}

/// Calls an operation on every type in each case of the table. Returns the number of calls.
pub(crate) fn calls_of<O: Operation>() -> usize {
    let table = Table::new();
    table.each_array::<f64, Ix1>(ROW_SHAPES[0], |case, input| O::check(case, input));
    table.each_array::<f64, Ix2>(ROW_SHAPES[1], |case, input| O::check(case, input));
    table.each_array::<f64, Ix3>(ROW_SHAPES[2], |case, input| O::check(case, input));
    table.each_array::<f64, Ix4>(ROW_SHAPES[3], |case, input| O::check(case, input));
    table.each_shape_of::<f32, O>();
    table.each_shape_of::<i64, O>();
    table.each_shape_of::<u8, O>();
    table.each_shape_of::<Bool, O>();
    table.each_selection::<f64, Ix2>(&[4], |case, input| O::check(case, input));
    table.each_selection::<u8, IxDyn>(&[2, 4], |case, input| O::check(case, input));
    table.calls.get()
}

/// The same for an operation on doubles alone.
pub(crate) fn calls_on_doubles_of<O: OperationOnDoubles>() -> usize {
    let table = Table::new();
    table.each_array::<f64, Ix1>(ROW_SHAPES[0], |case, input| O::check(case, input));
    table.each_array::<f64, Ix2>(ROW_SHAPES[1], |case, input| O::check(case, input));
    table.each_array::<f64, Ix3>(ROW_SHAPES[2], |case, input| O::check(case, input));
    table.each_array::<f64, Ix4>(ROW_SHAPES[3], |case, input| O::check(case, input));
    table.each_selection::<f64, Ix2>(&[4], |case, input| O::check(case, input));
    table.each_selection::<f64, Ix3>(&[2, 4], |case, input| O::check(case, input));
    table.calls.get()
}

impl Table {
    fn new() -> Self {
        Self { executors: Executors::new(MOST_WORKERS), calls: Cell::new(0) }
    }

    /// A call, which is counted.
    pub(crate) fn call_at(&self, place: Place) -> Either<'_> {
        self.calls.set(self.calls.get() + 1);
        self.executors.at(place)
    }

    /// Every dimension, for one type, in arrays of dynamic dimension.
    fn each_shape_of<A: Value, O: Operation>(&self) {
        for row_shape in ROW_SHAPES {
            self.each_array::<A, IxDyn>(row_shape, |case, input| O::check(case, input));
        }
    }

    /// Every number of rows and of workers, for one type and one shape of rows.
    fn each_array<A: Value, D: RemoveAxis>(
        &self,
        row_shape: &[usize],
        check: impl for<'a> Fn(&Case<'a, A, D>, &'a SharedArray<A, D>),
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
                let serial = serial.view();
                check(&Case { table: self, place, serial, workers, block_rows }, &input);
            });
        }
    }

    /// Selections of a larger array: some of its rows, turned round, and every other place along
    /// its last axis.
    fn each_selection<A: Value, D: RemoveAxis>(
        &self,
        row_shape: &[usize],
        check: impl for<'a> Fn(&Case<'a, A, D>, Selection<'a, A, D>),
    ) {
        let last = Axis(row_shape.len());
        for n_rows in [7, 70, 1030] {
            let whole_serial = values::<A, D>(dim_of(&[&[n_rows], row_shape].concat()));
            let whole = SharedArray::copy_from(None, &whole_serial).unwrap();
            for (rows, others) in [
                (Slice::new(2, Some(-1), 1), Slice::from(..)),
                (Slice::new(0, None, -3), Slice::new(1, None, 2)),
                (Slice::from(..), Slice::new(0, None, -1)),
                (Slice::from(3..3), Slice::from(1..2)),
            ] {
                let input = whole.rows(rows).unwrap().slice_axis(last, others).unwrap();
                let mut serial = whole_serial.view();
                serial.slice_axis_inplace(Axis(0), rows);
                serial.slice_axis_inplace(last, others);
                each_place(|place, workers, block_rows| {
                    let serial = serial.clone();
                    let case = Case { table: self, place, serial, workers, block_rows };
                    check(&case, input.clone());
                });
            }
        }
    }
}

/// Every executor and number of workers, for one input.
fn each_place(mut check: impl FnMut(Place, usize, Option<usize>)) {
    for place in Place::ALL {
        for (workers, block_rows) in WORKERS {
            check(place, workers, block_rows);
        }
    }
}
