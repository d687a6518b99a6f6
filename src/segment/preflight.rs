//! What can be known before memory is asked for: each question is one that the kernel answers with a signal, or with an
//! errno that says nothing. Called by birth and attach, and by whoever copies a segment into memory of its own.

use std::fs::File;
use std::io;
use std::path::Path;

use super::name::{SHM_DIR, os};
use crate::error::{Error, Result};
use crate::sys::memory::{self, SMALL_PAGE};
use crate::sys::{file, limits};

/// Beyond `RLIMIT_FSIZE` the kernel would kill us with SIGXFSZ rather than answer.
pub(super) fn check_file_size_limit(total: u64) -> Result<()> {
    let limit = limits::file_size().map_err(this_process("read the file size limit of"))?;
    if total > limit { Err(Error::FileSizeLimit { need: total, limit }) } else { Ok(()) }
}

/// Beyond `RLIMIT_AS` a mapping is `ENOMEM`, like so much else: this says which limit it was. For a segment of `len`
/// bytes, with what its mapping takes for a while to lie at a multiple of 2 MiB.
pub(super) fn check_mapping(len: usize) -> Result<()> {
    check_address_space(memory::room_for_mapping(len).unwrap_or(len) as u64)
}

/// Likewise, for `need` bytes of any kind.
pub(crate) fn check_address_space(need: u64) -> Result<()> {
    match limits::address_space().map_err(this_process("read the address space limit of"))? {
        Some(room) if need > room.available => {
            Err(Error::AddressSpaceLimit { need, available: room.available, limit: room.limit })
        }
        _ => Ok(()),
    }
}

/// Beyond its control group's memory, or the machine's, a process is killed rather than told. Looking takes longer
/// than a small birth does, and a small birth is not what goes beyond.
pub(crate) fn check_memory(need: u64) -> Result<()> {
    const LARGE: u64 = 16 << 20;
    match if need < LARGE { None } else { limits::memory_room() } {
        Some(room) if need > room.available => {
            Err(Error::MemoryLimit { need, available: room.available, limit: room.limit })
        }
        _ => Ok(()),
    }
}

/// Says no early; the reservation itself has the last word.
pub(super) fn check_room(file: &File, need: u64) -> Result<()> {
    let room = file::room(file).map_err(os("examine", Path::new(SHM_DIR)))?;
    let need = need.next_multiple_of(SMALL_PAGE as u64);
    if room.total > 0 && need > room.available {
        return Err(Error::ShmFull { need, available: room.available, total: room.total });
    }
    Ok(())
}

fn this_process(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    os(action, Path::new("this process"))
}
