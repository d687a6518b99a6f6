//! [`RowReader`]: the rows of an array, or of a part of one, as contiguous slices for built-in
//! kernels. Rows that lie on end are taken as they lie; others are gathered in a buffer.
//!
//! The operations with a kernel of rowfork's own use it, in the workers. It also notes the row that
//! a worker is at, so kernels need not.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};

use ndarray::{ArrayView, ArrayViewMut, Axis, Dimension, RemoveAxis, Slice};

use crate::array::Element;
use crate::engine::control::{BlockContext, SumOverflow};
use crate::error::{Error, Result};

/// How many bytes of input lie between two notes of the row that a worker is at; they take some 50
/// us. (A note every 64 KiB costs 3 %.)
const NOTE_BYTES: usize = 1 << 20;

/// The size of the buffer for rows that do not lie on end, in bytes. It stays in the first cache. A
/// longer row has a buffer of its own length: its result is rounded once, so the kernel needs the
/// whole row.
const GATHER_BYTES: usize = 16 << 10;

/// From this many bytes on, a row by itself is as quick as several rows that are gathered together.
const LONG_ROW_BYTES: usize = 2 << 10;

/// The rows of a part of an array, on end.
pub(super) struct RowReader<'v, A: Element, D: Dimension> {
    input: ArrayView<'v, A, D>,
    row_len: usize,
    /// Every worker writes to a copy of its own. In fork mode the memory is allocated before the
    /// fork, since such workers allocate nothing.
    buffer: RefCell<Vec<A>>,
}

impl<'v, A: Element, D: RemoveAxis> RowReader<'v, A, D> {
    pub(super) fn new(input: ArrayView<'v, A, D>) -> Result<Self> {
        let row_len = input.shape().iter().skip(1).product();
        let mut buffer = Vec::new();
        if !input.is_standard_layout() {
            let len = Self::gathered_rows(row_len) * row_len;
            buffer.try_reserve_exact(len).map_err(|_| Error::Os {
                action: "hold",
                subject: format!("a row of {row_len} elements that do not lie on end"),
                cause: std::io::ErrorKind::OutOfMemory.into(),
            })?;
        }
        Ok(Self { input, row_len, buffer: RefCell::new(buffer) })
    }

    /// The number of elements of a row.
    pub(super) fn row_len(&self) -> usize {
        self.row_len
    }

    fn gathered_rows(row_len: usize) -> usize {
        (GATHER_BYTES / (row_len * size_of::<A>()).max(1)).max(1)
    }

    /// Calls `kernel` with some rows on end at a time, and with their place, in order. When the
    /// kernel fails, with the number of the row within these and the row's sum, both go into the
    /// worker's slot.
    pub(super) fn pieces(
        &self,
        rows: Range<usize>,
        context: &BlockContext<'_>,
        mut kernel: impl FnMut(Range<usize>, &[A]) -> Result<(), (usize, SumOverflow)>,
    ) -> ControlFlow<()> {
        let mut kernel = |piece: Range<usize>, elements: &[A]| {
            context.set_row(piece.start);
            let Err((row, overflow)) = kernel(piece.clone(), elements) else {
                return ControlFlow::Continue(());
            };
            context.set_row(piece.start + row);
            context.leave_overflow(overflow);
            ControlFlow::Break(())
        };
        let block = self.input.slice_axis(Axis(0), Slice::from(rows.clone()));
        let row_bytes = (self.row_len * size_of::<A>()).max(1);
        if let Some(elements) = block.as_slice() {
            let step = (NOTE_BYTES / row_bytes).max(1);
            return stepped(rows.clone(), step).try_for_each(|piece| {
                let within = piece.start - rows.start..piece.end - rows.start;
                kernel(piece, &elements[within.start * self.row_len..within.end * self.row_len])
            });
        }
        let gathered = Self::gathered_rows(self.row_len);
        let mut buffer = self.buffer.borrow_mut();
        stepped(rows.clone(), if row_bytes >= LONG_ROW_BYTES { 1 } else { gathered }).try_for_each(
            |piece| {
                let within = piece.start - rows.start..piece.end - rows.start;
                let part = block.slice_axis(Axis(0), Slice::from(within));
                match part.as_slice() {
                    Some(elements) => kernel(piece, elements),
                    None => kernel(piece, gather(&part, &mut buffer)),
                }
            },
        )
    }
}

/// `rows` in pieces of `step`.
fn stepped(rows: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(step).map(move |start| start..rows.end.min(start + step))
}

/// The elements of `part` in C order, in `buffer`, which has room for them.
fn gather<'b, A: Element, D: Dimension>(
    part: &ArrayView<'_, A, D>,
    buffer: &'b mut Vec<A>,
) -> &'b [A] {
    if buffer.len() < part.len() {
        buffer.resize(part.len(), A::zeroed());
    }
    let elements = &mut buffer[..part.len()];
    let mut copy = ArrayViewMut::from_shape(part.raw_dim(), &mut *elements)
        .expect("as many elements as the part");
    copy.assign(part);
    elements
}
