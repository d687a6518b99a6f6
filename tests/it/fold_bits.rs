//! A fold has the same bits for every number of workers, every option and every death: its order of
//! operations follows from the number of rows alone. And what a fold that fails says of itself.

use std::sync::atomic::Ordering;

use ndarray::{Array1, ArrayView, ArrayViewMut, Axis, Ix1, Ix2};
use nix::sys::signal::Signal;
use rowfork::{DeathCause, Error, Fork, KernelReturn, Report, Row, SharedArray, fork, param};

use crate::support::executors::{Either, Executors, Place};
use crate::support::harm::first_time;
use crate::support::isolated::isolated;
use crate::support::shared::{SharedWord, raise};

/// Neither a power of two nor a multiple of 64: 63 groups, the last of 8 rows.
const N_ROWS: usize = 1000;
const GROUP_ROWS: usize = 16;

/// Values whose sums depend on the order in every bit.
fn awkward(n_rows: usize) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (n_rows, 3), |(i, j)| {
        let wide = [1e16, 1.0, 1e-7][(i * 7 + j) % 3];
        (((i * 31 + j * 17) % 1009) as f64 - 500.0) * wide
    })
    .unwrap()
}

fn to_bits<'f>(values: impl IntoIterator<Item = &'f f64>) -> Vec<u64> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

/// The bits of a fold, and what it says of itself.
type Folded = rowfork::Result<(Vec<u64>, Report)>;

/// One fold in both its forms, with something that happens at each row and at each group that is
/// taken in.
trait Folding {
    fn fold<R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>>(
        &self,
        fork: &Fork<'_>,
        m: &SharedArray<f64, Ix2>,
        at_row: impl Fn(usize) -> R,
        at_group: impl Fn() -> C,
    ) -> Folded;

    /// The same on either executor. From row `fails_from` on `fold` fails, and `combine` does with
    /// sums of NaN.
    fn fold_on(
        &self,
        executor: &Either<'_>,
        m: &SharedArray<f64, Ix2>,
        fails_from: usize,
    ) -> Folded;
}

/// What a fold on either executor says of a row.
fn fit(row: usize, fails_from: usize) -> Result<(), String> {
    if row < fails_from { Ok(()) } else { Err(format!("bad row {row}")) }
}

/// And of sums that are taken in.
fn fit_sum(sum: f64) -> Result<(), String> {
    if sum.is_nan() { Err("no sum".to_owned()) } else { Ok(()) }
}

type Sums = [f64; 3];

fn add<'x>(sums: &mut Sums, others: impl IntoIterator<Item = &'x f64>) {
    sums.iter_mut().zip(others).for_each(|(sum, x)| *sum += x);
}

struct ToValue;
struct ToArray;

impl Folding for ToValue {
    fn fold<R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>>(
        &self,
        fork: &Fork<'_>,
        m: &SharedArray<f64, Ix2>,
        at_row: impl Fn(usize) -> R,
        at_group: impl Fn() -> C,
    ) -> Folded {
        let fold = |sums: &mut Sums, row: Row<'_, f64, Ix1>| {
            add(sums, &row);
            at_row(row.index())
        };
        let combine = |sums: &mut Sums, others: &Sums| {
            add(sums, others);
            at_group()
        };
        let (sums, report) = fork.fold_rows(m, [0.0; 3], fold, combine)?.into_parts();
        Ok((to_bits(&sums), report))
    }

    fn fold_on(
        &self,
        executor: &Either<'_>,
        m: &SharedArray<f64, Ix2>,
        fails_from: usize,
    ) -> Folded {
        let folded = executor.fold_rows(
            (m, param(fails_from)),
            [0.0; 3],
            |sums: &mut Sums, (row, fails_from)| {
                add(sums, &row);
                fit(row.index(), fails_from)
            },
            |sums, others| {
                add(sums, others);
                fit_sum(others[0])
            },
        );
        let (sums, report) = folded?.into_parts();
        Ok((to_bits(&sums), report))
    }
}

impl Folding for ToArray {
    fn fold<R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>>(
        &self,
        fork: &Fork<'_>,
        m: &SharedArray<f64, Ix2>,
        at_row: impl Fn(usize) -> R,
        at_group: impl Fn() -> C,
    ) -> Folded {
        let fold = |sums: &mut ArrayViewMut<'_, f64, Ix1>, row: Row<'_, f64, Ix1>| {
            *sums += &row;
            at_row(row.index())
        };
        let combine = |sums: &mut ArrayViewMut<'_, f64, Ix1>, others: &ArrayView<'_, f64, Ix1>| {
            *sums += others;
            at_group()
        };
        let (sums, report) =
            fork.fold_rows_array(m, &Array1::zeros(3), fold, combine)?.into_parts();
        Ok((to_bits(sums.view()), report))
    }

    fn fold_on(
        &self,
        executor: &Either<'_>,
        m: &SharedArray<f64, Ix2>,
        fails_from: usize,
    ) -> Folded {
        let folded = executor.fold_rows_array(
            (m, param(fails_from)),
            &Array1::<f64>::zeros(3),
            |sums, (row, fails_from)| {
                *sums += &row;
                fit(row.index(), fails_from)
            },
            |sums, others| {
                *sums += others;
                fit_sum(others[0])
            },
        );
        let (sums, report) = folded?.into_parts();
        Ok((to_bits(sums.view()), report))
    }
}

fn undisturbed(form: &impl Folding, m: &SharedArray<f64, Ix2>) -> Vec<u64> {
    form.fold(&fork().workers(1), m, |_| (), || ()).unwrap().0
}

fn failure(
    form: &impl Folding,
    workers: usize,
    at_row: impl Fn(usize),
    at_group: impl Fn(),
) -> Error {
    form.fold(&fork().workers(workers), &awkward(N_ROWS), at_row, at_group).unwrap_err()
}

#[test]
fn the_report_speaks_of_rows_and_of_the_result() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let deaths = SharedWord::new();
        let kill_once = || {
            if first_time(&deaths) {
                raise(Signal::SIGKILL);
            }
        };
        let report = form.fold(&fork().workers(2), &m, |_| (), kill_once).unwrap().1;
        assert_eq!(
            (report.rows, report.bytes_read, report.bytes_written),
            (N_ROWS, 24 * N_ROWS as u64, 24)
        );
        // Of the last step, where the one block is all groups.
        assert_eq!((report.deaths.len(), report.deaths[0].rows.clone()), (1, Some(0..N_ROWS)));
        assert_eq!(report.workers.iter().map(|worker| worker.rows).sum::<usize>(), N_ROWS);
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_is_of_at_most_64_groups_of_rows_combined_in_order() {
    fn of(form: &impl Folding) {
        for n_rows in [1, 2, 63, 64, 65, 128, 129, N_ROWS] {
            let m = awkward(n_rows);
            let groups = m.view();
            let groups = groups.axis_chunks_iter(Axis(0), n_rows.div_ceil(64));
            let fold_group = |group: ndarray::ArrayView2<'_, f64>| {
                group.outer_iter().fold(Array1::zeros(3), |sums, row| sums + row)
            };
            let expected =
                groups.map(fold_group).reduce(|sums: Array1<f64>, others| sums + others).unwrap();
            assert_eq!(undisturbed(form, &m), to_bits(&expected), "{n_rows} rows");
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn the_data_of_these_tests_tell_orders_apart() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let plain =
            m.view().outer_iter().fold(Array1::zeros(3), |sums: Array1<f64>, row| sums + row);
        assert_ne!(undisturbed(form, &m), to_bits(&plain));
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_has_the_same_bits_for_every_number_of_workers() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let expected = undisturbed(form, &m);
        for workers in 1..=8 {
            let (sums, report) = form.fold(&fork().workers(workers), &m, |_| (), || ()).unwrap();
            assert_eq!(sums, expected, "{workers} workers");
            assert_eq!(report.rows, N_ROWS);
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_has_the_same_bits_for_every_option() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let expected = undisturbed(form, &m);
        for workers in [1, 3] {
            for block_rows in [1, 7, 16, 999, 1000, usize::MAX] {
                let options = fork().workers(workers).block_rows(block_rows);
                assert_eq!(
                    form.fold(&options, &m, |_| (), || ()).unwrap().0,
                    expected,
                    "{block_rows} rows a block"
                );
            }
            let options = fork().workers(workers).measure_memory(true);
            assert_eq!(
                form.fold(&options, &m, |_| (), || ()).unwrap().0,
                expected,
                "memory measured"
            );
            let shown = std::cell::RefCell::new(Vec::new());
            let options = fork()
                .workers(workers)
                .progress(|progress| shown.borrow_mut().push(progress.rows_total));
            assert_eq!(
                form.fold(&options, &m, |_| (), || ()).unwrap().0,
                expected,
                "progress shown"
            );
            drop(options);
            assert!(
                !shown.borrow().is_empty() && shown.borrow().iter().all(|&rows| rows == N_ROWS),
                "{shown:?}"
            );
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_has_the_same_bits_on_either_executor() {
    fn of(form: &impl Folding) {
        let executors = Executors::new(5);
        for n_rows in [1, 2, 63, 64, 65, 128, 129, N_ROWS] {
            let m = awkward(n_rows);
            let expected = undisturbed(form, &m);
            for (place, workers) in
                Place::ALL.into_iter().flat_map(|place| (1..=5).map(move |n| (place, n)))
            {
                let call = || executors.at(place).workers(workers);
                for call in
                    [call(), call().block_rows(7), call().guard(true), call().measure_memory(true)]
                {
                    let (sums, report) = form.fold_on(&call, &m, usize::MAX).unwrap();
                    assert_eq!(
                        sums, expected,
                        "{n_rows} rows, {place}, {workers} workers, {call:?}"
                    );
                    assert_eq!(
                        (report.rows, report.bytes_written),
                        (n_rows, 24),
                        "{place}, {workers} workers"
                    );
                }
            }
        }
        for (place, workers) in
            Place::ALL.into_iter().flat_map(|place| (1..=5).map(move |n| (place, n)))
        {
            let call = executors.at(place).workers(workers);
            match form.fold_on(&call, &awkward(N_ROWS), 321).unwrap_err() {
                Error::KernelFailed { row: 321, message, .. } => assert_eq!(message, "bad row 321"),
                other => panic!("{place}: {other}"),
            }
            let mut m = awkward(N_ROWS);
            m.view_mut()[[GROUP_ROWS * 31 + 5, 0]] = f64::NAN;
            match form.fold_on(&call, &m, usize::MAX).unwrap_err() {
                Error::KernelFailed { row, message, .. } => {
                    assert_eq!((row, &*message), (GROUP_ROWS * 31, "no sum"));
                }
                other => panic!("{place}: {other}"),
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_worker_killed_while_it_folds_costs_its_group_and_no_bit() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let expected = undisturbed(form, &m);
        for workers in [1, 2, 5] {
            for victim in [0, 15, 16, 500, 999] {
                let deaths = SharedWord::new();
                let kill_once = |row| {
                    if row == victim && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                };
                let (sums, report) =
                    form.fold(&fork().workers(workers), &m, kill_once, || ()).unwrap();
                assert_eq!(sums, expected, "{workers} workers, killed at row {victim}");
                assert_eq!(report.deaths.len(), 1);
                assert_eq!(report.deaths[0].cause, DeathCause::Signalled(9));
                assert!(report.deaths[0].rows.as_ref().unwrap().contains(&victim));
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_worker_killed_while_it_combines_costs_no_bit() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        let expected = undisturbed(form, &m);
        for workers in [1, 2, 5] {
            for victim in [0, 30, 61] {
                let taken_in = SharedWord::new();
                let kill_once = || {
                    if taken_in.fetch_add(1, Ordering::Relaxed) == victim {
                        raise(Signal::SIGKILL);
                    }
                };
                let (sums, report) =
                    form.fold(&fork().workers(workers), &m, |_| (), kill_once).unwrap();
                assert_eq!(sums, expected, "{workers} workers, killed after {victim} groups");
                assert_eq!(report.deaths.len(), 1, "{report}");
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_that_fails_names_the_lowest_failing_row() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        for workers in [1, 2, 5] {
            let at_row = |row| {
                if row % 100 == 77 || row == 999 { Err(format!("bad row {row}")) } else { Ok(()) }
            };
            match form.fold(&fork().workers(workers), &m, at_row, || ()).unwrap_err() {
                Error::KernelFailed { row: 77, message, .. } => assert_eq!(message, "bad row 77"),
                other => panic!("{other}"),
            }
            match failure(form, workers, |row| assert!(row < 555, "row {row}"), || ()) {
                Error::KernelPanicked { row: 555, message, .. } => assert_eq!(message, "row 555"),
                other => panic!("{other}"),
            }
            match failure(
                form,
                workers,
                |row| {
                    if row == 321 {
                        raise(Signal::SIGKILL);
                    }
                },
                || (),
            ) {
                Error::PoisonedRows { rows, .. } => {
                    assert_eq!(
                        (rows[0].row, rows[0].attempts, &rows[0].cause),
                        (321, 7, &DeathCause::Signalled(9))
                    );
                }
                other => panic!("{other}"),
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_combine_that_fails_names_the_first_row_it_would_take_in() {
    fn of(form: &impl Folding) {
        let m = awkward(N_ROWS);
        for workers in [1, 2, 5] {
            for group in [1, 31, 62] {
                // The accumulator begins as group 0, so that the n-th call takes in group n.
                let first_row = group * GROUP_ROWS;
                let calls = SharedWord::new();
                let nth = || calls.fetch_add(1, Ordering::Relaxed) + 1 == group as u64;
                let at_group =
                    || if nth() { Err(format!("no room for group {group}")) } else { Ok(()) };
                match form.fold(&fork().workers(workers), &m, |_| (), at_group).unwrap_err() {
                    Error::KernelFailed { row, message, .. } => {
                        assert_eq!(
                            (row, message),
                            (first_row, format!("no room for group {group}"))
                        );
                    }
                    other => panic!("{other}"),
                }
                calls.store(0, Ordering::Relaxed);
                match failure(form, workers, |_| (), || assert!(!nth(), "of {group}")) {
                    Error::KernelPanicked { row, message, location, .. } => {
                        assert_eq!((row, message), (first_row, format!("of {group}")));
                        assert!(location.starts_with(file!()), "{location}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_combine_that_always_kills_is_named_after_three_deaths() {
    fn of(form: &impl Folding) {
        for workers in [1, 2] {
            match failure(form, workers, |_| (), || raise(Signal::SIGKILL)) {
                Error::PoisonedRows { rows, .. } => {
                    assert_eq!(
                        (rows[0].row, rows[0].attempts, &rows[0].cause),
                        (GROUP_ROWS, 7, &DeathCause::Signalled(9))
                    );
                }
                other => panic!("{other}"),
            }
        }
    }
    isolated(|| {
        of(&ToValue);
        of(&ToArray);
    });
}

#[test]
fn a_fold_into_a_value_leaves_it_alone_when_it_fails() {
    isolated(|| {
        let m = awkward(N_ROWS);
        let add = |sum: &mut f64, row: Row<'_, f64, Ix1>| *sum += row.sum();
        let mut sum = 42.0;
        let fails = |_: &mut f64, row: Row<'_, f64, Ix1>| {
            if row.index() == 900 { Err("no") } else { Ok(()) }
        };
        fork()
            .workers(2)
            .fold_rows_into(&m, 0.0, &mut sum, fails, |sum, other| *sum += other)
            .unwrap_err();
        assert_eq!(sum, 42.0);
        fork()
            .workers(2)
            .fold_rows_into(&m, 0.0, &mut sum, add, |_, _| Err::<(), _>("no"))
            .unwrap_err();
        assert_eq!(sum, 42.0);
    });
}

#[test]
fn no_rows_fold_to_the_identity_and_one_row_is_never_combined() {
    isolated(|| {
        let empty = awkward(0);
        let never = |_: &mut f64, _: &f64| -> Result<(), &str> { panic!("nothing to combine") };
        let sum =
            fork().workers(3).fold_rows(&empty, 0.5, |sum, row| *sum += row.sum(), never).unwrap();
        assert_eq!(*sum, 0.5);
        let one = awkward(1);
        let sum = fork().workers(3).fold_rows(&one, 0.0, |sum, row| *sum += row[0], never).unwrap();
        assert_eq!(*sum, one.view()[[0, 0]]);
    });
}

#[test]
fn an_accumulator_may_have_any_alignment_and_size() {
    isolated(|| {
        #[derive(Clone, Copy, PartialEq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        struct Odd([u8; 3]);
        let m = awkward(N_ROWS);
        let count = |n: &mut Odd, _: Row<'_, f64, Ix1>| n.0[2] = n.0[2].wrapping_add(1);
        let counted = fork()
            .workers(2)
            .fold_rows(&m, Odd([0; 3]), count, |n, m| n.0[2] = n.0[2].wrapping_add(m.0[2]));
        assert_eq!(*counted.unwrap(), Odd([0, 0, 232]), "1000 modulo 256");
    });
}

#[test]
fn an_accumulator_turned_round_is_as_it_was_for_the_next_row() {
    isolated(|| {
        let m = SharedArray::from_shape_fn(None, (640, 3), |(_, j)| j as f64).unwrap();
        let turned = fork().workers(2).fold_rows_array(
            &m,
            &Array1::zeros(3),
            |sums, row| {
                sums.invert_axis(Axis(0));
                *sums += &row;
            },
            |sums, others| *sums += others,
        );
        assert_eq!(turned.unwrap().as_slice(), [1280.0, 640.0, 0.0]);
    });
}
