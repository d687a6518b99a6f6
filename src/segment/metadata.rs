//! What the metadata of a segment's file say: whether it is volatile, and how much memory it has.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::sys::memory::SMALL_PAGE;

/// Mode of a volatile segment.
pub(super) const VOLATILE: u32 = 0o1600;
/// Mode of a lasting one.
pub(super) const LASTING: u32 = 0o600;
/// The bit that tells them apart.
pub(super) const STICKY: u32 = 0o1000;

/// Whether a file's mode says that it goes with its maker.
pub(super) fn is_volatile(meta: &Metadata) -> bool {
    meta.mode() & 0o7777 == VOLATILE
}

/// The unit in which `stat` counts a file's memory, in bytes.
pub(super) const BLOCK: u64 = 512;

/// Whether a file has as much memory as its first `len` bytes take. Pages in swap count.
pub(super) fn has_memory(meta: &Metadata, len: u64) -> bool {
    meta.blocks() * BLOCK >= len.next_multiple_of(SMALL_PAGE as u64)
}
