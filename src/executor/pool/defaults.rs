//! The options that calls on a pool have unless they say otherwise.
//!
//! `PoolBuilder` sets them, and every call of the pool begins with a copy. There is no callback
//! among them: [`Pool`](super::Pool) may be shared by threads because of that.

use std::time::Duration;

use crate::engine::options::Options;
use crate::engine::policy::Policy;

/// What every call of a pool begins with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Defaults {
    pub(super) deadline: Option<Duration>,
    pub(super) stall_limit: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) guard: bool,
    pub(super) policy: Policy,
}

impl Defaults {
    pub(super) fn options<'a>(&self) -> Options<'a> {
        let Self { deadline, stall_limit, retries, guard, policy } = *self;
        Options { deadline, stall_limit, retries, guard, policy, ..Options::default() }
    }
}
