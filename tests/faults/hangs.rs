//! Whatever hangs, a call ends: by its deadline, its stall limit, its token, or the limit on a
//! worker's start and death; and what it then says of its rows is so.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Ix1, Ix2};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, pthread_sigmask, sigaction,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{
    CancelToken, DeathCause, EarlyEnd, Error, FailedRow, Fork, Output, Policy, SharedArray, fork,
};

use crate::support::harm::{first_time, matrix};
use crate::support::isolated::{self, children, isolated, name_of};
use crate::support::shared::{SharedWord, raise};
use crate::support::{self, Holder, player, say};

const N_ROWS: usize = 40;
const BLOCK_ROWS: usize = 10;
/// The row that hangs.
const VICTIM: usize = 23;

/// Deadlines are missed by less.
const SLACK: Duration = Duration::from_secs(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn two() -> Fork<'static> {
    fork().workers(2).block_rows(BLOCK_ROWS)
}

fn filling(options: Fork<'_>) -> Fork<'_> {
    options.policy(Policy::fill(-1.0))
}

/// Twice the number of each row, by a kernel that first does `harm`.
fn doubled(
    options: &Fork<'_>,
    harm: impl Fn(usize),
) -> rowfork::Result<Output<SharedArray<f64, Ix1>>> {
    options.run_tasks(N_ROWS, |task| {
        harm(task);
        2.0 * task as f64
    })
}

/// All rows but the missing ones are right, and those hold -1.
fn assert_right(out: &Output<SharedArray<f64, Ix1>>, what: &str) {
    for (row, &value) in out.view().iter().enumerate() {
        let missing = out.missing_rows().iter().any(|rows| rows.contains(&row));
        assert_eq!(
            value,
            if missing { -1.0 } else { 2.0 * row as f64 },
            "{what}: row {row}: {}",
            out.report()
        );
    }
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

fn block_all_signals_and_spin() {
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
    spin();
}

fn sleep() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn stop() {
    raise(Signal::SIGSTOP);
}

const HANGS: [(&str, fn()); 4] = [
    ("spins", spin),
    ("spins with all signals blocked", block_all_signals_and_spin),
    ("sleeps", sleep),
    ("is stopped", stop),
];

fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    #[allow(unsafe_code, reason = "installs a handler")]
    // SAFETY: the handlers of this file do nothing but async-signal-safe calls.
    unsafe {
        sigaction(signal, &action).unwrap();
    }
}

/// Runs `call` while another thread does `then` to this very thread after a while; how long it took
/// from that on.
fn disturbed_after<T>(
    delay: Duration,
    then: impl FnOnce(u64) + Send,
    call: impl FnOnce() -> T,
) -> (T, Duration) {
    let caller = nix::sys::pthread::pthread_self();
    std::thread::scope(|scope| {
        let disturber = scope.spawn(move || {
            std::thread::sleep(delay);
            then(caller);
            Instant::now()
        });
        let outcome = call();
        let ended = Instant::now();
        (outcome, ended.saturating_duration_since(disturber.join().unwrap()))
    })
}

fn is_stalled(failed: &FailedRow, row: usize, limit: Duration) -> bool {
    (failed.row, failed.attempts) == (row, 3)
        && matches!(failed.cause, DeathCause::Stalled { limit: of, .. } if of == limit)
}

#[test]
fn a_deadline_ends_a_call_whatever_its_kernel_does() {
    isolated(|| {
        for (what, hang) in HANGS {
            let began = Instant::now();
            let outcome = doubled(&two().deadline(ms(400)), |row| {
                if row == VICTIM {
                    hang();
                }
            });
            assert!(
                (ms(400)..ms(400) + SLACK).contains(&began.elapsed()),
                "{what}: {:?}",
                began.elapsed()
            );
            assert!(children().is_empty(), "{what}");
            match outcome.unwrap_err() {
                Error::DeadlineExceeded { limit, rows_done, rows_total, .. } => {
                    assert_eq!(
                        (limit, rows_done, rows_total),
                        (ms(400), N_ROWS - BLOCK_ROWS, N_ROWS),
                        "{what}"
                    );
                }
                other => panic!("{what}: {other}"),
            }
        }
    });
}

#[test]
fn a_deadline_with_a_fill_leaves_the_rows_that_were_done() {
    isolated(|| {
        for (what, hang) in HANGS {
            let began = Instant::now();
            let out = doubled(&filling(two().deadline(ms(400))), |row| {
                if row == VICTIM {
                    hang();
                }
            })
            .unwrap();
            assert!(began.elapsed() < ms(400) + SLACK, "{what}: {:?}", began.elapsed());
            assert!(children().is_empty(), "{what}");
            assert_eq!(out.missing_rows(), [20..30], "{what}");
            assert_right(&out, what);
            assert_eq!(out.report().ended_early, Some(EarlyEnd::Deadline), "{what}");
            assert!(out.report().failed_rows.is_empty(), "{what}");
        }
    });
}

#[test]
fn workers_stopped_from_outside_do_not_hold_up_a_deadline() {
    isolated(|| {
        let worker = SharedWord::new();
        let (outcome, _) = disturbed_after(
            ms(100),
            |_| {
                let pid = i32::try_from(worker.load(Ordering::Acquire)).unwrap();
                assert!(pid > 0, "no worker came to the row");
                kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
            },
            || {
                let began = Instant::now();
                let outcome = doubled(&two().deadline(ms(600)), |row| {
                    if row == VICTIM {
                        worker.store(std::process::id().into(), Ordering::Release);
                        sleep();
                    }
                });
                assert!(began.elapsed() < ms(600) + SLACK, "{:?}", began.elapsed());
                outcome
            },
        );
        assert!(matches!(outcome.unwrap_err(), Error::DeadlineExceeded { rows_done: 30, .. }));
    });
}

#[test]
fn a_row_that_never_ends_is_found_and_the_others_are_right() {
    isolated(|| {
        for (what, hang) in &HANGS[..3] {
            for workers in [1, 3] {
                let options =
                    filling(fork().workers(workers).block_rows(BLOCK_ROWS).stall_limit(ms(150)));
                let began = Instant::now();
                let out = doubled(&options, |row| {
                    if row == VICTIM {
                        hang();
                    }
                })
                .unwrap();
                assert!(began.elapsed() < 5 * ms(150) + SLACK, "{what}: {:?}", began.elapsed());
                let failed = &out.report().failed_rows;
                assert!(
                    failed.len() == 1 && is_stalled(&failed[0], VICTIM, ms(150)),
                    "{what}: {}",
                    out.report()
                );
                assert_eq!(
                    (out.missing_rows(), out.report().ended_early),
                    (&[VICTIM..VICTIM + 1][..], None),
                    "{what}"
                );
                assert_right(&out, what);
            }
        }
    });
}

#[test]
fn a_row_that_never_ends_is_the_one_that_the_error_names() {
    isolated(|| {
        for (what, hang) in &HANGS[..3] {
            let outcome = doubled(&two().stall_limit(ms(150)), |row| {
                if row == VICTIM {
                    hang();
                }
            });
            match outcome.unwrap_err() {
                Error::PoisonedRows { rows, .. } => {
                    assert!(
                        rows.len() == 1 && is_stalled(&rows[0], VICTIM, ms(150)),
                        "{what}: {rows:?}"
                    );
                }
                other => panic!("{what}: {other}"),
            }
        }
    });
}

#[test]
fn a_worker_stopped_by_others_is_replaced_and_blames_no_row() {
    isolated(|| {
        for policy in [Policy::Fail, Policy::fill(-1.0)] {
            let times = SharedWord::new();
            let options = two().stall_limit(ms(200)).policy(policy);
            // More often than a row is tried: whoever stops workers poisons no row.
            let out = doubled(&options, |row| {
                if row == VICTIM && times.fetch_add(1, Ordering::Relaxed) < 5 {
                    stop();
                }
            });
            let out = out.unwrap();
            assert!(
                out.report().failed_rows.is_empty() && out.missing_rows().is_empty(),
                "{}",
                out.report()
            );
            assert_eq!(out.report().deaths.len(), 5, "{}", out.report());
            assert!(
                out.report().deaths.iter().all(|death| death.cause == DeathCause::Stopped),
                "{}",
                out.report()
            );
            assert_right(&out, "stopped");
        }
    });
}

#[test]
fn rows_that_are_slow_within_the_limit_are_left_alone() {
    isolated(|| {
        let options = fork().workers(1).block_rows(N_ROWS).stall_limit(ms(1000));
        let out = doubled(&options, |row| {
            if row < 15 {
                std::thread::sleep(ms(100));
            }
        })
        .unwrap();
        assert!(
            out.report().elapsed > ms(1400) && out.report().deaths.is_empty(),
            "{}",
            out.report()
        );
        assert_right(&out, "slow");
    });
}

#[test]
fn a_block_that_never_ends_is_halved_until_its_row_is_found() {
    isolated(|| {
        let m = matrix(N_ROWS, 2);
        for policy in [Policy::Fail, Policy::fill(-1.0)] {
            let options = two().stall_limit(ms(150)).policy(policy);
            let outcome = options.map_blocks(&m, 2, |block, out| {
                if block.row_range().contains(&VICTIM) {
                    spin();
                }
                out.assign(&(&*block * 2.0));
            });
            match outcome {
                Ok(out) => {
                    let failed = &out.report().failed_rows;
                    assert!(policy != Policy::Fail && failed.len() == 1, "{}", out.report());
                    assert!(is_stalled(&failed[0], VICTIM, ms(150)), "{}", out.report());
                    assert_eq!(out.missing_rows(), [VICTIM..VICTIM + 1]);
                    for ((row, column), &value) in out.view().indexed_iter() {
                        assert_eq!(
                            value,
                            if row == VICTIM { -1.0 } else { m.view()[[row, column]] * 2.0 }
                        );
                    }
                }
                Err(Error::PoisonedRows { rows, .. }) => {
                    assert!(
                        policy == Policy::Fail && is_stalled(&rows[0], VICTIM, ms(150)),
                        "{rows:?}"
                    );
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_row_that_never_ends_is_left_out_of_a_fold() {
    isolated(|| {
        let m = SharedArray::from_shape_fn(None, (N_ROWS, 1), |(i, _)| i as u64).unwrap();
        let sum = |options: Fork<'_>| {
            options.fold_rows(
                &m,
                0_u64,
                |sum, row| {
                    if row.index() == VICTIM {
                        sleep();
                    }
                    *sum += row[0];
                },
                |sum, other| *sum += *other,
            )
        };
        let all = (N_ROWS * (N_ROWS - 1) / 2) as u64;
        let sums = sum(fork().workers(2).stall_limit(ms(150)).policy(Policy::fill(0))).unwrap();
        assert_eq!(*sums, all - VICTIM as u64);
        assert!(is_stalled(&sums.report().failed_rows[0], VICTIM, ms(150)), "{}", sums.report());
        assert_eq!(sums.missing_rows(), [VICTIM..VICTIM + 1]);
        match sum(fork().workers(2).stall_limit(ms(150))).unwrap_err() {
            Error::PoisonedRows { rows, .. } => {
                assert!(is_stalled(&rows[0], VICTIM, ms(150)), "{rows:?}");
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_row_whose_update_never_ends_is_as_it_was_or_filled() {
    isolated(|| {
        for guard in [false, true] {
            for policy in [Policy::Fail, Policy::fill(-1.0)] {
                let mut m = matrix(N_ROWS, 4);
                let old = m.to_owned();
                let options = two().stall_limit(ms(150)).policy(policy).guard(guard);
                let outcome = options.update_rows(&mut m, |row| {
                    let index = row.index();
                    row.iter_mut().take(2).for_each(|x| *x += 0.5);
                    if index == VICTIM {
                        sleep();
                    }
                    row.iter_mut().skip(2).for_each(|x| *x += 0.5);
                });
                let updated = match outcome {
                    Ok(report) => {
                        assert!(policy != Policy::Fail, "{report}");
                        assert!(is_stalled(&report.failed_rows[0], VICTIM, ms(150)), "{report}");
                        assert_eq!(report.missing_rows, [VICTIM..VICTIM + 1]);
                        assert!(m.view().row(VICTIM).iter().all(|&x| x == -1.0));
                        vec![0..VICTIM, VICTIM + 1..N_ROWS]
                    }
                    Err(Error::UpdateInterrupted { cause: source, updated, torn, .. }) => {
                        assert!(policy == Policy::Fail && torn.is_empty(), "{torn:?}");
                        match *source {
                            Error::PoisonedRows { rows, .. } => {
                                assert!(is_stalled(&rows[0], VICTIM, ms(150)), "{rows:?}");
                            }
                            other => panic!("{other}"),
                        }
                        assert_eq!(m.view().row(VICTIM), old.row(VICTIM));
                        updated
                    }
                    Err(other) => panic!("{other}"),
                };
                for row in (0..N_ROWS).filter(|&row| row != VICTIM) {
                    let new = updated.iter().any(|rows| rows.contains(&row));
                    assert_eq!(
                        m.view().row(row),
                        &old.row(row) + if new { 0.5 } else { 0.0 },
                        "row {row}"
                    );
                }
            }
        }
    });
}

#[test]
fn an_update_that_a_deadline_ends_names_the_rows_that_are_new() {
    isolated(|| {
        let mut m = matrix(N_ROWS, 4);
        let old = m.to_owned();
        let outcome =
            fork().workers(1).block_rows(BLOCK_ROWS).deadline(ms(300)).update_rows(&mut m, |row| {
                let index = row.index();
                row.iter_mut().take(2).for_each(|x| *x += 0.5);
                if index == VICTIM {
                    sleep();
                }
                row.iter_mut().skip(2).for_each(|x| *x += 0.5);
            });
        match outcome.unwrap_err() {
            Error::UpdateInterrupted { cause: source, updated, torn, .. } => {
                assert!(matches!(*source, Error::DeadlineExceeded { .. }), "{source}");
                assert_eq!((updated, torn.len()), (vec![0..20], 0));
                for row in 0..N_ROWS {
                    assert_eq!(
                        m.view().row(row),
                        &old.row(row) + if row < 20 { 0.5 } else { 0.0 },
                        "row {row}"
                    );
                }
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_worker_that_hangs_at_its_start_is_replaced_in_two_seconds() {
    isolated(|| {
        failpoints::throw(Failpoint::FirstWorkerHangsAtStart);
        let out = doubled(&fork().workers(1), |_| ()).unwrap();
        failpoints::release(Failpoint::FirstWorkerHangsAtStart);
        assert!((ms(2000)..ms(2000) + SLACK).contains(&out.report().elapsed), "{}", out.report());
        assert_right(&out, "a late start");
        assert_eq!((out.report().rerun_rows, out.report().failed_rows.len()), (0, 0));
    });
}

#[test]
fn workers_that_all_hang_at_their_start_end_the_call() {
    isolated(|| {
        failpoints::throw(Failpoint::WorkersHangAtStart);
        let began = Instant::now();
        match doubled(&fork().workers(1), |_| ()).unwrap_err() {
            Error::WorkerSetup { message, .. } => {
                assert!(message.starts_with("3 workers in a row hung"), "{message}");
            }
            other => panic!("{other}"),
        }
        assert!((ms(6000)..ms(6000) + SLACK).contains(&began.elapsed()), "{:?}", began.elapsed());
    });
}

#[test]
fn a_worker_that_does_not_die_is_an_error_that_names_it() {
    isolated(|| {
        failpoints::throw(Failpoint::UnkillableWorkers);
        let began = Instant::now();
        let outcome = doubled(&fork().workers(1).stall_limit(ms(200)), |row| {
            if row == VICTIM {
                sleep();
            }
        });
        let took = began.elapsed();
        failpoints::release(Failpoint::UnkillableWorkers);
        let worker = *children().first().expect("it lives");
        let own = Pid::from_raw(worker);
        kill(own, Signal::SIGKILL).unwrap();
        assert_eq!(waitpid(own, None), Ok(WaitStatus::Signaled(own, Signal::SIGKILL, false)));
        match outcome.unwrap_err() {
            Error::WorkerUnkillable { pid, waited, .. } => {
                assert_eq!((pid, waited), (worker, ms(5000)));
            }
            other => panic!("{other}"),
        }
        assert!((ms(5200)..ms(5200) + SLACK).contains(&took), "{took:?}");
    });
}

#[test]
fn a_worker_that_outlives_deadline_and_sigkill_is_named() {
    isolated(|| {
        failpoints::throw(Failpoint::UnkillableWorkers);
        let began = Instant::now();
        let outcome = doubled(&filling(fork().workers(1).deadline(ms(200))), |row| {
            if row == VICTIM {
                sleep();
            }
        });
        let took = began.elapsed();
        failpoints::release(Failpoint::UnkillableWorkers);
        let worker = *children().first().expect("it lives");
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        waitpid(Pid::from_raw(worker), None).unwrap();
        assert!(
            matches!(outcome.unwrap_err(), Error::WorkerUnkillable { pid, .. } if pid == worker)
        );
        assert!((ms(5200)..ms(5200) + SLACK).contains(&took), "{took:?}");
    });
}

#[test]
fn nothing_is_promised_of_rows_that_a_worker_may_still_write_to() {
    isolated(|| {
        for deadline in [false, true] {
            let mut m = matrix(N_ROWS, 4);
            let options = fork().workers(1).block_rows(BLOCK_ROWS);
            let options =
                if deadline { options.deadline(ms(200)) } else { options.stall_limit(ms(200)) };
            failpoints::throw(Failpoint::UnkillableWorkers);
            let outcome = options.update_rows(&mut m, |row| {
                let index = row.index();
                row.iter_mut().take(2).for_each(|x| *x += 0.5);
                if index == VICTIM {
                    sleep();
                }
            });
            failpoints::release(Failpoint::UnkillableWorkers);
            let worker = *children().first().expect("it lives");
            kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
            waitpid(Pid::from_raw(worker), None).unwrap();
            match outcome.unwrap_err() {
                Error::UpdateInterrupted { cause: source, updated, torn, .. } => {
                    assert!(matches!(*source, Error::WorkerUnkillable { .. }), "{source}");
                    assert!(updated.len() == 1 && updated[0] == (0..20), "{updated:?}");
                    assert!(torn.len() == 1 && torn[0] == (20..30), "{torn:?}");
                }
                other => panic!("{other}"),
            }
            // Nor is it used again, in any part.
            for again in [
                fork().row_sums(&m).map(drop),
                fork().transform_rows(&m, 1, |row, out| out[0] = row[0]).map(drop),
                fork().update_rows(&mut m, |row| row[0] = 0.0).map(drop),
            ] {
                assert!(matches!(again, Err(Error::Abandoned { .. })), "{again:?}");
            }
        }
    });
}

#[test]
fn a_token_that_another_thread_cancels_ends_the_call() {
    isolated(|| {
        for policy in [Policy::Fail, Policy::fill(-1.0)] {
            let token = CancelToken::new().unwrap();
            let options = two().cancel_token(&token).policy(policy);
            let (outcome, took) = disturbed_after(
                ms(300),
                |_| token.cancel(),
                || {
                    doubled(&options, |row| {
                        if row == VICTIM {
                            sleep();
                        }
                    })
                },
            );
            assert!(took < SLACK, "{took:?}");
            assert!(children().is_empty() && token.is_cancelled());
            match outcome {
                Ok(out) => {
                    assert!(policy != Policy::Fail);
                    assert_eq!(out.missing_rows(), [20..30]);
                    assert_eq!(out.report().ended_early, Some(EarlyEnd::Cancelled));
                    assert_right(&out, "cancelled");
                }
                Err(Error::Cancelled { rows_done, rows_total, .. }) => {
                    assert!(policy == Policy::Fail);
                    assert_eq!((rows_done, rows_total), (N_ROWS - BLOCK_ROWS, N_ROWS));
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_token_that_a_kernel_cancels_in_a_worker_ends_the_call() {
    isolated(|| {
        let token = CancelToken::new().unwrap();
        let began = Instant::now();
        let outcome = doubled(&two().cancel_token(&token), |row| {
            if row == VICTIM {
                token.cancel();
                sleep();
            }
        });
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        assert!(matches!(outcome.unwrap_err(), Error::Cancelled { .. }));
        assert!(token.is_cancelled(), "in the caller, too");
    });
}

#[test]
fn a_token_that_a_signal_handler_cancels_ends_the_call() {
    isolated(|| {
        static TOKEN: OnceLock<CancelToken> = OnceLock::new();
        extern "C" fn cancel(_: libc::c_int) {
            let _ = TOKEN.get().map(CancelToken::cancel);
        }
        let token = TOKEN.get_or_init(|| CancelToken::new().unwrap()).clone();
        handle(Signal::SIGINT, cancel);
        let to_this_process = |_| raise(Signal::SIGINT);
        let (outcome, took) = disturbed_after(ms(200), to_this_process, || {
            doubled(&two().cancel_token(&token), |row| {
                if row == VICTIM {
                    sleep();
                }
            })
        });
        assert!(took < SLACK, "{took:?}");
        assert!(matches!(outcome.unwrap_err(), Error::Cancelled { .. }));
        // The token lives as long as the process; its descriptor is counted as left behind
        // otherwise.
        close(token);
    });
}

#[test]
fn a_call_whose_token_is_cancelled_already_runs_nothing() {
    isolated(|| {
        let token = CancelToken::new().unwrap();
        token.cancel();
        let rows = SharedWord::new();
        let began = Instant::now();
        let outcome = doubled(&two().cancel_token(&token), |_| {
            rows.fetch_add(1, Ordering::Relaxed);
        });
        assert!(began.elapsed() < SLACK);
        assert!(matches!(
            outcome.unwrap_err(),
            Error::Cancelled { rows_done: 0, rows_total: N_ROWS, .. }
        ));
        assert_eq!(rows.load(Ordering::Relaxed), 0);
        let out = doubled(&filling(two().cancel_token(&token)), |_| ()).unwrap();
        assert!(
            out.missing_rows().len() == 1 && out.missing_rows()[0] == (0..N_ROWS),
            "{:?}",
            out.missing_rows()
        );
        assert_right(&out, "cancelled before");
    });
}

#[test]
fn a_check_that_says_so_after_a_signal_ends_the_call() {
    isolated(|| {
        static NOTED: AtomicBool = AtomicBool::new(false);
        extern "C" fn note(_: libc::c_int) {
            NOTED.store(true, Ordering::Relaxed);
        }
        static CHECKS: AtomicU64 = AtomicU64::new(0);
        handle(Signal::SIGINT, note);
        let options = two().check_interrupt(|| {
            CHECKS.fetch_add(1, Ordering::Relaxed);
            NOTED.load(Ordering::Relaxed)
        });
        let to_the_caller =
            |caller| nix::sys::pthread::pthread_kill(caller, Signal::SIGINT).unwrap();
        let (outcome, took) = disturbed_after(ms(500), to_the_caller, || {
            doubled(&options, |row| {
                if row == VICTIM {
                    sleep();
                }
            })
        });
        assert!(took < SLACK, "{took:?}");
        assert!(matches!(outcome.unwrap_err(), Error::Cancelled { rows_done: 30, .. }));
        let checks = CHECKS.load(Ordering::Relaxed);
        assert!((2..30).contains(&checks), "asked {checks} times in half a second");
    });
}

#[test]
fn a_caller_that_was_itself_stopped_finds_nobody_late() {
    isolated(|| {
        let mut caller = Holder::start(player(plays_a_role, "caller"));
        assert_eq!(caller.says(), "ready");
        let pid = Pid::from_raw(caller.child.id().cast_signed());
        std::thread::sleep(ms(500));
        kill(pid, Signal::SIGSTOP).unwrap();
        std::thread::sleep(ms(3000));
        kill(pid, Signal::SIGCONT).unwrap();
        assert_eq!(caller.says(), "done");
        caller.let_go();
    });
}

#[test]
fn a_deadline_in_a_threaded_caller_hints_at_the_threads() {
    isolated(|| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::thread::sleep(ms(1));
                    }
                });
            }
            let error = doubled(&two().deadline(ms(200)), |row| {
                if row == VICTIM {
                    sleep();
                }
            })
            .unwrap_err();
            over.store(true, Ordering::Relaxed);
            // The harness's own may be one of them.
            assert!(
                matches!(error, Error::DeadlineExceeded { caller_threads: 4.., .. }),
                "{error:?}"
            );
            assert!(error.to_string().contains("threads"), "{error}");
        });
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_hangs_without(&[
        (Failpoint::NoDeadline, name_of(a_deadline_in_a_threaded_caller_hints_at_the_threads)),
        (Failpoint::NoStallDetection, name_of(a_row_that_never_ends_is_left_out_of_a_fold)),
        (
            Failpoint::NoStartLimit,
            name_of(a_worker_that_hangs_at_its_start_is_replaced_in_two_seconds),
        ),
    ]);
    isolated::each_fails_without(&[
        (
            Failpoint::CountPauseOfCaller,
            name_of(a_caller_that_was_itself_stopped_finds_nobody_late),
        ),
        (
            Failpoint::BlameRowOfStoppedWorker,
            name_of(a_worker_stopped_by_others_is_replaced_and_blames_no_row),
        ),
        (
            Failpoint::PoisonWithoutRunAlone,
            name_of(a_block_that_never_ends_is_halved_until_its_row_is_found),
        ),
        (Failpoint::RestoreNothing, name_of(a_row_whose_update_never_ends_is_as_it_was_or_filled)),
    ]);
}

/// Drops the last but the static's, whose descriptor it closes.
fn close(token: CancelToken) {
    use std::os::fd::{AsFd, AsRawFd};
    let fd = token.as_fd().as_raw_fd();
    drop(token);
    nix::unistd::close(fd).unwrap();
}

/// Not a test: a caller that is stopped for 3 s while a call has a deadline of 2 s, and 1 s of work
/// left.
#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    failpoints::throw_by_environment();
    assert_eq!(role, "caller");
    say("ready");
    let began = Instant::now();
    let m: SharedArray<f64, Ix2> = matrix(N_ROWS, 2);
    let first = SharedWord::new();
    let out = fork().workers(1).deadline(ms(2000)).map_rows(&m, |row| {
        std::thread::sleep(ms(if first_time(&first) { 4000 } else { 1 }));
        row.sum()
    });
    assert!(began.elapsed() > ms(3900), "{:?}", began.elapsed());
    out.unwrap();
    say("done");
}
