//! `run_tasks`: as many tasks as there are rows. In the last form they read theirs in a table that
//! all of them get.

use ndarray::{Array1, ArrayView, Axis, RemoveAxis};
use rowfork::{SharedArray, broadcast, param, tasks};

use crate::case::{Case, Fallible, Input, Operation};
use crate::isolated;
use crate::table::{CASES, calls_of};
use crate::value::{Value, digest};

#[test]
fn run_tasks_equals_a_plain_loop() {
    isolated(|| assert_eq!(calls_of::<RunTasks>(), 4 * CASES));
}

struct RunTasks;

impl Operation for RunTasks {
    fn check<'a, A: Value, D: RemoveAxis>(case: &Case<'a, A, D>, input: impl Input<'a, A, D>) {
        let numbers: Array1<A> = (0..case.n_rows()).map(number).collect();
        let done = case.succeeds("plain", case.call().run_tasks(case.n_rows(), number::<A>));
        case.same("plain", &done, &numbers);
        let mut out = SharedArray::zeros(None, case.n_rows()).unwrap();
        case.succeeds("into", case.call().run_tasks_into(&mut out, number::<A>));
        case.same("into", &out, &numbers);
        let done =
            case.succeeds("Result", case.call().run_tasks(case.n_rows(), fallible_number::<A>));
        case.same("Result", &done, &numbers);
        let expected = case.each_row(|index, row| digest(index, &row));
        let with_a_table = (tasks(case.n_rows()), broadcast(input), param(A::at(1)));
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
}

/// A function, not a closure in `check`, which would be another one for each type of input.
fn number<A: Value>(index: usize) -> A {
    A::at(index).mix(A::at(index + 1))
}

#[expect(clippy::unnecessary_wraps, reason = "the form that returns a `Result` is tried")]
fn fallible_number<A: Value>(index: usize) -> Fallible<A> {
    Ok(number(index))
}
