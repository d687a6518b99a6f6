//! The output of a call, as its workers see it, and what they do to have a block's values in it.
//!
//! | | the kernel writes to | values reach the output |
//! |---|---|---|
//! | | the output | as they are written |
//! | guarded | a buffer of the worker's own | by `pwrite`, when the block is done |
//! | in place | the array, some rows at a time, which are saved before | as they are written |
//! | in place, guarded | a copy of some rows | by `pwrite`, when these are done and the old ones saved |
//!
//! # Safety
//! Workers write to the output through a shared closure, so plain borrows cannot say who may write
//! where. A [`Claim`] can: it is the proof that its block belongs to this process alone, and
//! borrowing it mutably keeps a second slice of the same block from existing.
#![allow(unsafe_code, reason = "gives out the part of the output that a claim stands for")]

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;

use ndarray::Dimension;

use crate::array::{Element, SharedArray};
use crate::engine::args::{ArgReader, PackedArgs};
use crate::engine::blocks::{RowBlock, RowBlocks};
use crate::engine::control::{BlockContext, Claim, MessageKind, Saved};
use crate::engine::undo::{Undo, UndoBuffer};
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::segment::Segment;

/// How many elements of the output belong to what. Two units never share one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    PerRow(usize),
    PerBlock(usize),
}

impl Share {
    /// The elements of a block.
    fn of(self, block: &RowBlock) -> Range<usize> {
        match self {
            Self::PerRow(len) => block.rows().start * len..block.rows().end * len,
            Self::PerBlock(len) => block.index() * len..(block.index() + 1) * len,
        }
    }

    /// The most elements that a block has.
    fn largest(self, blocks: &RowBlocks) -> usize {
        match self {
            Self::PerRow(len) => blocks.get(0).map_or(0, |block| block.rows().len()) * len,
            Self::PerBlock(len) => len,
        }
    }
}

/// An output, borrowed for one call: the caller's side.
#[derive(Debug)]
pub(super) struct CallOutput<'a, T> {
    /// Writable, as a worker's is.
    start: *mut T,
    len: usize,
    segment: &'a Segment,
    share: Share,
    undo: Option<Undo>,
    /// No kernel sees the output: so many elements are gathered at most.
    gathered: Option<usize>,
    output: PhantomData<&'a mut T>,
}

impl<'a, T: Element> CallOutput<'a, T> {
    /// Over all of `output`, which workers fill in place.
    pub(super) fn new<D: Dimension>(output: &'a mut SharedArray<T, D>, share: Share) -> Self {
        let start = output.as_mut_ptr();
        let output: &'a SharedArray<T, D> = output;
        let (len, segment) = (output.len(), output.segment());
        Self { start, len, segment, share, undo: None, gathered: None, output: PhantomData }
    }

    /// The output is what the rows are read from.
    pub(super) fn in_place(
        mut self,
        workers: usize,
        blocks: &RowBlocks,
        guarded: bool,
    ) -> Result<Self> {
        let row_bytes = self.len / blocks.n_rows().max(1) * size_of::<T>();
        if row_bytes > 0 {
            let block_rows = blocks.get(0).map_or(0, |block| block.rows().len());
            self.undo = Some(Undo::new(workers, row_bytes, block_rows, guarded)?);
        }
        Ok(self)
    }

    /// No kernel sees the output.
    pub(super) fn guarded(mut self, blocks: &RowBlocks) -> Result<Self> {
        self.segment.check_writable()?;
        self.gathered = Some(self.share.largest(blocks));
        Ok(self)
    }

    /// The segment that the output lies in.
    pub(super) fn segment(&self) -> &'a Segment {
        self.segment
    }

    /// What a worker writes to.
    pub(super) fn writable(&self) -> Vec<&Segment> {
        let hidden = self.gathered.is_some() && !is_on(Failpoint::WritableOutputUnderGuard);
        let output = (!hidden).then_some(self.segment);
        output.into_iter().chain(self.undo.as_ref().map(Undo::segment)).collect()
    }

    /// As a worker has it that is a copy of this process. Its memory is had before the fork, since
    /// workers allocate nothing.
    pub(super) fn for_workers(&self) -> Result<BlockOutput<'a, T>> {
        let undo = self.undo.as_ref().map(Undo::buffer);
        BlockOutput::new(
            self.start,
            self.len,
            self.segment.data_in_file(),
            self.share,
            undo,
            self.gathered,
        )
    }

    /// Writes down what a worker needs to know that is none.
    pub(super) fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
        args.place(self.segment, self.start.cast_const());
        args.word(self.segment.data_in_file().1);
        args.size(self.len);
        let (per_block, len) = match self.share {
            Share::PerRow(len) => (0, len),
            Share::PerBlock(len) => (1, len),
        };
        args.word(per_block);
        args.size(len);
        args.word(u64::from(self.undo.is_some()));
        if let Some(undo) = &self.undo {
            undo.pack(args);
        }
        args.size(self.gathered.map_or(0, |len| len + 1));
    }

    /// When no worker that had it lives: puts back what the dead worker of a slot had saved, the
    /// first of `rows`.
    pub(super) fn restore(&self, rows: &Range<usize>, slot: u16) -> Result<()> {
        let (Some(undo), Share::PerRow(len)) = (&self.undo, self.share) else { return Ok(()) };
        self.segment.write_at(rows.start * len * size_of::<T>(), undo.saved(rows, slot))
    }

    /// When no worker lives: has `value` in every element of these rows. By system call: a page
    /// that somebody has taken away must not kill the caller.
    pub(super) fn fill_rows(&self, rows: &[Range<usize>], value: T) -> Result<()> {
        const PIECE: usize = 64 << 10;
        let Share::PerRow(len) = self.share else { return Ok(()) };
        // Not on the stack, whose pages every call would touch.
        let longest = rows.iter().map(Range::len).max().unwrap_or(0) * len;
        let values = vec![value; longest.min(PIECE)];
        for rows in rows {
            let mut part = rows.start * len..rows.end * len;
            while !part.is_empty() {
                let piece = part.len().min(PIECE);
                self.segment.write_at(
                    part.start * size_of::<T>(),
                    bytemuck::cast_slice(&values[..piece]),
                )?;
                part.start += piece;
            }
        }
        Ok(())
    }
}

/// The same in a worker.
#[derive(Debug)]
pub(super) struct BlockOutput<'a, T> {
    start: *mut T,
    len: usize,
    /// And where the elements begin in it.
    file: (&'a File, u64),
    share: Share,
    undo: Option<UndoBuffer>,
    /// Every worker fills one of its own.
    buffer: Option<RefCell<Vec<T>>>,
}

impl<'a, T: Element> BlockOutput<'a, T> {
    fn new(
        start: *mut T,
        len: usize,
        file: (&'a File, u64),
        share: Share,
        undo: Option<UndoBuffer>,
        gathered: Option<usize>,
    ) -> Result<Self> {
        let buffer = gathered.map(room_for).transpose()?.map(RefCell::new);
        Ok(Self { start, len, file, share, undo, buffer })
    }

    /// What [`Target::pack`] has packed.
    ///
    /// # Safety
    /// As for [`Marshal::unpack`](crate::engine::args::Marshal::unpack).
    pub(super) unsafe fn unpack(words: &mut ArgReader<'a>) -> Result<Self> {
        let (start, file) = words.place();
        let file = (file, words.word());
        let len = words.size();
        let share = match words.word() {
            0 => Share::PerRow(words.size()),
            _ => Share::PerBlock(words.size()),
        };
        // SAFETY: as the caller promises.
        let undo = (words.word() != 0).then(|| unsafe { UndoBuffer::unpack(words) });
        let gathered = words.size().checked_sub(1);
        Self::new(start, len, file, share, undo, gathered)
    }

    /// Runs `kernel` on the elements that belong to a won block, and has them in the output.
    pub(super) fn fill(
        &self,
        claim: &mut Claim<'_>,
        context: &BlockContext<'_>,
        mut kernel: impl FnMut(Range<usize>, &mut [T]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let rows = claim.block().rows();
        match (&self.buffer, &self.undo) {
            (None, None) => kernel(rows, self.part_mut(claim)),
            (None, Some(undo)) => {
                let (first, per_row) = (rows.start, self.per_row(&rows, claim));
                let part = self.part_mut(claim);
                undo.pieces(rows).try_for_each(|piece| {
                    let values =
                        &mut part[(piece.start - first) * per_row..(piece.end - first) * per_row];
                    undo.save(piece.start, bytemuck::cast_slice(values), context);
                    kernel(piece, values)
                })
            }
            (Some(buffer), None) => {
                let part = self.share.of(claim.block());
                let mut buffer = buffer.borrow_mut();
                buffer.clear();
                buffer.resize(part.len(), T::zeroed());
                kernel(rows, &mut buffer)?;
                record_write_error(self.publish(part.start, &buffer), context)
            }
            (Some(buffer), Some(undo)) => {
                let (end, per_row) = (rows.end, self.per_row(&rows, claim));
                let mut buffer = buffer.borrow_mut();
                undo.pieces(rows).try_for_each(|piece| {
                    let part = piece.start * per_row..piece.end * per_row;
                    let old = self.part(claim, part.clone());
                    buffer.clear();
                    buffer.extend_from_slice(old);
                    kernel(piece.clone(), &mut buffer)?;
                    // The kernel, which might spoil what is saved, does not run again before that
                    // is of no use any more.
                    undo.save(piece.start, bytemuck::cast_slice(old), context);
                    record_write_error(self.publish(part.start, &buffer), context)?;
                    // The last rows are done when the unit is.
                    if piece.end < end {
                        context.set_saved(Saved::InProgress(piece.end));
                    }
                    ControlFlow::Continue(())
                })
            }
        }
    }

    fn per_row(&self, rows: &Range<usize>, claim: &Claim<'_>) -> usize {
        self.share.of(claim.block()).len() / rows.len().max(1)
    }

    /// The elements that belong to a won block.
    ///
    /// # Panics
    /// When the block reaches past the output: the call was made with another number of rows.
    fn part_mut<'c>(&self, claim: &'c mut Claim<'_>) -> &'c mut [T] {
        let part = self.checked(self.share.of(claim.block()));
        // SAFETY: in bounds, as checked.
        let start = unsafe { self.start.add(part.start) };
        // SAFETY: initialised memory of `output`, which is borrowed for 'a; no other slice of these
        // elements exists, in this process because `claim` is borrowed mutably, in others because
        // the claim was won, and because the shares of two units are disjoint, as their rows and
        // their numbers are.
        unsafe { std::slice::from_raw_parts_mut(start, part.len()) }
    }

    /// Some of the elements that belong to a won block, as they are.
    fn part<'c>(&self, claim: &'c Claim<'_>, part: Range<usize>) -> &'c [T] {
        let own = self.share.of(claim.block());
        assert!(
            own.start <= part.start && part.end <= own.end,
            "elements {part:?} of a block's {own:?}"
        );
        let part = self.checked(part);
        // SAFETY: in bounds, as checked.
        let start = unsafe { self.start.add(part.start) };
        // SAFETY: as in `part_mut`, but that others in this process may look, too.
        unsafe { std::slice::from_raw_parts(start, part.len()) }
    }

    fn checked(&self, part: Range<usize>) -> Range<usize> {
        assert!(part.end <= self.len, "elements {part:?} of an output of {}", self.len);
        part
    }

    /// Writes values to the output by system call. Neither locks nor allocates.
    ///
    /// # Errors
    /// That of `pwrite`; `UnexpectedEof` where somebody has cut the file, which a write would make
    /// long again.
    fn publish(&self, at: usize, values: &[T]) -> io::Result<()> {
        let (file, data) = self.file;
        let start = data + (at * size_of::<T>()) as u64;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if file.metadata()?.len() < start + bytes.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(bytes, start)
    }
}

/// Room to gather so many elements in.
fn room_for<T>(len: usize) -> Result<Vec<T>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| Error::Os {
        action: "hold",
        subject: format!("a guarded block of {} bytes of output", len * size_of::<T>()),
        source: io::ErrorKind::OutOfMemory.into(),
    })?;
    Ok(buffer)
}

/// A worker whose values find no way out cannot go on: leaves word of it.
fn record_write_error(outcome: io::Result<()>, context: &BlockContext<'_>) -> ControlFlow<()> {
    let Err(error) = outcome else { return ControlFlow::Continue(()) };
    // The number, not its text: looking that up takes a lock and allocates.
    let errno = error.raw_os_error().unwrap_or(0);
    context.leave_message(
        MessageKind::Setup,
        format_args!("pwrite to a segment: errno {errno}"),
        "",
    );
    ControlFlow::Break(())
}
