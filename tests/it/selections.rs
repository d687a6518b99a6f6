//! Parts of arrays, of any shape: the same elements as ndarray's, the same refusals as ndarray's,
//! and the same results as from a serial loop.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::{ArrayD, ArrayView, Axis, Dimension, Ix2, IxDyn, Slice};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rowfork::{Error, Selection, SharedArray, broadcast, tasks};

use crate::support::executors::{Executors, Place};
use crate::support::isolated::isolated;

/// Axis lengths, short ones and none among them.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0_usize), 6 => 1_usize..8], 1..=4)
}

/// The same, more of them: ndarray keeps more than four elsewhere.
fn longer_shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1 => Just(0_usize), 12 => 1_usize..5], 1..=6)
}

fn places() -> impl Strategy<Value = isize> {
    prop_oneof![
        20 => -9_isize..10,
        1 => Just(isize::MAX),
        1 => Just(isize::MIN),
        1 => Just(isize::MIN + 1),
    ]
}

fn parts() -> impl Strategy<Value = Slice> {
    let steps =
        prop_oneof![4 => Just(1_isize), 4 => -3_isize..0, 4 => 1_isize..4, 1 => Just(isize::MAX)];
    (places(), prop::option::of(places()), steps).prop_map(|(start, end, step)| Slice {
        start,
        end,
        step,
    })
}

/// Parts that are mostly there: of an axis of up to 8 places.
fn modest_parts() -> impl Strategy<Value = Slice> {
    (0_isize..3, prop::option::of(-2_isize..6), prop_oneof![Just(1_isize), -2_isize..0, 1_isize..3])
        .prop_map(|(start, end, step)| Slice { start, end, step })
}

fn numbered(shape: &[usize]) -> SharedArray<f64, IxDyn> {
    let n: usize = shape.iter().product();
    let elements = (0..n).map(|i| ((i * 7919) % 1013) as f64 * 0.1 - 50.0).collect();
    SharedArray::copy_from(None, &ArrayD::from_shape_vec(shape, elements).unwrap()).unwrap()
}

/// `None` where ndarray panics.
fn sliced_by_ndarray<'a, D: Dimension>(
    view: &ArrayView<'a, f64, D>,
    axis: usize,
    part: Slice,
) -> Option<ArrayView<'a, f64, D>> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut view = view.clone();
        view.slice_axis_inplace(Axis(axis), part);
        view
    }))
    .ok()
}

/// A selection is ndarray's, or refused for an index that there is not where ndarray panics.
fn agrees<'a, D: Dimension>(
    ours: rowfork::Result<Selection<'a, f64, D>>,
    theirs: Option<ArrayView<'a, f64, D>>,
    expected: (&str, usize),
) -> Result<Option<Selection<'a, f64, D>>, TestCaseError> {
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => {
            prop_assert_eq!(ours.shape(), theirs.shape());
            prop_assert_eq!(ours.n_rows(), theirs.shape()[0]);
            prop_assert_eq!(ours.view(), theirs);
            Ok(Some(ours))
        }
        (Err(Error::SelectionOutOfRange { what, index, len, .. }), None) => {
            prop_assert_eq!((what, len), expected);
            let n = isize::try_from(len).unwrap();
            prop_assert!(index >= n || index < -n, "{} of {} is there", index, len);
            Ok(None)
        }
        (ours, theirs) => Err(TestCaseError::fail(format!("{ours:?}, but ndarray: {theirs:?}"))),
    }
}

fn what(axis: usize, shape: &[usize]) -> (&'static str, usize) {
    match (axis, shape.len()) {
        (axis, n_axes) if axis >= n_axes => ("axis", n_axes),
        (0, _) => ("row", shape[0]),
        (1, 2) => ("column", shape[1]),
        _ => ("index", shape[axis]),
    }
}

proptest! {
    #[test]
    fn a_selection_is_ndarrays_and_refused_where_ndarray_panics(
        shape in shapes(), steps in prop::collection::vec((0_usize..5, parts()), 1..4)
    ) {
        let array = numbered(&shape);
        let (mut ours, mut theirs) = (Selection::from(&array), array.view());
        for (axis, part) in steps {
            let expected = what(axis, theirs.shape());
            let sliced =
                (axis < theirs.ndim()).then(|| sliced_by_ndarray(&theirs, axis, part)).flatten();
            match agrees(ours.slice_axis(Axis(axis), part), sliced, expected)? {
                Some(selected) => (ours, theirs) = (selected.clone(), selected.view()),
                None => break,
            }
        }
    }

    #[test]
    fn rows_and_columns_are_slices_of_axes_0_and_1(
        n_rows in 0_usize..9, n_columns in 0_usize..9, rows in parts(), columns in parts()
    ) {
        let array = numbered(&[n_rows, n_columns]);
        let array = array.view().into_dimensionality().unwrap();
        let array = SharedArray::<f64, Ix2>::copy_from(None, &array).unwrap();
        let theirs = sliced_by_ndarray(&array.view(), 0, rows);
        if let Some(part) = agrees(array.rows(rows), theirs, ("row", n_rows))? {
            let theirs = sliced_by_ndarray(&part.view(), 1, columns);
            agrees(part.columns(columns), theirs, ("column", n_columns))?;
        }
        let theirs = sliced_by_ndarray(&array.view(), 1, columns);
        agrees(array.columns(columns), theirs, ("column", n_columns))?;
    }
}

/// Properties of calls, which fork: fewer cases.
fn hold<S: Strategy>(strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, property).unwrap_or_else(|error| panic!("{error}"));
}

fn bits<'f>(values: impl IntoIterator<Item = &'f f64>) -> Vec<u64> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

#[test]
fn calls_over_any_selection_give_what_a_serial_loop_gives() {
    isolated(|| {
        let selections = prop::collection::vec((0_usize..6, modest_parts()), 0..5);
        let executors = Executors::new(5);
        hold(
            (prop_oneof![shapes(), longer_shapes()], selections, 1_usize..6),
            |(shape, selections, workers)| {
                let array = numbered(&shape);
                let mut part = Selection::from(&array);
                for (axis, slice) in selections {
                    part = part.clone().slice_axis(Axis(axis), slice).unwrap_or(part);
                }
                let view = part.view();
                let rows: Vec<Vec<f64>> =
                    view.outer_iter().map(|row| row.iter().copied().collect()).collect();
                let in_order =
                    |row: &mut dyn Iterator<Item = &f64>| row.fold(0.0, |sum, x| sum / 3.0 + x);
                let sums: Vec<f64> = rows.iter().map(|row| rowfork::exact_sum(row)).collect();
                let mixed: Vec<f64> = rows.iter().map(|row| in_order(&mut row.iter())).collect();
                let whole = in_order(&mut part.view().iter());
                for place in Place::ALL {
                    let call = || executors.at(place).workers(workers);
                    prop_assert_eq!(
                        bits(call().row_sums(part.clone()).unwrap().view()),
                        bits(&sums),
                        "{}",
                        place
                    );
                    let mapped = call()
                        .map_rows(part.clone(), move |row| in_order(&mut row.iter()))
                        .unwrap();
                    prop_assert_eq!(bits(mapped.view()), bits(&mixed), "{}", place);
                    let table = (tasks(2), broadcast(part.clone()));
                    let mapped = call()
                        .map_rows(table, move |(_, part)| in_order(&mut part.iter()))
                        .unwrap();
                    prop_assert_eq!(bits(mapped.view()), bits(&[whole, whole]), "{}", place);
                }
                Ok(())
            },
        );
    });
}

#[test]
fn long_strided_rows_are_summed_exactly_however_gathered() {
    isolated(|| {
        // Around 2 KiB and 16 KiB, where the way to gather them changes, and beyond a piece of 1
        // MiB.
        let executors = Executors::new(2);
        for n_columns in [1, 3, 250, 255, 256, 257, 2047, 2048, 2049, 131_073] {
            let n_rows = if n_columns > 10_000 { 3 } else { 300 };
            let m = SharedArray::from_shape_fn(None, (n_rows, 2 * n_columns), |(i, j)| {
                ((i * 31 + j * 17) % 1009) as f64 * [1e16, 0.1, -1e-9][(i + j) % 3]
            });
            let m = m.unwrap();
            for columns in
                [Slice::new(0, None, 2), Slice::new(0, None, -2), Slice::from(1..n_columns)]
            {
                let part = m.columns(columns).unwrap();
                let expected: Vec<f64> =
                    part.view().outer_iter().map(|row| rowfork::exact_sum(&row.to_vec())).collect();
                for place in Place::ALL {
                    let sums = executors.at(place).workers(2).row_sums(part).unwrap();
                    assert_eq!(
                        bits(sums.view()),
                        bits(&expected),
                        "{n_columns} columns by {columns:?}, {place}"
                    );
                }
            }
        }
    });
}

#[test]
fn indices_count_within_the_selection() {
    isolated(|| {
        let m = SharedArray::from_shape_fn(None, (100, 2), |(i, _)| i as f64).unwrap();
        let part = m.rows(Slice::new(10, Some(20), -1)).unwrap();
        let executors = Executors::new(2);
        for place in Place::ALL {
            let call = executors.at(place);
            let seen = call
                .map_rows(part, |row| [row.index() as f64, row[0]].iter().product::<f64>())
                .unwrap();
            assert_eq!(seen.view()[0], 0.0, "{place}");
            assert_eq!(seen.view()[9], 90.0, "the last is row 10 of the array, {place}");
            match call.map_rows(part, |row| if row[0] == 13.0 { Err("unlucky") } else { Ok(0.0) }) {
                Err(Error::KernelFailed { row: 6, .. }) => {}
                other => panic!("{place}: {other:?}"),
            }
        }
    });
}
