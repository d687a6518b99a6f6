//! The crash table: a worker dies of every cause there is, in the first, a middle and the last
//! block, before, within and after its stores to the row, among 1, 2 and 5 workers, unguarded and
//! guarded, forked for the call and of a pool. If it dies once, the result is as if it had not; if
//! it always dies, the row is named, or left out. The next call knows nothing of it.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::ops::Range;
use std::time::Duration;

use ndarray::Ix2;
use nix::sys::resource::{Resource, setrlimit};
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, Policy, Pool, Report, SharedArray, fork, param};

use crate::support::executors::{Either, Place};
use crate::support::harm::{
    self, ALWAYS, CRASHES, Crash, Harm, NO_HARM, PANICS, PANICS_TWICE, bits, count_anew, matrix,
    name,
};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::pooled::{pool_of, until, workers_of};
use crate::transformed;

const N_ROWS: usize = 30;
const BLOCK_ROWS: usize = 6;
/// A row of the first, of a middle and of the last block: the first, a middle and the last of it.
const VICTIMS: [usize; 3] = [0, 14, 29];
/// How far the kernel is with its row: before, within and after its stores.
const STAGES: [u64; 3] = [0, 1, 2];
const WORKERS: [usize; 3] = [1, 2, 5];

const SECOND: Duration = Duration::from_secs(1);

/// What every place of the table has.
struct Given {
    m: SharedArray<f64, Ix2>,
    /// The result of a call in which nothing happens.
    right: Vec<u64>,
}

/// One place in the table.
struct Case<'a> {
    given: &'a Given,
    kind: u64,
    place: Place,
    pool: &'a Pool,
    victim: usize,
    stage: u64,
    workers: usize,
    guard: bool,
}

impl<'a> Case<'a> {
    fn call(&self) -> Either<'a> {
        let call = match self.place {
            Place::Fork => Either::Fork(fork().workers(self.workers)),
            Place::Pool | Place::Inline => Either::Pool(self.pool.call().deadline(10 * SECOND)),
        };
        call.block_rows(BLOCK_ROWS).guard(self.guard)
    }

    /// Of the block that the victim lies in.
    fn rows(&self) -> Range<usize> {
        let start = self.victim / BLOCK_ROWS * BLOCK_ROWS;
        start..start + BLOCK_ROWS
    }

    /// The harm of this place, so many times.
    fn harm(&self, times: u64) -> Harm {
        [self.kind, self.victim as u64, self.stage, times]
    }

    fn transformed(&self, call: &Either<'_>, times: u64) -> rowfork::Result<(Vec<u64>, Report)> {
        let (out, report) = transformed!(call, &self.given.m, self.harm(times))?.into_parts();
        Ok((bits(&out), report))
    }

    /// The right result with NaN for the row of the victim.
    fn without_victim(&self) -> Vec<u64> {
        let mut bits = self.given.right.clone();
        bits[self.victim * 4..self.victim * 4 + 4].fill(f64::NAN.to_bits());
        bits
    }

    fn assert_next_call_is_right(&self, what: &str) {
        let out = transformed!(self.call(), &self.given.m, NO_HARM).unwrap();
        let report = out.report();
        assert!(bits(&out) == self.given.right, "{what}, the next: other bits: {report}");
        assert!(report.deaths.is_empty(), "{what}, the next: {report}");
    }

    /// Whether this is what is to be said of a worker that has died here. A fault is reported with
    /// the caller's address of the row, wherever the worker has it.
    fn is_cause(&self, crash: &Crash, cause: &DeathCause) -> bool {
        (crash.is_cause)(cause, self.given.m.as_ptr().wrapping_add(4 * self.victim).addr())
    }

    fn name(&self) -> String {
        let Self { kind, place, victim, stage, workers, guard, .. } = self;
        format!(
            "{}: {} at stage {stage} of row {victim}, {workers} workers, guard {guard}",
            place,
            name(*kind)
        )
    }
}

/// Every place of the table for harm of these kinds.
fn every_place(kinds: &[u64], run: impl Fn(&Case<'_>, &str)) {
    // Thousands of workers crash here, and nobody wants a file of each.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    let m = matrix(N_ROWS, 4);
    let right = bits(&transformed!(fork().workers(1), &m, NO_HARM).unwrap());
    let given = &Given { m, right };
    for workers in WORKERS {
        let pool = &pool_of(workers).build().unwrap();
        let zygote = pool.stats().zygote_pid;
        for &kind in kinds {
            for place in [Place::Fork, Place::Pool] {
                for victim in VICTIMS {
                    for stage in STAGES {
                        for guard in [false, true] {
                            count_anew();
                            let case =
                                Case { given, kind, place, pool, victim, stage, workers, guard };
                            run(&case, &case.name());
                        }
                    }
                }
            }
            until(10 * SECOND, "as many workers as before", || workers_of(zygote).len() == workers);
        }
    }
}

/// Every place of the table for every crash.
fn every_crash(run: impl Fn(&Crash, &Case<'_>, &str)) {
    let kinds = CRASHES.map(|crash| crash.kind);
    every_place(&kinds, |case, what| {
        let crash = CRASHES.iter().find(|crash| crash.kind == case.kind);
        run(crash.expect("a crash"), case, what);
    });
}

#[test]
fn a_crash_that_happens_once_changes_no_bit() {
    isolated(|| {
        every_crash(|crash, case, what| {
            let (bits, report) =
                case.transformed(&case.call(), 1).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bits == case.given.right, "{what}: other bits");
            assert_eq!(report.deaths.len(), 1, "{what}: {report}");
            assert!(
                case.is_cause(crash, &report.deaths[0].cause),
                "{what}: {}",
                report.deaths[0].cause
            );
            assert_eq!(report.deaths[0].rows, Some(case.rows()), "{what}");
            assert!(
                report.failed_rows.is_empty() && report.missing_rows.is_empty(),
                "{what}: {report}"
            );
            // What is run again: the block; after a crash all rows, or those of the worker.
            match (crash.wild, case.guard) {
                (false, _) => assert_eq!(report.rerun_rows, BLOCK_ROWS, "{what}"),
                (true, false) => assert_eq!(report.rerun_rows, BLOCK_ROWS + N_ROWS, "{what}"),
                (true, true) if case.workers == 1 => {
                    assert_eq!(report.rerun_rows, case.rows().end, "{what}");
                }
                (true, true) => {
                    let rerun = report.rerun_rows;
                    assert!(rerun.is_multiple_of(BLOCK_ROWS), "{what}: {rerun}");
                    assert!((BLOCK_ROWS..=N_ROWS).contains(&rerun), "{what}: {rerun}");
                }
            }
            case.assert_next_call_is_right(what);
        });
    });
}

#[test]
fn a_row_that_always_crashes_is_the_one_that_the_error_names() {
    isolated(|| {
        every_crash(|crash, case, what| {
            match case.transformed(&case.call(), ALWAYS).unwrap_err() {
                Error::PoisonedRows { rows, .. } => {
                    assert_eq!(
                        (rows.len(), rows[0].row, rows[0].attempts),
                        (1, case.victim, crash.attempts),
                        "{what}"
                    );
                    assert!(case.is_cause(crash, &rows[0].cause), "{what}: {}", rows[0].cause);
                    assert!(rows[0].worker < case.workers, "{what}");
                }
                other => panic!("{what}: {other}"),
            }
            case.assert_next_call_is_right(what);
        });
    });
}

#[test]
fn a_row_that_always_crashes_is_the_only_one_that_is_left_out() {
    isolated(|| {
        every_crash(|crash, case, what| {
            let (bits, report) = case
                .transformed(&case.call().policy(Policy::fill(f64::NAN)), ALWAYS)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bits == case.without_victim(), "{what}: other bits");
            assert_eq!(report.failed_rows.len(), 1, "{what}: {report}");
            let failed = &report.failed_rows[0];
            assert_eq!((failed.row, failed.attempts), (case.victim, crash.attempts), "{what}");
            assert!(case.is_cause(crash, &failed.cause), "{what}: {}", failed.cause);
            assert_eq!(report.missing_rows, [case.victim..case.victim + 1], "{what}");
            // Once among the other rows of its block, the others alone.
            let deaths = crash.attempts as usize + 1;
            assert_eq!(
                (report.deaths.len(), report.ended_early),
                (deaths, None),
                "{what}: {report}"
            );
            case.assert_next_call_is_right(what);
        });
    });
}

#[test]
fn a_row_that_panics_is_the_one_that_is_named_or_left_out() {
    isolated(|| {
        every_place(&[PANICS, PANICS_TWICE], |case, what| {
            let victim = case.victim;
            let is_message = |message: &str| match case.kind {
                PANICS => message == format!("bad row {victim}"),
                _ => message.contains("and again"),
            };
            match case.transformed(&case.call(), ALWAYS).unwrap_err() {
                Error::KernelPanicked { row, message, location, .. } => {
                    assert!(row == victim && is_message(&message), "{what}: {row} {message}");
                    assert!(location.starts_with(harm::FILE), "{what}: {location}");
                }
                other => panic!("{what}: {other}"),
            }
            let filling = case.call().policy(Policy::fill(f64::NAN));
            let (bits, report) = case.transformed(&filling, ALWAYS).unwrap();
            assert!(bits == case.without_victim(), "{what}: other bits");
            assert_eq!(report.failed_rows.len(), 1, "{what}: {report}");
            let failed = &report.failed_rows[0];
            assert_eq!((failed.row, failed.attempts), (victim, 1), "{what}");
            assert!(
                matches!(
                    &failed.cause,
                    DeathCause::Panicked { message, .. } if is_message(message)
                ),
                "{what}: {}",
                failed.cause
            );
            assert_eq!(report.missing_rows, [victim..victim + 1], "{what}");
            assert!(report.deaths.is_empty(), "{what}: {report}");
        });
    });
}

#[test]
fn of_rows_that_fail_the_first_is_the_one_that_the_error_names() {
    isolated(|| {
        every_place(&[harm::FAILS], |case, what| {
            let victim = case.victim as u64;
            let failed = case.call().map_rows((&case.given.m, param(victim)), |(row, bad)| {
                if row.index() as u64 >= bad {
                    Err(format!("no {}", row.index()))
                } else {
                    Ok(row[0])
                }
            });
            match failed.unwrap_err() {
                Error::KernelFailed { row, message, .. } => {
                    assert_eq!((row as u64, message), (victim, format!("no {victim}")), "{what}");
                }
                other => panic!("{what}: {other}"),
            }
        });
    });
}

/// What an update writes, with harm before, within and after its stores.
fn updated(
    call: &Either<'_>,
    array: &mut SharedArray<f64, Ix2>,
    before: &SharedArray<f64, Ix2>,
    harm: Harm,
) -> rowfork::Result<Report> {
    call.update_rows_with(array, (param(harm), before), |row, (harm, same)| {
        let index = row.index();
        let address = same.as_ptr().expose_provenance();
        harm::harm_at(harm, index, 0, address);
        row[0] += same[0] * 2.0;
        harm::harm_at(harm, index, 1, address);
        row[1] += 1.0;
        harm::harm_at(harm, index, 2, address);
    })
}

#[test]
fn an_update_in_place_survives_a_crash_or_says_what_it_changed() {
    isolated(|| {
        every_crash(|crash, case, what| {
            let before = &case.given.m;
            for times in [1, ALWAYS] {
                count_anew();
                let mut array = SharedArray::copy_from(None, &before.view()).unwrap();
                let outcome = updated(&case.call(), &mut array, before, case.harm(times));
                let (new, old) = (array.view(), before.view());
                let is_updated = |row: usize| {
                    new[[row, 0]] == old[[row, 0]] * 2.0 + old[[row, 0]]
                        && new[[row, 1]] == old[[row, 1]] + 1.0
                };
                let is_as_before = |row: usize| new.row(row) == old.row(row);
                // Without a guard nobody knows what a crash has written to.
                let survives = times == 1 && (case.guard || !crash.wild);
                match outcome {
                    Ok(report) => {
                        assert!(survives && report.deaths.len() == 1, "{what}: {report}");
                        assert!((0..N_ROWS).all(is_updated), "{what}: {report}");
                    }
                    Err(Error::UpdateInterrupted { cause, updated, torn, .. }) => {
                        let what = format!("{what}: {cause}: {updated:?}, torn {torn:?}");
                        assert!(!survives, "{what}");
                        let victim = case.victim..case.victim + 1;
                        assert!(torn.iter().all(|rows| *rows == victim), "{what}");
                        let is_in =
                            |ranges: &[Range<usize>], row| ranges.iter().any(|r| r.contains(&row));
                        for row in 0..N_ROWS {
                            let so = match (is_in(&updated, row), is_in(&torn, row)) {
                                (true, _) => is_updated(row),
                                (_, true) => true,
                                _ => is_as_before(row),
                            };
                            assert!(so, "row {row}, {what}");
                        }
                    }
                    Err(other) => {
                        assert!(!survives && (0..N_ROWS).all(is_as_before), "{what}: {other}");
                    }
                }
            }
        });
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::PoisonWithoutRunAlone,
            name_of(a_row_that_always_crashes_is_the_only_one_that_is_left_out),
        ),
        (Failpoint::WritableSegments, name_of(a_crash_that_happens_once_changes_no_bit)),
    ]);
}
