//! A pool whose workers die, hang and are stopped, at every place of a call and between calls: the
//! results are those of [`fork()`](rowfork::fork()), to the bit, the error names the row, and the
//! pool goes on with as many workers.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{DeathCause, Error, Policy, Pool, SharedArray, fork, param};

use crate::support::harmed::matrix;
use crate::support::isolated::{is_running, isolated};
use crate::support::pooled::{
    self, ABORTS, ALWAYS, EXITS, FAULTS, Harm, KILLED, NO_HARM, PANICS, SPINS, STOPS, bits,
    count_anew, end, pool_of, until, workers_of,
};
use crate::support::shared;
use crate::transformed;

const N_ROWS: usize = 30;
const BLOCK_ROWS: usize = 6;
/// A row of the first, of a middle and of the last block: the first, a middle and the last of it.
const VICTIMS: [u64; 3] = [0, 14, 29];
/// Before, within and after the stores to the row.
const STAGES: [u64; 3] = [0, 1, 2];
const WORKERS: [usize; 3] = [1, 2, 5];
/// Deaths of which the kernel says nothing itself.
const DEATHS: [(u64, DeathCause); 4] = [
    (KILLED, DeathCause::Signalled(libc::SIGKILL)),
    (FAULTS, DeathCause::Signalled(libc::SIGSEGV)),
    (ABORTS, DeathCause::Signalled(libc::SIGABRT)),
    (EXITS, DeathCause::Exited(0)),
];

const SLACK: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Every victim, stage and guard, on a pool of each size.
fn every_case(run: impl Fn(&Pool, u64, u64, bool)) {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    for workers in WORKERS {
        let pool = pool_of(workers).build().unwrap();
        for victim in VICTIMS {
            for stage in STAGES {
                for guard in [false, true] {
                    count_anew();
                    run(&pool, victim, stage, guard);
                }
            }
        }
        let zygote = pool.stats().zygote_pid;
        until(SECOND, "as many workers as before", || workers_of(zygote).len() == workers);
    }
}

fn right(m: &SharedArray<f64, ndarray::Ix2>) -> Vec<u64> {
    bits(&transformed!(fork().workers(1), m, NO_HARM).unwrap())
}

/// The same with a row of NaN.
fn without(row: u64, mut bits: Vec<u64>) -> Vec<u64> {
    let row = usize::try_from(row).unwrap();
    bits[row * 4..row * 4 + 4].fill(f64::NAN.to_bits());
    bits
}

#[test]
fn a_death_that_happens_once_changes_no_bit_and_the_next_call_knows_nothing_of_it() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        for (kind, cause) in DEATHS {
            every_case(|pool, victim, stage, guard| {
                let what =
                    format!("{cause} at row {victim}, stage {stage}, guard {guard}, {pool:?}");
                let call = || pool.call().block_rows(BLOCK_ROWS).guard(guard).deadline(ms(10_000));
                let out = transformed!(call(), &m, [kind, victim, stage, 1])
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(bits(&out) == right, "{what}: other bits");
                let report = out.report();
                assert_eq!(report.deaths.len(), 1, "{what}: {report}");
                assert_eq!(report.deaths[0].cause, cause, "{what}");
                let start = usize::try_from(victim).unwrap() / BLOCK_ROWS * BLOCK_ROWS;
                assert_eq!(report.deaths[0].rows, Some(start..start + BLOCK_ROWS), "{what}");
                assert!(
                    report.failed_rows.is_empty() && report.missing_rows.is_empty(),
                    "{what}: {report}"
                );
                let out = transformed!(call(), &m, NO_HARM).unwrap();
                assert!(
                    bits(&out) == right && out.report().deaths.is_empty(),
                    "{what}, the next: {}",
                    out.report()
                );
            });
        }
    });
}

#[test]
fn a_row_that_always_kills_is_named_or_left_out() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        for (kind, cause) in DEATHS {
            every_case(|pool, victim, stage, guard| {
                if stage == 1 && guard {
                    return;
                } // as without
                let what =
                    format!("{cause} at row {victim}, stage {stage}, guard {guard}, {pool:?}");
                let call = || pool.call().block_rows(BLOCK_ROWS).guard(guard).deadline(ms(10_000));
                let bad: Harm = [kind, victim, stage, ALWAYS];
                let attempts = if kind == KILLED { 7 } else { 3 };
                match transformed!(call(), &m, bad).unwrap_err() {
                    Error::PoisonedRows { rows, .. } => {
                        assert_eq!(
                            (rows.len(), rows[0].row as u64, rows[0].attempts),
                            (1, victim, attempts),
                            "{what}"
                        );
                        assert_eq!(rows[0].cause, cause, "{what}");
                    }
                    other => panic!("{what}: {other}"),
                }
                let out = transformed!(call().policy(Policy::fill(f64::NAN)), &m, bad).unwrap();
                assert!(bits(&out) == without(victim, right.clone()), "{what}: other bits");
                assert_eq!(out.report().failed_rows.len(), 1, "{what}: {}", out.report());
                assert!(
                    bits(&transformed!(call(), &m, NO_HARM).unwrap()) == right,
                    "{what}: the next"
                );
            });
        }
    });
}

#[test]
fn a_row_that_panics_or_fails_is_named_or_left_out() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        every_case(|pool, victim, stage, guard| {
            let what = format!("row {victim}, stage {stage}, guard {guard}, {pool:?}");
            let call = || pool.call().block_rows(BLOCK_ROWS).guard(guard);
            let bad: Harm = [PANICS, victim, stage, ALWAYS];
            match transformed!(call(), &m, bad).unwrap_err() {
                Error::KernelPanicked { row, message, location, .. } => {
                    assert_eq!(
                        (row as u64, message),
                        (victim, format!("bad row {victim}")),
                        "{what}"
                    );
                    assert!(location.starts_with(pooled::FILE), "{what}: {location}");
                }
                other => panic!("{what}: {other}"),
            }
            let out = transformed!(call().policy(Policy::fill(f64::NAN)), &m, bad).unwrap();
            assert!(bits(&out) == without(victim, right.clone()), "{what}");
            assert!(out.report().deaths.is_empty(), "{what}: {}", out.report());
            let failed = call().map_rows((&m, param(victim)), |(row, bad)| {
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

#[test]
fn a_row_that_hangs_is_found_by_the_stall_limit_or_ended_by_the_deadline() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        for workers in [1, 2] {
            let pool = pool_of(workers).build().unwrap();
            let call = || pool.call().block_rows(BLOCK_ROWS);
            for kind in [SPINS, STOPS] {
                count_anew();
                let began = Instant::now();
                let out = transformed!(call().stall_limit(ms(100)), &m, [kind, 14, 1, 1]).unwrap();
                assert!(bits(&out) == right, "{kind}: {}", out.report());
                assert_eq!(out.report().deaths.len(), 1, "{}", out.report());
                count_anew();
                let out = transformed!(
                    call().stall_limit(ms(100)).policy(Policy::fill(f64::NAN)),
                    &m,
                    [SPINS, 14, 1, ALWAYS]
                )
                .unwrap();
                assert!(bits(&out) == without(14, right.clone()), "{kind}: {}", out.report());
                count_anew();
                let deadline = transformed!(call().deadline(ms(200)), &m, [kind, 14, 1, ALWAYS]);
                assert!(matches!(
                    deadline.unwrap_err(),
                    Error::DeadlineExceeded { rows_total: N_ROWS, .. }
                ));
                let filled = transformed!(
                    call().deadline(ms(200)).policy(Policy::fill(f64::NAN)),
                    &m,
                    [kind, 14, 1, ALWAYS]
                )
                .unwrap();
                assert_eq!(filled.missing_rows().len(), 1, "{}", filled.report());
                assert!(began.elapsed() < ms(1200) + SLACK, "{:?}", began.elapsed());
                assert!(bits(&transformed!(call(), &m, NO_HARM).unwrap()) == right);
            }
        }
    });
}

#[test]
fn a_worker_that_does_not_die_is_an_error_that_names_it_and_the_end_of_the_pool() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        for deadline in [false, true] {
            count_anew();
            let pool = pool_of(1).build().unwrap();
            let worker = pool.stats().worker_pids[0];
            let call = || {
                if deadline {
                    pool.call().deadline(ms(200))
                } else {
                    pool.call().stall_limit(ms(200))
                }
            };
            failpoints::throw(Failpoint::UnkillableWorkers);
            let began = Instant::now();
            let outcome = transformed!(call(), &m, [SPINS, 14, 1, ALWAYS]).map(drop);
            let took = began.elapsed();
            failpoints::release(Failpoint::UnkillableWorkers);
            match outcome.unwrap_err() {
                Error::WorkerUnkillable { pid, waited, .. } => {
                    assert_eq!((pid, waited), (worker, ms(5000)));
                }
                other => panic!("{other}"),
            }
            assert!((ms(5200)..ms(5200) + SLACK).contains(&took), "{took:?}");
            assert!(is_running(worker), "it has died after all");
            match transformed!(pool, &m, NO_HARM).map(drop).unwrap_err() {
                Error::PoolBroken { reason, .. } => {
                    assert!(reason.contains(&worker.to_string()), "{reason}");
                }
                other => panic!("{other}"),
            }
            drop(pool);
            assert!(!is_running(worker), "it outlives the pool");
        }
    });
}

#[test]
fn an_idle_worker_that_is_killed_is_replaced_without_a_call() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        let pool = pool_of(2).build().unwrap();
        let zygote = pool.stats().zygote_pid;
        let mut longest = Duration::ZERO;
        for round in 0..20 {
            let before = workers_of(zygote);
            assert_eq!(before.len(), 2, "round {round}");
            let victim = *before.iter().nth(round % 2).unwrap();
            end(victim);
            let took = until(SECOND, "a replacement", || {
                let now = workers_of(zygote);
                now.len() == 2 && !now.contains(&victim)
            });
            longest = longest.max(took);
            let out = transformed!(pool.call().block_rows(BLOCK_ROWS), &m, NO_HARM).unwrap();
            assert!(bits(&out) == right && out.report().failed_rows.is_empty(), "round {round}");
        }
        println!("FIGURE an idle worker is replaced within {longest:.1?} at most");
        assert!(longest < SECOND, "{longest:?}");
        assert_eq!(pool.stats().deaths, 20);
        until(SECOND, "two workers", || pool.stats().worker_pids.len() == 2);
    });
}

#[test]
fn a_worker_killed_in_a_call_is_back_within_it() {
    isolated(|| {
        let m = matrix(200, 4);
        let pool = pool_of(2).build().unwrap();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            count_anew();
            // The kernel says when, and any worker that comes after says how late it is.
            let began = Instant::now();
            let out = transformed!(pool.call().workers(1).block_rows(1), &m, [KILLED, 100, 1, 1])
                .unwrap();
            longest = longest.max(began.elapsed());
            assert_eq!(out.report().deaths.len(), 1);
        }
        println!("FIGURE a call of 200 short rows and one death takes {longest:.1?} at most");
        assert!(longest < SECOND, "{longest:?}");
    });
}

#[test]
fn a_worker_that_is_stopped_while_idle_holds_up_no_call_with_a_limit() {
    isolated(|| {
        let m = matrix(N_ROWS, 4);
        let right = right(&m);
        for workers in [1, 2] {
            let pool = pool_of(workers).build().unwrap();
            for round in 0..2 {
                // Or it is stopped while it prepares itself, which has a limit of its own.
                std::thread::sleep(ms(30));
                let pids = pool.stats().worker_pids;
                kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
                let began = Instant::now();
                let out = transformed!(
                    pool.call().block_rows(BLOCK_ROWS).stall_limit(ms(100)),
                    &m,
                    NO_HARM
                )
                .unwrap();
                assert!(
                    bits(&out) == right && out.report().failed_rows.is_empty(),
                    "{workers}, {round}: {}",
                    out.report()
                );
                assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
            }
            let pids = pool.stats().worker_pids;
            kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
            let ended = transformed!(pool.call().workers(1).deadline(ms(150)), &m, NO_HARM);
            // Only the stopped one may work. It is let go, and the next call has another.
            assert!(matches!(ended.map(drop), Err(Error::DeadlineExceeded { .. })));
            assert!(bits(&transformed!(pool.call(), &m, NO_HARM).unwrap()) == right);
        }
    });
}

#[test]
fn an_update_in_place_survives_a_death_or_says_what_it_has_changed() {
    isolated(|| {
        let pool = pool_of(2).build().unwrap();
        let before = matrix(N_ROWS, 4);
        for guard in [false, true] {
            for stage in STAGES {
                for (kind, _) in [&DEATHS[0], &DEATHS[3]] {
                    for times in [1, ALWAYS] {
                        count_anew();
                        let mut array = SharedArray::copy_from(None, &before.view()).unwrap();
                        let call = pool.call().block_rows(BLOCK_ROWS).guard(guard);
                        let bad: Harm = [*kind, 14, stage, times];
                        let updated = call.update_rows_with(
                            &mut array,
                            (param(bad), &before),
                            |row, (bad, same)| {
                                let index = row.index();
                                pooled::harm(bad, index, 0);
                                row[0] += same[0] * 2.0;
                                pooled::harm(bad, index, 1);
                                row[1] += 1.0;
                                pooled::harm(bad, index, 2);
                            },
                        );
                        let is_updated = |row: usize| {
                            let (new, old) = (array.view(), before.view());
                            new[[row, 0]] == old[[row, 0]] * 2.0 + old[[row, 0]]
                                && new[[row, 1]] == old[[row, 1]] + 1.0
                        };
                        let is_as_before =
                            |row: usize| array.view().row(row) == before.view().row(row);
                        match updated {
                            Ok(report) => {
                                assert!(times == 1 && report.deaths.len() == 1, "{report}");
                                assert!((0..N_ROWS).all(is_updated), "{report}");
                            }
                            Err(Error::UpdateInterrupted {
                                cause: source, updated, torn, ..
                            }) => {
                                let what = format!("{source}: {updated:?}, torn {torn:?}");
                                assert!(torn.iter().all(|rows| *rows == (14..15)), "{what}");
                                let is_in = |ranges: &[std::ops::Range<usize>], row| {
                                    ranges.iter().any(|rows| rows.contains(&row))
                                };
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
                                assert!(
                                    times == ALWAYS && (0..N_ROWS).all(is_as_before),
                                    "{other}"
                                );
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_fold_has_the_same_bits_whoever_dies_while_it_folds_or_combines() {
    isolated(|| {
        let m = matrix(1000, 4);
        let sum = |pool: &Pool, bad: Harm, guard| {
            let folded = pool.call().guard(guard).deadline(ms(10_000)).fold_rows(
                (&m, param(bad)),
                0.0,
                |sum, (row, bad)| {
                    pooled::harm(bad, row.index(), 0);
                    *sum += row.sum().sqrt();
                    pooled::harm(bad, row.index(), 1);
                },
                |sum, other| {
                    // The combining worker alone comes here: it dies once, if a row of this number
                    // is to.
                    if TWICE.load(Ordering::Relaxed) == 1
                        && pooled::TIMES.fetch_add(1, Ordering::AcqRel) == 0
                    {
                        shared::raise(Signal::SIGKILL);
                    }
                    *sum += other;
                },
            );
            folded.map(|sum| (sum.to_bits(), sum.report().deaths.len()))
        };
        std::sync::LazyLock::force(&TWICE).store(0, Ordering::Relaxed);
        let pool = pool_of(2).build().unwrap();
        let expected = fork()
            .fold_rows(&m, 0.0, |sum, row| *sum += row.sum().sqrt(), |sum, other| *sum += other)
            .unwrap();
        assert_eq!(sum(&pool, NO_HARM, false).unwrap(), (expected.to_bits(), 0));
        for (kind, _) in DEATHS {
            for victim in [0, 500, 999] {
                for guard in [false, true] {
                    count_anew();
                    assert_eq!(
                        sum(&pool, [kind, victim, 1, 1], guard).unwrap(),
                        (expected.to_bits(), 1),
                        "{kind} {victim} {guard}"
                    );
                }
            }
        }
        TWICE.store(1, Ordering::Relaxed);
        count_anew();
        assert_eq!(
            sum(&pool, NO_HARM, false).unwrap(),
            (expected.to_bits(), 1),
            "in the combination"
        );
    });
}

/// Whether the combining worker dies.
static TWICE: std::sync::LazyLock<shared::SharedWord> =
    std::sync::LazyLock::new(shared::SharedWord::new);
