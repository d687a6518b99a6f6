//! [`PoolShared`]: what the zygote and its workers share.
//!
//! The caller makes it in `builder.rs` before it forks the zygote, and both get it as a copy
//! through the fork. It is data only; nothing here acts.

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
    /// The pages of the control block.
    pub(super) control: &'n SharedPages,
    /// A worker raises it when the caller is to be woken.
    pub(super) wakeup: &'n Event,
    /// The zygote's end of the channel to the caller.
    pub(super) channel: &'n Channel,
    /// The workers' ends of their mailboxes, one per slot. The zygote keeps them open, so a
    /// worker's successor reads what the worker has left.
    pub(super) worker_channels: &'n [Channel],
    pub(super) caller: Pid,
    /// The caller's pidfd; `None` where there are none.
    pub(super) caller_pidfd: Option<OwnedFd>,
    /// The workers of slots from this one on do not look for jobs awake: they sleep at once.
    pub(super) n_spinning: usize,
    /// How long the other workers look for a job before they sleep, at most.
    pub(super) spin: Duration,
    /// The user's function for new workers.
    pub(super) init: &'n dyn Fn(),
    /// After this many calls a worker leaves; `None` for never.
    pub(super) calls_per_worker: Option<NonZeroU32>,
}
