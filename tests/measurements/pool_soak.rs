//! What calls on a pool leave behind in the caller, the zygote and the workers: nothing, after ten
//! thousand calls and after a hundred thousand; and every operation while somebody kills the
//! workers.
//!
//! The long ones, some minutes: `cargo measure pool_soak`

#![allow(clippy::large_stack_arrays, reason = "a parameter that is longer than the board")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::Ix2;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Policy, Pool, SharedArray, fork, param};

use crate::support::disturbance::Random;
use crate::support::harm::{self, DAWDLES, NO_HARM, bits, matrix};
use crate::support::isolated::{isolated, unique_name};
use crate::support::pooled::{end, pool_of, until, workers_of};
use crate::support::process_resources::ProcessResources;
use crate::transformed;

const SECOND: Duration = Duration::from_secs(1);

/// Of the caller, the zygote and the workers.
fn holdings_of_all(pool: &Pool) -> Vec<ProcessResources> {
    let stats = pool.stats();
    let others = [stats.zygote_pid].into_iter().chain(stats.worker_pids).map(i32::cast_unsigned);
    std::iter::once(std::process::id()).chain(others).map(ProcessResources::of).collect()
}

fn kib(pid: i32, what: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// One call of a sort that comes up as `round` goes on, with arrays that come and go.
fn call(pool: &Pool, round: usize, m: &SharedArray<f64, Ix2>, right: &[u64], name: &str) {
    match round % 8 {
        0 => {
            let fresh = matrix(50, 4);
            drop(pool.map_rows(&fresh, |row| row[0]).unwrap());
        }
        1 => drop(
            pool.map_rows(m, |row| if row.index() == 7 { Err("no") } else { Ok(row[0]) })
                .unwrap_err(),
        ),
        2 => {
            let named = SharedArray::<f64, _>::zeros(name, (20, 4)).unwrap();
            drop(pool.map_rows((&named, param(2.0)), |(row, x)| row[0] + x).unwrap());
        }
        3 => drop(
            pool.fold_rows(m, 0.0, |sum, row| *sum += row[0], |sum, other| *sum += other).unwrap(),
        ),
        4 => drop(pool.row_sums(m).unwrap()),
        5 => {
            // Longer than the board is.
            let long = [round as u64; 5000];
            let out = pool.map_rows((m, param(long)), |(row, long)| long[row.index()]).unwrap();
            assert_eq!(out.as_slice()[3], round as u64);
        }
        _ => assert!(bits(&transformed!(pool, m, NO_HARM).unwrap()) == right, "round {round}"),
    }
}

fn soak(calls: usize) {
    const WARM_UP: usize = 1000;
    let (m, name) = (matrix(100, 4), unique_name("soak"));
    let pool = pool_of(2).build().unwrap();
    let right = bits(&transformed!(pool, &m, NO_HARM).unwrap());
    (0..WARM_UP).for_each(|round| call(&pool, round, &m, &right, &name));
    (0..40).filter(|round| round % 8 != 1).for_each(|round| call(&pool, round, &m, &right, &name));
    std::thread::sleep(Duration::from_millis(20));
    let before = holdings_of_all(&pool);
    let began = Instant::now();
    (0..calls).for_each(|round| call(&pool, round, &m, &right, &name));
    let took = began.elapsed();
    // A failed call has ended its workers: those who come after them hold less at first.
    (0..40).filter(|round| round % 8 != 1).for_each(|round| call(&pool, round, &m, &right, &name));
    let grown = |now: &[ProcessResources]| {
        let more = |(now, before): (&ProcessResources, &ProcessResources)| {
            now.descriptors > before.descriptors
                || now.mappings > before.mappings + 8
                || now.anonymous_kib > before.anonymous_kib + 2048
        };
        now.len() != before.len() || now.iter().zip(&before).any(more)
    };
    let began = Instant::now();
    // Who has just been told to let go of an array is given a moment.
    while grown(&holdings_of_all(&pool)) && began.elapsed() < SECOND {
        std::thread::sleep(Duration::from_millis(5));
    }
    let now = holdings_of_all(&pool);
    println!("FIGURE {calls} calls in {took:.1?}: before {before:?}, after {now:?}");
    assert!(!grown(&now), "{now:?}, before {before:?}");
}

/// Calls of every sort, while workers are killed and stopped.
#[allow(clippy::too_many_lines, reason = "one arm for each operation")]
fn chaos(calls: usize, seed: u64) {
    let m = matrix(200, 4);
    let pool = pool_of(3).stall_limit(Duration::from_millis(250)).build().unwrap();
    let zygote = pool.stats().zygote_pid;
    let right = bits(&transformed!(fork().workers(1), &m, NO_HARM).unwrap());
    let sum = *fork()
        .fold_rows(&m, 0.0, |sum, row| *sum += row.sum(), |sum, other| *sum += other)
        .unwrap();
    let over = AtomicBool::new(false);
    let (mut deaths, mut rerun, mut longest) = (0, 0, Duration::ZERO);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut random, mut sent) = (Random(seed | 1), 0);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(random.below(6000)));
                let workers: Vec<i32> = workers_of(zygote).into_iter().collect();
                if workers.is_empty() {
                    continue;
                }
                sent += 1;
                let victim = random.pick(&workers);
                if random.one_in(20) {
                    let _ = kill(Pid::from_raw(victim), Signal::SIGSTOP);
                } else {
                    end(victim);
                }
            }
            sent
        });
        let end_of_it = OnDrop(&over);
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9) | 1);
        for round in 0..calls {
            let began = Instant::now();
            let what = format!("seed {seed}, round {round}");
            let call = pool
                .call()
                .workers(1 + random.count(3))
                .guard(random.one_in(2))
                .block_rows(1 + random.count(60));
            let call = if random.one_in(2) { call.policy(Policy::fill(-7.0)) } else { call };
            let harm = [DAWDLES, 0, 0, random.below(60)];
            let report = match random.below(4) {
                0 | 1 => {
                    let (out, report) = transformed!(call, &m, harm)
                        .unwrap_or_else(|e| panic!("{what}: {e}"))
                        .into_parts();
                    assert!(bits(&out) == right, "{what}: {report}");
                    report
                }
                2 => {
                    let folded = call.fold_rows(
                        (&m, param(harm)),
                        0.0,
                        |sum, (row, harm)| {
                            harm::harm(harm, row.index(), 0);
                            *sum += row.sum();
                        },
                        |sum, other| *sum += other,
                    );
                    let (folded, report) =
                        folded.unwrap_or_else(|e| panic!("{what}: {e}")).into_parts();
                    assert_eq!(folded.to_bits(), sum.to_bits(), "{what}: {report}");
                    report
                }
                _ => {
                    let mut own = SharedArray::copy_from(None, &m.view()).unwrap();
                    let updated = call.update_rows_with(&mut own, param(harm), |row, harm| {
                        harm::harm(harm, row.index(), 0);
                        *row *= 3.0;
                    });
                    match updated {
                        Ok(report) => {
                            assert!(
                                own.as_slice()
                                    .iter()
                                    .zip(m.as_slice())
                                    .all(|(new, old)| *new == old * 3.0),
                                "{what}"
                            );
                            report
                        }
                        // A worker that is killed while it restores.
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            };
            assert!(
                report.failed_rows.is_empty() && report.ended_early.is_none(),
                "{what}: {report}"
            );
            deaths += report.deaths.len();
            rerun += report.rerun_rows;
            longest = longest.max(began.elapsed());
            assert!(began.elapsed() < 20 * SECOND, "{what}: {:?}", began.elapsed());
        }
        drop(end_of_it);
        println!(
            "FIGURE {calls} calls, {} signals sent, {deaths} deaths in calls, {} in all, {rerun} \
             rows run again, the longest call {longest:.0?}",
            killer.join().unwrap(),
            pool.stats().deaths
        );
    });
    assert!(pool.stats().deaths > calls as u64 / 20, "not disturbed");
    until(SECOND, "three workers", || workers_of(zygote).len() == 3);
    assert!(bits(&transformed!(pool, &m, NO_HARM).unwrap()) == right);
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn ten_thousand_calls_leave_nothing_in_any_process_of_a_pool() {
    isolated(|| {
        soak(10_000);
    });
}

#[test]
#[ignore = "a minute: cargo measure pool_soak"]
fn a_hundred_thousand_calls_leave_nothing_in_a_pools_processes() {
    isolated(|| {
        soak(100_000);
    });
}

#[test]
fn three_hundred_calls_are_right_among_kills_and_stops() {
    isolated(|| {
        let seed = std::env::var("ROWFORK_TEST_SEED").map_or(20_261, |seed| seed.parse().unwrap());
        chaos(300, seed);
    });
}

#[test]
#[ignore = "a minute: cargo measure pool_soak"]
fn five_thousand_calls_are_right_among_kills_and_stops() {
    isolated(|| {
        chaos(5000, 1);
    });
}

#[test]
fn a_dropped_arrays_memory_is_free_though_the_pool_is_idle() {
    isolated(|| {
        let pool = pool_of(2).build().unwrap();
        let used = || nix::sys::statvfs::statvfs("/dev/shm").unwrap();
        let mapped =
            || pool.stats().worker_pids.into_iter().map(|pid| kib(pid, "RssShmem:")).max().unwrap();
        let before = mapped();
        let large = SharedArray::<f64, Ix2>::zeros(None, (1 << 13, 1 << 10)).unwrap();
        drop(pool.map_rows(&large, |row| row.sum()).unwrap());
        assert!(mapped() > before + (16 << 10), "both workers were at it");
        let with = used().blocks_free();
        drop(large);
        until(SECOND, "let go of by idle workers", || mapped() < before + 1024);
        // Others use /dev/shm, too: most of it is seen to come back.
        let free_again = || (used().blocks_free().saturating_sub(with)) * used().fragment_size();
        println!("FIGURE {} MiB of 64 came back", free_again() >> 20);
        assert_eq!(pool.stats().mapped_arrays, 0, "and counted");
        let maps: Vec<String> = pool
            .stats()
            .worker_pids
            .iter()
            .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap())
            .collect();
        assert!(maps.iter().all(|maps| !maps.contains("/dev/shm")), "{maps:?}");
    });
}
