//! `ShmFull`: what a refused reservation of shared memory is called, with the numbers.
//!
//! The numbers are taken after the fact, so they count what the failed reservation holds itself.
//! That part comes back, and the error names what will be free then.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::metadata::BLOCK;
use super::name::SHM_DIR;
use crate::error::Error;
use crate::sys::file;

/// Names a failed reservation of `need` bytes for a segment that is being born. The memory that it
/// had taken until then is given back with the file.
pub(super) fn shm_error(file: &File, need: u64, cause: io::Error) -> Error {
    let taken = file.metadata().map_or(0, |meta| meta.blocks() * BLOCK);
    shm_error_beside(file, need, taken, cause)
}

/// Names a failed reservation where `taken` bytes have been or will be given back. Any error but
/// `ENOSPC` is no shortage, and stays what it is.
pub(super) fn shm_error_beside(file: &File, need: u64, taken: u64, cause: io::Error) -> Error {
    if cause.raw_os_error() != Some(libc::ENOSPC) {
        return Error::Os { action: "reserve memory in", subject: SHM_DIR.to_owned(), cause };
    }
    let space = file::free_space(file).unwrap_or(file::FreeSpace { available: 0, total: 0 });
    Error::ShmFull { need, available: space.available.saturating_add(taken), total: space.total }
}
