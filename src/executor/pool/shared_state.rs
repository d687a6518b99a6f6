//! What the zygote and its workers share, made by the caller before it forks the zygote.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::job_board::Board;
use crate::sys::channel::Channel;
use crate::sys::event::Event;
use crate::sys::process::Pid;
use crate::sys::shared::SharedPages;

/// What the zygote and its workers need, made by the caller before the fork.
pub(super) struct Nest<'n> {
    pub(super) board: &'n Board,
    pub(super) control: &'n SharedPages,
    /// Rung when the caller is to be woken.
    pub(super) bell: &'n Event,
    /// The zygote's end.
    pub(super) channel: &'n Channel,
    /// The workers' ends, one per slot.
    pub(super) posts: &'n [Channel],
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
