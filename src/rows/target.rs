//! The output of a call, as its workers see it.
//!
//! # Safety
//! Workers write to the output through a shared closure, so plain borrows cannot say who may write where. A
//! [`Claim`] can: it is the proof that its block belongs to this process alone, and borrowing it mutably keeps a second
//! slice of the same block from existing.
#![allow(unsafe_code, reason = "gives out the part of the output that a claim stands for")]

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::Dimension;

use crate::array::{Element, SharedArray};
use crate::blocks::RowBlock;
use crate::control::Claim;

/// How many elements of the output belong to what. Two blocks never share one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    PerRow(usize),
    PerBlock(usize),
}

impl Share {
    fn of(self, block: &RowBlock) -> Range<usize> {
        match self {
            Self::PerRow(len) => block.rows().start * len..block.rows().end * len,
            Self::PerBlock(len) => block.index() * len..(block.index() + 1) * len,
        }
    }
}

/// An output, borrowed for one call.
#[derive(Debug)]
pub(super) struct BlockTarget<'a, T> {
    start: *mut T,
    len: usize,
    share: Share,
    output: PhantomData<&'a mut T>,
}

impl<'a, T: Element> BlockTarget<'a, T> {
    /// Over all of `output`.
    pub(super) fn new<D: Dimension>(output: &'a mut SharedArray<T, D>, share: Share) -> Self {
        Self { start: output.as_mut_ptr(), len: output.len(), share, output: PhantomData }
    }

    /// The elements that belong to a won block.
    ///
    /// # Panics
    /// When the block reaches past the output: the call was made with another number of rows.
    pub(super) fn part_mut<'c>(&self, claim: &'c mut Claim<'_>) -> &'c mut [T] {
        let part = self.share.of(claim.block());
        assert!(part.end <= self.len, "elements {part:?} of an output of {}", self.len);
        // SAFETY: in bounds, by the assertion.
        let start = unsafe { self.start.add(part.start) };
        // SAFETY: initialised memory of `output`, which is borrowed for 'a; no other slice of these elements exists, in
        // this process because `claim` is borrowed mutably, in others because the claim was won, and because the shares
        // of two blocks are disjoint, as their rows and their numbers are.
        unsafe { std::slice::from_raw_parts_mut(start, part.len()) }
    }
}
