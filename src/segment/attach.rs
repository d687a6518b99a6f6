//! Attaching to what somebody else made: a segment, of rowfork's or NumPy's, or a `.npy` file
//! anywhere.

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
use super::name::{self, os};
use super::npy::{ExpectedArray, Layout, NpyFile};
use super::{preflight, reserve, reserve_in_child, shortage};
use crate::error::{Error, Result};
use crate::sys::file;
use crate::sys::memory::{Access, SMALL_PAGE};

/// Opens, locks, checks and maps the segment called `name`.
///
/// What is checked is the file as it is now. That nobody truncates it later, or writes to it while
/// it is read, is for the caller to know: hence `SharedArray::attach` is `unsafe`.
pub(crate) fn attach(name: &str, wanted: ExpectedArray) -> Result<(Segment, Layout)> {
    let name = name::validated(name)?;
    let npy = NpyFile::open_name(name, true)?;
    lock_shared(&npy.file, name)?;
    // Swept or removed between open and lock: the name is gone, or another file's by now.
    if !name::leads_to(name, &npy.meta) {
        return Err(Error::NameNotFound { name: name.to_owned() });
    }
    let layout = npy.layout_to_map(wanted)?;
    fill_holes(&npy, layout.end())?;
    let mapping =
        mapped(&npy.file, &npy.path, layout.end(), Access::Write, name::label(Some(name)))?;
    Ok((Segment::attached(npy.file, mapping, name.to_owned(), layout.data_offset), layout))
}

/// Opens, checks and maps a `.npy` file where it is, to be read only.
///
/// As for [`attach`], what becomes of the file later is for the caller to know. It is given no
/// memory: a hole of a file on a disk is zeros, and one of a sparse file in `/dev/shm` takes memory
/// when it is read.
pub(crate) fn map_file(path: &Path, wanted: ExpectedArray) -> Result<(Segment, Layout)> {
    let npy = NpyFile::open_path(path)?;
    // A segment counts as in use. Elsewhere a lock may mean something to others.
    if file::is_in_memory(&npy.file) {
        let _ = npy.file.try_lock_shared();
    }
    let layout = npy.layout_to_map(wanted)?;
    let mapping = mapped(&npy.file, path, layout.end(), Access::Read, name::file_label(path))?;
    Ok((Segment::of_file(npy.file, mapping, npy.path, layout.data_offset), layout))
}

/// Maps a file that is in the making, all of whose `len` bytes have room, to be written to.
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

/// Maps the first `len` bytes of a file, header and data.
fn mapped(file: &File, path: &Path, len: usize, access: Access, label: Arc<str>) -> Result<Mapped> {
    preflight::check_mapping(len)?;
    let len = NonZeroUsize::new(len)
        .ok_or(io::ErrorKind::UnexpectedEof)
        .map_err(|e| os("map", path)(e.into()))?;
    Mapped::new(file, len, access, label).map_err(os("map", path))
}

/// Takes the lock that says "in use". Others hold the exclusive one for an instant, to look or to
/// sweep.
fn lock_shared(file: &File, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(os("lock", &name::path(name))(error)),
        }
    }
}

/// Gives a sparse file the memory that it lacks: on a full `/dev/shm` even reading a hole is a
/// SIGBUS. Refused, it leaves the file as sparse as it was.
fn fill_holes(npy: &NpyFile, total: usize) -> Result<()> {
    let (file, total) = (&npy.file, total as u64);
    let allocated = npy.meta.blocks() * 512;
    // As many blocks as the file has pages, so nothing is missing, unless somebody has allocated
    // beyond its end. (Asked first, since what a segment of zeros has reserved counts as holes
    // until it is touched.)
    if allocated == npy.meta.len().next_multiple_of(SMALL_PAGE as u64) {
        return Ok(());
    }
    // One filler at a time: what one has reserved looks like a hole to another, who might give it
    // back.
    let _filling = file::FillLock::take(file).map_err(os("lock", &npy.path))?;
    let holes = file::holes(file, 0..total).map_err(os("examine", &npy.path))?;
    if holes.is_empty() {
        return Ok(());
    }
    let missing =
        total.next_multiple_of(SMALL_PAGE as u64).saturating_sub(allocated).max(SMALL_PAGE as u64);
    let near_limit = preflight::check_memory(missing)?;
    preflight::check_free_space(file, missing)?;
    let allocate = || holes.iter().try_for_each(|hole| reserve::allocate_all(file, hole.clone()));
    let give_back = || holes.iter().for_each(|hole| empty_again(file, hole));
    match near_limit {
        Some(near_limit) => reserve_in_child::reserve(file, missing, near_limit, allocate)
            .inspect_err(|_| give_back()),
        None => allocate().map_err(|error| {
            give_back();
            shortage::shm_error_beside(file, missing, 0, error)
        }),
    }
}

/// Takes back what was given to a hole. What somebody has written into it meanwhile is a hole no
/// more, and stays.
fn empty_again(file: &File, hole: &Range<u64>) {
    for untouched in file::holes(file, hole.clone()).unwrap_or_default() {
        let _ = file::punch(file, &untouched); // what cannot be given back goes with the file
    }
}
