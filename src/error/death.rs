//! How a worker ended, and the rows that a call went on without because of it.

use std::fmt;
use std::time::Duration;

use crate::sys::process::Exit;

/// A row that a call went on without, or ended with: an entry of the table in a report or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedRow {
    /// The row.
    pub row: usize,
    /// How the last worker ended that ran it.
    pub cause: DeathCause,
    /// How many workers ended on it while it was alone in its block. 1 for a panic and an error of
    /// the kernel, which name their row themselves.
    pub attempts: u32,
    /// The slot of the last of them.
    pub worker: usize,
}

impl fmt::Display for FailedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, cause, attempts, worker } = self;
        match attempts {
            1 => write!(f, "row {row}: its worker (slot {worker}) {cause}"),
            n => write!(f, "row {row} was fatal to {n} workers; the last (slot {worker}) {cause}"),
        }
    }
}

/// How a worker ended before its work was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathCause {
    /// It left by itself, with this exit code, without having finished its work.
    Exited(i32),
    /// It was killed by this signal (9 is SIGKILL: another process, or the kernel's OOM killer).
    Signalled(i32),
    /// It touched memory that it may not touch (SIGSEGV, SIGBUS).
    MemoryFault {
        /// 11 is SIGSEGV, 7 is SIGBUS.
        signal: i32,
        /// The address it touched.
        address: usize,
        /// The shared array that the address belongs to, if any; every array but the call's output
        /// is read-only in a worker, and with a guard that is, too.
        read_only_segment: Option<String>,
    },
    /// The kernel panicked.
    Panicked {
        /// The panic message, cut at 3 KiB.
        message: String,
        /// `file:line:column`, or `location unknown`.
        location: String,
    },
    /// The kernel returned `Err`.
    Failed {
        /// The error's text, cut at 3 KiB.
        message: String,
    },
    /// It finished no row for as long as the stall limit allows, and was killed for it.
    Stalled {
        /// The stall limit.
        limit: Duration,
        /// Threads of the caller at the fork; a lock that another of them held then is held for
        /// ever in a worker.
        caller_threads: usize,
    },
    /// Likewise, but somebody had stopped it (SIGSTOP), so that no row is to blame.
    Stopped,
    /// It was not ready in time, and was killed for it: a lock that another thread of the caller
    /// held at the fork.
    HungAtStart,
    /// It is gone, and somebody else in this process has taken its exit status (`SIGCHLD` ignored,
    /// or a foreign `wait`). From Linux 6.15 on the kernel tells the cause even then.
    Unknown,
}

impl DeathCause {
    /// Whether stores to wrong addresses may have come before: the process did what a process
    /// should not.
    pub(crate) fn is_wild(&self) -> bool {
        use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
        match self {
            Self::MemoryFault { .. } => true,
            Self::Signalled(signal) => {
                [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS].contains(signal)
            }
            _ => false,
        }
    }

    /// Whether somebody else may have done it, who leaves no trace.
    pub(crate) fn may_come_from_outside(&self) -> bool {
        match self {
            Self::Signalled(_) => !self.is_wild(),
            Self::Stopped | Self::Unknown => true,
            _ => false,
        }
    }
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code} before its work was done"),
            Self::Signalled(libc::SIGKILL) => {
                f.write_str("was killed by SIGKILL (too much memory, or somebody's kill -9)")
            }
            Self::Signalled(signal) => write!(f, "was killed by {}", signal_name(*signal)),
            Self::MemoryFault { signal, address, read_only_segment: None } => {
                write!(f, "was killed by {} at address {address:#x}", signal_name(*signal))
            }
            Self::MemoryFault { signal, address, read_only_segment: Some(name) } => write!(
                f,
                "was killed by {} at address {address:#x}: it wrote to {name}, which is read-only in a worker",
                signal_name(*signal)
            ),
            Self::Panicked { message, location } => write!(f, "panicked: {message} ({location})"),
            Self::Failed { message } => write!(f, "failed: {message}"),
            Self::Stalled { limit, caller_threads } => {
                write!(
                    f,
                    "finished no row for {limit:?} and was killed{}",
                    ThreadHint(*caller_threads)
                )
            }
            Self::Stopped => f.write_str("had been stopped (SIGSTOP) and was killed"),
            Self::HungAtStart => f.write_str("hung before it was ready and was killed"),
            Self::Unknown => {
                f.write_str("died, and its exit status was taken by somebody else in this process")
            }
        }
    }
}

/// The name of a signal as people know it, or its number.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

/// What the status alone tells.
impl From<Exit> for DeathCause {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Exited(code),
            Exit::Signal(signal) => Self::Signalled(signal),
            Exit::Unknown => Self::Unknown,
        }
    }
}

/// `; the caller had N threads`, where that may be why a worker hangs.
pub(super) struct ThreadHint(pub(super) usize);

impl fmt::Display for ThreadHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            n => write!(
                f,
                "; if it hangs: the caller had {n} threads at the fork, and a lock that one of them held then is held for ever in a \
                 worker (printing, logging, a thread pool)"
            ),
        }
    }
}
