//! [`Maps`]: the segments that a pool worker has mapped.
//!
//! They are kept from call to call, so that the page tables stay warm. All are read-only, except
//! those that the running call writes to. `worker.rs` adds and removes them as the caller's
//! messages say. Nothing here allocates: the table has its size from before the fork.
//!
//! # Safety
//! Protection is changed between two jobs, when nothing in this process reads or writes the
//! mappings.
#![allow(unsafe_code, reason = "mprotect, and words of a mapping")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;

use super::job::SegmentRef;
use crate::engine::args::MappedSegment;
use crate::engine::worker::{FAULT_MAP, FAULT_MAP_MAX};
use crate::segment::DATA_OFFSET;
use crate::sys::file_pages;
use crate::sys::memory::{Access, Map};
use crate::sys::shared;

/// The most segments of one call. The record has a word for each, and a worker's list of them has a
/// fixed size.
pub(super) const MAX_SEGMENTS: usize = 64;

/// The most segments that a worker keeps mapped. The caller counts them, and replaces a worker that
/// would have more.
pub(super) const MAPPED_MAX: usize = 256;

const _: () = assert!(FAULT_MAP_MAX == MAPPED_MAX, "the fault map has every mapping of a worker");

/// The segments of one worker, in no particular order.
#[derive(Debug)]
pub(super) struct Maps {
    /// The caller allocates this before it forks the zygote, since workers allocate nothing of
    /// their own accord.
    entries: Vec<CachedMapping>,
}

/// A segment that is mapped in this process.
#[derive(Debug)]
struct CachedMapping {
    /// The caller's number of the segment.
    id: u64,
    map: Map,
    /// Kept open: a guarded worker writes its output through it.
    file: File,
    /// Whether the mapping is writable now.
    writable: bool,
}

impl Maps {
    /// An empty table with room for [`MAPPED_MAX`] segments.
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(MAPPED_MAX) }
    }

    /// Maps a segment read-only. `caller_address` is where the caller has it mapped, for the
    /// messages about faults.
    ///
    /// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
    ///
    /// # Errors
    /// Those of `mmap`; `EMFILE` where the message came without its descriptor, because this
    /// process had no number free for it.
    pub(super) fn add(
        &mut self,
        id: u64,
        fd: Option<OwnedFd>,
        len: usize,
        caller_address: usize,
    ) -> io::Result<()> {
        let file: File = fd.ok_or(io::Error::from_raw_os_error(libc::EMFILE))?.into();
        if self.entries.len() == MAPPED_MAX {
            return Err(io::ErrorKind::OutOfMemory.into()); // the caller counts
        }
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let map = Map::shared(&file, len, Access::Read)?;
        map.keep_out_of_core_dumps()?;
        FAULT_MAP.add(map.range(), caller_address);
        file_pages::add(&file, &map.range());
        self.entries.push(CachedMapping { id, map, file, writable: false });
        Ok(())
    }

    /// Unmaps a segment and closes its file. One that is not mapped is no error.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(at) = self.entries.iter().position(|entry| entry.id == id) {
            let entry = self.entries.swap_remove(at);
            FAULT_MAP.remove(entry.map.address());
            file_pages::remove(entry.map.address());
        }
    }

    /// Makes those segments writable that the call writes to, and all others read-only. Returns
    /// whether all segments of the call are mapped; if not, nothing is changed.
    ///
    /// See [mprotect(2)](https://man7.org/linux/man-pages/man2/mprotect.2.html).
    ///
    /// # Errors
    /// That of `mprotect`.
    pub(super) fn prepare(
        &mut self,
        wanted: &(impl Iterator<Item = SegmentRef> + Clone),
    ) -> io::Result<bool> {
        let is_there = |wanted: SegmentRef| self.entries.iter().any(|entry| entry.id == wanted.id);
        if !wanted.clone().all(is_there) {
            return Ok(false);
        }
        for entry in &mut self.entries {
            let writable = wanted.clone().any(|wanted| wanted.id == entry.id && wanted.writable);
            if writable != entry.writable {
                let change = if writable { shared::make_writable } else { shared::make_read_only };
                // SAFETY: a whole mapping of this worker's, which nothing uses between two jobs.
                unsafe { change(&entry.map.range()) }?;
                entry.writable = writable;
            }
        }
        Ok(true)
    }

    /// The mappings of these segments, in the order of `ids`. After [`prepare`](Self::prepare) each
    /// is there.
    pub(super) fn mapped_segments(
        &self,
        ids: impl Iterator<Item = u64>,
    ) -> [Option<MappedSegment<'_>>; MAX_SEGMENTS] {
        let mut mapped_segments = [None; MAX_SEGMENTS];
        for (place, id) in mapped_segments.iter_mut().zip(ids) {
            let entry = self.entries.iter().find(|entry| entry.id == id);
            *place = entry.map(|entry| MappedSegment {
                start: entry.map.start().as_ptr(),
                file: &entry.file,
            });
        }
        mapped_segments
    }

    /// The data of a segment as words: packed arguments that were too long for the board.
    pub(super) fn words(&self, id: u64) -> &[u64] {
        let entry = self.entries.iter().find(|entry| entry.id == id).expect("prepared");
        let words = (entry.map.len() - DATA_OFFSET) / size_of::<u64>();
        // SAFETY: inside the mapping, since data begin there in every segment that is made here.
        let start = unsafe { entry.map.start().add(DATA_OFFSET) };
        // SAFETY: mapped, aligned to a page, written by the caller before it sent the job, and by
        // no process since.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), words) }
    }
}
