//! What a terminal and a shell do to a program in the middle of its calls: ^C, ^Z, a hangup, a kill
//! of the whole group. The caller is this binary again, in a session of its own, with a
//! pseudo-terminal of its own.
//!
//! `ROWFORK_TEST_ROUNDS=1000 cargo t-faults signals::` strikes as often, instead of 60 times.
#![allow(unsafe_code, reason = "a pseudo-terminal, and signal handlers")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ndarray::Ix2;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction};
use nix::unistd::Pid;
use rowfork::{SharedArray, fork};

use crate::support::isolated::{self, isolated};
use crate::support::{self, Holder, Names, player, say, skip, sweeps_until, within};

// ---- the caller
// --------------------------------------------------------------------------------------------

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    // A player is beyond the reach of the watchdog, which kills a process group.
    nix::unistd::alarm::set(100);
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["caller", tty, name] => {
            let _terminal = lead_a_session_at(tty);
            calls_without_end(name, |_| ());
        }
        ["shell", tty, name, count] => shell(tty, name, count),
        ["job", name, count] => {
            calls_without_end(name, |done| std::fs::write(count, done.to_string()).unwrap());
        }
        ["handles", tty] => {
            let _terminal = lead_a_session_at(tty);
            calls_under_a_handler_of_the_hosts();
        }
        _ => panic!("unknown role {role}"),
    }
}

/// Makes this process the leader of a session, the terminal its controlling terminal, and itself
/// the foreground.
fn lead_a_session_at(tty: &str) -> File {
    nix::unistd::setsid().unwrap();
    // Who runs the tests may ignore them: nohup, a shell's background job.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP] {
        handle(signal, SigHandler::SigDfl);
    }
    // The first terminal that a session's leader opens becomes the session's.
    File::options().read(true).write(true).open(tty).unwrap()
}

fn handle(signal: Signal, handler: SigHandler) {
    // SAFETY: the default runs no code of ours, and the one handler here does what its own comment
    // says.
    unsafe { sigaction(signal, &SigAction::new(handler, SaFlags::empty(), SigSet::empty())) }
        .unwrap();
}

/// Arrays under names, sums and a map, for ever; every result is checked.
fn calls_without_end(name: &str, done: impl Fn(usize)) {
    for round in 1.. {
        let name = format!("{name}-{round}");
        let m = matrix(Some(&name));
        let mut sums = fork().workers(3).row_sums(&m).unwrap();
        sums.publish(&format!("{name}-sums")).unwrap();
        let doubled =
            fork().workers(2).block_rows(100).map_rows(&m, |row| row.sum() * 2.0).unwrap();
        assert!(sums.view().iter().enumerate().all(|(i, &sum)| sum == right_sum(i)), "a wrong sum");
        assert!(
            doubled.view().iter().enumerate().all(|(i, &sum)| sum == 2.0 * right_sum(i)),
            "a wrong value"
        );
        assert!(
            sums.report().deaths.is_empty() && doubled.report().deaths.is_empty(),
            "{}",
            doubled.report()
        );
        done(round);
        if round == 1 {
            say("ready");
        }
    }
}

fn matrix(name: Option<&str>) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(name, (3000, 100), |(i, j)| (i + j) as f64).unwrap()
}

fn right_sum(row: usize) -> f64 {
    (row * 100 + 4950) as f64
}

/// As a shell does it: the job is in a group of its own, in the foreground. (The group of a
/// session's leader is orphaned, and to such a one ^Z does nothing.)
fn shell(tty: &str, name: &str, count: &str) {
    let terminal = lead_a_session_at(tty);
    let mut job =
        player(plays_a_role, &format!("job {name} {count}")).process_group(0).spawn().unwrap();
    // SAFETY: a plain system call on a descriptor of ours.
    assert_eq!(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), job.id().cast_signed()) }, 0);
    say(&format!("job {}", job.id()));
    assert_eq!(
        job.wait().unwrap().signal(),
        Some(libc::SIGKILL),
        "the job should have gone on until it was killed"
    );
    say("over");
}

/// Calls, while ^C comes again and again, until enough of them have met one.
fn calls_under_a_handler_of_the_hosts() {
    static INTERRUPTIONS: AtomicUsize = AtomicUsize::new(0);
    static CALLER: AtomicU64 = AtomicU64::new(0);
    /// Sets a flag; and sees to it that it is the calling thread whose system calls are
    /// interrupted.
    extern "C" fn note(signal: libc::c_int) {
        let caller = CALLER.load(Ordering::Relaxed);
        if nix::sys::pthread::pthread_self() == caller {
            INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
        } else {
            // SAFETY: async-signal-safe, and the calling thread lives as long as the process.
            unsafe { libc::pthread_kill(caller, signal) };
        }
    }
    CALLER.store(nix::sys::pthread::pthread_self(), Ordering::Relaxed);
    // No SA_RESTART: interrupted system calls come back with EINTR.
    handle(Signal::SIGINT, SigHandler::Handler(note));
    let m = matrix(None);
    say("ready");
    let (mut calls, mut interrupted) = (0, 0);
    while interrupted < 20 {
        let before = INTERRUPTIONS.load(Ordering::Relaxed);
        let sums = fork().workers(2).block_rows(50).map_rows(&m, |row| {
            std::thread::sleep(Duration::from_micros(5));
            row.sum()
        });
        let sums = sums.unwrap();
        assert!(
            sums.view().iter().enumerate().all(|(i, &sum)| sum == right_sum(i)),
            "a wrong value"
        );
        assert!(sums.report().deaths.is_empty(), "{}", sums.report());
        assert_eq!(sums.report().rerun_rows, 0);
        calls += 1;
        interrupted += usize::from(INTERRUPTIONS.load(Ordering::Relaxed) > before);
    }
    say(&format!("FIGURE {calls} calls, {interrupted} of them interrupted, all right"));
}

// ---- the terminal
// --------------------------------------------------------------------------------------------

/// A pseudo-terminal: the keyboard's end, and the path of the program's.
struct Terminal {
    keyboard: File,
    tty: PathBuf,
}

impl Terminal {
    /// `None` (with the reason printed) where there are none.
    fn open() -> Option<Self> {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: two places for descriptors; name, settings and size are optional.
        if unsafe { libc::openpty(&raw mut master, &raw mut slave, null_mut(), null(), null()) }
            != 0
        {
            skip(&format!("no pseudo-terminals here: {}", std::io::Error::last_os_error()));
            return None;
        }
        // SAFETY: openpty has just made it, for us.
        let keyboard = unsafe { File::from_raw_fd(master) };
        // SAFETY: as above.
        let slave = unsafe { File::from_raw_fd(slave) };
        // Inherited by the player, the keyboard's end would stay open when we close ours.
        // SAFETY: a plain system call on a descriptor of ours.
        let set = unsafe { libc::fcntl(keyboard.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        assert_eq!(set, 0);
        let tty = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
        Some(Self { keyboard, tty })
    }

    fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }
}

const CTRL_C: u8 = 3;
const CTRL_Z: u8 = 26;

/// A player's session. Dropping it ends what is left of it: an orphan would keep the test's output
/// open for ever.
struct Session(u32);

impl Drop for Session {
    fn drop(&mut self) {
        for pid in running_in_session(self.0) {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Processes of a session that run (zombies do not).
fn running_in_session(leader: u32) -> Vec<i32> {
    let of_session = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // State, parent, group, session.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(3)?.parse().ok())
            == Some(leader)
    };
    let all = isolated::processes().into_iter().map(|process| process.pid);
    all.filter(|&pid| of_session(pid) && isolated::is_running(pid)).collect()
}

fn rounds() -> usize {
    std::env::var("ROWFORK_TEST_ROUNDS")
        .map_or(60, |rounds| rounds.parse().expect("a number of rounds"))
}

/// xorshift64*: enough to be unpredictable in time.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(u64::from(std::process::id()) | 1)
    }

    fn sleep(&mut self, below_us: u64) {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        std::thread::sleep(Duration::from_micros(
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below_us,
        ));
    }
}

/// Callers in the middle of their calls are struck: each dies by `signal`, and of none is anything
/// left.
fn struck_at_random_times(
    rounds: usize,
    signal: Signal,
    strike: impl Fn(Terminal, Pid) -> Option<Terminal>,
) {
    let names = Names::new();
    let mut random = Random::new();
    for round in 0..rounds {
        let Some(terminal) = Terminal::open() else { return };
        let mut caller = Holder::start(player(
            plays_a_role,
            &format!("caller {} {}", terminal.tty.display(), names.name("a")),
        ));
        assert_eq!(caller.says(), "ready");
        let leader = caller.child.id();
        let _session = Session(leader);
        random.sleep(20_000);
        let terminal = strike(terminal, Pid::from_raw(leader.cast_signed()));
        let mut status: Option<ExitStatus> = None;
        let dead = within(Duration::from_secs(3), || {
            status = caller.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(dead, "round {round}: the caller survived {signal}");
        assert_eq!(
            status.and_then(|status| status.signal()),
            Some(signal as i32),
            "round {round}: {status:?}"
        );
        let gone = within(Duration::from_secs(1), || running_in_session(leader).is_empty());
        assert!(gone, "round {round}: after 1 s these still run: {:?}", running_in_session(leader));
        let swept = sweeps_until(|| names.left().is_empty());
        assert!(swept, "round {round}: left {:?}", names.left());
        drop(terminal);
    }
    println!("FIGURE {rounds} callers struck by {signal}, nothing left of any");
}

#[test]
fn a_caller_dies_of_ctrl_c_at_any_time_and_leaves_nothing() {
    isolated(|| {
        struck_at_random_times(rounds(), Signal::SIGINT, |mut terminal, _| {
            terminal.press(CTRL_C);
            Some(terminal)
        });
    });
}

#[test]
fn a_caller_whose_group_is_terminated_leaves_nothing() {
    isolated(|| {
        struck_at_random_times(rounds() / 3, Signal::SIGTERM, |terminal, group| {
            killpg(group, Signal::SIGTERM).unwrap();
            Some(terminal)
        });
    });
}

#[test]
fn a_caller_whose_terminal_hangs_up_leaves_nothing() {
    isolated(|| {
        struck_at_random_times(rounds() / 3, Signal::SIGHUP, |terminal, _| {
            drop(terminal);
            None
        });
    });
}

#[test]
fn a_caller_killed_with_all_its_workers_at_once_leaves_nothing() {
    isolated(|| {
        struck_at_random_times(rounds() / 3, Signal::SIGKILL, |terminal, group| {
            killpg(group, Signal::SIGKILL).unwrap();
            Some(terminal)
        });
    });
}

#[test]
fn calls_go_on_rightly_after_ctrl_z_and_fg() {
    isolated(|| {
        let names = Names::new();
        let Some(mut terminal) = Terminal::open() else { return };
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let role =
            format!("shell {} {} {}", terminal.tty.display(), names.name("a"), count.display());
        let mut shell = Holder::start(player(plays_a_role, &role));
        let session = Session(shell.child.id());
        // The two say their words to the same pipe, in either order.
        let said = [shell.says(), shell.says()];
        let job: i32 = said
            .iter()
            .find_map(|word| word.strip_prefix("job ")?.parse().ok())
            .expect("the job's pid");
        assert!(said.contains(&"ready".to_owned()), "{said:?}");
        // Empty for an instant, whenever it is written.
        let calls =
            |count: &Path| std::fs::read_to_string(count).unwrap().parse::<usize>().unwrap_or(0);
        let mut random = Random::new();
        for round in 0..rounds() / 3 {
            random.sleep(20_000);
            terminal.press(CTRL_Z);
            let found = || isolated::processes().into_iter().find(|process| process.pid == job);
            let state = || found().map(|process| process.state);
            assert!(
                within(Duration::from_secs(3), || state() == Some('T')),
                "round {round}: {:?}",
                state()
            );
            let before = calls(&count);
            // Now and then for longer than the caller leaves its workers to end by themselves.
            std::thread::sleep(Duration::from_millis(if round % 4 == 0 { 250 } else { 20 }));
            assert!(
                calls(&count) <= before.max(1),
                "round {round}: it went on while it was stopped"
            );
            killpg(Pid::from_raw(job), Signal::SIGCONT).unwrap();
            assert!(
                within(Duration::from_secs(4), || calls(&count) > before + 1),
                "round {round}: it does not go on"
            );
        }
        killpg(Pid::from_raw(job), Signal::SIGKILL).unwrap();
        assert_eq!(shell.says(), "over");
        shell.let_go();
        assert!(within(Duration::from_secs(1), || running_in_session(session.0).is_empty()));
        assert!(sweeps_until(|| names.left().is_empty()));
    });
}

#[test]
fn a_caller_that_handles_ctrl_c_has_results_and_loses_no_worker() {
    isolated(|| {
        let Some(mut terminal) = Terminal::open() else { return };
        let mut caller =
            Holder::start(player(plays_a_role, &format!("handles {}", terminal.tty.display())));
        let _session = Session(caller.child.id());
        assert_eq!(caller.says(), "ready");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new();
                while !over.load(Ordering::Relaxed) {
                    terminal.press(CTRL_C);
                    random.sleep(5_000);
                }
            });
            let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
            println!("{}", caller.says());
        });
        caller.let_go();
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
