//! Hosts that handle or ignore signals, and hosts that are killed: what their workers have of them,
//! and what becomes of the workers.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rowfork::failpoints::{self, Failpoint};
use rowfork::{DeathCause, Error, SharedArray, fork};

use crate::support::disturbance::Random;
use crate::support::harm::{first_time, harmed, matrix};
use crate::support::isolated::{self, is_running, isolated, name_of};
use crate::support::shared::{SharedWord, ignore_sigchld, raise};
use crate::support::{eventually, segments_named, sweeps_until};

#[test]
fn a_worker_has_default_signals_but_for_those_of_the_terminal() {
    isolated(|| {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        #[allow(unsafe_code, reason = "installs a handler")]
        // SAFETY: the handler does nothing.
        unsafe {
            sigaction(Signal::SIGUSR1, &handler).unwrap();
        }
        let m = matrix(10, 1);
        let survived = harmed(&m, 2, |_| {
            for signal in
                [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE]
            {
                raise(signal);
            }
        });
        assert!(survived.unwrap().1.deaths.is_empty());
        let deaths = SharedWord::new();
        let (_, report) = harmed(&m, 2, |row| {
            if row == 3 && first_time(&deaths) {
                raise(Signal::SIGUSR1);
            }
        })
        .unwrap();
        assert_eq!(report.deaths[0].cause, DeathCause::Signalled(libc::SIGUSR1));
        let blocked = fork().workers(1).map_rows(&m, |_| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() as f64
        });
        assert_eq!(blocked.unwrap().view()[0], 0.0);
    });
}

#[test]
fn signals_that_interrupt_the_calling_thread_have_no_effect() {
    isolated(|| {
        let m = matrix(200, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let interrupted = interrupt_this_thread_every_millisecond(|| {
            for round in 0..50 {
                let deaths = SharedWord::new();
                let (sums, _) = harmed(&m, 1 + round % 3, |row| {
                    std::thread::sleep(Duration::from_micros(50));
                    if row == 100 && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                })
                .unwrap();
                assert_eq!(sums, expected);
            }
        });
        assert!(interrupted >= 100, "only {interrupted} signals came");
    });
}

#[test]
fn a_signal_to_the_group_runs_no_host_handler_in_a_worker() {
    isolated(|| {
        static HOME: AtomicUsize = AtomicUsize::new(0);
        static STRANGERS: std::sync::OnceLock<SharedWord> = std::sync::OnceLock::new();
        extern "C" fn note(_: libc::c_int) {
            if nix::unistd::getpid().as_raw().cast_unsigned() as usize
                != HOME.load(Ordering::Relaxed)
            {
                STRANGERS.get().map(|word| word.fetch_add(1, Ordering::Relaxed));
            }
        }
        HOME.store(std::process::id() as usize, Ordering::Relaxed);
        let strangers = STRANGERS.get_or_init(SharedWord::new);
        let m = matrix(10, 3);
        // A terminal that is being resized: whoever has no handler of its own does not notice.
        let handler =
            SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        #[allow(unsafe_code, reason = "installs a handler")]
        // SAFETY: the handler compares two numbers and adds to an atomic.
        unsafe {
            sigaction(Signal::SIGWINCH, &handler).unwrap();
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    nix::sys::signal::killpg(nix::unistd::getpgrp(), Signal::SIGWINCH).unwrap();
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
            for _ in 0..200 {
                assert!(harmed(&m, 2, |_| {}).unwrap().1.deaths.is_empty());
            }
        });
        assert_eq!(
            strangers.load(Ordering::Relaxed),
            0,
            "handled by a worker, with what it has of the host"
        );
    });
}

#[test]
fn a_host_that_ignores_sigchld_gets_its_results() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        ignore_sigchld();
        let deaths = SharedWord::new();
        let (sums, report) = harmed(&m, 2, |row| {
            if row == 20 && first_time(&deaths) {
                raise(Signal::SIGKILL);
            }
        })
        .unwrap();
        assert_eq!(sums, expected);
        assert_eq!(report.deaths.len(), 1, "{report}");
        // Nobody can wait for it; what its pidfd says is decided by the kernel alone.
        let cause =
            if linux_is_at_least(6, 15) { DeathCause::Signalled(9) } else { DeathCause::Unknown };
        assert_eq!(report.deaths[0].cause, cause);
        assert!(harmed(&m, 4, |_| {}).unwrap().1.deaths.is_empty(), "nobody died");
    });
}

#[test]
fn a_host_that_ignores_sigchld_learns_what_happened_every_time() {
    isolated(|| {
        if !linux_is_at_least(6, 15) {
            println!("SKIPPED: the kernel keeps no status for pidfds (Linux 6.15)");
            return;
        }
        let m = matrix(20, 3);
        ignore_sigchld();
        for round in 0..200 {
            let deaths = SharedWord::new();
            let exit_once = |row| {
                if row == round % 20 && first_time(&deaths) {
                    std::process::exit(7)
                }
            };
            let (_, report) = harmed(&m, 2, exit_once).unwrap();
            assert_eq!(report.deaths[0].cause, DeathCause::Exited(7), "round {round}");
        }
    });
}

#[test]
fn a_stranger_with_the_pid_of_a_dead_worker_is_not_signalled() {
    isolated(|| {
        let Some(decoy) = decoy_with_a_dead_workers_pid() else { return };
        assert!(is_running(decoy), "the decoy was killed");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(decoy), Signal::SIGKILL).unwrap();
        while is_running(decoy) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_worker_whose_caller_dies_in_the_middle_of_a_long_row_ends() {
    isolated(|| {
        assert_no_worker_outlives_a_caller(Duration::from_millis(300), "sleeps");
    });
}

#[test]
fn a_worker_whose_caller_dies_before_it_is_tied_to_it_ends() {
    isolated(|| {
        assert_no_worker_outlives_a_caller(Duration::ZERO, "late");
    });
}

#[test]
fn a_caller_killed_any_time_leaves_no_worker_or_volatile_name() {
    isolated(|| {
        let tag = format!("{VICTIM}={}", std::process::id());
        let mut random = Random(std::process::id().into());
        for round in 0..100 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args([
                    name_of(victim_of_a_sigkill),
                    "--exact",
                    "--ignored",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env(VICTIM, std::process::id().to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
            victim.kill().unwrap();
            victim.wait().unwrap();
            assert!(
                eventually(|| running_with(&tag).is_empty()),
                "round {round}: still there: {:?}",
                running_with(&tag)
            );
        }
        let left = || segments_named(&format!("rowfork-victim-{}-", std::process::id()));
        assert!(sweeps_until(|| left().is_empty()), "{:?}", left());
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::KeepSignalHandlers,
            name_of(a_worker_has_default_signals_but_for_those_of_the_terminal),
        ),
        (
            Failpoint::SignalsDuringFork,
            name_of(a_signal_to_the_group_runs_no_host_handler_in_a_worker),
        ),
        (
            Failpoint::WorkersOutliveCaller,
            name_of(a_worker_whose_caller_dies_in_the_middle_of_a_long_row_ends),
        ),
        (
            Failpoint::NoParentCheck,
            name_of(a_worker_whose_caller_dies_before_it_is_tied_to_it_ends),
        ),
    ]);
}

/// A caller whose kernel takes a minute is killed so long after its worker was forked.
fn assert_no_worker_outlives_a_caller(after: Duration, how: &str) {
    let tag = format!("{VICTIM}={}", std::process::id());
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            name_of(victim_of_a_sigkill),
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VICTIM, std::process::id().to_string())
        .env(SLOW, how)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let within = |limit, condition: &dyn Fn(usize) -> bool| {
        let deadline = Instant::now() + limit;
        while !condition(running_with(&tag).len()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        condition(running_with(&tag).len())
    };
    let forked = within(Duration::from_secs(5), &|processes| processes > 1);
    std::thread::sleep(after);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(forked, "no worker was forked");
    let gone = within(Duration::from_secs(4), &|processes| processes == 0);
    let orphans = running_with(&tag);
    for &orphan in &orphans {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), Signal::SIGKILL);
    }
    rowfork::segment::sweep().unwrap();
    assert!(gone, "orphans: {orphans:?}");
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Not a test: the program that tests above kill.
#[test]
#[ignore = "runs for ever; a part of another test"]
fn victim_of_a_sigkill() {
    let Ok(tag) = std::env::var(VICTIM) else { return };
    failpoints::throw_by_environment();
    if let Ok(how) = std::env::var(SLOW) {
        if how == "late" {
            failpoints::throw(Failpoint::LateParentDeathSignal);
        }
        let m = SharedArray::<f64, _>::zeros(None, (1, 1)).unwrap();
        let minute = |_: rowfork::Row<'_, f64, ndarray::Ix1>| {
            std::thread::sleep(Duration::from_secs(60));
            0.0
        };
        fork().map_rows(&m, minute).unwrap();
    }
    for round in 0.. {
        let name = format!("rowfork-victim-{tag}-{}-{round}", std::process::id());
        let m = SharedArray::from_shape_fn(name.as_str(), (3000, 100), |(i, j)| (i + j) as f64)
            .unwrap();
        let mut sums = fork().workers(3).row_sums(&m).unwrap();
        sums.publish(&format!("{name}-sums")).unwrap();
        fork().workers(2).map_rows(&m, |row| row.sum().sqrt()).unwrap();
    }
}

/// In the environment of a victim and its workers: the process that killed it.
const VICTIM: &str = "ROWFORK_TEST_VICTIM_OF";

/// Likewise: its kernel takes a minute; and, if `late`, its workers take a second before they tie
/// themselves to it.
const SLOW: &str = "ROWFORK_TEST_SLOW";

/// Processes that run with this entry in their environment.
fn running_with(variable: &str) -> Vec<i32> {
    let has_it = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == variable.as_bytes())
    };
    let processes = isolated::processes().into_iter().map(|process| process.pid);
    processes.filter(|&pid| has_it(pid) && is_running(pid)).collect()
}

/// Makes a process whose pid was a worker's during the same call, which ends with its other workers
/// being killed. `None` (with the reason printed) where pids cannot be steered.
fn decoy_with_a_dead_workers_pid() -> Option<i32> {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    if std::fs::OpenOptions::new().write(true).open(LAST_PID).is_err() {
        println!("SKIPPED pid reuse: {LAST_PID} cannot be written (needs root)");
        return None;
    }
    ignore_sigchld(); // so that a dead worker's pid is free at once
    let m = matrix(2, 1);
    let (dead, taken) = (SharedWord::new(), SharedWord::new());
    std::thread::scope(|scope| {
        let decoy = scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline {
                let pid = i32::try_from(dead.load(Ordering::Acquire)).unwrap();
                if pid == 0 || std::path::Path::new(&format!("/proc/{pid}")).exists() {
                    continue;
                }
                std::fs::write(LAST_PID, (pid - 1).to_string()).ok();
                #[allow(
                    clippy::zombie_processes,
                    reason = "SIGCHLD is ignored: there is nothing to wait for"
                )]
                let child = Command::new("sleep").arg("60").spawn().unwrap();
                if child.id().cast_signed() == pid {
                    taken.store(1, Ordering::Release);
                    return Some(pid);
                }
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(child.id().cast_signed()),
                    Signal::SIGKILL,
                )
                .ok();
            }
            taken.store(2, Ordering::Release);
            None
        });
        let outcome = fork().workers(2).map_rows(&m, |row| {
            if row.index() == 0 {
                if dead
                    .compare_exchange(
                        0,
                        u64::from(std::process::id()),
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    )
                    .is_ok()
                {
                    raise(Signal::SIGKILL);
                }
                while taken.load(Ordering::Acquire) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Err("over: the supervisor now kills what is left of its workers");
            }
            std::thread::sleep(Duration::from_secs(30));
            Ok(0.0)
        });
        assert!(matches!(outcome.unwrap_err(), Error::KernelFailed { row: 0, .. }));
        decoy.join().unwrap().or_else(|| {
            println!("SKIPPED pid reuse: the pid was never free");
            None
        })
    })
}

fn linux_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}

/// Runs `work` while a signal, whose handler does not ask for interrupted calls to be restarted,
/// comes to this very thread every millisecond. Returns how many came.
fn interrupt_this_thread_every_millisecond(work: impl FnOnce()) -> usize {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    let handler = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    #[allow(unsafe_code, reason = "installs a handler")]
    // SAFETY: the handler adds to an atomic.
    unsafe {
        sigaction(Signal::SIGUSR1, &handler).unwrap();
    }
    let target = nix::sys::pthread::pthread_self();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                nix::sys::pthread::pthread_kill(target, Signal::SIGUSR1).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        work();
    });
    HANDLED.load(Ordering::Relaxed)
}
