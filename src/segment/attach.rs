//! Attaching to what somebody else made: a segment, of rowfork's or NumPy's, or a `.npy` file
//! anywhere.
//!
//! A file is only ever opened here, never made, renamed or removed. All that a header claims is
//! compared with the file before anything is mapped (`npy.rs`).

use std::fs::{File, TryLockError};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::Segment;
use super::mapping::Mapped;
use super::metadata::BLOCK;
use super::name::{self, os};
use super::npy::{ExpectedArray, Layout, NpyFile};
use super::{preflight, reserve, reserve_in_child, shortage};
use crate::error::{Error, Result};
use crate::sys::file;
use crate::sys::memory::{Access, SMALL_PAGE};

/// Opens, locks, checks and maps the segment called `name`.
///
/// What is checked is the file as it is now. The caller has to know that nobody truncates it later,
/// or writes to it while it is read: hence `SharedArray::attach` is `unsafe`.
///
/// The lock comes before every check. Until it is held a sweep may still remove the file, and what
/// was found before would be about a file that no longer has the name.
pub(crate) fn attach(name: &str, wanted: ExpectedArray) -> Result<(Segment, Layout)> {
    let name = name::validated(name)?;
    let npy = NpyFile::open_name(name, true)?;
    lock_shared(&npy.file, name)?;
    // The file may have been swept or removed between open and lock: the name is gone, or another
    // file's by now.
    if !name::leads_to(name, &npy.meta) {
        return Err(Error::NameNotFound { name: name.to_owned() });
    }
    let layout = npy.layout_to_map(wanted)?;
    // The holes are filled before the file is mapped, so that no later look at the array is the
    // first one to ask for memory.
    fill_holes(&npy, layout.end())?;
    let mapping =
        mapped(&npy.file, &npy.path, layout.end(), Access::Write, name::label(Some(name)))?;
    Ok((Segment::attached(npy.file, mapping, name.to_owned(), layout.data_offset), layout))
}

/// Opens, checks and maps a `.npy` file where it is, to be read only.
///
/// As for [`attach`], the caller has to know what becomes of the file later. The file is given no
/// memory: a hole of a file on a disk is zeros, and one of a sparse file in `/dev/shm` takes memory
/// when it is read.
pub(crate) fn map_file(path: &Path, wanted: ExpectedArray) -> Result<(Segment, Layout)> {
    let npy = NpyFile::open_path(path)?;
    // In memory the file may be a segment, and then it counts as in use. Elsewhere a lock may mean
    // something to others. A lock that is taken is no reason not to read.
    if file::is_in_memory(&npy.file) {
        let _ = npy.file.try_lock_shared();
    }
    let layout = npy.layout_to_map(wanted)?;
    let mapping = mapped(&npy.file, path, layout.end(), Access::Read, name::file_label(path))?;
    Ok((Segment::of_file(npy.file, mapping, npy.path, layout.data_offset), layout))
}

/// Maps a file that is in the making, to be written to. All of its `len` bytes have room already,
/// or a store could end in a signal. The segment gets a descriptor of its own, and the draft keeps
/// `file`.
pub(crate) fn map_draft(
    file: &File,
    path: &Path,
    len: usize,
    data_offset: usize,
) -> Result<Segment> {
    let mapping = mapped(file, path, len, Access::Write, name::file_label(path))?;
    let file = file.try_clone().map_err(os("map", path))?;
    Ok(Segment::of_file(file, mapping, path.to_owned(), data_offset))
}

/// Maps the first `len` bytes of a file, header and data. A file of no bytes cannot be mapped; no
/// file with a header is that short.
fn mapped(file: &File, path: &Path, len: usize, access: Access, label: Arc<str>) -> Result<Mapped> {
    preflight::check_mapping(len)?;
    let len = NonZeroUsize::new(len)
        .ok_or(io::ErrorKind::UnexpectedEof)
        .map_err(|e| os("map", path)(e.into()))?;
    Mapped::new(file, len, access, label).map_err(os("map", path))
}

/// Takes the lock that says "in use". Others hold the exclusive one for an instant, to look or to
/// sweep. A process that holds it for more than a second means it: the answer is `InUse`.
///
/// The lock is asked for again and again instead of waited for, because a wait in `flock` has no
/// limit.
fn lock_shared(file: &File, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(os("lock", &name::path(name))(error)),
        }
    }
}

/// Gives a sparse file the memory that it lacks: on a full `/dev/shm` even reading a hole is a
/// SIGBUS. If the memory is refused, the file is left as sparse as it was.
///
/// `total` is where the data end, in bytes; what the file has beyond that is not looked at.
fn fill_holes(npy: &NpyFile, total: usize) -> Result<()> {
    let (file, total) = (&npy.file, total as u64);
    let allocated = npy.meta.blocks() * BLOCK;
    // The file has as many blocks as it has pages, so nothing is missing, unless somebody has
    // allocated beyond its end. (This is asked first, since what a segment of zeros has reserved
    // counts as holes until it is touched.)
    if allocated == npy.meta.len().next_multiple_of(SMALL_PAGE as u64) {
        return Ok(());
    }
    // One process fills at a time: what one has reserved looks like a hole to another, which might
    // give it back.
    let _filling = file::FillLock::take(file).map_err(os("lock", &npy.path))?;
    let holes = file::holes(file, 0..total).map_err(os("examine", &npy.path))?;
    if holes.is_empty() {
        return Ok(());
    }
    // If the count leaves nothing, blocks beyond the end have made up for the holes: at least a
    // page is missing.
    let missing =
        total.next_multiple_of(SMALL_PAGE as u64).saturating_sub(allocated).max(SMALL_PAGE as u64);
    let near_limit = preflight::check_memory(missing)?;
    preflight::check_free_space(file, missing)?;
    let allocate = || holes.iter().try_for_each(|hole| reserve::allocate_all(file, hole.clone()));
    let give_back = || holes.iter().for_each(|hole| empty_again(file, hole));
    // Near a control group's limit the kernel may kill for this, so a child does it.
    match near_limit {
        Some(near_limit) => reserve_in_child::reserve(file, missing, near_limit, allocate)
            .inspect_err(|_| give_back()),
        None => allocate().map_err(|error| {
            give_back();
            shortage::shm_error_beside(file, missing, 0, error)
        }),
    }
}

/// Takes back what was given to a hole. A part that somebody has written into meanwhile is a hole
/// no more, and stays.
fn empty_again(file: &File, hole: &Range<u64>) {
    for untouched in file::holes(file, hole.clone()).unwrap_or_default() {
        let _ = file::punch(file, &untouched); // what cannot be given back goes with the file
    }
}
