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

use crate::array::{Element, FillValue, SharedArray};
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

/// The type of an output's elements, for code that is compiled once for all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElementType {
    /// As NumPy calls it.
    dtype: &'static str,
    bytes: usize,
    of_fill: fn(FillValue) -> Option<ElementBytes>,
}

/// An element as bytes; an element of a smaller type leaves the last ones zero.
type ElementBytes = [u8; 8];

impl ElementType {
    fn of<T: Element>() -> Self {
        const { assert!(size_of::<T>() <= size_of::<ElementBytes>()) };
        Self { dtype: T::DESCR, bytes: size_of::<T>(), of_fill: bytes_of_fill::<T> }
    }

    /// A value for missing rows as an element.
    ///
    /// # Errors
    /// `UnfitFill` where the type has no such value.
    fn fill(self, value: FillValue) -> Result<ElementBytes> {
        let unfit = || Error::UnfitFill { value: value.to_string(), dtype: self.dtype };
        (self.of_fill)(value).ok_or_else(unfit)
    }
}

fn bytes_of_fill<T: Element>(value: FillValue) -> Option<ElementBytes> {
    let mut bytes = ElementBytes::default();
    bytes[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&T::of_fill(value)?));
    Some(bytes)
}

/// An output, borrowed for one call: the caller's side. It knows the type of its elements as a
/// value only.
#[derive(Debug)]
pub(super) struct CallOutput<'a> {
    /// Writable, as a worker's is.
    start: *mut u8,
    /// Elements.
    len: usize,
    element: ElementType,
    segment: &'a Segment,
    share: Share,
    undo: Option<Undo>,
    /// No kernel sees the output: so many elements are gathered at most.
    gathered: Option<usize>,
    output: PhantomData<&'a mut [u8]>,
}

impl<'a> CallOutput<'a> {
    /// All of `output`, as one block's part until a [share](Self::set_share) is set.
    pub(super) fn new<T: Element, D: Dimension>(output: &'a mut SharedArray<T, D>) -> Self {
        let start = output.as_mut_ptr().cast();
        let output: &'a SharedArray<T, D> = output;
        let (len, segment) = (output.len(), output.segment());
        let (element, share) = (ElementType::of::<T>(), Share::PerBlock(len));
        let (undo, gathered) = (None, None);
        Self { start, len, element, segment, share, undo, gathered, output: PhantomData }
    }

    /// What of it belongs to whom. Workers fill it in place.
    pub(super) fn set_share(&mut self, share: Share) {
        self.share = share;
    }

    /// How many elements it has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes its elements take.
    pub(super) fn bytes(&self) -> usize {
        self.len * self.element.bytes
    }

    /// The output is what the rows are read from: what is changed is saved first.
    pub(super) fn save_rows(
        &mut self,
        workers: usize,
        blocks: &RowBlocks,
        guarded: bool,
    ) -> Result<()> {
        let row_bytes = self.len / blocks.n_rows().max(1) * self.element.bytes;
        if row_bytes > 0 {
            let block_rows = blocks.get(0).map_or(0, |block| block.rows().len());
            self.undo = Some(Undo::new(workers, row_bytes, block_rows, guarded)?);
        }
        Ok(())
    }

    /// No kernel sees the output.
    pub(super) fn hide(&mut self, blocks: &RowBlocks) -> Result<()> {
        self.segment.check_writable()?;
        self.gathered = Some(self.share.largest(blocks));
        Ok(())
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

    /// All of it, for work that the caller does itself.
    ///
    /// # Panics
    /// For another type of elements than it was made of.
    pub(super) fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        let start = self.start_of::<T>();
        // SAFETY: all elements of an array of this type, which is borrowed mutably for 'a, and here
        // by `self`.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    fn start_of<T: Element>(&self) -> *mut T {
        assert!(self.element.dtype == T::DESCR, "{} for {}", T::DESCR, self.element.dtype);
        self.start.cast()
    }

    /// As a worker has it that is a copy of this process. Its memory is taken before the fork,
    /// since workers allocate nothing.
    ///
    /// # Panics
    /// As for [`as_mut_slice`](Self::as_mut_slice).
    pub(super) fn for_workers<T: Element>(&self) -> Result<BlockOutput<'a, T>> {
        let (start, undo) = (self.start_of::<T>(), self.undo.as_ref().map(Undo::buffer));
        let file = self.segment.data_in_file();
        BlockOutput::new(start, self.len, file, self.share, undo, self.gathered)
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
        self.segment.write_at(rows.start * len * self.element.bytes, undo.saved(rows, slot))
    }

    /// A value for missing rows as an element of it.
    ///
    /// # Errors
    /// `UnfitFill` where its type has no such value.
    pub(super) fn fill(&self, value: FillValue) -> Result<ElementBytes> {
        self.element.fill(value)
    }

    /// When no worker lives: writes `element` to every place of these rows. By system call: a page
    /// that somebody has taken away must not kill the caller.
    pub(super) fn fill_rows(&self, rows: &[Range<usize>], element: ElementBytes) -> Result<()> {
        const PIECE_BYTES: usize = 512 << 10;
        let Share::PerRow(len) = self.share else { return Ok(()) };
        let row_bytes = len * self.element.bytes;
        // Not on the stack, whose pages every call would touch.
        let longest = rows.iter().map(Range::len).max().unwrap_or(0) * row_bytes;
        let bytes = longest.min(PIECE_BYTES);
        let values = element[..self.element.bytes].repeat(bytes / self.element.bytes);
        for rows in rows {
            let mut part = rows.start * row_bytes..rows.end * row_bytes;
            while !part.is_empty() {
                let piece = part.len().min(PIECE_BYTES);
                self.segment.write_at(part.start, &values[..piece])?;
                part.start += piece;
            }
        }
        Ok(())
    }
}

/// What fills some rows of the output.
type FillFn<'k, T> = dyn FnMut(Range<usize>, &mut [T]) -> ControlFlow<()> + 'k;

/// An output as a worker has it.
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

    /// What [`CallOutput::pack`] has packed.
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
    ///
    /// The kernel is an object: it is called once a block or once some saved rows, and this
    /// function is compiled once for each type of elements.
    pub(super) fn fill(
        &self,
        claim: &mut Claim<'_>,
        context: &BlockContext<'_>,
        kernel: &mut FillFn<'_, T>,
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
        cause: io::ErrorKind::OutOfMemory.into(),
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
