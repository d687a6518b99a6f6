//! A pool and the threads of its program: the one that made it ends, others steal its children's
//! ends, sixteen call at a time, one calls from within a call, one gives up waiting, a kernel wants
//! threads of its own.
#![allow(unsafe_code, reason = "forks, makes code")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use ndarray::{Ix1, Ix2};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rayon::prelude::*;
use rowfork::{
    CancelToken, DeathCause, EarlyEnd, Error, Policy, Pool, Row, SharedArray, fork, param,
};

use crate::support::harm::{
    DAWDLES, KILLED, NO_HARM, SPINS, TIMES, WHERE, bits, count_anew, matrix,
};
use crate::support::isolated::isolated;
use crate::support::pooled::{end, end_zygote_of, pool_of, until, workers_of};
use crate::support::shared;
use crate::transformed;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Calls with a death each, and an idle death before every fifth.
fn it_recovers(pool: &Pool, what: &str, rounds: usize) {
    let m = matrix(30, 4);
    let right = bits(&transformed!(fork().workers(1), &m, NO_HARM).unwrap());
    for round in 0..rounds {
        if round % 5 == 4 {
            workers_of(pool.stats().zygote_pid).into_iter().for_each(end);
        }
        count_anew();
        let out =
            transformed!(pool.call().block_rows(6).deadline(10 * SECOND), &m, [KILLED, 14, 1, 1]);
        let out = out.unwrap_or_else(|error| panic!("{what}, round {round}: {error}"));
        assert!(bits(&out) == right, "{what}, round {round}: {}", out.report());
        let killed = out
            .report()
            .deaths
            .iter()
            .filter(|death| death.cause == DeathCause::Signalled(9))
            .count();
        assert!(killed >= 1, "{what}: {}", out.report());
    }
}

/// One of several calls, each of which has one right answer, which depends on who makes it.
fn mixed(pool: &Pool, thread: usize, round: usize, arrays: &[SharedArray<f64, Ix2>]) {
    let m = &arrays[(thread * 7 + round) % arrays.len()];
    let factor = (thread * 1000 + round) as f64;
    let value = |row: usize, column: usize| m.view()[[row, column]];
    match (thread + round) % 6 {
        0 => {
            let out = pool
                .map_rows((m, param(factor)), |(row, factor)| row[0] * factor + row.index() as f64)
                .unwrap();
            for (row, &found) in out.as_slice().iter().enumerate() {
                assert_eq!(
                    found,
                    value(row, 0) * factor + row as f64,
                    "thread {thread}, round {round}"
                );
            }
        }
        1 => {
            let sums = pool.row_sums(m).unwrap();
            let expected: Vec<f64> = m
                .view()
                .outer_iter()
                .map(|row| rowfork::exact_sum(row.to_slice().unwrap()))
                .collect();
            assert_eq!(sums.as_slice(), expected, "thread {thread}, round {round}");
        }
        2 => {
            let mut own = SharedArray::copy_from(None, &m.view()).unwrap();
            pool.update_rows_with(&mut own, param(factor), |row, factor| *row += factor).unwrap();
            assert!(
                own.as_slice().iter().zip(m.as_slice()).all(|(new, old)| *new == *old + factor)
            );
        }
        3 => {
            let most = pool.fold_rows(
                (m, param(factor)),
                f64::MIN,
                |most, (row, factor)| *most = most.max(row[0] + factor),
                |a, b| {
                    *a = a.max(*b);
                },
            );
            assert_eq!(*most.unwrap(), value(m.n_rows() - 1, 0) + factor);
        }
        4 => {
            let out = pool.call().workers(1 + round % 3).block_rows(1 + round % 50);
            let out = out.transform_rows((m, param(factor)), 2, |(row, factor), out| {
                out[0] = factor;
                out[1] = row[row.len() - 1];
            });
            let out = out.unwrap();
            assert!(
                out.view()
                    .outer_iter()
                    .enumerate()
                    .all(|(row, pair)| pair[0] == factor && pair[1] == value(row, m.shape()[1] - 1))
            );
        }
        _ => match pool.map_rows((m, param(round % m.n_rows())), |(row, bad)| {
            if row.index() == bad { Err("no") } else { Ok(0.0) }
        }) {
            Err(Error::KernelFailed { row, .. }) => assert_eq!(row, round % m.n_rows()),
            other => panic!("thread {thread}, round {round}: {other:?}"),
        },
    }
}

/// So many threads, so many calls each. When each thread was done, from the beginning of all.
fn many_threads(threads: usize, calls: usize) {
    let shapes = [(1, 1), (7, 3), (64, 5), (100, 40), (1000, 2), (300, 64)];
    let arrays = shapes.map(|(rows, columns)| matrix(rows, columns));
    let pool = pool_of(2).build().unwrap();
    let ends = Mutex::new(Vec::new());
    let began = Instant::now();
    let barrier = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (pool, arrays, ends, barrier) = (&pool, &arrays, &ends, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut longest = Duration::ZERO;
                for round in 0..calls {
                    let asked = Instant::now();
                    mixed(pool, thread, round, arrays);
                    longest = longest.max(asked.elapsed());
                }
                ends.lock().unwrap().push((began.elapsed(), longest));
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    let first = ends.iter().map(|(end, _)| *end).min().unwrap();
    let last = ends.iter().map(|(end, _)| *end).max().unwrap();
    let longest = ends.iter().map(|(_, longest)| *longest).max().unwrap();
    println!(
        "FIGURE {threads} threads of {calls} calls: the first was done after {first:.2?}, the last \
         after {last:.2?}; \
         the longest call with its wait took {longest:.1?}"
    );
    assert!(
        first.as_secs_f64() > 0.5 * last.as_secs_f64(),
        "some thread was served before the others"
    );
}

#[test]
fn the_thread_that_made_a_pool_may_end() {
    isolated(|| {
        let pool = std::thread::spawn(|| pool_of(2).build().unwrap()).join().unwrap();
        std::thread::sleep(ms(20));
        it_recovers(&pool, "made by a thread that has ended", 10);
    });
}

#[test]
fn a_host_that_ignores_sigchld_has_a_pool_that_recovers() {
    isolated(|| {
        let before = pool_of(2).build().unwrap();
        shared::ignore_sigchld();
        it_recovers(&before, "made before", 10);
        it_recovers(&pool_of(2).build().unwrap(), "made after", 10);
        // Whose zygote is reaped by nobody.
        end_zygote_of(&before);
        assert!(matches!(
            transformed!(before, &matrix(30, 4), NO_HARM).map(drop),
            Err(Error::PoolBroken { .. })
        ));
    });
}

#[test]
fn a_host_with_sa_nocldwait_has_a_pool_that_recovers() {
    isolated(|| {
        let action = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT, SigSet::empty());
        // SAFETY: the default runs no code.
        unsafe { sigaction(Signal::SIGCHLD, &action) }.unwrap();
        it_recovers(&pool_of(2).build().unwrap(), "SA_NOCLDWAIT", 10);
    });
}

#[test]
fn a_host_that_waits_for_all_children_has_a_pool_that_recovers() {
    isolated(|| {
        static OVER: AtomicBool = AtomicBool::new(false);
        let thief = std::thread::spawn(|| {
            let mut stolen = Vec::new();
            while !OVER.load(Ordering::Relaxed) {
                match waitpid(Pid::from_raw(-1), None) {
                    Ok(status) => stolen.extend(status.pid().map(Pid::as_raw)),
                    Err(_) => std::thread::sleep(ms(1)),
                }
            }
            stolen
        });
        let pool = pool_of(2).build().unwrap();
        it_recovers(&pool, "a thief", 10);
        let zygote = pool.stats().zygote_pid;
        end_zygote_of(&pool);
        let is_there = || std::path::Path::new(&format!("/proc/{zygote}")).exists();
        until(5 * SECOND, "the thief has reaped the zygote", || !is_there());
        assert!(matches!(
            transformed!(pool, &matrix(30, 4), NO_HARM).map(drop),
            Err(Error::PoolBroken { .. })
        ));
        drop(pool);
        let whole = pool_of(2).build().unwrap();
        OVER.store(true, Ordering::Relaxed);
        drop(whole);
        assert!(thief.join().unwrap().contains(&zygote));
    });
}

#[test]
fn a_kernel_that_waits_for_threads_ends_by_a_limit_with_a_hint() {
    isolated(|| {
        let sum = |n: u64| (0..n).into_par_iter().map(|i| i ^ 1).sum::<u64>();
        // The caller has threads when the pool is made, and kernels have none of them.
        std::hint::black_box(sum(100_000));
        let m = matrix(20, 4);
        let pool = pool_of(2).build().unwrap();
        let wants = |row: Row<'_, f64, Ix1>| {
            (0..100_000 + row.index() as u64).into_par_iter().map(|i| i ^ 1).sum::<u64>() as f64
        };
        let began = Instant::now();
        match pool.call().deadline(ms(300)).map_rows(&m, wants).map(drop) {
            Err(error @ Error::DeadlineExceeded { .. }) => {
                assert!(error.to_string().contains("threads at the fork"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        match pool.call().stall_limit(ms(100)).map_rows(&m, wants).map(drop) {
            Err(error @ Error::PoisonedRows { .. }) => {
                assert!(error.to_string().contains("threads"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < 4 * SECOND, "{:?}", began.elapsed());
        it_recovers(&pool, "after it", 5);
    });
}

#[test]
fn code_younger_than_the_pool_is_refused_and_known_to_the_next() {
    isolated(|| {
        type Kernel = for<'a> fn(Row<'a, f64, Ix1>) -> i64;
        let m = matrix(20, 4);
        let before = pool_of(2).build().unwrap();
        let Some(address) = code_that_returns_42() else {
            println!("SKIPPED: no code for this machine here");
            return;
        };
        // SAFETY: takes whatever it is given, and returns a word.
        let kernel = unsafe { std::mem::transmute::<usize, Kernel>(address) };
        match before.map_rows(&m, kernel).map(drop) {
            Err(Error::KernelNotInZygote { address: found, .. }) => assert_eq!(found, address),
            other => panic!("{other:?}"),
        }
        let after = pool_of(2).build().unwrap();
        assert!(after.map_rows(&m, kernel).unwrap().as_slice().iter().all(|&value| value == 42));
        it_recovers(&before, "after a refusal", 3);
    });
}

#[test]
fn many_threads_call_one_pool_and_each_is_served_in_turn() {
    isolated(|| {
        many_threads(16, 60);
    });
}

#[test]
#[ignore = "a minute: cargo t-pool pool_threads -- --ignored"]
fn sixteen_threads_of_a_thousand_calls_are_each_served_in_turn() {
    isolated(|| {
        many_threads(16, 1000);
    });
}

#[test]
fn a_call_within_a_call_or_a_kernel_is_refused() {
    isolated(|| {
        let m = matrix(200, 4);
        let pool = pool_of(2).build().unwrap();
        let answers = Mutex::new(Vec::new());
        let call = pool
            .call()
            .progress(|_| answers.lock().unwrap().push(pool.map_rows(&m, |row| row[0]).map(drop)));
        transformed!(call, &m, [DAWDLES, 0, 0, 2000]).unwrap();
        drop(call);
        let answers = answers.into_inner().unwrap();
        assert!(!answers.is_empty());
        assert!(
            answers.iter().all(|answer| matches!(answer, Err(Error::PoolReentered))),
            "{answers:?}"
        );
        let refused = pool.map_rows(&m, |_| {
            let own = Pool::builder().workers(1).build().map(drop);
            let nested = SharedArray::<f64, _>::zeros(None, (5, 5))
                .and_then(|m| fork().row_sums(&m).map(drop));
            u8::from(matches!(own, Err(Error::InsideWorker)))
                + 2 * u8::from(matches!(nested, Err(Error::InsideWorker)))
        });
        assert_eq!(refused.unwrap().as_slice(), [3; 200]);
        it_recovers(&pool, "after it", 2);
    });
}

#[test]
fn a_kernel_that_finds_its_pool_in_a_static_cannot_use_it() {
    isolated(|| {
        static POOL: OnceLock<Pool> = OnceLock::new();
        // Made in a child, whose end takes all with it.
        // SAFETY: the child tests, and leaves.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Child => {
                let _ = POOL.set(pool_of(2).build().unwrap());
                let m = matrix(20, 4);
                let refused = |row: Row<'_, f64, Ix1>| {
                    // A worker was forked before the pool was in its static; one that is forked for
                    // a call knows it.
                    row[0] >= 0.0
                        && POOL.get().is_none_or(|pool| {
                            matches!(
                                pool.run_tasks(3, |task| task as u64).map(drop),
                                Err(Error::InsideWorker | Error::PoolBroken { .. })
                            )
                        })
                };
                let mode_b = POOL
                    .get()
                    .unwrap()
                    .map_rows(&m, refused)
                    .unwrap()
                    .as_slice()
                    .iter()
                    .all(|r| r.get());
                let mode_a = fork()
                    .workers(2)
                    .map_rows(&m, refused)
                    .unwrap()
                    .as_slice()
                    .iter()
                    .all(|r| r.get());
                // SAFETY: leaves at once.
                unsafe { libc::_exit(i32::from(!(mode_a && mode_b))) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    });
}

#[test]
fn a_forked_child_cannot_use_or_harm_its_parents_pool() {
    isolated(|| {
        let m = matrix(30, 4);
        let pool = pool_of(2).build().unwrap();
        let workers = pool.stats().worker_pids;
        // SAFETY: the child calls, drops, and leaves.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Child => {
                let refused = matches!(
                    pool.map_rows(&m, |row| row[0]).map(drop),
                    Err(Error::PoolBroken { .. })
                );
                let small = matches!(pool.row_sums(&m).map(drop), Err(Error::PoolBroken { .. }));
                drop(pool);
                drop(m);
                // SAFETY: leaves at once.
                unsafe { libc::_exit(i32::from(!(refused && small))) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
        assert_eq!(pool.stats().worker_pids, workers);
        it_recovers(&pool, "whose child has dropped it", 5);
    });
}

#[test]
fn a_call_may_be_cancelled_while_it_waits_for_its_turn() {
    isolated(|| {
        let m = matrix(30, 4);
        let pool = pool_of(1).build().unwrap();
        let token = CancelToken::new().unwrap();
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                transformed!(pool.call().deadline(SECOND), &m, [SPINS, 0, 0, 1]).map(drop)
            });
            until(SECOND, "the row", || WHERE.load(Ordering::Acquire) != 0);
            let waiting = scope
                .spawn(|| pool.call().cancel_token(&token).map_rows(&m, |row| row[0]).map(drop));
            let filling = scope.spawn(|| {
                pool.call()
                    .cancel_token(&token)
                    .policy(Policy::fill(-1.0))
                    .map_rows(&m, |row| row[0])
            });
            until(SECOND, "two who wait", || pool.stats().waiting == 2);
            let began = Instant::now();
            token.cancel();
            assert!(matches!(
                waiting.join().unwrap(),
                Err(Error::Cancelled { rows_done: 0, rows_total: 30, .. })
            ));
            let filled = filling.join().unwrap().unwrap();
            assert_eq!(
                (filled.missing_rows(), filled.report().ended_early),
                (&[0..30][..], Some(EarlyEnd::Cancelled))
            );
            assert!(filled.as_slice().iter().all(|&value| value == -1.0));
            assert!(began.elapsed() < ms(300), "{:?}", began.elapsed());
            assert!(matches!(busy.join().unwrap(), Err(Error::DeadlineExceeded { .. })));
        });
        TIMES.store(0, Ordering::Release);
        it_recovers(&pool, "after it", 2);
    });
}

/// The address of a new page of code.
fn code_that_returns_42() -> Option<usize> {
    let code: &[u8] = if cfg!(target_arch = "x86_64") {
        &[0xb8, 42, 0, 0, 0, 0xc3] // mov eax, 42; ret
    } else if cfg!(target_arch = "aarch64") {
        &[0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6] // mov w0, #42; ret
    } else {
        return None;
    };
    let (read_write, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, read_write, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: a page is longer.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len()) };
    // SAFETY: ours.
    let done = unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) };
    (done == 0).then_some(page.expose_provenance())
}
