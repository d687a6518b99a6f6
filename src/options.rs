//! What a caller may ask of a call, beside the operation: the same for every executor.
//!
//! The executors' builders set these fields; `supervisor` reads them. Decides nothing.

use std::fmt;

use crate::control::MAX_WORKERS;
use crate::error::{Error, Result};
use crate::report::Progress;
use crate::sys::process;

type ProgressFn<'a> = dyn Fn(&Progress) + 'a;

/// The options of a call. The builders document them.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) workers: Option<usize>,
    pub(crate) block_rows: Option<usize>,
    pub(crate) progress: Option<Box<ProgressFn<'a>>>,
    pub(crate) measure_memory: bool,
}

impl Options<'_> {
    /// Refuses options that make no sense, before anything is allocated.
    pub(crate) fn check(&self) -> Result<()> {
        if process::is_forked_child() {
            return Err(Error::InsideWorker);
        }
        match (self.workers, self.block_rows) {
            (Some(0), _) => Err(Error::ZeroWorkers),
            (Some(asked), _) if asked > MAX_WORKERS => Err(Error::TooManyWorkers { asked, max: MAX_WORKERS }),
            (_, Some(0)) => Err(Error::ZeroBlockRows),
            _ => Ok(()),
        }
    }

    /// At most so many workers at a time.
    pub(crate) fn max_workers(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("workers", &self.workers)
            .field("block_rows", &self.block_rows)
            .field("progress", &self.progress.is_some())
            .field("measure_memory", &self.measure_memory)
            .finish()
    }
}
