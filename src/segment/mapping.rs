#![allow(unsafe_code, reason = "turns parts of a mapping into slices")]
//! A mapping that is in the registry for as long as it lives.
//!
//! Mapping and entry change together under the registry's lock. A process that forks with the lock
//! held therefore knows all that its child inherits, and the child can make it read-only.
//!
//! # Safety
//! Slices are made from the mapped range only, after a bounds check, and never while the same bytes
//! are lent out mutably: [`Mapped::bytes_mut_unchecked`] leaves that to its caller, which says why
//! at the call.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::registry::{self, Mapping};
use crate::sys::file_pages;
use crate::sys::memory::{Access, Map};

/// A registered mapping of a segment's file.
#[derive(Debug)]
pub(super) struct Mapped {
    /// Dropped by hand, because a forked child may have to leave it mapped.
    map: ManuallyDrop<Map>,
    /// The process that mapped it. In a forked child a lock that another thread held may never be
    /// released.
    pid: u32,
}

impl Mapped {
    /// Maps the first `len` bytes of `file` at a 2 MiB aligned address, out of core dumps.
    ///
    /// A mapping that is only read may be that of a file on a disk, whose pages workers let go of
    /// as they read: `file_pages` notes it if it is.
    pub(super) fn new(
        file: &File,
        len: NonZeroUsize,
        access: Access,
        label: Arc<str>,
    ) -> io::Result<Self> {
        let mut registry = registry::lock();
        let map = Map::shared(file, len, access)?;
        map.keep_out_of_core_dumps()?;
        if access == Access::Read {
            file_pages::add(file, &map.range());
        }
        registry.add(Mapping { address: map.address(), len: map.len(), label });
        Ok(Self { map: ManuallyDrop::new(map), pid: std::process::id() })
    }

    /// The mapping itself, for its address, its length and advice on its pages.
    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Whether this process has mapped it, rather than inherited it from a process that had.
    pub(super) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Changes what error messages call it: a nameless segment has got a name.
    pub(super) fn relabel(&self, label: Arc<str>) {
        registry::lock().relabel(self.map.address(), label);
    }

    /// The pointer to the byte at `offset`, which may be the end.
    ///
    /// # Panics
    /// If `offset` is beyond the end.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(
            offset <= self.map.len(),
            "offset {offset} is beyond a mapping of {} bytes",
            self.map.len()
        );
        // SAFETY: inside the mapping or one past its end, by the assertion above.
        unsafe { self.map.start().add(offset) }
    }

    /// The bytes of `range`, to write to.
    ///
    /// # Safety
    /// Nobody else may hold a reference to any byte of `range` while the slice lives.
    ///
    /// # Panics
    /// If `range` is not inside the mapping.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint parts are lent to several threads; the caller vouches for it"
    )]
    pub(super) unsafe fn bytes_mut_unchecked(&self, range: Range<usize>) -> &mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.map.len(),
            "{range:?} of {} bytes",
            self.map.len()
        );
        // SAFETY: in the mapping by the assertion above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(range.start).as_ptr(), range.len()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // In a forked child another thread of the parent may have held the lock at the fork, and
        // then it is never free again. The child leaves the addresses mapped: that costs address
        // space, and keeps the memory until the child ends.
        let registry = if self.is_ours() { Some(registry::lock()) } else { registry::try_lock() };
        let Some(mut registry) = registry else { return };
        registry.remove(self.map.address());
        file_pages::remove(self.map.address());
        // SAFETY: dropped here and nowhere else; `self` is not used after `drop`.
        unsafe { ManuallyDrop::drop(&mut self.map) };
    }
}
