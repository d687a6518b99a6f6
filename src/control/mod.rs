#![doc = include_str!("README.md")]
//!
//! # Safety
//! The only unsafe here are the `unsafe impl AllAtomic`s: the types that lie in shared memory consist of atomics alone,
//! so a store by any other process, sane or not, at any time, is a value and never undefined behaviour.
#![allow(unsafe_code, reason = "marks the types that may lie in shared memory")]

mod claims;
mod slots;

pub(crate) use claims::{Claim, ClaimState, Claims, MAX_WORKERS, Owner};
pub(crate) use slots::{Fault, Message, MessageKind, Slot, Tally};

use std::mem::{align_of, size_of};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::{AllAtomic, SharedPages};

/// The words at the start of the control block.
#[repr(C, align(64))]
#[derive(Debug)]
struct Header {
    /// Hint: a block that came back from a dead worker, or [`NONE`].
    returned: AtomicU64,
    /// Blocks from here on need not be done. Written by the supervisor only.
    limit: AtomicU64,
}

// SAFETY: atomics only; the rest of its 64 bytes is padding that nobody reads.
unsafe impl AllAtomic for Header {}

const _: () = assert!(size_of::<Header>() == 64 && align_of::<Slot>() <= 4096);

/// No block.
const NONE: u64 = u64::MAX;

/// The control block of one call: claim words and worker slots in anonymous shared memory.
#[derive(Debug)]
pub(crate) struct Control {
    pages: SharedPages,
    n_blocks: usize,
    n_workers: usize,
    nonce: u64,
}

impl Control {
    /// How many bytes the control block for so many blocks and workers takes.
    pub(crate) fn bytes(n_blocks: usize, n_workers: usize) -> usize {
        Self::slots_at(n_blocks) + n_workers * size_of::<Slot>()
    }

    /// The slots come after the claim words, each on a page of its own.
    fn slots_at(n_blocks: usize) -> usize {
        (size_of::<Header>() + n_blocks * size_of::<AtomicU64>()).next_multiple_of(align_of::<Slot>())
    }

    /// A control block with every block free and every slot empty, in fresh pages of [`Control::bytes`] bytes.
    pub(crate) fn in_pages(pages: SharedPages, n_blocks: usize, n_workers: usize, nonce: u64) -> Self {
        assert!(n_workers <= MAX_WORKERS, "a claim word holds 16 bits of worker number");
        let control = Self { pages, n_blocks, n_workers, nonce };
        control.reset();
        control
    }

    /// Frees every block. Only while no worker lives.
    pub(crate) fn reset(&self) {
        self.header().returned.store(NONE, Ordering::Relaxed);
        self.set_limit(self.n_blocks);
        self.claims().free_all();
    }

    /// Has the next worker that looks for a block try this one first: it came back from a dead worker. Lowest first, so
    /// that a row that kills is tried again at once, and found out, before the workers go on to others.
    pub(crate) fn hand_back(&self, block: usize) {
        self.header().returned.fetch_min(block as u64, Ordering::Relaxed);
    }

    /// The block that came back, for one who asks. May be any number.
    pub(crate) fn take_returned(&self) -> Option<usize> {
        let returned = &self.header().returned;
        // Nearly always there is none, and no need to write to a line that all workers read.
        if returned.load(Ordering::Relaxed) == NONE {
            return None;
        }
        usize::try_from(returned.swap(NONE, Ordering::Relaxed)).ok()
    }

    /// Blocks from this one on need not be done.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.header().limit.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Tells the workers that blocks from `block` on need not be done. The supervisor's word only.
    pub(crate) fn set_limit(&self, block: usize) {
        self.header().limit.store(block as u64, Ordering::Relaxed);
    }

    /// The claim words.
    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims::new(self.pages.slice_of::<AtomicU64>(size_of::<Header>(), self.n_blocks), self.nonce)
    }

    /// The slots, one per worker.
    pub(crate) fn slots(&self) -> &[Slot] {
        self.pages.slice_of::<Slot>(Self::slots_at(self.n_blocks), self.n_workers)
    }

    fn header(&self) -> &Header {
        &self.pages.slice_of::<Header>(0, 1)[0]
    }
}
