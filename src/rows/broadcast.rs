//! [`param`] and [`broadcast`]: parts of an input that are the same for every row.
//!
//! They stand in a tuple beside the rows, and implement the same traits as those (`input.rs`). They
//! have no number of rows of their own.
//!
//! # Safety
//! As in `input.rs`: what is unpacked here was packed by the same type.
#![allow(unsafe_code, reason = "unpacks inputs in workers that are no copies of the caller")]

use std::ops::Range;

use bytemuck::Pod;
use ndarray::{ArrayView, Dimension};

use super::input::Rows;
use super::input::sealed::{Input, InputFacts, RowAccess, RowCheck};
use crate::array::{Element, Selection};
use crate::engine::args::{ArgReader, Marshal, PackedArgs, PodArg, pack_view, unpack_view};
use crate::error::Result;
use crate::segment::{Pages, Segment};

/// A value that is the same for every row, beside the rows: how a kernel of a
/// [`Pool`](crate::Pool), which captures nothing, gets its parameters. It is any plain data
/// ([`Pod`]): a number, an array like `[f64; 3]`, a `#[repr(C)]` struct that derives it; not `bool`
/// or `char`, some of whose bits mean nothing. The kernel gets a copy for each row: what is larger
/// than some numbers is better [`broadcast`].
///
/// ```
/// use rowfork::{Pool, SharedArray, param};
///
/// let pool = Pool::builder().workers(2).build()?;
/// let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i * j) as f64)?;
/// let scale = 0.5;
/// let scaled = pool.map_rows((&m, param(scale)), |(row, scale)| scale * row.sum())?;
/// assert_eq!(scaled[10], 15.0);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[must_use]
pub fn param<P: Pod>(value: P) -> Param<P> {
    Param(value)
}

/// A shared array, or a part of one, that is the same for every row: a table to look things up in,
/// weights, a model. The kernel gets a view of all of it with each row, and nothing is copied.
///
/// ```
/// use rowfork::{Pool, SharedArray, broadcast};
///
/// let pool = Pool::builder().workers(2).build()?;
/// let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
/// let weights = SharedArray::from_shape_fn(None, (100, 3), |(i, _)| i as f64)?;
/// let scores = pool.map_rows((&m, broadcast(&weights)), |(row, weights)| weights.row(row.index()).dot(&row))?;
/// assert_eq!(scores[1], 1.0 + 2.0 + 3.0);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[must_use]
pub fn broadcast<'a, A: Element, D: Dimension>(
    array: impl Into<Selection<'a, A, D>>,
) -> Broadcast<'a, A, D> {
    Broadcast(array.into())
}

/// A value that is the same for every row. Made by [`param`].
#[derive(Debug, Clone, Copy)]
pub struct Param<P>(P);

/// A shared array that is the same for every row. Made by [`broadcast`].
#[derive(Debug, Clone)]
pub struct Broadcast<'a, A, D: Dimension>(Selection<'a, A, D>);

impl<P: Pod> Input for Param<P> {
    type View = Self;

    fn view(&self) -> Self {
        *self
    }

    fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
        PodArg(self.0).pack(args);
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { PodArg::unpack(words) }.0)
    }
}

impl<P: Pod> InputFacts for Param<P> {
    fn rows_if_any(&self) -> Option<usize> {
        None
    }

    fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
        check.same_for_all();
        Ok(())
    }

    fn pages(&self) -> Option<Pages> {
        Some(Pages::default())
    }
}

impl<P: Pod> RowAccess for Param<P> {
    type Row = P;
    type Block = P;

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = P> {
        std::iter::repeat_n(self.0, rows.len())
    }

    fn block(&self, _rows: Range<usize>) -> P {
        self.0
    }
}

impl<P: Pod> Rows for Param<P> {
    type Row = P;
    type Block = P;
}

/// A broadcast array as a worker has it: a view that every row gets.
#[derive(Debug)]
pub(crate) struct Whole<'a, A, D: Dimension>(ArrayView<'a, A, D>);

impl<'a, A: Element, D: Dimension> Input for Broadcast<'a, A, D> {
    type View = Whole<'a, A, D>;

    fn view(&self) -> Whole<'a, A, D> {
        Whole(self.0.view())
    }

    fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
        pack_view(&self.0.view(), self.0.segment(), args);
    }

    unsafe fn unpack(words: &mut ArgReader<'_>) -> Whole<'a, A, D> {
        // SAFETY: as the caller promises.
        Whole(unsafe { unpack_view(words) })
    }
}

impl<A: Element, D: Dimension> InputFacts for Broadcast<'_, A, D> {
    fn rows_if_any(&self) -> Option<usize> {
        None
    }

    fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
        check.same_for_all();
        Ok(())
    }

    fn each_segment(&self, each: &mut dyn FnMut(&Segment)) {
        each(self.0.segment());
    }

    fn pages(&self) -> Option<Pages> {
        self.0.segment().pages()
    }
}

impl<'a, A: Element, D: Dimension> RowAccess for Whole<'a, A, D> {
    type Row = ArrayView<'a, A, D>;
    type Block = ArrayView<'a, A, D>;

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = ArrayView<'a, A, D>> {
        let view = self.0.clone();
        rows.map(move |_| view.clone())
    }

    fn block(&self, _rows: Range<usize>) -> ArrayView<'a, A, D> {
        self.0.clone()
    }
}

impl<'a, A: Element, D: Dimension> Rows for Broadcast<'a, A, D> {
    type Row = ArrayView<'a, A, D>;
    type Block = ArrayView<'a, A, D>;
}
