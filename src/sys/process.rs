//! Making, watching and ending child processes: fork, pidfd, wait.
//!
//! # Safety
//! The one unsafe operation that leaves this module is [`fork`], which says what it asks of its
//! caller.
#![allow(unsafe_code, reason = "fork, and raw calls that nix and rustix lack")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::ForkResult;
pub(crate) use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{
    Pid as WaitPid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions,
};

use super::signal::BlockedSignals;
use crate::failpoints::{Failpoint, is_on};

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The caller goes on, with the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It left by itself, with this code: 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// Somebody else in this process has taken the status, or `SIGCHLD` is ignored, and the kernel
    /// does not tell it again.
    Unknown,
}

/// Forks with all signals blocked. The parent's mask is restored; the child's stays blocked until
/// it has put its handlers in order. (A handler of the parent's that ran in the child could write
/// to a pipe that both share.)
///
/// This is libc's `fork`, not a raw system call: it runs the handlers that make malloc usable in
/// the child.
///
/// See [fork(2)](https://man7.org/linux/man-pages/man2/fork.2.html).
///
/// # Errors
/// `EAGAIN` (process limit) or `ENOMEM`.
///
/// # Safety
/// Other threads do not exist in the child, and whatever locks they held are held for ever there.
/// The child must leave by [`exit_now`], and take no lock that another thread of the parent may
/// hold.
pub(crate) unsafe fn fork() -> io::Result<Side> {
    let blocked =
        if is_on(Failpoint::SignalsDuringFork) { None } else { Some(BlockedSignals::all()?) };
    // SAFETY: passed on to the caller.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => {
            FORKED_CHILD.store(true, Ordering::Relaxed);
            // Dropped, it would unblock the signals here, too.
            std::mem::forget(blocked);
            Ok(Side::Child)
        }
    }
}

/// Set in the child of [`fork`], which has one thread: no ordering is needed. Its own children
/// inherit the value.
static FORKED_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was made by [`fork`], or by a child of it. A child that the host forks by
/// itself is not known here.
pub(crate) fn is_forked_child() -> bool {
    FORKED_CHILD.load(Ordering::Relaxed)
}

/// Leaves at once: no destructor and no `atexit` handler of the parent's runs in a child, and no
/// buffer of the parent's is written out twice.
///
/// See [`_exit(2)`](https://man7.org/linux/man-pages/man2/_exit.2.html).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Waits for a child that is expected to leave by itself, and that nobody else has been told of.
/// After `limit` the child is killed: it hangs in what the fork has left it.
///
/// This is the way where there is no [`ChildFd`]. It returns when the child is reaped, or is no
/// child of ours (any more).
///
/// See [waitpid(2)](https://man7.org/linux/man-pages/man2/waitpid.2.html).
pub(crate) fn reap_by_pid(pid: Pid, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        match nix::sys::wait::waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                std::thread::sleep(CHILD_POLL_INTERVAL);
            }
            Ok(WaitStatus::StillAlive) => {
                // The child is not reaped yet, so the number is its own.
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                std::thread::sleep(CHILD_POLL_INTERVAL);
            }
            Err(nix::Error::EINTR) => {}
            _ => return,
        }
    }
}

/// The cores that this process may use, by CPU affinity and control group; 1 if the system does not
/// tell.
///
/// See [`sched_getaffinity(2)`](https://man7.org/linux/man-pages/man2/sched_getaffinity.2.html).
pub(crate) fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This process's id. It is never cached: a forked child has another.
///
/// See [getpid(2)](https://man7.org/linux/man-pages/man2/getpid.2.html).
pub(crate) fn own_pid() -> Pid {
    nix::unistd::getpid()
}

/// In a child: asks to be killed when the thread that forked it ends, and returns whether `parent`
/// still lives.
///
/// The check closes the race with a parent that died before the request. It compares with the
/// parent's pid, not with 1: an orphan may go to a subreaper.
///
/// See [prctl(2)](https://man7.org/linux/man-pages/man2/prctl.2.html) and
/// [getppid(2)](https://man7.org/linux/man-pages/man2/getppid.2.html).
pub(crate) fn die_with(parent: Pid) -> io::Result<bool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(nix::unistd::getppid() == parent || is_on(Failpoint::NoParentCheck))
}

/// A child process of ours.
///
/// It is held by a pidfd, a descriptor that cannot come to mean another process. Where the kernel,
/// or the sandbox around it, has none to give, it is held by its number alone. The number stays the
/// child's own until somebody has reaped it, which is to be [`reap`](Self::reap) alone. A host that
/// reaps what is not its own, or ignores `SIGCHLD`, breaks that: so the number is looked up among
/// our children each time, and before every signal. What is left to go wrong is that a new child of
/// such a host's own gets the very number between two looks.
#[derive(Debug)]
pub(crate) struct ChildFd {
    /// Its number.
    pid: WaitPid,
    /// Its pidfd; `None` where there are none.
    fd: Option<OwnedFd>,
}

impl ChildFd {
    /// Takes on a child that is known not to have ended yet, or not to have been reaped by anybody
    /// else.
    ///
    /// # Errors
    /// Those of `pidfd_open` that are not a refusal (no descriptors, no memory), or `ECHILD` when
    /// the id belongs to a stranger by now.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let pid = WaitPid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_of(pid)?;
        let mut child = Self { pid, fd };
        // The number could have been given to a stranger if somebody else reaped our child. Only
        // our own child can be waited for.
        match child.look() {
            // Linux 5.3 has pidfds, but `waitid` takes them from 5.4 on only. Then the number has
            // to do.
            Err(Errno::INVAL) if child.fd.take().is_some() => child.look()?,
            looked => looked?,
        };
        Ok(child)
    }

    /// Sends SIGKILL. A child that is dead already is no error.
    ///
    /// See [`pidfd_send_signal(2)`](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html)
    /// and [kill(2)](https://man7.org/linux/man-pages/man2/kill.2.html).
    pub(crate) fn kill(&self) {
        let sent = self
            .fd
            .as_ref()
            .map(|fd| rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL));
        // Without a pidfd, or where a sandbox forbids its use, the signal goes by number, and only
        // while that is a living child of ours. Somebody else's reaping in between could not make
        // it a stranger's: numbers are given out in turn, so one does not come back at once.
        if !matches!(sent, Some(Ok(()) | Err(Errno::SRCH))) && self.has_ended() == Ok(false) {
            let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        }
    }

    /// Waits until the child has ended (at once, when [`wait_for_end`] has said so) and reaps it.
    /// "No such child" means that somebody else has reaped it, after its end; its pidfd may still
    /// know how it ended.
    ///
    /// See [waitid(2)](https://man7.org/linux/man-pages/man2/waitid.2.html).
    pub(crate) fn reap(&self) -> Exit {
        match self.wait_id(WaitIdOptions::EXITED) {
            Ok(Some(status)) => exit_of(status.exit_status(), status.terminating_signal()),
            Ok(None) => Exit::Unknown,
            Err(_) => self.fd.as_ref().and_then(exit_after_reaping).unwrap_or(Exit::Unknown),
        }
    }

    /// Sleeps until the child has ended, or until `deadline`; returns whether it has ended. Reaps
    /// nothing, and cannot fail: a child that cannot be watched counts as alive. It asks once even
    /// if `deadline` has passed.
    pub(crate) fn ends_by(&self, deadline: Instant) -> bool {
        loop {
            match wait_for_end(std::iter::once(self), None, deadline) {
                Ok(ended) if ended == [true] => return true,
                Err(_) if self.has_ended() == Ok(true) => return true,
                _ if Instant::now() >= deadline => return false,
                Ok(_) => {}
                Err(_) => std::thread::sleep(CHILD_POLL_INTERVAL),
            }
        }
    }

    /// Its pidfd, if there are any: readable once it has ended.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether the child is stopped (SIGSTOP, SIGTSTP) at this moment. The look consumes nothing.
    /// But a host that waits for stopped children of everybody's may have consumed it: then the
    /// answer is no.
    ///
    /// See [waitid(2)](https://man7.org/linux/man-pages/man2/waitid.2.html).
    pub(crate) fn is_stopped(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.wait_id(options).is_ok_and(|status| status.is_some_and(|status| status.stopped()))
    }

    /// Whether the child has ended, reaped or not. The kernel says so after the process has left
    /// its memory, as it does by the pidfd: no store of its can follow.
    fn has_ended(&self) -> rustix::io::Result<bool> {
        match self.look() {
            Ok(status) => Ok(status.is_some()),
            Err(Errno::CHILD) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Its status, if it has ended; `ECHILD` when we have no such child (any more). NOWAIT leaves
    /// it a zombie: nothing is reaped.
    fn look(&self) -> rustix::io::Result<Option<WaitIdStatus>> {
        self.wait_id(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    }

    /// Waits by the pidfd where there is one, or else by the number. An interrupted call is made
    /// again.
    ///
    /// See [waitid(2)](https://man7.org/linux/man-pages/man2/waitid.2.html).
    fn wait_id(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        let id = || self.fd.as_ref().map_or(WaitId::Pid(self.pid), |fd| WaitId::PidFd(fd.as_fd()));
        rustix::io::retry_on_intr(|| rustix::process::waitid(id(), options))
    }
}

/// A descriptor of a process that is known to live; `None` where the system gives none. The process
/// need not be a child of ours: a zygote watches its caller by one.
///
/// # Errors
/// Those of `pidfd_open` that are not a refusal.
pub(crate) fn open_pidfd(pid: Pid) -> io::Result<Option<OwnedFd>> {
    pidfd_of(WaitPid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?)
}

/// Opens a pidfd, and tells "there are none here" from a true error. It is close-on-exec, as every
/// pidfd.
///
/// See [`pidfd_open(2)`](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
fn pidfd_of(pid: WaitPid) -> io::Result<Option<OwnedFd>> {
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if is_refusal(error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends SIGKILL by a descriptor. A process that is dead already is no error.
///
/// See [`pidfd_send_signal(2)`](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html).
pub(crate) fn kill_by(pidfd: &OwnedFd) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether this answer to `pidfd_open` means that there are no pidfds here: an old kernel, one
/// built without them, or a seccomp profile older than they are, whatever errno that profile was
/// written to give.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::NODEV)
}

/// Joins the two halves of a status, which `wait` and `waitid` have in types of their own.
fn exit_of(code: Option<i32>, signal: Option<i32>) -> Exit {
    match (code, signal) {
        (Some(code), _) => Exit::Code(code),
        (_, Some(signal)) => Exit::Signal(signal),
        _ => Exit::Unknown,
    }
}

/// How a child ended that somebody else has reaped, or that nobody had to (`SIGCHLD` ignored): from
/// Linux 6.15 on a pidfd that was open at that time keeps the status.
fn exit_after_reaping(pidfd: &OwnedFd) -> Option<Exit> {
    // A child that nobody has to wait for is "no such child" from its end on, but has a status a
    // moment later. A hundred looks of 50 us make 5 ms, and then the status stays unknown.
    for _ in 0..100 {
        let info = pidfd_info(pidfd, libc::PIDFD_INFO_EXIT).ok()?;
        if info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0 {
            let status = info.exit_code;
            let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
            return Some(exit_of(code, signal));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    None
}

/// `ioctl(PIDFD_GET_INFO)` (Linux 6.13). The answer is `ESRCH` when the process is gone and its
/// status was not asked for or not kept.
///
/// See [ioctl(2)](https://man7.org/linux/man-pages/man2/ioctl.2.html).
fn pidfd_info(pidfd: &OwnedFd, mask: u32) -> io::Result<libc::pidfd_info> {
    // SAFETY: integers alone, for which all zeros are a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = mask.into();
    // SAFETY: the kernel writes at most as many bytes as the request's own number says, which are
    // those of `info`.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if answer == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Reaps any child that has ended; `None` when none has. It knows every signal, real-time ones
/// included. The zygote alone calls this, because a host's own children are not ours to reap.
///
/// See [waitpid(2)](https://man7.org/linux/man-pages/man2/waitpid.2.html).
pub(crate) fn reap_any() -> Option<(i32, Exit)> {
    let waited = rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG));
    let (pid, status) = waited.ok()??;
    Some((pid.as_raw_nonzero().get(), exit_of(status.exit_status(), status.terminating_signal())))
}

/// How long to sleep between two looks at children that have no pidfd.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Sleeps until one of `children` has ended, `wake` is readable, a signal has been handled, or
/// `deadline` is there. Returns, per child, whether it has ended: a pidfd becomes readable after
/// the process has left its memory, so no store of its can follow.
///
/// Children with pidfds cost one system call. Those without are looked at every millisecond.
///
/// See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
///
/// # Errors
/// That of `poll` or of a look.
pub(crate) fn wait_for_end<'a>(
    children: impl Iterator<Item = &'a ChildFd>,
    wake: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> io::Result<Vec<bool>> {
    let children: Vec<&ChildFd> = children.collect();
    let by_fd = children.iter().filter_map(|child| child.fd.as_ref()).map(AsFd::as_fd);
    let mut polled: Vec<PollFd<'_>> =
        by_fd.chain(wake).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let all_by_fd = children.iter().all(|child| child.fd.is_some());
    loop {
        let now = Instant::now();
        let look =
            |child: &&ChildFd| if child.fd.is_some() { Ok(false) } else { child.has_ended() };
        let mut ended = children.iter().map(look).collect::<rustix::io::Result<Vec<bool>>>()?;
        // Where somebody has ended already, `poll` only looks and does not sleep.
        let until = match (ended.contains(&true), all_by_fd) {
            (true, _) => now,
            (false, true) => deadline,
            (false, false) => deadline.min(now + CHILD_POLL_INTERVAL),
        };
        match nix::poll::poll(&mut polled, timeout_until(until)) {
            Ok(_) => {}
            // The caller may have something to do about the signal.
            Err(nix::Error::EINTR) => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
        let by_fd = children.iter().zip(&mut ended).filter(|(child, _)| child.fd.is_some());
        for ((_, ended), fd) in by_fd.zip(&polled) {
            *ended = fd.any().unwrap_or(false);
        }
        let woken = wake.is_some() && polled.last().is_some_and(|fd| fd.any().unwrap_or(false));
        if all_by_fd || woken || now >= deadline || ended.contains(&true) {
            return Ok(ended);
        }
    }
}

/// The time left, rounded up to the millisecond that `poll` counts in. Rounded down, the last
/// fraction of a millisecond would be spent in a busy loop.
fn timeout_until(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::sys::signal::kill;
    use nix::sys::wait::waitpid;

    use super::*;

    /// Nothing here takes long; what does has failed.
    const LONG: Duration = Duration::from_secs(20);

    #[allow(clippy::zombie_processes, reason = "reaped by what is tested")]
    fn child(script: &str) -> Pid {
        let child = Command::new("sh").args(["-c", script]).stdout(Stdio::null()).spawn().unwrap();
        Pid::from_raw(child.id().cast_signed())
    }

    fn by_number(pid: Pid) -> ChildFd {
        ChildFd { pid: WaitPid::from_raw(pid.as_raw()).unwrap(), fd: None }
    }

    /// The same child in every way that there is to hold it.
    const WAYS: [fn(Pid) -> ChildFd; 2] = [|pid| ChildFd::open(pid).unwrap(), by_number];

    fn in_ms(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    fn until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "did not come true");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_child_is_waited_for_up_to_a_deadline_killed_and_reaped() {
        for hold in WAYS {
            let child = hold(child("exec sleep 60"));
            let began = Instant::now();
            assert!(!child.ends_by(in_ms(20)));
            assert!(began.elapsed() >= Duration::from_millis(20));
            child.kill();
            assert!(child.ends_by(Instant::now() + LONG), "{child:?}");
            assert!(child.ends_by(Instant::now()), "asked again, after the deadline");
            child.kill();
            assert_eq!(child.reap(), Exit::Signal(libc::SIGKILL));
            assert_eq!(
                by_number(Pid::from_raw(child.pid.as_raw_nonzero().get())).reap(),
                Exit::Unknown,
                "reaped once"
            );
        }
    }

    #[test]
    fn children_with_and_without_pidfds_are_waited_for_together() {
        for dying in 0..3 {
            let scripts =
                (0..3).map(|index| if index == dying { "exit 7" } else { "exec sleep 60" });
            let ways = [WAYS[1], WAYS[0], WAYS[1]];
            let children: Vec<ChildFd> =
                scripts.zip(ways).map(|(script, hold)| hold(child(script))).collect();
            let ended = wait_for_end(children.iter(), None, Instant::now() + LONG).unwrap();
            assert_eq!(ended, [dying == 0, dying == 1, dying == 2]);
            assert_eq!(children[dying].reap(), Exit::Code(7));
            for (_, sleeper) in children.iter().enumerate().filter(|(index, _)| *index != dying) {
                sleeper.kill();
                assert_eq!(sleeper.reap(), Exit::Signal(libc::SIGKILL));
            }
        }
    }

    #[test]
    fn a_stopped_child_is_seen_stopped_until_it_goes_on_or_dies() {
        for hold in WAYS {
            let pid = child("exec sleep 60");
            let child = hold(pid);
            assert!(!child.is_stopped());
            kill(pid, Signal::SIGSTOP).unwrap();
            until(|| child.is_stopped());
            assert!(child.is_stopped(), "the first look has consumed it");
            assert!(!child.ends_by(Instant::now()), "stopped is not ended");
            kill(pid, Signal::SIGCONT).unwrap();
            until(|| !child.is_stopped());
            // Not SIGTSTP, which the kernel drops where no shell could continue the group.
            kill(pid, Signal::SIGSTOP).unwrap();
            until(|| child.is_stopped());
            child.kill();
            assert!(child.ends_by(Instant::now() + LONG));
            assert!(!child.is_stopped());
            assert_eq!(child.reap(), Exit::Signal(libc::SIGKILL));
        }
    }

    #[test]
    fn a_stranger_with_the_number_is_not_signalled_or_waited_for() {
        // A child's child is no child of ours, as good as any stranger.
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait $!"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap());
        assert_eq!(ChildFd::open(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        let stranger = by_number(pid);
        stranger.kill();
        assert!(
            stranger.ends_by(Instant::now() + LONG),
            "our child is gone, whoever has the number"
        );
        assert_eq!(stranger.reap(), Exit::Unknown);
        // A SIGKILL would have come first.
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(parent.wait().unwrap().code(), Some(128 + libc::SIGTERM));
    }

    #[test]
    fn a_status_taken_by_others_is_told_by_a_pidfd_where_it_is_kept() {
        for (script, exit) in
            [("exit 7", Exit::Code(7)), ("exit 0", Exit::Code(0)), ("kill -9 $$", Exit::Signal(9))]
        {
            let pid = child(script);
            // Held while it cannot be gone yet: a zombie counts.
            let (open, number) = (ChildFd::open(pid).unwrap(), by_number(pid));
            waitpid(pid, None).unwrap();
            let kept = pidfd_info(open.fd.as_ref().unwrap(), libc::PIDFD_INFO_EXIT).is_ok();
            assert_eq!(open.reap(), if kept { exit } else { Exit::Unknown });
            assert_eq!(number.reap(), Exit::Unknown);
        }
    }
}
