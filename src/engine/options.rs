//! [`Options`]: what a caller may ask of a call beside the operation, the same for every executor.
//!
//! The methods of `Executor` set these fields and document them; the defaults of a pool set some of
//! them for all of its calls. `rows/run.rs`, the executors and the supervisor read them. Nothing is
//! decided here, apart from which values make no sense.

use std::fmt;
use std::time::Duration;

use crate::engine::cancel::CancelToken;
use crate::engine::control::MAX_WORKERS;
use crate::engine::policy::Policy;
use crate::engine::report::Progress;
use crate::error::{Error, Result};
use crate::sys::process;

/// How many workers die over a row before it is given up, unless the caller says otherwise. One
/// death may be an accident; three of a row that is alone in its unit are not.
const ATTEMPTS: u32 = 3;

type ProgressFn<'a> = dyn Fn(&Progress) + 'a;
type InterruptFn<'a> = dyn Fn() -> bool + 'a;

/// The options of a call. The methods of [`Executor`](crate::Executor) with these names document
/// them.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) workers: Option<usize>,
    pub(crate) block_rows: Option<usize>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) stall_limit: Option<Duration>,
    pub(crate) retries: Option<u32>,
    pub(crate) guard: bool,
    pub(crate) policy: Policy,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) check_interrupt: Option<Box<InterruptFn<'a>>>,
    pub(crate) progress: Option<Box<ProgressFn<'a>>>,
    pub(crate) measure_memory: bool,
}

impl Options<'_> {
    /// Refuses options that make no sense, before anything is allocated. Also refuses every call in
    /// a forked worker.
    pub(crate) fn check(&self) -> Result<()> {
        if process::is_forked_child() {
            return Err(Error::InsideWorker);
        }
        match (self.workers, self.block_rows) {
            (Some(0), _) => Err(Error::ZeroWorkers),
            (Some(asked), _) if asked > MAX_WORKERS => {
                Err(Error::TooManyWorkers { asked, max: MAX_WORKERS })
            }
            (_, Some(0)) => Err(Error::ZeroBlockRows),
            _ if self.stall_limit.is_some_and(|limit| limit.is_zero()) => {
                Err(Error::ZeroStallLimit)
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing can interrupt the call or is to be told of it while it runs, and nothing is
    /// measured.
    pub(crate) fn has_no_callbacks(&self) -> bool {
        let Self { cancel, check_interrupt, progress, measure_memory, .. } = self;
        cancel.is_none() && check_interrupt.is_none() && progress.is_none() && !measure_memory
    }

    /// After this many deaths a row is given up: one more than the retries.
    pub(crate) fn attempts(&self) -> u32 {
        self.retries.map_or(ATTEMPTS, |retries| retries.saturating_add(1))
    }

    /// Whether a call goes on without rows that fail or are not run.
    pub(crate) fn fills(&self) -> bool {
        self.policy != Policy::Fail
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("workers", &self.workers)
            .field("block_rows", &self.block_rows)
            .field("deadline", &self.deadline)
            .field("stall_limit", &self.stall_limit)
            .field("retries", &self.retries)
            .field("guard", &self.guard)
            .field("policy", &self.policy)
            .field("cancel", &self.cancel.is_some())
            .field("check_interrupt", &self.check_interrupt.is_some())
            .field("progress", &self.progress.is_some())
            .field("measure_memory", &self.measure_memory)
            .finish()
    }
}
