//! What an operation asks of an executor.

use std::ops::Range;
use std::time::Instant;

use crate::blocks::RowBlocks;
use crate::error::Result;
use crate::segment::Pages;
use crate::supervise::Division;
use crate::worker::BlockFn;

/// One call: the rows and their cut, what is run on a block, what may be run again, and what the report shall say of it.
pub(crate) struct Call<'a> {
    pub(crate) blocks: RowBlocks,
    /// At most so many at a time: asked once, since the system's answer may change.
    pub(crate) workers: usize,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) input_pages: Option<Pages>,
    pub(crate) output_pages: Option<Pages>,
    /// The addresses of the mappings that workers may write to: all other segments are read-only in them.
    pub(crate) writable: Vec<usize>,
    /// What is run on a block is the user's code, not ours.
    pub(crate) foreign: bool,
    pub(crate) division: Division,
    /// The output is the input: what a worker has saved of it is put back by this, given the rows from the first one saved on.
    pub(crate) restore: Option<&'a RestoreFn<'a>>,
    /// `Truncated` if somebody has cut a segment of the call.
    pub(crate) check_lengths: &'a dyn Fn() -> Result<()>,
    /// The last step of a larger call, which began then: it shows no progress of its own, and has to succeed.
    pub(crate) last_step_since: Option<Instant>,
    pub(crate) run: &'a BlockFn<'a>,
}

/// Puts back what the worker of a slot had saved.
pub(crate) type RestoreFn<'a> = dyn Fn(Range<usize>, u16) -> Result<()> + 'a;
