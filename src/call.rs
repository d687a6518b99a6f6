//! What an operation asks of an executor.

use crate::blocks::Cut;
use crate::segment::Pages;
use crate::worker::BlockFn;

/// One call: how many rows, how they are cut, what is run on a block, and what the report shall say of it.
pub(crate) struct Call<'a> {
    pub(crate) n_rows: usize,
    pub(crate) cut: Cut,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) input_pages: Option<Pages>,
    pub(crate) output_pages: Option<Pages>,
    /// The address of the output's mapping, the one segment that workers may write to.
    pub(crate) output_mapping: usize,
    /// The output is the input, so that a block that was begun cannot be run again.
    pub(crate) in_place: bool,
    /// A part of a larger call, which shows its own progress.
    pub(crate) silent: bool,
    pub(crate) run: &'a BlockFn<'a>,
}
