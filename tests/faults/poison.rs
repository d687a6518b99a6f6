//! Rows that are fatal to whoever runs them cost themselves alone: under `Policy::fill` every other
//! row is what it would be without them, the table names each with its cause, and the work that
//! finding them takes is bounded. Whoever is killed from outside is taken for no such row.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ndarray::{Array1, Axis, Ix1, Ix2};
use rowfork::{
    Bool, DeathCause, Element, Error, FailedRow, FillValue, Fork, Policy, Report, Row, RowMut,
    SharedArray, fork,
};

use crate::support::disturbance::{Disturbance, disturbed_from_outside};
use crate::support::harm::{
    self, ABORTS, EXITS_WITH_3, FAILS, KILLED, PANICS, SPINS, act_or_fail, name,
};
use crate::support::isolated::isolated;
use crate::support::shared::SharedWord;

const N_ROWS: usize = 150;
const N_COLUMNS: usize = 3;

/// None of our values.
const FILL: f64 = -1234.5;

/// Two hundred times what an innocent row takes on a busy machine.
const STALL_LIMIT: Duration = Duration::from_millis(100);

const OPERATIONS: [&str; 8] = [
    "map_rows",
    "transform_rows",
    "map_blocks",
    "run_tasks",
    "update_rows",
    "update_rows_with",
    "fold_rows",
    "fold_rows_array",
];

/// First and last row, two next to each other, one of each kind.
const POISONED: [(usize, u64); 6] =
    [(0, KILLED), (7, EXITS_WITH_3), (8, PANICS), (20, FAILS), (75, ABORTS), (N_ROWS - 1, SPINS)];

/// Whether `failed` is what is to be said of a row with this poison, found out with the default
/// number of retries.
fn explains(poison: u64, failed: &FailedRow) -> bool {
    let row = failed.row;
    let attempts = failed.attempts;
    match (poison, &failed.cause) {
        (KILLED, DeathCause::Signalled(9)) => (7..=12).contains(&attempts),
        (EXITS_WITH_3, DeathCause::Exited(3)) | (ABORTS, DeathCause::Signalled(6)) => attempts == 3,
        (PANICS, DeathCause::Panicked { message, location, .. }) => {
            attempts == 1
                && *message == format!("bad row {row}")
                && location.starts_with(harm::FILE)
        }
        (FAILS, DeathCause::Failed { message, .. }) => {
            attempts == 1 && *message == format!("bad row {row}")
        }
        (SPINS, DeathCause::Stalled { limit, .. }) => attempts == 3 && *limit == STALL_LIMIT,
        _ => false,
    }
}

fn is_in(ranges: &[Range<usize>], row: usize) -> bool {
    ranges.iter().any(|rows| rows.contains(&row))
}

fn matrix(n_rows: usize) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (n_rows, N_COLUMNS), |(i, j)| (i * 31 + j * 7) as f64 * 0.1)
        .unwrap()
}

fn digest(index: usize, row: impl IntoIterator<Item = f64>) -> f64 {
    row.into_iter().fold(index as f64 + 0.25, |sum, x| sum.mul_add(0.75, x.sqrt()))
}

/// What came of a call: the values row by row, or those of a fold.
struct Came {
    values: Vec<f64>,
    report: Report,
}

/// Runs an operation whose kernel first does `harm`, in its form with an output of the caller's or
/// without.
#[allow(clippy::too_many_lines, reason = "one arm for each operation")]
fn run(
    operation: &str,
    options: &Fork<'_>,
    m: &SharedArray<f64, Ix2>,
    into: bool,
    harm: &dyn Fn(usize) -> Result<(), String>,
) -> rowfork::Result<Came> {
    let n_rows = m.shape()[0];
    let of_array =
        |array: &SharedArray<f64, Ix1>, report| Came { values: array.view().to_vec(), report };
    let of_matrix = |array: &SharedArray<f64, Ix2>, report| Came {
        values: array.view().iter().copied().collect(),
        report,
    };
    let harmed_digest = |row: Row<'_, f64, Ix1>| {
        harm(row.index())?;
        Ok::<f64, String>(digest(row.index(), row.iter().copied()))
    };
    let mut array = SharedArray::<f64, _>::zeros(None, n_rows).unwrap();
    match operation {
        "map_rows" if into => {
            let report = options.map_rows_into(m, &mut array, harmed_digest)?;
            Ok(of_array(&array, report))
        }
        "map_rows" => {
            options.map_rows(m, harmed_digest).map(|out| of_array(&out, out.report().clone()))
        }
        "transform_rows" => {
            let kernel = |row: Row<'_, f64, Ix1>, out: &mut ndarray::ArrayViewMut1<'_, f64>| {
                out[0] = row.index() as f64;
                harm(row.index())?;
                out[1] = digest(row.index(), row.iter().copied());
                Ok::<(), String>(())
            };
            if !into {
                return options
                    .transform_rows(m, 2, kernel)
                    .map(|out| of_matrix(&out, out.report().clone()));
            }
            let mut out = SharedArray::<f64, _>::zeros(None, (n_rows, 2)).unwrap();
            let report = options.transform_rows_into(m, 2, &mut out, kernel)?;
            Ok(of_matrix(&out, report))
        }
        "map_blocks" => {
            let kernel = |block: rowfork::Block<'_, f64, Ix2>,
                          out: &mut ndarray::ArrayViewMut1<'_, f64>| {
                for ((index, row), out) in
                    block.row_range().zip(block.axis_iter(Axis(0))).zip(out.iter_mut())
                {
                    harm(index)?;
                    *out = digest(index, row.iter().copied());
                }
                Ok::<(), String>(())
            };
            if !into {
                return options
                    .map_blocks(m, (), kernel)
                    .map(|out| of_array(&out, out.report().clone()));
            }
            let report = options.map_blocks_into(m, (), &mut array, kernel)?;
            Ok(of_array(&array, report))
        }
        "run_tasks" => {
            let view = m.view();
            let task = |task: usize| {
                harm(task)?;
                Ok::<f64, String>(digest(task, view.row(task).iter().copied()))
            };
            if !into {
                return options
                    .run_tasks(n_rows, task)
                    .map(|out| of_array(&out, out.report().clone()));
            }
            let report = options.run_tasks_into(&mut array, task)?;
            Ok(of_array(&array, report))
        }
        "update_rows" => {
            let mut array = SharedArray::copy_from(None, &m.view()).unwrap();
            let report = options.update_rows(&mut array, |row: &mut RowMut<'_, f64, Ix1>| {
                row[0] = row[0].mul_add(3.0, 1.0);
                harm(row.index())?;
                row.iter_mut().skip(1).for_each(|x| *x = x.mul_add(3.0, 1.0));
                Ok::<(), String>(())
            })?;
            Ok(of_matrix(&array, report))
        }
        "update_rows_with" => {
            let mut array = SharedArray::copy_from(None, &m.view()).unwrap();
            let report = options.update_rows_with(&mut array, m, |row, other| {
                row[0] = 7.0;
                harm(row.index())?;
                row.iter_mut().zip(&other).for_each(|(x, y)| *x = y.mul_add(3.0, 1.0));
                Ok::<(), String>(())
            })?;
            Ok(of_matrix(&array, report))
        }
        "fold_rows" => {
            let fold = |sum: &mut f64, row: Row<'_, f64, Ix1>| {
                *sum += digest(row.index(), row.iter().copied());
                harm(row.index())
            };
            let combine = |sum: &mut f64, other: &f64| *sum += other;
            if !into {
                let folded = options.fold_rows(m, 0.0, fold, combine)?;
                return Ok(Came { values: vec![*folded], report: folded.report().clone() });
            }
            let mut sum = 5.0;
            let report = options.fold_rows_into(m, 0.0, &mut sum, fold, combine)?;
            Ok(Came { values: vec![sum], report })
        }
        "fold_rows_array" => {
            let zeros = Array1::<f64>::zeros(N_COLUMNS);
            let fold = |sums: &mut ndarray::ArrayViewMut1<'_, f64>, row: Row<'_, f64, Ix1>| {
                *sums += &row;
                harm(row.index())
            };
            let combine =
                |sums: &mut ndarray::ArrayViewMut1<'_, f64>,
                 others: &ndarray::ArrayView1<'_, f64>| *sums += others;
            if !into {
                let folded = options.fold_rows_array(m, &zeros, fold, combine)?;
                return Ok(of_array(&folded, folded.report().clone()));
            }
            let mut sums = SharedArray::<f64, _>::zeros(None, N_COLUMNS).unwrap();
            let report = options.fold_rows_array_into(m, &zeros, &mut sums, fold, combine)?;
            Ok(of_array(&sums, report))
        }
        other => panic!("{other}"),
    }
}

/// What it should be without the rows of `missing`, by a plain loop.
fn expected(operation: &str, m: &SharedArray<f64, Ix2>, missing: &[Range<usize>]) -> Vec<f64> {
    let rows = || m.view().outer_iter().map(|row| row.to_vec()).enumerate().collect::<Vec<_>>();
    let is_there = |row: usize| !is_in(missing, row);
    let or_fill = |row: usize, values: Vec<f64>| {
        if is_there(row) { values } else { vec![FILL; values.len()] }
    };
    let row_of = |f: &dyn Fn(usize, &[f64]) -> Vec<f64>| {
        rows().iter().flat_map(|(index, row)| or_fill(*index, f(*index, row))).collect::<Vec<f64>>()
    };
    let folded = |width: usize, f: &dyn Fn(usize, &[f64]) -> Vec<f64>| {
        let rows = rows();
        let groups = rows.chunks(rows.len().div_ceil(64).max(1)).map(|group| {
            let taken =
                group.iter().filter(|(row, _)| is_there(*row)).map(|(index, row)| f(*index, row));
            taken.fold(vec![0.0; width], |sums, row| {
                sums.iter().zip(row).map(|(sum, x)| sum + x).collect()
            })
        });
        let whole = groups.reduce(|sums: Vec<f64>, others| {
            sums.iter().zip(others).map(|(sum, x)| sum + x).collect()
        });
        whole.unwrap_or_else(|| vec![0.0; width])
    };
    match operation {
        "map_rows" | "map_blocks" | "run_tasks" => {
            row_of(&|index, row| vec![digest(index, row.iter().copied())])
        }
        "transform_rows" => {
            row_of(&|index, row| vec![index as f64, digest(index, row.iter().copied())])
        }
        "update_rows" | "update_rows_with" => {
            row_of(&|_, row| row.iter().map(|x| x.mul_add(3.0, 1.0)).collect())
        }
        "fold_rows" => folded(1, &|index, row| vec![digest(index, row.iter().copied())]),
        "fold_rows_array" => folded(N_COLUMNS, &|_, row| row.to_vec()),
        other => panic!("{other}"),
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn harm_of(poisoned: &[(usize, u64)]) -> impl Fn(usize) -> Result<(), String> {
    move |row| {
        poisoned
            .iter()
            .find(|(at, _)| *at == row)
            .map_or(Ok(()), |(_, poison)| act_or_fail(*poison, row))
    }
}

/// The rows as ranges that do not touch.
fn ranges(rows: &[usize]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for &row in rows {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

/// A call that goes on without the poisoned rows has all others, and says all of these, as
/// `explains` has it.
fn check_filled(
    what: &str,
    operation: &str,
    m: &SharedArray<f64, Ix2>,
    came: &Came,
    poisoned: &[(usize, u64)],
    workers: usize,
    explains: impl Fn(u64, &FailedRow) -> bool,
) {
    let Came { values, report } = came;
    let rows: Vec<usize> = poisoned.iter().map(|(row, _)| *row).collect();
    assert_eq!(
        report.failed_rows.iter().map(|failed| failed.row).collect::<Vec<_>>(),
        rows,
        "{what}: {report}"
    );
    for (failed, (_, poison)) in report.failed_rows.iter().zip(poisoned) {
        assert!(explains(*poison, failed), "{what}: {} is {failed:?}", name(*poison));
        assert!(failed.worker < workers, "{what}: {failed:?}");
    }
    assert_eq!(report.missing_rows, ranges(&rows), "{what}");
    assert_eq!(report.ended_early, None, "{what}");
    let text = report.to_string();
    for failed in report.failed_rows.iter().take(10) {
        assert!(text.lines().any(|line| line == failed.to_string()), "{what}: {text}");
        assert!(failed.to_string().starts_with(&format!("row {}", failed.row)), "{what}: {failed}");
    }
    assert_eq!(
        text.contains(&format!("{} rows are missing", rows.len())),
        !rows.is_empty(),
        "{what}: {text}"
    );
    assert_eq!(
        bits(values),
        bits(&expected(operation, m, &report.missing_rows)),
        "{what}: {report}"
    );
}

fn filling<'a>(workers: usize, guard: bool, block_rows: Option<usize>) -> Fork<'a> {
    let options = fork().workers(workers).guard(guard).policy(Policy::fill(FILL));
    if let Some(block_rows) = block_rows { options.block_rows(block_rows) } else { options }
}

/// Rows of every kind, but for endless loops, which take their time, and for what ends an update in
/// place.
fn fill_everywhere(operations: &[&str]) {
    let m = matrix(N_ROWS);
    for operation in operations {
        for guard in [false, true] {
            for workers in [1, 2, 5] {
                for block_rows in [None, Some(1), Some(10), Some(N_ROWS)] {
                    let what = format!(
                        "{operation}, {workers} workers, guard {guard}, block_rows {block_rows:?}"
                    );
                    let loops = workers == 2 && block_rows != Some(1);
                    let crash_ends = operation.starts_with("update") && !guard;
                    let poisoned = POISONED.into_iter().filter(|(_, poison)| match *poison {
                        SPINS => loops,
                        ABORTS => !crash_ends,
                        _ => true,
                    });
                    let poisoned: Vec<_> = poisoned.collect();
                    let mut options = filling(workers, guard, block_rows);
                    if loops {
                        options = options.stall_limit(STALL_LIMIT);
                    }
                    let came =
                        run(operation, &options, &m, block_rows.is_some(), &harm_of(&poisoned));
                    let came = came.unwrap_or_else(|error| panic!("{what}: {error}"));
                    check_filled(&what, operation, &m, &came, &poisoned, workers, explains);
                }
            }
        }
    }
}

/// What ended an update, or the call itself.
fn source(error: Error) -> Error {
    if let Error::UpdateInterrupted { cause: source, .. } = error { *source } else { error }
}

/// Fills one row of each of `values`' type, whether or not the output is the caller's.
fn fits<T: Element + PartialEq + std::fmt::Debug>(fill: impl Into<FillValue>, filled: T, other: T) {
    let fill = fill.into();
    let options = fork().workers(2).policy(Policy::fill(fill));
    let out =
        options.run_tasks(5, |task| if task == 3 { Err("no value") } else { Ok(other) }).unwrap();
    assert_eq!(out.view().to_vec(), [other, other, other, filled, other], "{fill:?}");
    assert_eq!(out.missing_rows(), [3..4]);
}

/// Refuses a fill value before anything is forked, and leaves the output alone.
fn does_not_fit<T: Element + PartialEq + std::fmt::Debug>(fill: impl Into<FillValue>, other: T) {
    let fill = fill.into();
    let runs = SharedWord::new();
    let count = |_: usize| {
        runs.fetch_add(1, Ordering::Relaxed);
        other
    };
    let options = fork().workers(2).policy(Policy::fill(fill));
    let mut out = SharedArray::from_shape_fn(None, 5, |_| other).unwrap();
    for outcome in [
        options.run_tasks_into(&mut out, count).map(drop),
        options.run_tasks(5, count).map(drop),
        options.update_rows(&mut out, |row| row.fill(other)).map(drop),
    ] {
        match outcome.unwrap_err() {
            Error::UnfitFill { value, dtype, .. } => {
                assert_eq!((value, dtype), (fill.to_string(), T::DESCR));
            }
            error => panic!("{fill:?}: {error}"),
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0, "{fill:?}");
    assert!(out.view().iter().all(|value| *value == other));
}

#[test]
fn poisoned_rows_cost_themselves_alone_in_every_map() {
    isolated(|| {
        fill_everywhere(&OPERATIONS[..4]);
    });
}

#[test]
fn poisoned_rows_cost_themselves_alone_in_every_update_in_place() {
    isolated(|| {
        fill_everywhere(&OPERATIONS[4..6]);
    });
}

#[test]
fn poisoned_rows_cost_themselves_alone_in_every_fold() {
    isolated(|| {
        fill_everywhere(&OPERATIONS[6..]);
    });
}

#[test]
fn rows_whose_integer_sum_does_not_fit_cost_themselves_alone() {
    isolated(|| {
        let bad = [0, 7, 8, 75, N_ROWS - 1];
        let m = SharedArray::<i64, _>::from_shape_fn(None, (N_ROWS, 3), |(i, j)| {
            if bad.contains(&i) && j > 0 { i64::MAX } else { i64::try_from(i * 3 + j).unwrap() }
        })
        .unwrap();
        for guard in [false, true] {
            for workers in [1, 2, 5] {
                for block_rows in [None, Some(1), Some(10), Some(N_ROWS)] {
                    let what =
                        format!("{workers} workers, guard {guard}, block_rows {block_rows:?}");
                    let options = filling(workers, guard, block_rows).policy(Policy::fill(-1));
                    let out =
                        options.row_sums(&m).unwrap_or_else(|error| panic!("{what}: {error}"));
                    for (row, &sum) in out.view().iter().enumerate() {
                        let right = if bad.contains(&row) {
                            -1
                        } else {
                            i64::try_from(row * 9 + 3).unwrap()
                        };
                        assert_eq!(sum, right, "{what}: row {row}");
                    }
                    assert_eq!(out.missing_rows(), ranges(&bad), "{what}");
                    let failed = &out.report().failed_rows;
                    assert_eq!(
                        failed.iter().map(|failed| failed.row).collect::<Vec<_>>(),
                        bad,
                        "{what}"
                    );
                    for failed in failed {
                        let sum =
                            2 * i128::from(i64::MAX) + i128::try_from(failed.row * 3).unwrap();
                        let words = format!(
                            "the sum of row {} is {sum}, beyond the range of int64",
                            failed.row
                        );
                        assert!(
                            matches!(
                                &failed.cause,
                                DeathCause::Failed { message , .. } if message.starts_with(&words)
                            ),
                            "{what}: {failed}"
                        );
                        assert_eq!(failed.attempts, 1, "{what}");
                    }
                }
            }
        }
        assert!(matches!(fork().row_sums(&m).unwrap_err(), Error::SumOverflow { row: 0, .. }));
    });
}

#[test]
fn a_thousand_misfit_sums_in_long_blocks_are_a_thousand_rows() {
    isolated(|| {
        let element = |row: usize| if row % 200 == 77 { i64::MAX } else { 1 };
        let m =
            SharedArray::<i64, _>::from_shape_fn(None, (200_000, 2), |(i, _)| element(i)).unwrap();
        let sums = filling(2, false, Some(200_000)).policy(Policy::fill(-1)).row_sums(&m).unwrap();
        assert!(
            sums.view()
                .iter()
                .enumerate()
                .all(|(row, &sum)| sum == if row % 200 == 77 { -1 } else { 2 })
        );
        assert_eq!(sums.report().failed_rows.len(), 1000);
        assert!(sums.report().failed_rows.iter().all(|failed| failed.attempts == 1));
    });
}

#[test]
fn where_a_call_is_to_fail_it_names_one_poisoned_row() {
    isolated(|| {
        let m = matrix(N_ROWS);
        for operation in OPERATIONS {
            for (guard, workers) in [(false, 1), (true, 2), (false, 5)] {
                let what = format!("{operation}, {workers} workers, guard {guard}");
                let options = fork().workers(workers).guard(guard).block_rows(10);
                for poison in [KILLED, EXITS_WITH_3, ABORTS] {
                    let poisoned = [(31, poison), (140, poison)];
                    let error = source(
                        run(operation, &options, &m, true, &harm_of(&poisoned))
                            .map(drop)
                            .unwrap_err(),
                    );
                    match error {
                        Error::PoisonedRows { rows, .. } => {
                            assert!(
                                rows.len() == 1 && [31, 140].contains(&rows[0].row),
                                "{what}: {rows:?}"
                            );
                            assert!(
                                explains(poison, &rows[0]),
                                "{what}: {} is {rows:?}",
                                name(poison)
                            );
                        }
                        Error::UnguardedCrash { row, runs: 1, .. }
                            if poison == ABORTS && !guard =>
                        {
                            assert!(
                                operation.starts_with("update")
                                    && [31, 140].map(Some).contains(&row),
                                "{what}"
                            );
                        }
                        other => panic!("{what}, {}: {other}", name(poison)),
                    }
                }
                // By whole blocks, only blocks of one row name it.
                let options =
                    if operation == "map_blocks" { options.block_rows(1) } else { options };
                let failing = [(31, FAILS), (90, PANICS), (140, FAILS)];
                match source(
                    run(operation, &options, &m, false, &harm_of(&failing)).map(drop).unwrap_err(),
                ) {
                    Error::KernelFailed { row: 31, message, .. } => {
                        assert_eq!(message, "bad row 31", "{what}");
                    }
                    other => panic!("{what}: {other}"),
                }
                let failing = [(31, PANICS), (90, FAILS)];
                match source(
                    run(operation, &options, &m, false, &harm_of(&failing)).map(drop).unwrap_err(),
                ) {
                    Error::KernelPanicked { row: 31, message, .. } => {
                        assert_eq!(message, "bad row 31", "{what}");
                    }
                    other => panic!("{what}: {other}"),
                }
            }
        }
    });
}

#[test]
fn a_crash_ends_an_unguarded_update_also_where_it_would_fill() {
    isolated(|| {
        let m = matrix(N_ROWS);
        let error =
            run("update_rows", &filling(2, false, None), &m, true, &harm_of(&POISONED[4..5]))
                .map(drop);
        assert!(matches!(
            source(error.unwrap_err()),
            Error::UnguardedCrash { row: Some(75), runs: 1, .. }
        ));
    });
}

#[test]
fn the_number_of_retries_is_that_asked_for() {
    isolated(|| {
        let m = matrix(N_ROWS);
        for operation in OPERATIONS {
            for (retries, attempts, attempts_in_doubt) in [(0, 1, 1), (5, 6, 16)] {
                for workers in [1, 5] {
                    let what = format!("{operation}, {workers} workers, {retries} retries");
                    for (poison, attempts) in
                        [(EXITS_WITH_3, attempts), (KILLED, attempts_in_doubt)]
                    {
                        let poisoned = [(77, poison)];
                        let options = filling(workers, true, Some(10)).retries(retries);
                        let came =
                            run(operation, &options, &m, false, &harm_of(&poisoned)).unwrap();
                        // On the way to it, deaths in company count as such of others.
                        let explains = |_, failed: &FailedRow| {
                            (attempts..=attempts + 5).contains(&failed.attempts)
                        };
                        check_filled(&what, operation, &m, &came, &poisoned, workers, explains);
                        if poison == EXITS_WITH_3 {
                            assert_eq!(came.report.failed_rows[0].attempts, attempts, "{what}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_value_of_every_type_fills() {
    isolated(|| {
        fits(-0.5, -0.5f64, 1.0);
        fits(-7, -7.0f64, 1.0);
        fits(0.5f32, 0.5f32, 1.0);
        fits(-128, -128i8, 1);
        fits(-300, -300i16, 1);
        fits(i32::MIN, i32::MIN, 1);
        fits(i64::MIN, i64::MIN, 1);
        fits(7.0, 7i64, 1);
        fits(255, 255u8, 1);
        fits(65_535, 65_535u16, 1);
        fits(u32::MAX, u32::MAX, 1);
        fits(u64::MAX, u64::MAX, 1);
        fits(true, Bool::TRUE, Bool::FALSE);
        let no_value = |_| Err::<f64, _>("no value");
        assert!(fork().policy(Policy::fill(f64::NAN)).run_tasks(2, no_value).unwrap()[0].is_nan());
    });
}

#[test]
fn a_value_unfit_for_the_output_is_refused_before_any_fork() {
    isolated(|| {
        does_not_fit(-1, 1u8);
        does_not_fit(256, 1u8);
        does_not_fit(f64::NAN, 1i64);
        does_not_fit(0.5, 1i32);
        does_not_fit(128, 1i8);
        does_not_fit(1e300, 1.0f32);
        does_not_fit(u64::MAX, 1i64);
        does_not_fit(u64::MAX, 1.0f64);
        does_not_fit(true, 1.0f64);
        does_not_fit(1, Bool::TRUE);
    });
}

#[test]
fn more_than_1024_poisoned_rows_end_the_call_in_bounded_time() {
    isolated(|| {
        let m = matrix(3000);
        for (poison, retries) in [(FAILS, 2), (PANICS, 2), (EXITS_WITH_3, 0)] {
            let cuts = [
                ("map_rows", None),
                ("map_rows", Some(3000)),
                ("map_blocks", Some(2)),
                ("fold_rows", None),
            ];
            for (operation, block_rows) in cuts {
                let what = format!("{} in {operation}, block_rows {block_rows:?}", name(poison));
                let bad_rows = |n: usize| {
                    move |row| {
                        if row % 2 == 1 && row < 2 * n { act_or_fail(poison, row) } else { Ok(()) }
                    }
                };
                let options = filling(2, false, block_rows).retries(retries);
                let began = Instant::now();
                let error =
                    run(operation, &options, &m, false, &bad_rows(1100)).map(drop).unwrap_err();
                match &error {
                    Error::PoisonedRows { rows, .. } => {
                        assert_eq!(rows.len(), 1025, "{what}");
                        assert!(rows.windows(2).all(|pair| pair[0].row < pair[1].row), "{what}");
                        assert!(rows.iter().all(|failed| failed.row % 2 == 1), "{what}");
                    }
                    other => panic!("{what}: {other}"),
                }
                assert!(
                    error
                        .to_string()
                        .starts_with("1025 rows failed, more than a call goes on without: row "),
                    "{what}: {error}"
                );
                let came = run(operation, &options, &m, false, &bad_rows(1024));
                let came = came.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(came.report.failed_rows.len(), 1024, "{what}");
                assert_eq!(
                    bits(&came.values),
                    bits(&expected(operation, &m, &came.report.missing_rows)),
                    "{what}"
                );
                assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
            }
        }
    });
}

#[test]
fn where_every_row_is_poisoned_all_are_missing_in_bounded_time() {
    isolated(|| {
        let m = matrix(100);
        let poisoned: Vec<_> = (0..100).map(|row| (row, KILLED)).collect();
        for operation in OPERATIONS {
            for (workers, block_rows) in [(1, None), (2, Some(100)), (16, Some(1))] {
                let what = format!("{operation}, {workers} workers, block_rows {block_rows:?}");
                let began = Instant::now();
                let came = run(
                    operation,
                    &filling(workers, true, block_rows),
                    &m,
                    false,
                    &harm_of(&poisoned),
                );
                let came = came.unwrap_or_else(|error| panic!("{what}: {error}"));
                check_filled(&what, operation, &m, &came, &poisoned, workers, explains);
                assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
                let deaths = came.report.deaths.len();
                assert!(deaths <= 100 * 12 + 200, "{what}: {deaths} deaths");
            }
        }
    });
}

#[test]
fn a_matrix_of_one_poisoned_row_or_of_none_is_as_it_should_be() {
    isolated(|| {
        for operation in OPERATIONS {
            for guard in [false, true] {
                let what = format!("{operation}, guard {guard}");
                for poison in [KILLED, FAILS] {
                    let (m, poisoned) = (matrix(1), [(0, poison)]);
                    let came =
                        run(operation, &filling(2, guard, None), &m, false, &harm_of(&poisoned))
                            .unwrap();
                    check_filled(&what, operation, &m, &came, &poisoned, 2, explains);
                }
                let m = matrix(0);
                let came =
                    run(operation, &filling(2, guard, None), &m, true, &harm_of(&[])).unwrap();
                check_filled(&what, operation, &m, &came, &[], 2, explains);
            }
        }
    });
}

#[test]
fn random_kills_from_outside_poison_no_row() {
    isolated(|| {
        let m = matrix(30);
        let harm = Disturbance {
            pause: (Duration::from_millis(5), Duration::from_millis(20)),
            stop_one_in: 0,
        };
        let (deaths, sent) = disturbed_from_outside(harm, u64::from(std::process::id()), || {
            let mut deaths = 0;
            for round in 0..4 {
                for operation in OPERATIONS {
                    let workers = [2, 3, 5][round % 3];
                    let options = fork().workers(workers).block_rows(1).guard(round % 2 == 0);
                    let came = run(operation, &options, &m, false, &|_| {
                        std::thread::sleep(Duration::from_millis(5));
                        Ok(())
                    });
                    let came = came
                        .unwrap_or_else(|error| panic!("{operation}, {workers} workers: {error}"));
                    assert_eq!(
                        bits(&came.values),
                        bits(&expected(operation, &m, &[])),
                        "{operation}"
                    );
                    deaths += came.report.deaths.len();
                }
            }
            deaths
        });
        println!(
            "FIGURE {} kills sent, {deaths} deaths seen within 32 calls, no row poisoned",
            sent.kills
        );
        assert!(deaths >= 32, "only {deaths} deaths: the test did not disturb");
    });
}
