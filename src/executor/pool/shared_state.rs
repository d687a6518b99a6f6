//! What the zygote and its workers share, made by the caller before it forks the zygote.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::job_board::JobBoard;
use crate::sys::channel::Channel;
use crate::sys::event::Event;
use crate::sys::process::Pid;
use crate::sys::shared::SharedPages;

/// What the zygote and its workers need, made by the caller before the fork.
pub(super) struct PoolShared<'n> {
    pub(super) board: &'n JobBoard,
    pub(super) control: &'n SharedPages,
    /// Rung when the caller is to be woken.
    pub(super) wakeup: &'n Event,
    /// The zygote's end.
    pub(super) channel: &'n Channel,
    /// The workers' ends, one per slot.
    pub(super) worker_channels: &'n [Channel],
    pub(super) caller: Pid,
    /// `None` where there are none.
    pub(super) caller_pidfd: Option<OwnedFd>,
    /// Slots from this one on do not look for jobs, but sleep at once.
    pub(super) n_spinning: usize,
    pub(super) spin: Duration,
    pub(super) init: &'n dyn Fn(),
    /// After so many calls a worker leaves.
    pub(super) calls_per_worker: Option<NonZeroU32>,
}
