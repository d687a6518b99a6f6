//! Making, watching and ending child processes: fork, pidfd, wait.
//!
//! # Safety
//! The one unsafe operation that leaves this module is [`fork`], which says what it asks of its caller.
#![allow(unsafe_code, reason = "fork, and raw calls that nix and rustix lack")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
pub(crate) use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use super::signal::BlockedSignals;

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// Somebody else in this process has taken the status, or `SIGCHLD` is ignored.
    Unknown,
}

/// Forks with all signals blocked. The parent's mask is restored; the child's stays blocked until it has put its
/// handlers in order.
///
/// libc's `fork`, not a raw system call: it runs the handlers that make malloc usable in the child.
///
/// # Errors
/// `EAGAIN` (process limit) or `ENOMEM`.
///
/// # Safety
/// Other threads do not exist in the child, and whatever locks they held are held for ever there. The child must
/// leave by [`exit_now`], and take no lock that another thread of the parent may hold.
pub(crate) unsafe fn fork() -> io::Result<Side> {
    let blocked = BlockedSignals::all()?;
    // SAFETY: passed on to the caller.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => {
            FORKED_CHILD.store(true, Ordering::Relaxed);
            std::mem::forget(blocked);
            Ok(Side::Child)
        }
    }
}

/// Set in the child of [`fork`], which has one thread: no ordering is needed.
static FORKED_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was made by [`fork`], or by a child of it.
pub(crate) fn is_forked_child() -> bool {
    FORKED_CHILD.load(Ordering::Relaxed)
}

/// Leaves at once: no destructor, no `atexit` handler of the parent's runs in a child.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Waits for a child that is about to leave by itself and that nobody else has been told of.
pub(crate) fn reap_by_pid(pid: Pid) {
    while nix::sys::wait::waitpid(pid, None) == Err(nix::Error::EINTR) {}
}

/// This process's id. Never cached: a forked child has another.
pub(crate) fn own_pid() -> Pid {
    nix::unistd::getpid()
}

/// In a child: asks to be killed when the thread that forked it ends, and returns whether `parent` still lives.
///
/// The check closes the race with a parent that died before the request. It compares with the parent's pid, not with
/// 1: an orphan may go to a subreaper.
pub(crate) fn die_with(parent: Pid) -> io::Result<bool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(nix::unistd::getppid() == parent)
}

/// A child process, by a descriptor that cannot come to mean another.
#[derive(Debug)]
pub(crate) struct ChildFd {
    fd: OwnedFd,
}

impl ChildFd {
    /// Opens the pidfd of a child that is known not to have ended yet, or not to have been reaped by anybody else.
    ///
    /// # Errors
    /// That of `pidfd_open` (Linux 5.3), or `ECHILD` when the id belongs to a stranger by now.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
        let child = Self { fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())? };
        // The number could have been given to a stranger if somebody else reaped our child. Only our own child can be
        // waited for. (WNOWAIT: do not reap.)
        child.wait_id(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)?;
        Ok(child)
    }

    /// Sends SIGKILL. A child that is dead already is no error.
    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, rustix::process::Signal::KILL);
    }

    /// Waits until the child has ended (at once, when [`wait_for_end`] has said so) and reaps it. "No such child" means
    /// that somebody else has reaped it, after its end.
    pub(crate) fn reap(&self) -> Exit {
        match self.wait_id(WaitIdOptions::EXITED) {
            Ok(Some(status)) => exit_of(&status),
            Ok(None) | Err(_) => Exit::Unknown,
        }
    }

    fn wait_id(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options))
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (_, Some(signal)) => Exit::Signal(signal),
        _ => Exit::Unknown,
    }
}

/// Sleeps until one of `children` has ended, or until `deadline`. Returns, per child, whether it has ended: a pidfd
/// becomes readable after the process has left its memory, so no store of its can follow.
///
/// # Errors
/// That of `poll`, `EINTR` excepted.
pub(crate) fn wait_for_end<'a>(
    children: impl Iterator<Item = &'a ChildFd>,
    deadline: Instant,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = children.map(|child| PollFd::new(child.fd.as_fd(), PollFlags::POLLIN)).collect();
    loop {
        match nix::poll::poll(&mut polled, timeout_until(deadline)) {
            Ok(_) => return Ok(polled.iter().map(|fd| fd.any().unwrap_or(false)).collect()),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time left, rounded up to the millisecond that `poll` counts in.
fn timeout_until(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
