//! What can be known before memory is asked for: each question is one that the kernel answers with
//! a signal, or with an errno that says nothing. Called by birth and attach, and by code that
//! copies a segment into memory of its own.
//!
//! Nothing is reserved here. What passes can still fail, since others take memory meanwhile; what
//! is refused would have failed at this moment, or is too near to a kill. The numbers come from
//! `sys/limits.rs`.

use std::fs::File;
use std::io;
use std::path::Path;

use super::name::{SHM_DIR, os};
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::limits::{self, AvailableMemory, Victim};
use crate::sys::memory::{self, SMALL_PAGE};
use crate::sys::{file, process};

/// Refuses a file of `total` bytes beyond `RLIMIT_FSIZE`: there the kernel would kill us with
/// SIGXFSZ rather than answer.
///
/// See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub(super) fn check_file_size_limit(total: u64) -> Result<()> {
    let limit = limits::file_size().map_err(this_process("read the file size limit of"))?;
    let beyond = total > limit && !is_on(Failpoint::NoFileSizeCheck);
    if beyond { Err(Error::FileSizeLimit { need: total, limit }) } else { Ok(()) }
}

/// Refuses a mapping beyond `RLIMIT_AS`. There `mmap` answers `ENOMEM`, as it does for much else;
/// this error says which limit it was. `len` is that of the segment in bytes; its mapping takes
/// more for a while, to lie at a multiple of 2 MiB.
pub(super) fn check_mapping(len: usize) -> Result<()> {
    check_address_space(memory::mapping_bytes(len).unwrap_or(len) as u64)
}

/// Refuses `need` bytes of address space of any kind beyond `RLIMIT_AS`. Where there is no limit,
/// which is the usual case, this costs one system call.
pub(crate) fn check_address_space(need: u64) -> Result<()> {
    match limits::address_space().map_err(this_process("read the address space limit of"))? {
        Some(space) if need > space.available => {
            Err(Error::AddressSpaceLimit { need, available: space.available, limit: space.limit })
        }
        _ => Ok(()),
    }
}

/// Refuses `need` bytes beyond the memory of a control group or the machine: there a process is
/// killed rather than told. Looking takes longer than a small birth does, and a small birth is not
/// what goes beyond, so below 16 MiB nobody looks.
///
/// What passes may still be a reservation that comes near to what is left: [`NearLimit`].
pub(crate) fn check_memory(need: u64) -> Result<Option<NearLimit>> {
    // 16 MiB. A look reads several files below /proc and /sys.
    const LARGE: u64 = 16 << 20;
    let look = need >= LARGE && !is_on(Failpoint::NoMemoryCheck);
    match if look { limits::available_memory() } else { None } {
        Some(memory) => verdict(need, memory),
        None => Ok(None),
    }
}

/// A control group's limit on memory that a reservation comes near to. If others take more
/// meanwhile, the kernel kills one process of the group. A child does the reservation then: see
/// `reserve_in_child`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NearLimit {
    /// The control group's directory.
    pub(super) limit: String,
}

/// Yes (`None`), yes with care ([`NearLimit`]), or no (`MemoryLimit`).
fn verdict(need: u64, memory: AvailableMemory) -> Result<Option<NearLimit>> {
    // Only where a kill ends the caller, too, is some of the memory left alone.
    let kept = if memory.victim == Victim::TheWholeGroup { margin(need) } else { 0 };
    let available = memory.available.saturating_sub(kept);
    if need > available {
        let limit = if kept == 0 {
            memory.limit
        } else {
            format!("{}: {kept} more {SPARED}", memory.limit)
        };
        return Err(Error::MemoryLimit { need, available, limit });
    }
    // If the need is up to half of what is left, others would have to take as much again as we do,
    // in the time that it takes us. That is not worth a fork, and a reservation by one process
    // where several threads could share the work.
    let near = need > memory.available / 2;
    // A group that dies as a whole would take the caller along with the child. A worker is itself
    // the process that the kernel kills first.
    let near = near && memory.victim == Victim::OfTheGroup && !process::is_forked_child();
    let near = near && !is_on(Failpoint::NoReservationInChild);
    Ok(near.then_some(NearLimit { limit: memory.limit }))
}

/// The largest need in bytes that [`verdict`] lets pass. With a margin of `need / 16` the need is
/// 16/17 of what the fixed part leaves.
pub(super) fn most(memory: &AvailableMemory) -> u64 {
    match memory.victim {
        Victim::TheWholeGroup => memory.available.saturating_sub(margin(0)) / 17 * 16,
        Victim::OfTheGroup | Victim::OfTheMachine => memory.available,
    }
}

/// The end of the error's text, after the number of bytes.
const SPARED: &str = "are left alone, since memory.oom.group is set: beyond the limit the kernel kills every process of \
                      the group (Kubernetes: singleProcessOOMKill)";

/// The bytes that a reservation leaves alone where a kill is everybody's end. A process that looks
/// at small pages needs page tables of 1/512 of them (8 bytes for each 4096): 1/16 is enough for a
/// caller and 31 workers. The 32 MiB are for what others take in the meantime.
fn margin(need: u64) -> u64 {
    need / 16 + (32 << 20)
}

/// Refuses early what does not fit the file system of `file`. The reservation itself has the
/// last word. A file system without a limit (`total` 0) refuses nothing.
pub(super) fn check_free_space(file: &File, need: u64) -> Result<()> {
    let space = file::free_space(file).map_err(os("examine", Path::new(SHM_DIR)))?;
    let need = need.next_multiple_of(SMALL_PAGE as u64);
    if space.total > 0 && need > space.available {
        return Err(Error::ShmFull { need, available: space.available, total: space.total });
    }
    Ok(())
}

/// Makes `Error::Os` of a failed look at a limit.
fn this_process(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    os(action, Path::new("this process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A group that has 100 of its 300 MiB left.
    fn group_of_100_mib(victim: Victim) -> AvailableMemory {
        AvailableMemory {
            available: 100 * MIB,
            total: 300 * MIB,
            limit: "/group".to_owned(),
            victim,
        }
    }

    fn of_100_mib(victim: Victim, need: u64) -> Result<Option<NearLimit>> {
        verdict(need, group_of_100_mib(victim))
    }

    #[test]
    fn more_than_half_of_what_a_group_has_is_near_its_limit() {
        let near_limit = || Some(NearLimit { limit: "/group".to_owned() });
        assert_eq!(of_100_mib(Victim::OfTheGroup, 50 * MIB).unwrap(), None);
        assert_eq!(of_100_mib(Victim::OfTheGroup, 50 * MIB + 1).unwrap(), near_limit());
        assert_eq!(of_100_mib(Victim::OfTheGroup, 100 * MIB).unwrap(), near_limit());
        assert_eq!(of_100_mib(Victim::OfTheMachine, 100 * MIB).unwrap(), None);
        let refused = of_100_mib(Victim::OfTheGroup, 100 * MIB + 1).unwrap_err();
        assert!(
            matches!(refused, Error::MemoryLimit { available, limit, .. } if available == 100 * MIB && limit == "/group")
        );
    }

    #[test]
    fn the_most_passes_and_little_more_does_not() {
        for victim in [Victim::OfTheMachine, Victim::OfTheGroup, Victim::TheWholeGroup] {
            let most = most(&group_of_100_mib(victim));
            assert!(
                of_100_mib(victim, most).is_ok() && of_100_mib(victim, most + 32).is_err(),
                "{victim:?}: {most}"
            );
        }
        let none = AvailableMemory { available: MIB, ..group_of_100_mib(Victim::TheWholeGroup) };
        assert_eq!(most(&none), 0);
    }

    #[test]
    fn a_group_that_dies_whole_has_a_margin_and_the_error_says_why() {
        assert_eq!(of_100_mib(Victim::TheWholeGroup, 64 * MIB).unwrap(), None, "64 + 4 + 32");
        let refused = of_100_mib(Victim::TheWholeGroup, 64 * MIB + 16).unwrap_err();
        assert!(
            matches!(refused, Error::MemoryLimit { available, .. } if available == 64 * MIB - 1),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(
            text.contains("/group: 37748737 more are left alone, since memory.oom.group is set"),
            "{text}"
        );
    }
}
