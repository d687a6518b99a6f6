//! The segments that a pool worker has mapped: kept from call to call, so that page tables stay
//! warm, and read-only but for what the running call writes to.
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
use crate::engine::worker::FAULT_MAP;
use crate::segment::DATA_OFFSET;
use crate::sys::file_pages;
use crate::sys::memory::{Access, Map};
use crate::sys::shared;

/// The most segments of one call.
pub(super) const MAX_SEGMENTS: usize = 64;

/// The most that are kept. The caller counts them, and has a worker that would have more replaced.
pub(super) const MAPPED_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Maps {
    /// Its memory is had by the caller, before the zygote is forked: workers allocate nothing of
    /// their own accord.
    entries: Vec<CachedMapping>,
}

#[derive(Debug)]
struct CachedMapping {
    id: u64,
    map: Map,
    file: File,
    writable: bool,
}

impl Maps {
    /// With room for all that there will be.
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(MAPPED_MAX) }
    }

    /// Maps a segment, to be read.
    ///
    /// # Errors
    /// Those of `mmap`; `EMFILE` where its descriptor has found no place.
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

    /// Lets go of one.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(at) = self.entries.iter().position(|entry| entry.id == id) {
            let entry = self.entries.swap_remove(at);
            FAULT_MAP.remove(entry.map.address());
            file_pages::remove(entry.map.address());
        }
    }

    /// Makes those writable that are to be, and all others read-only; whether all are there.
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
                // SAFETY: a whole mapping of this worker's, which nobody uses now.
                unsafe { change(&entry.map.range()) }?;
                entry.writable = writable;
            }
        }
        Ok(true)
    }

    /// These segments, which are there, in order.
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

    /// The data of a segment as words: a list of arguments that was too long for the board.
    pub(super) fn words(&self, id: u64) -> &[u64] {
        let entry = self.entries.iter().find(|entry| entry.id == id).expect("prepared");
        let words = (entry.map.len() - DATA_OFFSET) / size_of::<u64>();
        // SAFETY: inside the mapping, since data begin there in every segment that is made here.
        let start = unsafe { entry.map.start().add(DATA_OFFSET) };
        // SAFETY: mapped, aligned to a page, written by the caller before it sent the job, and by
        // nobody since.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), words) }
    }
}
