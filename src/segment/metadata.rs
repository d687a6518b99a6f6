//! What the metadata of a segment's file say: whether it is volatile, and how much memory it has.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::sys::memory::SMALL_PAGE;

/// The mode of a volatile segment, which belongs to its maker and goes with it.
pub(super) const VOLATILE: u32 = 0o1600;
/// The mode of a lasting one. Neither mode lets another user in, whatever the umask.
pub(super) const LASTING: u32 = 0o600;
/// The bit that tells them apart. It has no other meaning on a file.
///
/// See [inode(7)](https://man7.org/linux/man-pages/man7/inode.7.html).
pub(super) const STICKY: u32 = 0o1000;

/// Whether a file's mode says that it goes with its maker. Every bit must be right: a file of
/// another mode was not made here, or somebody has changed its mode on purpose.
pub(super) fn is_volatile(meta: &Metadata) -> bool {
    meta.mode() & 0o7777 == VOLATILE
}

/// The unit in which `stat` counts a file's memory, in bytes, whatever the block size of the file
/// system.
///
/// See [stat(2)](https://man7.org/linux/man-pages/man2/stat.2.html).
pub(super) const BLOCK: u64 = 512;

/// Whether a file has as much memory as its first `len` bytes take. Pages in swap count. The count
/// is that of the whole file: memory beyond `len` makes up for a hole before it.
pub(super) fn has_memory(meta: &Metadata, len: u64) -> bool {
    meta.blocks() * BLOCK >= len.next_multiple_of(SMALL_PAGE as u64)
}
