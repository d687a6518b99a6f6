//! Undo buffers: copies of rows that are about to be changed in place, so that rows that a dead
//! worker left half changed can be put back and run again.
//!
//! Each worker has a buffer for a few rows, in a nameless segment. It saves some rows, notes in its
//! slot that it has, and only then lets the kernel change them. When the worker is dead the
//! supervisor puts the saved rows back. A buffer is small enough to stay in a cache close to the
//! processor, so rows are read from memory once, by the copy.
//!
//! `rows/output.rs` makes the buffers and saves rows. When rows are put back is not decided here.
//!
//! # Safety
//! A worker's buffer is written by that worker alone, and read by the supervisor when the worker is
//! dead.
#![allow(unsafe_code, reason = "writes to a segment that several processes share")]

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::{Pod, Zeroable};
use ndarray::Ix2;
use nix::sys::signal::{Signal, raise};

use crate::array::SharedArray;
use crate::engine::args::{ArgReader, Marshal, PackedArgs, PodArg};
use crate::engine::control::{BlockContext, Saved};
use crate::error::Result;
use crate::failpoints::{Failpoint, is_on};
use crate::segment::Segment;

/// How many bytes are saved at a time, if a row is not larger. The copy and the rows stay in the
/// first cache together. (Updating 1 GiB in place takes 1.12 times as long as without saving; with
/// 16 KiB it is 1.31 times.)
const BUFFER_BYTES: usize = 8 << 10;

/// The same under guard, where the rows are written by a system call each time.
const GUARDED_BUFFER_BYTES: usize = 64 << 10;

/// The undo buffers of all workers: the caller's side.
#[derive(Debug)]
pub(crate) struct Undo {
    /// A row for each slot.
    buffers: SharedArray<u8, Ix2>,
    cut: UndoLayout,
}

/// How much is saved at a time, and where.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct UndoLayout {
    row_bytes: usize,
    /// At least 1, at most the rows of a block.
    rows_at_a_time: usize,
    /// From one worker's buffer to the next; whole pages.
    buffer_bytes: usize,
    /// How many buffers there are: one per worker.
    n_buffers: usize,
}

/// The undo buffers as a worker has them. It uses that of its slot only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UndoBuffer {
    start: *mut u8,
    cut: UndoLayout,
}

impl Undo {
    /// Buffers for this many workers, rows of `row_bytes` (not 0), and blocks of up to `block_rows`
    /// rows.
    ///
    /// # Errors
    /// Those of making a segment.
    pub(crate) fn new(
        workers: usize,
        row_bytes: usize,
        block_rows: usize,
        guarded: bool,
    ) -> Result<Self> {
        let bytes = if guarded { GUARDED_BUFFER_BYTES } else { BUFFER_BYTES };
        let rows_at_a_time = (bytes / row_bytes).clamp(1, block_rows.max(1));
        // Two workers' buffers lie in different pages, since a processor fetches ahead within a
        // page.
        let buffer_bytes = (rows_at_a_time * row_bytes).next_multiple_of(4096);
        let cut = UndoLayout { row_bytes, rows_at_a_time, buffer_bytes, n_buffers: workers };
        Ok(Self { buffers: SharedArray::output(Ix2(workers, buffer_bytes))?, cut })
    }

    /// The segment that the buffers lie in.
    pub(crate) fn segment(&self) -> &Segment {
        self.buffers.segment()
    }

    /// The buffers as a worker has them that is a copy of this process.
    pub(crate) fn buffer(&self) -> UndoBuffer {
        UndoBuffer { start: self.buffers.as_ptr().cast_mut(), cut: self.cut }
    }

    /// What the worker of a slot, now dead, had saved: the first of `rows`, as many as a worker
    /// saves at a time.
    pub(crate) fn saved(&self, rows: &Range<usize>, slot: u16) -> &[u8] {
        let n_rows = rows.len().min(self.cut.rows_at_a_time);
        let at = self.cut.buffer_of(slot);
        &self.buffers.as_slice()[at.start..at.start + n_rows * self.cut.row_bytes]
    }

    /// Packs the buffers for a worker that is no copy of this process.
    pub(crate) fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
        args.place(self.buffers.segment(), self.buffers.as_ptr());
        PodArg(self.cut).pack(args);
    }
}

impl UndoLayout {
    /// The bytes of a slot's buffer.
    fn buffer_of(self, slot: u16) -> Range<usize> {
        let start = usize::from(slot) * self.buffer_bytes;
        start..start + self.buffer_bytes
    }
}

impl UndoBuffer {
    /// Unpacks what [`Undo::pack`] has packed.
    ///
    /// # Safety
    /// As for [`Marshal::unpack`].
    pub(crate) unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        let (start, _) = words.place();
        // SAFETY: as the caller promises.
        let PodArg(cut) = unsafe { PodArg::unpack(words) };
        Self { start, cut }
    }

    /// `rows` in pieces that fit the buffer.
    pub(crate) fn pieces(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = self.cut.rows_at_a_time;
        rows.clone().step_by(step).map(move |start| start..rows.end.min(start + step))
    }

    /// Saves the rows from `first` on, whose elements are `bytes`, and notes so in the slot, before
    /// and after. Neither locks nor allocates.
    ///
    /// # Panics
    /// For more bytes than the buffer has, or a slot without a buffer.
    pub(crate) fn save(&self, first: usize, bytes: &[u8], context: &BlockContext<'_>) {
        let at = self.cut.buffer_of(context.number());
        let slot = usize::from(context.number());
        assert!(
            bytes.len() <= at.len() && slot < self.cut.n_buffers,
            "{} bytes saved in {}",
            bytes.len(),
            at.len()
        );
        context.set_saved(Saved::InProgress(first));
        die_if_asked(context);
        // SAFETY: the slot is one of those that have a buffer, as asserted.
        let room = unsafe { self.start.add(at.start) };
        // SAFETY: as many bytes as the assertion allows, in memory that this worker alone writes to
        // and that no process reads now.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), room, bytes.len()) };
        context.set_saved(Saved::Complete(first));
    }
}

/// For tests: the first worker dies while it saves for the third time.
fn die_if_asked(context: &BlockContext<'_>) {
    static SAVES: AtomicUsize = AtomicUsize::new(1);
    if is_on(Failpoint::FirstWorkerDiesWhileSaving)
        && context.tally.starts() == 1
        && SAVES.fetch_add(1, Ordering::Relaxed) == 3
    {
        let _ = raise(Signal::SIGKILL);
    }
}
