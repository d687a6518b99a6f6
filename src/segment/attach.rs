//! Attaching to a segment that somebody else made, rowfork or NumPy.

use std::fs::{File, TryLockError};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::mapping::Mapped;
use super::name::{self, os};
use super::npy::{Layout, NpyFile, Wanted};
use super::{Segment, reserve};
use crate::error::{Error, Result};
use crate::sys::file;

/// Opens, locks, checks and maps the segment called `name`.
///
/// What is checked is the file as it is now. That nobody truncates it later, or writes to it while it is read, is for
/// the caller to know: hence `SharedArray::attach` is `unsafe`.
pub(crate) fn attach(name: &str, wanted: Wanted) -> Result<(Segment, Layout)> {
    let name = name::validated(name)?;
    let npy = NpyFile::open_name(name, true)?;
    lock_shared(&npy.file, name)?;
    // Swept or removed between open and lock: the name is gone, or another file's by now.
    if !name::leads_to(name, &npy.meta) {
        return Err(Error::NameNotFound { name: name.to_owned() });
    }
    let layout = npy.layout(wanted)?;
    let total = layout.data_offset + layout.data_bytes;
    fill_holes(&npy, total)?;
    let len =
        NonZeroUsize::new(total).ok_or(io::ErrorKind::UnexpectedEof).map_err(|e| os("map", &npy.path)(e.into()))?;
    let mapping = Mapped::new(&npy.file, len, name::label(Some(name))).map_err(os("map", &npy.path))?;
    Ok((Segment::attached(npy.file, mapping, name.to_owned(), layout.data_offset), layout))
}

/// Takes the lock that says "in use". Others hold the exclusive one for an instant, to look or to sweep.
fn lock_shared(file: &File, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(os("lock", &name::path(name))(error)),
        }
    }
}

/// Gives a sparse file the memory that it lacks: on a full `/dev/shm` even reading a hole is a SIGBUS.
fn fill_holes(npy: &NpyFile, total: usize) -> Result<()> {
    let failed = |error| reserve::shm_error(&npy.file, total, error);
    let sparse = npy.meta.blocks() * 512 < total as u64
        || file::first_hole(&npy.file, 0).map_err(os("examine", &npy.path))? < total as u64;
    if !sparse {
        return Ok(());
    }
    super::birth::check_memory(total.saturating_sub(usize::try_from(npy.meta.blocks() * 512).unwrap_or(usize::MAX)))?;
    reserve::allocate_all(&npy.file, total).map_err(failed)
}
