//! A pool whose workers die, hang and are stopped, in calls and between calls: the results are
//! those of [`fork()`](rowfork::fork()), to the bit, and the pool goes on with as many workers. The
//! table of crashes, for both executors, is in `tests/faults/crash_table.rs`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{Error, Policy, Pool, SharedArray, fork, param};

use crate::support::harm::{
    self, ABORTS, ALWAYS, EXITS, FAULTS, Harm, KILLED, NO_HARM, SPINS, STOPS, bits, count_anew,
    matrix, name,
};
use crate::support::isolated::{is_running, isolated};
use crate::support::pooled::{end, pool_of, until, workers_of};
use crate::support::shared;
use crate::transformed;

const N_ROWS: usize = 30;
const BLOCK_ROWS: usize = 6;
const SLACK: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
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
fn the_stall_limit_finds_a_row_that_hangs_or_a_deadline_ends_it() {
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
                assert!(bits(&out) == right, "{}: {}", name(kind), out.report());
                assert_eq!(out.report().deaths.len(), 1, "{}", out.report());
                count_anew();
                let out = transformed!(
                    call().stall_limit(ms(100)).policy(Policy::fill(f64::NAN)),
                    &m,
                    [SPINS, 14, 1, ALWAYS]
                )
                .unwrap();
                assert!(
                    bits(&out) == without(14, right.clone()),
                    "{}: {}",
                    name(kind),
                    out.report()
                );
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
fn a_worker_that_does_not_die_is_named_and_ends_the_pool() {
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
            let took = until(10 * SECOND, "a replacement", || {
                let now = workers_of(zygote);
                now.len() == 2 && !now.contains(&victim)
            });
            longest = longest.max(took);
            let out = transformed!(pool.call().block_rows(BLOCK_ROWS), &m, NO_HARM).unwrap();
            assert!(bits(&out) == right && out.report().failed_rows.is_empty(), "round {round}");
        }
        println!("FIGURE an idle worker is replaced within {longest:.1?} at most");
        assert_eq!(pool.stats().deaths, 20);
        until(10 * SECOND, "two workers", || pool.stats().worker_pids.len() == 2);
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
fn an_idle_worker_that_is_stopped_holds_up_no_call_with_a_limit() {
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
fn a_death_in_folding_or_combining_changes_no_bit() {
    isolated(|| {
        let m = matrix(1000, 4);
        let sum = |pool: &Pool, bad: Harm, guard| {
            let folded = pool.call().guard(guard).deadline(ms(10_000)).fold_rows(
                (&m, param(bad)),
                0.0,
                |sum, (row, bad)| {
                    harm::harm(bad, row.index(), 0);
                    *sum += row.sum().sqrt();
                    harm::harm(bad, row.index(), 1);
                },
                |sum, other| {
                    // The combining worker alone comes here: it dies once, if a row of this number
                    // is to.
                    if TWICE.load(Ordering::Relaxed) == 1
                        && harm::TIMES.fetch_add(1, Ordering::AcqRel) == 0
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
        for kind in [KILLED, FAULTS, ABORTS, EXITS] {
            for victim in [0, 500, 999] {
                for guard in [false, true] {
                    count_anew();
                    assert_eq!(
                        sum(&pool, [kind, victim, 1, 1], guard).unwrap(),
                        (expected.to_bits(), 1),
                        "{} {victim} {guard}",
                        name(kind)
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
