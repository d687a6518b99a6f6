//! What an update in place says after it was interrupted is what has become of the array: the rows
//! that it calls updated hold the new values, the torn ones are those that a worker was at, and all
//! others are as they were.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use ndarray::{Ix1, Ix2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{DeathCause, Error, Fork, RowMut, SharedArray, fork};

use crate::support::harm::{ABORTS, EXITS, FAILS, KILLED, PANICS, act_or_fail, name};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

const N_ROWS: usize = 200;
const N_COLUMNS: usize = 4;

fn old(row: usize, column: usize) -> u32 {
    u32::try_from(row * 10 + column).unwrap()
}

fn array() -> SharedArray<u32, Ix2> {
    SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), |(row, column)| old(row, column)).unwrap()
}

fn is_old(m: &SharedArray<u32, Ix2>, row: usize) -> bool {
    (0..N_COLUMNS).all(|column| m.view()[[row, column]] == old(row, column))
}

fn is_new(m: &SharedArray<u32, Ix2>, row: usize) -> bool {
    (0..N_COLUMNS).all(|column| m.view()[[row, column]] == old(row, column) + 1_000_000)
}

/// Updates half of a row, does the harm, and then the other half.
fn update_with_harm(
    fork: &Fork<'_>,
    m: &mut SharedArray<u32, Ix2>,
    harm: impl Fn(usize) -> Result<(), String>,
) -> rowfork::Result<rowfork::Report> {
    fork.update_rows(m, |row: &mut RowMut<'_, u32, Ix1>| {
        let index = row.index();
        row.iter_mut().take(N_COLUMNS / 2).for_each(|x| *x += 1_000_000);
        harm(index)?;
        row.iter_mut().skip(N_COLUMNS / 2).for_each(|x| *x += 1_000_000);
        Ok::<(), String>(())
    })
}

/// What the error says of the array, after a look at the array; with its source.
fn claim(
    error: Error,
    m: &SharedArray<u32, Ix2>,
    what: &str,
) -> (Vec<Range<usize>>, Vec<Range<usize>>, Error) {
    let (updated, torn, source) = match error {
        Error::UpdateInterrupted { cause: source, updated, torn, .. } => (updated, torn, source),
        plain => (Vec::new(), Vec::new(), Box::new(plain)),
    };
    for ranges in [&updated, &torn] {
        assert!(
            ranges.iter().all(|rows| rows.start < rows.end && rows.end <= N_ROWS),
            "{what}: {ranges:?}"
        );
        assert!(
            ranges.windows(2).all(|pair| pair[0].end < pair[1].start),
            "{what}: in order and joined: {ranges:?}"
        );
    }
    let said = |ranges: &[Range<usize>], row| ranges.iter().any(|rows| rows.contains(&row));
    for row in 0..N_ROWS {
        match (said(&updated, row), said(&torn, row)) {
            (true, false) => {
                assert!(is_new(m, row), "{what}: row {row} is not new, and was said to be updated");
            }
            (false, false) => assert!(
                is_old(m, row),
                "{what}: row {row} is not old, and was said to be untouched"
            ),
            (false, true) => {
                assert!(!is_old(m, row), "{what}: row {row} is whole, and was said to be torn");
            }
            (true, true) => panic!("{what}: row {row} is said to be updated and torn"),
        }
    }
    (updated, torn, *source)
}

fn is_poisoned(error: &Error, at: usize, of: &DeathCause) -> bool {
    let attempts = if *of == DeathCause::Signalled(9) { 7 } else { 3 };
    let Error::PoisonedRows { rows, .. } = error else { return false };
    rows.len() == 1 && (rows[0].row, rows[0].attempts, &rows[0].cause) == (at, attempts, of)
}

/// Whether an error is about this row, and what it is to be.
type IsError = fn(&Error, usize) -> bool;

/// Every kind of harm by which a kernel ends a call, and the error that it must be.
const HARMS: [(u64, IsError); 5] = [
    (FAILS, |error, at| {
        matches!(
            error,
            Error::KernelFailed { row, message, .. }
                if *row == at && *message == format!("bad row {at}")
        )
    }),
    (PANICS, |error, at| {
        matches!(
            error,
            Error::KernelPanicked { row, message, .. }
                if *row == at && *message == format!("bad row {at}")
        )
    }),
    (KILLED, |error, at| is_poisoned(error, at, &DeathCause::Signalled(9))),
    (EXITS, |error, at| is_poisoned(error, at, &DeathCause::Exited(0))),
    (ABORTS, |error, at| {
        matches!(
            error,
            Error::UnguardedCrash {
                row: Some(row), cause: DeathCause::Signalled(6), runs: 1, ..
            } if *row == at
        )
    }),
];

#[test]
fn an_interrupted_update_names_what_became_of_every_row() {
    isolated(|| {
        for (kind, is_source) in HARMS {
            let name = name(kind);
            for workers in [1, 2, 5] {
                for block_rows in [1, 10, N_ROWS] {
                    for victim in [0, 1, 9, 10, 77, N_ROWS - 1] {
                        let what = format!(
                            "{name} at row {victim}, {workers} workers, {block_rows} rows a block"
                        );
                        let mut m = array();
                        let options = fork().workers(workers).block_rows(block_rows);
                        let error = update_with_harm(&options, &mut m, |row| {
                            if row == victim { act_or_fail(kind, row) } else { Ok(()) }
                        });
                        let (updated, torn, source) = claim(error.unwrap_err(), &m, &what);
                        assert!(is_source(&source, victim), "{what}: {source}");
                        assert!(torn.is_empty(), "{what}: {torn:?}");
                        assert!(
                            !updated.iter().any(|rows| rows.contains(&victim)),
                            "{what}: {updated:?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn one_worker_failing_at_row_0_leaves_all_rows_as_they_were() {
    isolated(|| {
        for (kind, _) in HARMS {
            let name = name(kind);
            let mut m = array();
            let error = update_with_harm(&fork().workers(1), &mut m, |row| {
                if row == 0 { act_or_fail(kind, row) } else { Ok(()) }
            });
            let error = error.unwrap_err();
            assert!(!matches!(error, Error::UpdateInterrupted { .. }), "{name}: {error}");
            claim(error, &m, name);
        }
    });
}

#[test]
fn of_several_failures_the_lowest_is_told_and_none_is_torn() {
    isolated(|| {
        for &(kind, is_source) in &HARMS[..2] {
            let name = name(kind);
            let mut m = array();
            let both_begun = SharedWord::new();
            let options = fork().workers(2).block_rows(100);
            let error = update_with_harm(&options, &mut m, |row| {
                if row != 20 && row != 170 {
                    return Ok(());
                }
                both_begun.fetch_add(1, Ordering::AcqRel);
                while both_begun.load(Ordering::Acquire) < 2 {
                    std::thread::yield_now();
                }
                act_or_fail(kind, row)
            });
            let (_, torn, source) = claim(error.unwrap_err(), &m, name);
            assert!(torn.is_empty(), "{name}: {torn:?}");
            assert!(is_source(&source, 20), "{name}: {source}");
        }
    });
}

#[test]
fn an_update_survives_what_happens_once() {
    isolated(|| {
        for &(kind, _) in &HARMS[2..] {
            let name = name(kind);
            for guard in [false, true] {
                for workers in [1, 2, 5] {
                    for block_rows in [1, 10, N_ROWS] {
                        for victim in [0, 1, 9, 77, N_ROWS - 1] {
                            if kind == ABORTS && !guard {
                                continue; // it may have written anywhere
                            }
                            let what = format!(
                                "{name} at row {victim}, guard {guard}, {workers} workers, blocks \
                                 of {block_rows}"
                            );
                            let (mut m, times) = (array(), SharedWord::new());
                            let options =
                                fork().workers(workers).block_rows(block_rows).guard(guard);
                            let report = update_with_harm(&options, &mut m, |row| {
                                if row == victim && times.fetch_add(1, Ordering::Relaxed) == 0 {
                                    act_or_fail(kind, row)
                                } else {
                                    Ok(())
                                }
                            });
                            assert_eq!(report.unwrap().deaths.len(), 1, "{what}");
                            assert!((0..N_ROWS).all(|row| is_new(&m, row)), "{what}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn an_update_under_a_killer_is_as_if_undisturbed() {
    isolated(|| {
        let kills = SharedWord::new();
        for round in 0..30 {
            let mut m = array();
            let options = fork().workers(1 + round % 3).block_rows(25).guard(round % 2 == 0);
            let report = update_with_harm(&options, &mut m, |row| {
                if kills.fetch_add(1, Ordering::Relaxed) % 61 == 60 - round as u64 {
                    raise(Signal::SIGKILL);
                }
                std::hint::black_box(row);
                Ok(())
            });
            assert!(!report.unwrap().deaths.is_empty(), "round {round}");
            assert!((0..N_ROWS).all(|row| is_new(&m, row)), "round {round}");
        }
    });
}

#[test]
fn rows_done_before_a_death_in_saving_the_next_are_updated_once() {
    isolated(|| {
        failpoints::throw(Failpoint::FirstWorkerDiesWhileSaving);
        for guard in [false, true] {
            // Two rows are saved at a time, of ten in a block.
            let width = if guard { 4096 } else { 512 };
            let mut m =
                SharedArray::<f64, _>::from_shape_fn(None, (20, width), |(i, j)| (i + j) as f64)
                    .unwrap();
            let options = fork().workers(1).block_rows(10).guard(guard);
            let report =
                options.update_rows(&mut m, |row| row.mapv_inplace(|x| x * 3.0 + 1.0)).unwrap();
            assert_eq!((report.deaths.len(), report.rerun_rows), (1, 6), "guard {guard}: {report}");
            assert!(
                m.view().indexed_iter().all(|((i, j), &x)| x == (i + j) as f64 * 3.0 + 1.0),
                "guard {guard}"
            );
            // What an error says of it is right, too.
            let mut m =
                SharedArray::<f64, _>::from_shape_fn(None, (20, width), |(i, j)| (i + j) as f64)
                    .unwrap();
            let error = options.retries(0).update_rows(&mut m, |row| {
                let failed = row.index() == 9;
                row.mapv_inplace(|x| x * 3.0 + 1.0);
                if failed { Err("row 9") } else { Ok(()) }
            });
            let Err(Error::UpdateInterrupted { updated, torn, .. }) = error else {
                panic!("guard {guard}: {error:?}")
            };
            assert!(torn.is_empty(), "guard {guard}: {torn:?}");
            for ((i, j), &x) in m.view().indexed_iter() {
                let (old, new) = ((i + j) as f64, (i + j) as f64 * 3.0 + 1.0);
                let expected = if updated.iter().any(|rows| rows.contains(&i)) { new } else { old };
                assert_eq!(x, expected, "guard {guard}: row {i}, updated {updated:?}");
            }
        }
    });
}

#[test]
fn rows_larger_than_what_is_saved_at_a_time_are_put_back_whole() {
    isolated(|| {
        let times = SharedWord::new();
        let mut m =
            SharedArray::<f64, _>::from_shape_fn(None, (6, 100_000), |(i, j)| (i + j) as f64)
                .unwrap();
        fork()
            .workers(2)
            .update_rows(&mut m, |row| {
                let index = row.index();
                row.iter_mut().take(60_000).for_each(|x| *x += 0.5);
                if index == 3 && times.fetch_add(1, Ordering::Relaxed) == 0 {
                    raise(Signal::SIGKILL);
                }
                row.iter_mut().skip(60_000).for_each(|x| *x += 0.5);
            })
            .unwrap();
        assert!(m.view().indexed_iter().all(|((i, j), &x)| x == (i + j) as f64 + 0.5));
    });
}

#[test]
fn an_error_before_any_row_is_plain_and_the_array_is_as_it_was() {
    isolated(|| {
        let mut m = array();
        let fine = |_: usize| Ok(());
        assert!(matches!(
            update_with_harm(&fork().workers(0), &mut m, fine),
            Err(Error::ZeroWorkers)
        ));
        assert!(matches!(
            update_with_harm(&fork().block_rows(0), &mut m, fine),
            Err(Error::ZeroBlockRows)
        ));
        assert!(matches!(
            update_with_harm(&fork().workers(1 << 20), &mut m, fine),
            Err(Error::TooManyWorkers { .. })
        ));
        let short = SharedArray::<f64, _>::zeros(None, N_ROWS - 1).unwrap();
        let unequal = fork().update_rows_with(&mut m, &short, |row, _| row.fill(0));
        assert!(
            matches!(
                unequal,
                Err(Error::UnequalRows { input: 1, expected: N_ROWS, found: 199, .. })
            ),
            "{unequal:?}"
        );
        let next_fd = u64::try_from(std::fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
        let (soft, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, next_fd, hard).unwrap();
        let unwatched = update_with_harm(&fork().workers(2), &mut m, fine);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(matches!(unwatched, Err(Error::Os { .. })), "{unwatched:?}");
        assert!((0..N_ROWS).all(|row| is_old(&m, row)));
    });
}

#[test]
fn the_text_of_an_interruption_says_the_cause_and_the_rows() {
    isolated(|| {
        let mut m = array();
        let options = fork().workers(1).block_rows(10);
        let error = update_with_harm(&options, &mut m, |row| {
            if row == 37 { Err("no data".into()) } else { Ok(()) }
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("the kernel failed on row 37: no data"), "{text}");
        assert!(text.ends_with("rows 0..30 are updated, all others are as they were"), "{text}");
    });
}

#[test]
fn an_update_beside_a_truncated_input_still_names_its_rows() {
    isolated(|| {
        let name = isolated::unique_name("beside");
        let beside = SharedArray::<f64, Ix2>::zeros(name.as_str(), (N_ROWS, 512)).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let mut m = array();
        let outcome =
            fork().workers(1).block_rows(10).update_rows_with(&mut m, &beside, |row, beside| {
                if row.index() == 40 {
                    std::fs::File::options()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(8192)
                        .unwrap();
                }
                let more = if beside[0] == 0.0 { 1_000_000 } else { 0 };
                row.mapv_inplace(|x| x + more);
            });
        match outcome.unwrap_err() {
            Error::UpdateInterrupted { cause: source, updated, .. } => {
                assert!(matches!(*source, Error::Truncated { .. }), "{source}");
                assert_eq!(updated, [0..40]);
                assert!((0..40).all(|row| is_new(&m, row)));
            }
            other => panic!("rows are new, and the error does not say which: {other}"),
        }
    });
}

#[test]
fn an_update_through_before_an_input_was_cut_has_all_rows_new() {
    isolated(|| {
        let name = isolated::unique_name("beside");
        let beside = SharedArray::<f64, Ix2>::zeros(name.as_str(), (N_ROWS, 512)).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let mut m = array();
        let outcome = fork().workers(1).update_rows_with(&mut m, &beside, |row, _| {
            if row.index() == N_ROWS - 1 {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            }
            row.mapv_inplace(|x| x + 1_000_000);
        });
        match outcome.unwrap_err() {
            Error::UpdateInterrupted { cause: source, updated, torn, .. } => {
                assert!(matches!(*source, Error::Truncated { .. }), "{source}");
                assert_eq!((updated, torn), (std::iter::once(0..N_ROWS).collect(), vec![]));
                assert!((0..N_ROWS).all(|row| is_new(&m, row)));
            }
            other => panic!("all rows are new, and the error does not say so: {other}"),
        }
    });
}

#[test]
fn nothing_is_said_of_the_rows_of_a_truncated_array() {
    isolated(|| {
        let name = isolated::unique_name("cut");
        let mut m = SharedArray::<i64, Ix2>::zeros(name.as_str(), (N_ROWS, 512)).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let outcome = fork().workers(1).update_rows(&mut m, |row| {
            row.fill(1);
            if row.index() == N_ROWS - 1 {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            }
        });
        assert!(matches!(outcome.unwrap_err(), Error::Truncated { actual: 8192, .. }));
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (Failpoint::RestoreNothing, name_of(an_update_survives_what_happens_once)),
        (Failpoint::RestoreNothing, name_of(an_interrupted_update_names_what_became_of_every_row)),
        (
            Failpoint::RestoreNothing,
            name_of(rows_larger_than_what_is_saved_at_a_time_are_put_back_whole),
        ),
    ]);
}
