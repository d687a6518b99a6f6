//! Copies of rows that are about to be changed in place, so that what a dead worker left half
//! changed can be put back and run again.
//!
//! Each worker has room for a few rows, in a nameless segment: it saves some, notes in its slot
//! that it has, and only then lets the kernel at them. The supervisor puts them back when the
//! worker is dead. What is saved is small enough to stay in a cache close to the processor: rows
//! are read from memory once, by the copy.
//!
//! # Safety
//! The room of a worker is written by that worker alone, and read by the supervisor when it is
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

/// So much is saved at a time, if a row is not larger: with what it is a copy of it stays in the
/// first cache. (1 GiB updated in place takes 1.12 times the time that it takes without, with 16
/// KiB 1.31 times.)
const BUFFER_BYTES: usize = 8 << 10;

/// The same where the rows are written by a system call each time.
const GUARDED_BUFFER_BYTES: usize = 64 << 10;

/// Room to save rows in, for each worker: the caller's side.
#[derive(Debug)]
pub(crate) struct Undo {
    buffers: SharedArray<u8, Ix2>,
    cut: UndoLayout,
}

/// How much is saved at a time, and where.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct UndoLayout {
    row_bytes: usize,
    rows_at_a_time: usize,
    /// From one worker's room to the next.
    buffer_bytes: usize,
    n_buffers: usize,
}

/// The same in a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UndoBuffer {
    start: *mut u8,
    cut: UndoLayout,
}

impl Undo {
    /// For so many workers, rows of `row_bytes` (not 0), and blocks of up to `block_rows` rows.
    ///
    /// # Errors
    /// Those of a birth.
    pub(crate) fn new(
        workers: usize,
        row_bytes: usize,
        block_rows: usize,
        guarded: bool,
    ) -> Result<Self> {
        let bytes = if guarded { GUARDED_BUFFER_BYTES } else { BUFFER_BYTES };
        let rows_at_a_time = (bytes / row_bytes).clamp(1, block_rows.max(1));
        // Two workers' rooms lie in different pages, as far as a processor fetches ahead.
        let buffer_bytes = (rows_at_a_time * row_bytes).next_multiple_of(4096);
        let cut = UndoLayout { row_bytes, rows_at_a_time, buffer_bytes, n_buffers: workers };
        Ok(Self { buffers: SharedArray::output(Ix2(workers, buffer_bytes))?, cut })
    }

    /// The segment that it lies in.
    pub(crate) fn segment(&self) -> &Segment {
        self.buffers.segment()
    }

    /// As the workers have it.
    pub(crate) fn buffer(&self) -> UndoBuffer {
        UndoBuffer { start: self.buffers.as_ptr().cast_mut(), cut: self.cut }
    }

    /// What the worker of a slot, now dead, had saved: the first of `rows`, as many as are saved at
    /// a time.
    pub(crate) fn saved(&self, rows: &Range<usize>, slot: u16) -> &[u8] {
        let n_rows = rows.len().min(self.cut.rows_at_a_time);
        let at = self.cut.buffer_of(slot);
        &self.buffers.as_slice()[at.start..at.start + n_rows * self.cut.row_bytes]
    }

    /// Writes down what a worker needs to know.
    pub(crate) fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
        args.place(self.buffers.segment(), self.buffers.as_ptr());
        PodArg(self.cut).pack(args);
    }
}

impl UndoLayout {
    fn buffer_of(self, slot: u16) -> Range<usize> {
        let start = usize::from(slot) * self.buffer_bytes;
        start..start + self.buffer_bytes
    }
}

impl UndoBuffer {
    /// What [`Undo::pack`] has packed.
    ///
    /// # Safety
    /// As for [`Marshal::unpack`].
    pub(crate) unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        let (start, _) = words.place();
        // SAFETY: as the caller promises.
        let PodArg(cut) = unsafe { PodArg::unpack(words) };
        Self { start, cut }
    }

    /// `rows` as they are to be saved: some at a time.
    pub(crate) fn pieces(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = self.cut.rows_at_a_time;
        rows.clone().step_by(step).map(move |start| start..rows.end.min(start + step))
    }

    /// Saves the rows from `first` on, of which `bytes` are the elements, and notes that it has.
    /// Neither locks nor allocates.
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
        // SAFETY: one of the rooms that there are.
        let room = unsafe { self.start.add(at.start) };
        // SAFETY: as many bytes as the assertion allows, in memory that this worker alone writes to
        // and nobody reads now.
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
