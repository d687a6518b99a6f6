//! The output of a call: the caller's side ([`CallOutput`]), a worker's side ([`BlockOutput`]), and
//! the four ways in which a block's values get into it.
//!
//! `run.rs` and `operation.rs` use it. Which rows are run again or put back is not decided here.
//!
//! | call | the kernel writes to | how the values reach the output |
//! |---|---|---|
//! | neither guarded nor in place | the output | as they are written |
//! | guarded | a buffer of the worker's own | by [pwrite], when the block is done |
//! | in place | the array, some rows at a time, which are saved before | as they are written |
//! | in place, guarded | a copy of some rows | by [pwrite], when these are done and the old ones are saved |
//!
//! [pwrite]: https://man7.org/linux/man-pages/man2/pwrite.2.html
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

/// How the elements of the output are shared out. No element belongs to two units.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// This many elements belong to each row.
    PerRow(usize),
    /// This many elements belong to each block.
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
    /// The first element, through a pointer that may be written through.
    start: *mut u8,
    /// How many elements there are.
    len: usize,
    element: ElementType,
    segment: &'a Segment,
    share: Share,
    /// In place: where rows are saved before they are changed.
    undo: Option<Undo>,
    /// Under guard no kernel sees the output, and a worker gathers at most this many elements.
    gathered: Option<usize>,
    output: PhantomData<&'a mut [u8]>,
}

impl<'a> CallOutput<'a> {
    /// All of `output`, as the part of one block until a [share](Self::set_share) is set.
    pub(super) fn new<T: Element, D: Dimension>(output: &'a mut SharedArray<T, D>) -> Self {
        let start = output.as_mut_ptr().cast();
        let output: &'a SharedArray<T, D> = output;
        let (len, segment) = (output.len(), output.segment());
        let (element, share) = (ElementType::of::<T>(), Share::PerBlock(len));
        let (undo, gathered) = (None, None);
        Self { start, len, element, segment, share, undo, gathered, output: PhantomData }
    }

    /// Says which elements belong to which row or block.
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

    /// For a call in place, whose output is what the rows are read from: rows are saved before they
    /// are changed.
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

    /// For a guarded call: no kernel sees the output.
    pub(super) fn hide(&mut self, blocks: &RowBlocks) -> Result<()> {
        self.segment.check_writable()?;
        self.gathered = Some(self.share.largest(blocks));
        Ok(())
    }

    /// The segment that the output lies in.
    pub(super) fn segment(&self) -> &'a Segment {
        self.segment
    }

    /// The segments that a worker writes to through memory. A guarded output is not among them.
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

    /// The output as a worker has it that is a copy of this process. A buffer is allocated here,
    /// before the fork, since such workers allocate nothing.
    ///
    /// # Panics
    /// As for [`as_mut_slice`](Self::as_mut_slice).
    pub(super) fn for_workers<T: Element>(&self) -> Result<BlockOutput<'a, T>> {
        let (start, undo) = (self.start_of::<T>(), self.undo.as_ref().map(Undo::buffer));
        let file = self.segment.data_in_file();
        BlockOutput::new(start, self.len, file, self.share, undo, self.gathered)
    }

    /// Packs the output for a worker that is no copy of this process.
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

    /// Puts back what the worker of a slot had saved: the first of `rows`. Only when the worker
    /// that had saved them is dead.
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

    /// Writes `element` to every place of these rows, when no worker of the call lives. It writes
    /// by system call: a page that another process has taken away must not kill the caller.
    pub(super) fn fill_rows(&self, rows: &[Range<usize>], element: ElementBytes) -> Result<()> {
        const PIECE_BYTES: usize = 512 << 10;
        let Share::PerRow(len) = self.share else { return Ok(()) };
        let row_bytes = len * self.element.bytes;
        // On the heap: every call would touch the pages of a buffer on the stack.
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

/// A function that fills some rows of the output. `Break` says that it has failed; the slot says
/// why.
///
/// A trait of its own, because each function of a kernel becomes a trait object. A `dyn Fn` has
/// three methods, and all three would be compiled for every kernel.
pub(super) trait FillRows<T> {
    /// Fills `rows`, whose elements in the output are `values`.
    fn fill_rows(
        &self,
        rows: Range<usize>,
        values: &mut [T],
        context: &BlockContext<'_>,
    ) -> ControlFlow<()>;
}

impl<T, F: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()>> FillRows<T> for F {
    fn fill_rows(
        &self,
        rows: Range<usize>,
        values: &mut [T],
        context: &BlockContext<'_>,
    ) -> ControlFlow<()> {
        self(rows, values, context)
    }
}

/// An output as a worker has it.
#[derive(Debug)]
pub(super) struct BlockOutput<'a, T> {
    start: *mut T,
    len: usize,
    /// The segment's file, and the byte at which the elements begin in it.
    file: (&'a File, u64),
    share: Share,
    undo: Option<UndoBuffer>,
    /// Under guard: where a block is gathered. Every worker has a copy of its own.
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

    /// Unpacks what [`CallOutput::pack`] has packed.
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

    /// Runs `kernel` on the elements that belong to a won block, and gets its values into the
    /// output.
    ///
    /// The kernel is a trait object, so this function is compiled once for each type of elements.
    /// The kernel is called once per block, or once for the rows that are saved at a time.
    pub(super) fn fill(
        &self,
        claim: &mut Claim<'_>,
        context: &BlockContext<'_>,
        kernel: &dyn FillRows<T>,
    ) -> ControlFlow<()> {
        let rows = claim.block().rows();
        match (&self.buffer, &self.undo) {
            (None, None) => kernel.fill_rows(rows, self.part_mut(claim), context),
            (None, Some(undo)) => {
                let (first, per_row) = (rows.start, self.per_row(&rows, claim));
                let part = self.part_mut(claim);
                undo.pieces(rows).try_for_each(|piece| {
                    let values =
                        &mut part[(piece.start - first) * per_row..(piece.end - first) * per_row];
                    undo.save(piece.start, bytemuck::cast_slice(values), context);
                    kernel.fill_rows(piece, values, context)
                })
            }
            (Some(buffer), None) => {
                let part = self.share.of(claim.block());
                let mut buffer = buffer.borrow_mut();
                buffer.clear();
                buffer.resize(part.len(), T::zeroed());
                kernel.fill_rows(rows, &mut buffer, context)?;
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
                    kernel.fill_rows(piece.clone(), &mut buffer, context)?;
                    // Saved after the kernel and not before it: the kernel might spoil the undo
                    // buffer. It does not run again before the saved rows are of no use any more.
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
        // SAFETY: as in `part_mut`, except that other code of this process may read, too.
        unsafe { std::slice::from_raw_parts(start, part.len()) }
    }

    fn checked(&self, part: Range<usize>) -> Range<usize> {
        assert!(part.end <= self.len, "elements {part:?} of an output of {}", self.len);
        part
    }

    /// Writes values to the output by system call, from element `at` on. Neither locks nor
    /// allocates.
    ///
    /// See [pwrite(2)](https://man7.org/linux/man-pages/man2/pwrite.2.html) and
    /// [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html).
    ///
    /// # Errors
    /// That of `pwrite`; `UnexpectedEof` where another process has cut the file, which a write
    /// would make long again.
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

/// A buffer with room for this many elements.
fn room_for<T>(len: usize) -> Result<Vec<T>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| Error::Os {
        action: "hold",
        subject: format!("a guarded block of {} bytes of output", len * size_of::<T>()),
        cause: io::ErrorKind::OutOfMemory.into(),
    })?;
    Ok(buffer)
}

/// A worker that cannot write its values to the output cannot go on: it leaves a message about
/// that.
fn record_write_error(outcome: io::Result<()>, context: &BlockContext<'_>) -> ControlFlow<()> {
    let Err(error) = outcome else { return ControlFlow::Continue(()) };
    // The number of the error, not its text: looking up the text takes a lock and allocates.
    let errno = error.raw_os_error().unwrap_or(0);
    context.leave_message(
        MessageKind::Setup,
        format_args!("pwrite to a segment: errno {errno}"),
        "",
    );
    ControlFlow::Break(())
}
