//! Work on the pieces of a segment, by several threads where that pays and is possible. Called by
//! birth, to reserve and fill, and by `npy`, to read.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use crate::error::Result;
use crate::sys::process;

/// Runs `work` on `whole` cut into pieces of `piece` (the last may be shorter), on rayon's threads
/// where that pays and is possible. Pieces are half-open ranges, and disjoint. The first error is
/// returned, and pieces that are not begun by then are left out.
pub(super) fn each_piece(
    whole: Range<usize>,
    piece: usize,
    work: impl Fn(Range<usize>) -> Result<()> + Sync,
) -> Result<()> {
    let range = |i: usize| whole.start + i * piece..whole.end.min(whole.start + (i + 1) * piece);
    let pieces = whole.len().div_ceil(piece);
    if pieces < 2 || !in_original_process() {
        return (0..pieces).try_for_each(|i| work(range(i)));
    }
    (0..pieces).into_par_iter().try_for_each(|i| work(range(i)))
}

/// Runs `work` on `bytes` cut into chunks of `chunk` bytes, in the same way. `work` is given each
/// chunk's offset in `bytes`.
pub(super) fn each_chunk(
    bytes: &mut [u8],
    chunk: usize,
    work: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
) -> Result<()> {
    if bytes.len() <= chunk || !in_original_process() {
        return bytes.chunks_mut(chunk).enumerate().try_for_each(|(i, part)| work(i * chunk, part));
    }
    bytes.par_chunks_mut(chunk).enumerate().try_for_each(|(i, part)| work(i * chunk, part))
}

/// Whether this is the process that used segments first, where rayon's threads live and locks are
/// let go of. In a forked child they are not, and waiting for them would take for ever. A worker of
/// ours is a child even if its parent has never got here: the host may have used rayon by itself.
pub(super) fn in_original_process() -> bool {
    // The first process that asks; 0 until then, which is no such process's id.
    static HOME: AtomicU32 = AtomicU32::new(0);
    let here = std::process::id();
    // Relaxed: one word, and a forked child gets its copy with all else.
    let home = HOME
        .compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed)
        .unwrap_or_else(|home| home);
    (home == 0 || home == here) && !process::is_forked_child()
}
