//! What the workers of a pool have from one call to the next, what they cost between calls, and how
//! they end.
#![allow(unsafe_code, reason = "raises a signal that nix does not name")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ndarray::Ix1;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Error, Policy, Pool, Progress, SharedArray, broadcast, param};

use crate::support::isolated::{is_running, isolated};
use crate::support::pooled::until;
use crate::support::shared::SharedWord;

const SECOND: Duration = Duration::from_secs(1);

/// Processor time of a process so far, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// The processes that rows of a call were run by.
fn pids_in(pool: &Pool) -> BTreeSet<u32> {
    let pids = pool
        .run_tasks(64, |_| {
            std::thread::sleep(Duration::from_micros(500)); // so that every worker has a share
            std::process::id()
        })
        .unwrap();
    pids.as_slice().iter().copied().collect()
}

thread_local! {
    static FROM_INIT: Cell<u64> = const { Cell::new(0) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

#[test]
fn an_idle_pool_uses_no_processor_time() {
    isolated(|| {
        let pool = Pool::builder().workers(2).build().unwrap();
        let m = SharedArray::from_shape_fn(None, (1000, 10), |(i, j)| (i + j) as f64).unwrap();
        pool.map_rows(&m, |row| row.sum()).unwrap();
        let processes = || [&[pool.stats().zygote_pid][..], &pool.stats().worker_pids].concat();
        let all = processes();
        assert_eq!(all.len(), 3);
        std::thread::sleep(Duration::from_millis(50));
        let before: Vec<u64> = all.iter().map(|&pid| ticks(pid)).collect();
        std::thread::sleep(SECOND);
        let after: Vec<u64> = all.iter().map(|&pid| ticks(pid)).collect();
        assert_eq!(before, after, "ticks of 10 ms, zygote first");
        assert_eq!(processes(), all);
    });
}

#[test]
fn what_init_left_is_in_every_worker_and_its_successors() {
    isolated(|| {
        let captured = [40_u64, 2];
        let pool = Pool::builder()
            .workers(2)
            .init(move || FROM_INIT.set(captured.iter().sum()))
            .build()
            .unwrap();
        let seen = |pool: &Pool| {
            let values = pool.run_tasks(64, |_| {
                std::thread::sleep(Duration::from_micros(300));
                FROM_INIT.get()
            });
            values.unwrap().as_slice().iter().copied().collect::<BTreeSet<u64>>()
        };
        assert_eq!(seen(&pool), BTreeSet::from([42]));
        for pid in pool.stats().worker_pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        assert_eq!(seen(&pool), BTreeSet::from([42]));
        assert_eq!(FROM_INIT.get(), 0, "not in the caller");
    });
}

#[test]
fn an_init_that_takes_its_time_is_not_taken_for_a_hang() {
    isolated(|| {
        let pool =
            Pool::builder().workers(1).init(|| std::thread::sleep(Duration::from_millis(2500)));
        let pool = pool.stall_limit(SECOND * 2).build().unwrap();
        let first = pids_in(&pool);
        assert_eq!(pool.stats().deaths, 0);
        kill(Pid::from_raw(pool.stats().worker_pids[0]), Signal::SIGKILL).unwrap();
        let second = pids_in(&pool);
        assert!(first.is_disjoint(&second));
        assert_eq!(pool.stats().deaths, 1, "that of the one that was killed");
    });
}

#[test]
fn what_a_kernel_leaves_in_its_worker_is_there_in_the_next_call() {
    isolated(|| {
        let count = |pool: &Pool| {
            pool.run_tasks(1, |_| {
                CALLS.set(CALLS.get() + 1);
                CALLS.get()
            })
            .unwrap()[0]
        };
        let pool = Pool::builder().workers(1).build().unwrap();
        assert_eq!([count(&pool), count(&pool), count(&pool)], [1, 2, 3]);
        assert_eq!(CALLS.get(), 0, "and not in the caller");
    });
}

#[test]
fn a_worker_is_replaced_after_as_many_calls_as_are_asked_for() {
    isolated(|| {
        let pool = Pool::builder().workers(1).calls_per_worker(3).build().unwrap();
        let by = |_| pool.run_tasks(1, |_| std::process::id()).unwrap()[0];
        let pids: Vec<u32> = (0..12).map(by).collect();
        let runs = pids.chunk_by(|a, b| a == b).map(<[u32]>::len).collect::<Vec<_>>();
        assert_eq!(runs, [3, 3, 3, 3], "{pids:?}");
        // It goes on for more calls than workers may die unseen.
        (0..1000).for_each(|call| assert_ne!(by(call), 0));
        let stats = pool.stats();
        assert!(stats.recycled > 300 && stats.deaths == 0, "{stats:?}");
    });
}

#[test]
fn more_arrays_than_a_worker_keeps_come_and_go() {
    isolated(|| {
        let pool = Pool::builder().workers(2).inline_below(0).build().unwrap();
        let arrays: Vec<_> = (0..300)
            .map(|k| SharedArray::from_shape_fn(None, 10, |i| (k + i) as f64).unwrap())
            .collect();
        let mut out = SharedArray::<f64, Ix1>::zeros(None, 10).unwrap();
        for round in 0..3 {
            for (k, array) in arrays.iter().enumerate() {
                pool.map_rows_into((array, param(round as f64)), &mut out, |(row, round)| {
                    row.value() + round
                })
                .unwrap();
                assert_eq!(out[9], (k + 9 + round) as f64);
            }
        }
        let stats = pool.stats();
        // How many they are depends on when the last successor came. (On a machine with no time for
        // it a worker may fall so far behind that it is replaced by force.)
        assert!(stats.mapped_arrays <= 256 && stats.recycled > 0, "{stats:?}");
        drop(arrays);
        assert!(pool.stats().mapped_arrays <= 1, "the output");
    });
}

#[test]
fn dropped_arrays_leave_no_mapping_or_descriptor_in_a_worker() {
    isolated(|| {
        let pool = Pool::builder().workers(2).build().unwrap();
        let table = SharedArray::from_shape_fn(None, 10, |i| i as f64).unwrap();
        let call = || {
            let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64).unwrap();
            let sums = pool
                .map_rows((&m, broadcast(&table)), |(row, table)| row.sum() + table[1])
                .unwrap();
            assert_eq!(sums[1], 1.0 + 2.0 + 3.0 + 1.0);
        };
        let maps = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let held = |pid: &i32| {
            (maps(pid).lines().count(), fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
        };
        let has_the_table_alone = |pid: &i32| maps(pid).matches("/dev/shm/").count() == 1;
        (0..3).for_each(|_| call());
        let workers = pool.stats().worker_pids;
        until(5 * SECOND, "only the table is kept", || workers.iter().all(has_the_table_alone));
        let before: Vec<_> = workers.iter().map(held).collect();
        (0..200).for_each(|_| call());
        until(SECOND, "all let go", || {
            workers.iter().map(held).zip(&before).all(|(now, before)| now <= *before)
        });
    });
}

#[test]
fn a_worker_that_a_real_time_signal_kills_is_seen_to_be_dead() {
    isolated(|| {
        let pool = Pool::builder().workers(2).policy(Policy::fill(0)).build().unwrap();
        let done = pool
            .run_tasks(20, |task| {
                if task == 5 {
                    // SAFETY: ends this process; no handler is installed.
                    unsafe { libc::raise(libc::SIGRTMIN() + 6) };
                }
                task + 1
            })
            .unwrap();
        assert_eq!((done[4], done[5], done[6]), (5, 0, 7));
        assert_eq!(done.missing_rows().len(), 1);
    });
}

#[test]
fn a_zygote_that_is_stopped_breaks_the_pool_when_a_worker_dies() {
    isolated(|| {
        let pool = Pool::builder().workers(2).build().unwrap();
        let zygote = Pid::from_raw(pool.stats().zygote_pid);
        kill(zygote, Signal::SIGSTOP).unwrap();
        assert_eq!(pool.run_tasks(10, |task| task).unwrap()[9], 9, "nobody needs it");
        let failed = pool.run_tasks(10, |task| {
            if task == 5 {
                std::process::abort();
            }
            task
        });
        assert!(matches!(failed.unwrap_err(), Error::PoolBroken { .. }));
        assert!(matches!(pool.run_tasks(10, |task| task).unwrap_err(), Error::PoolBroken { .. }));
        assert!(pool.stats().broken.is_some());
        until(SECOND, "the end of the zygote", || !is_running(zygote.as_raw()));
    });
}

/// Whether the kernels of the test below may end.
static MAY_END: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

#[test]
fn a_zygote_that_is_slow_twice_is_not_one_that_is_stopped() {
    isolated(|| {
        LazyLock::force(&MAY_END);
        let pool = Pool::builder().workers(2).build().unwrap();
        let zygote = Pid::from_raw(pool.stats().zygote_pid);
        for round in 1..=2 {
            MAY_END.store(0, Ordering::Relaxed);
            kill(zygote, Signal::SIGSTOP).unwrap();
            let looks = AtomicU64::new(0);
            let go_on = |_: &Progress| {
                // By now the caller has looked for dead workers, some times.
                if looks.fetch_add(1, Ordering::Relaxed) == 3 {
                    kill(zygote, Signal::SIGCONT).unwrap();
                    MAY_END.store(1, Ordering::Relaxed);
                }
            };
            let done = pool.call().progress(go_on).run_tasks(2, |task| {
                if task == 0 && MAY_END.load(Ordering::Relaxed) == 0 {
                    std::process::abort();
                }
                while MAY_END.load(Ordering::Relaxed) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                task
            });
            assert_eq!(done.unwrap().as_slice(), [0, 1], "round {round}");
            until(SECOND * 10, "a successor", || pool.stats().worker_pids.len() == 2);
            // Longer than a zygote may be silent.
            std::thread::sleep(SECOND);
        }
    });
}

#[test]
fn a_worker_without_descriptors_says_so() {
    isolated(|| {
        // What it opens stays open in it.
        let leak = |_: usize| {
            while let Ok(file) = fs::File::open("/dev/null") {
                std::mem::forget(file);
            }
            0.0
        };
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, 256)
            .unwrap();
        let pool_of_few = Pool::builder().workers(1).build().unwrap();
        pool_of_few.run_tasks(1, leak).unwrap();
        let m = SharedArray::from_shape_fn(None, (10, 3), |(i, j)| (i + j) as f64).unwrap();
        let outcome = pool_of_few.map_rows(&m, |row| row.sum());
        assert!(matches!(&outcome, Err(Error::WorkerSetup { .. })), "{outcome:?}");
        assert_eq!(pool_of_few.map_rows(&m, |row| row.sum()).unwrap()[1], 6.0, "by its successor");
    });
}

#[test]
fn updates_are_right_whoever_dies_while_others_are_buried() {
    isolated(|| {
        let pool = Pool::builder().workers(6).build().unwrap();
        let mut m = SharedArray::<f64, _>::zeros(None, (3000, 40)).unwrap();
        for round in 1..=60_u64 {
            std::thread::scope(|scope| {
                let pids = pool.stats().worker_pids;
                scope.spawn(move || {
                    for pid in pids {
                        std::thread::sleep(Duration::from_micros(20 * (round % 20)));
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                });
                pool.update_rows(&mut m, |row| {
                    for x in row.iter_mut() {
                        *x += 1.0;
                        std::hint::black_box((0..60).fold(0.0, |sum, i| sum + f64::from(i)));
                    }
                })
                .unwrap();
            });
            assert!(m.view().iter().all(|&x| x == round as f64), "round {round}");
        }
    });
}
