//! The output of a call, as its workers see it.
//!
//! # Safety
//! Workers write to the output through a shared closure, so plain borrows cannot say who may write where. A
//! [`Claim`] can: it is the proof that its block belongs to this process alone, and borrowing it mutably keeps a second
//! slice of the same block from existing.
#![allow(unsafe_code, reason = "gives out the part of the output that a claim stands for")]

use std::marker::PhantomData;

use ndarray::Ix1;

use crate::array::{Element, SharedArray};
use crate::control::Claim;

/// A one-dimensional output, borrowed for one call.
#[derive(Debug)]
pub(super) struct BlockTarget<'a, T> {
    start: *mut T,
    len: usize,
    output: PhantomData<&'a mut T>,
}

impl<'a, T: Element> BlockTarget<'a, T> {
    /// Over all of `output`.
    pub(super) fn new(output: &'a mut SharedArray<T, Ix1>) -> Self {
        Self { start: output.as_mut_ptr(), len: output.len(), output: PhantomData }
    }

    /// The values of the rows of a won block.
    ///
    /// # Panics
    /// When the block reaches past the output: the call was made with another number of rows.
    pub(super) fn rows_mut<'c>(&self, claim: &'c mut Claim<'_>) -> &'c mut [T] {
        let rows = claim.block().rows();
        assert!(rows.end <= self.len, "block of rows {rows:?} in an output of {}", self.len);
        // SAFETY: in bounds, by the assertion.
        let start = unsafe { self.start.add(rows.start) };
        // SAFETY: initialised memory of `output`, which is borrowed for 'a; no other slice of these rows exists, in this
        // process because `claim` is borrowed mutably, in others because the claim was won.
        unsafe { std::slice::from_raw_parts_mut(start, rows.len()) }
    }
}
