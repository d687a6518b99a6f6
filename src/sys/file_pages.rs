//! Mappings of files on a disk, and letting go of their pages once they have been read.
//!
//! The pages of such a file belong to the system's cache, whoever has them mapped. But a worker
//! that goes through a large file would have all of it mapped in the end. The system counts pages
//! that no other process has mapped as that worker's own memory, and finds mapped pages harder to
//! take back. So workers unmap what they have read, block by block (`rows/release_pages.rs`).
//!
//! # Safety
//! Unmapping pages of a read-only shared mapping changes nothing that can be read there: the next
//! look maps them again.
#![allow(unsafe_code, reason = "madvise acts on raw addresses")]

use std::fs::File;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::file;
use super::memory::SMALL_PAGE;

/// How many such files a process keeps account of; pages of further ones stay mapped. The table has
/// a fixed size, so that a forked child can read it without a lock and without an allocation.
const MAX: usize = 64;

/// The least size in bytes, 16 MiB. A smaller file stays mapped, since it may well be read again.
const LEAST: usize = 16 << 20;

/// Start and end address of every such mapping of this process; a start of 0 marks a free place. A
/// forked child has a copy.
///
/// The table is changed under the registry's lock, which is held across a fork, or by a worker of a
/// pool, which has one thread. So relaxed orderings do.
static MAPPINGS: [[AtomicUsize; 2]; MAX] = [const { [const { AtomicUsize::new(0) }; 2] }; MAX];

/// How many there are. Mostly there are none, and one look at this word says so.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Notes a mapping that is read only, if it is a large one of a file on a disk. Where the table is
/// full nothing happens.
pub(crate) fn add(file: &File, range: &Range<usize>) {
    // A file in `/dev/shm` is memory itself: unmapping its pages would free nothing.
    if range.len() < LEAST || file::is_in_memory(file) {
        return;
    }
    if let Some([start, end]) =
        MAPPINGS.iter().find(|[start, _]| start.load(Ordering::Relaxed) == 0)
    {
        // The start comes last: until then the place counts as free.
        end.store(range.end, Ordering::Relaxed);
        start.store(range.start, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Forgets a mapping that is about to be unmapped. Its addresses may soon belong to other memory,
/// which [`release`] must not touch: private memory would lose its contents. A mapping that was
/// never noted is no error.
pub(crate) fn remove(start: usize) {
    for mapping in
        MAPPINGS.iter().filter(|[known, _]| start != 0 && known.load(Ordering::Relaxed) == start)
    {
        for word in mapping {
            word.store(0, Ordering::Relaxed);
        }
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Forgets all mappings. The zygote of a pool calls this once it has let go of the segments that it
/// inherited.
pub(crate) fn forget() {
    MAPPINGS.iter().flatten().chain([&COUNT]).for_each(|word| word.store(0, Ordering::Relaxed));
}

/// Whether an address lies in such a mapping.
pub(crate) fn contain(address: usize) -> bool {
    holder_of(address).is_some()
}

/// The mapping that holds an address.
fn holder_of(address: usize) -> Option<Range<usize>> {
    let range = |[start, end]: &[AtomicUsize; 2]| {
        start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)
    };
    let holds = |range: &Range<usize>| range.start != 0 && range.contains(&address);
    if COUNT.load(Ordering::Relaxed) > 0 { MAPPINGS.iter().map(range).find(holds) } else { None }
}

/// Unmaps the pages of a range that lies in one such mapping, those at its ends included. A range
/// that lies elsewhere, or reaches beyond the mapping, is left alone.
///
/// A page at the end may hold rows of the next block, too: reading it again costs a minor fault, as
/// long as the system still has it in its cache.
///
/// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
pub(crate) fn release(range: &Range<usize>) {
    let start = range.start / SMALL_PAGE * SMALL_PAGE;
    if holder_of(range.start).is_some_and(|mapping| range.end <= mapping.end) {
        let address = ptr::with_exposed_provenance_mut(start);
        let len = (range.end - start).next_multiple_of(SMALL_PAGE);
        // SAFETY: pages of one shared mapping of a file that is only read, as the look has just
        // said: what is in them stays.
        unsafe { libc::madvise(address, len, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::{Access, Map};
    use std::num::NonZeroUsize;

    #[test]
    fn only_large_disk_files_are_noted_and_pages_let_go_come_back() {
        let on_disk = tempfile::tempfile_in("/var/tmp").unwrap();
        let in_memory = tempfile::tempfile_in("/dev/shm").unwrap();
        let is_disk = !file::is_in_memory(&on_disk);
        for (file, len, expected) in
            [(&on_disk, LEAST, is_disk), (&on_disk, LEAST - 1, false), (&in_memory, LEAST, false)]
        {
            file.set_len(len as u64).unwrap();
            let map = Map::shared(file, NonZeroUsize::new(len).unwrap(), Access::Read).unwrap();
            add(file, &map.range());
            assert_eq!(contain(map.address()), expected);
            assert_eq!(contain(map.range().end - 1), expected);
            assert!(!contain(map.range().end));
            // SAFETY: inside of the mapping.
            let there = unsafe { map.start().add(5000) };
            // SAFETY: mapped, and written to by nobody.
            let byte = || unsafe { there.read_volatile() };
            assert_eq!(byte(), 0);
            release(&(map.address() + 4500..map.address() + 6000));
            assert_eq!(byte(), 0);
            remove(map.address());
            assert!(!contain(map.address()));
        }
    }
}
