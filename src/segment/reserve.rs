#![allow(unsafe_code, reason = "lends disjoint chunks of a fresh mapping to several threads")]
//! Giving a fresh segment its memory, and filling it while that memory is still warm in the cache.
//!
//! From 2 MiB up this happens in parallel, chunk by chunk: one page is allocated (a full tmpfs says `ENOSPC` here, no
//! signal), then `MADV_COLLAPSE` turns the otherwise empty 2 MiB into one huge page. Where that is refused the chunk
//! is allocated with small pages, again with a clean `ENOSPC`. Allocating everything first would spoil it: the small
//! pages would be made only to be copied and thrown away.
//!
//! # Safety
//! Chunks are disjoint ranges of a mapping that nobody else has a pointer into: the segment is being born.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::header::DATA_OFFSET;
use super::mapping::Mapped;
use super::{has_memory, preflight, sacrifice};
use crate::error::{Error, Result};
use crate::sys::memory::{HUGE_PAGE, SMALL_PAGE};
use crate::sys::{file, process};

/// What one thread fills at a time where chunks are too few to keep all threads busy.
const SMALL_PIECE: usize = 32 << 10;

/// How many bytes of a segment lie in pages of which size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pages {
    /// Bytes in 2 MiB pages.
    pub huge_bytes: usize,
    /// Bytes in 4 KiB pages, header included.
    pub small_bytes: usize,
}

impl Pages {
    /// Of both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { huge_bytes: self.huge_bytes + other.huge_bytes, small_bytes: self.small_bytes + other.small_bytes }
    }
}

/// Fills the data bytes that start at the given offset (in bytes, header not counted).
pub(crate) type Fill<'a> = dyn Fn(usize, &mut [u8]) -> Result<()> + Sync + 'a;

/// Reserves all of `mapping` and fills it. The first error stops the other threads.
pub(super) fn reserve(file: &File, mapping: &Mapped, huge: bool, content: Option<&Fill<'_>>) -> Result<Pages> {
    let total = mapping.map().len();
    // Asked in this order: the last question starts rayon's threads, which a small array has no use for, and whose
    // home must be known by then.
    let alone = !at_home();
    let too_few = alone || total < HUGE_PAGE || total.div_ceil(HUGE_PAGE) < 4 * rayon::current_num_threads();
    let piece = if too_few { SMALL_PIECE } else { HUGE_PAGE };
    if total < HUGE_PAGE || !huge {
        allocate_all(file, 0..total as u64).map_err(|e| shm_error(file, total as u64, e))?;
        if let Some(fill) = content {
            each_piece(0..total, piece, |range| fill_piece(mapping, range, fill))?;
        }
        return Ok(Pages { huge_bytes: 0, small_bytes: total });
    }
    let huge_pages = AtomicU32::new(0);
    each_piece(0..total, HUGE_PAGE, |chunk| {
        if reserve_chunk(file, mapping, &chunk).map_err(|e| shm_error(file, total as u64, e))? {
            huge_pages.fetch_add(1, Ordering::Relaxed); // a count; read after the threads have been joined
        }
        content.map_or(Ok(()), |fill| each_piece(chunk, piece, |range| fill_piece(mapping, range, fill)))
    })?;
    let huge_bytes = huge_pages.into_inner() as usize * HUGE_PAGE;
    Ok(Pages { huge_bytes, small_bytes: total - huge_bytes })
}

/// Gives all of `mapping` memory by system calls alone, in order, and the page tables to reach it by: all that the limit on
/// memory has to allow for before [`reserve`] can fill it. For a child to do.
pub(super) fn reserve_only(file: &File, mapping: &Mapped, huge: bool) -> io::Result<()> {
    let total = mapping.map().len();
    for start in (0..total).step_by(HUGE_PAGE) {
        let chunk = start..total.min(start + HUGE_PAGE);
        if huge {
            reserve_chunk(file, mapping, &chunk)?;
        } else {
            file::allocate(file, chunk.start as u64, chunk.len() as u64)?;
        }
        mapping.map().populate(chunk)?;
    }
    Ok(())
}

/// Gives a range of a file small pages, where it has none. In steps: a signal that interrupts an older kernel costs
/// one step only. An error leaves the steps before it as they are by then: allocated.
pub(super) fn allocate_all(file: &File, Range { start, end }: Range<u64>) -> io::Result<()> {
    const STEP: u64 = 64 << 20;
    let mut at = start;
    while at < end {
        file::allocate(file, at, (end - at).min(STEP))?;
        at += STEP;
    }
    Ok(())
}

/// Gives a file that is no segment, all of whose `len` bytes will be written to, its room: on a disk, or in memory, of which there
/// may be a limit. `false` where the file system takes none ahead, or says that it has and has not (a sparse file is all that some
/// make).
pub(crate) fn take_room(file: &File, len: u64, full: impl Fn(io::Error) -> Error) -> Result<bool> {
    let allocate = || allocate_all(file, 0..len);
    let brink = if file::is_in_memory(file) { preflight::check_memory(len)? } else { None };
    let taken = match brink {
        Some(brink) => return sacrifice::reserve(file, len, brink, allocate).map(|()| true),
        None => allocate(),
    };
    match taken {
        Ok(()) => Ok(file.metadata().is_ok_and(|meta| has_memory(&meta, len))),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(full(error)),
    }
}

/// Gives one chunk its memory; `true` if that is a huge page.
fn reserve_chunk(file: &File, mapping: &Mapped, chunk: &Range<usize>) -> io::Result<bool> {
    if chunk.len() == HUGE_PAGE {
        file::allocate(file, chunk.start as u64, SMALL_PAGE as u64)?;
        // Whatever the reason (no huge page free, a kernel before 6.1, memory limits): small pages will do.
        if mapping.map().collapse(chunk.start).is_ok() {
            return Ok(true);
        }
    }
    file::allocate(file, chunk.start as u64, chunk.len() as u64).map(|()| false)
}

/// Hands the data bytes in the file range `piece` to `fill`.
fn fill_piece(mapping: &Mapped, piece: Range<usize>, fill: &Fill<'_>) -> Result<()> {
    let start = piece.start.max(DATA_OFFSET);
    if start >= piece.end {
        return Ok(());
    }
    // SAFETY: the pieces are disjoint and the mapping is known to the one birth that runs this.
    let bytes = unsafe { mapping.bytes_mut_unchecked(start..piece.end) };
    fill(start - DATA_OFFSET, bytes)
}

/// Runs `work` on `whole` cut into pieces, on rayon's threads where that pays and is possible.
fn each_piece(whole: Range<usize>, piece: usize, work: impl Fn(Range<usize>) -> Result<()> + Sync) -> Result<()> {
    let range = |i: usize| whole.start + i * piece..whole.end.min(whole.start + (i + 1) * piece);
    let pieces = whole.len().div_ceil(piece);
    if pieces < 2 || !at_home() {
        return (0..pieces).try_for_each(|i| work(range(i)));
    }
    (0..pieces).into_par_iter().try_for_each(|i| work(range(i)))
}

/// Runs `work` on `bytes` cut into chunks, likewise; it is given each chunk's offset.
pub(super) fn each_chunk(
    bytes: &mut [u8],
    chunk: usize,
    work: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    if bytes.len() <= chunk || !at_home() {
        return bytes.chunks_mut(chunk).enumerate().try_for_each(|(i, part)| work(i * chunk, part));
    }
    bytes.par_chunks_mut(chunk).enumerate().try_for_each(|(i, part)| work(i * chunk, part))
}

/// Whether this is the process that used segments first, where rayon's threads live and locks are let go of. In a
/// forked child they are not, and waiting for them would take for ever. A worker of ours is a child even if its parent
/// has never got here: the host may have used rayon by itself.
pub(super) fn at_home() -> bool {
    static HOME: AtomicU32 = AtomicU32::new(0);
    let here = std::process::id();
    // Relaxed: one word, and a forked child gets its copy with all else.
    let home = HOME.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|home| home);
    (home == 0 || home == here) && !process::is_forked_child()
}

/// Names a failed reservation of `need` bytes for a segment that is being born: what it had taken until then is given
/// back with it.
pub(super) fn shm_error(file: &File, need: u64, source: io::Error) -> Error {
    let taken = file.metadata().map_or(0, |meta| meta.blocks() * 512);
    shm_error_beside(file, need, taken, source)
}

/// Likewise, where `taken` bytes have been or will be given back.
pub(super) fn shm_error_beside(file: &File, need: u64, taken: u64, source: io::Error) -> Error {
    if source.raw_os_error() != Some(libc::ENOSPC) {
        return Error::Os { action: "reserve memory in", subject: super::name::SHM_DIR.to_owned(), source };
    }
    let room = file::room(file).unwrap_or(file::Room { available: 0, total: 0 });
    Error::ShmFull { need, available: room.available.saturating_add(taken), total: room.total }
}
