//! How large a segment can be here and now, for a caller that wants to know before making one. The
//! questions are those of `preflight`, asked for no segment in particular.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::name::{SHM_DIR, os};
use super::preflight;
use crate::error::Result;
use crate::sys::memory::HUGE_PAGE;
use crate::sys::{file, limits};

/// How large a segment can be now, and what limits it. [`capacity`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capacity {
    /// The largest segment that would not be refused, in bytes, header included: the least of all
    /// that follows.
    pub bytes: u64,
    /// Bytes of `/dev/shm` that are free; `u64::MAX` if it has no limit of its own.
    pub shm_available: u64,
    /// Its size in bytes; `None` if it has no limit of its own.
    pub shm_total: Option<u64>,
    /// The tightest limit on memory; `None` where none can be read.
    pub memory: Option<MemoryCapacity>,
    /// The largest file that this process may make (`RLIMIT_FSIZE`), if that is limited, in bytes.
    pub file_size: Option<u64>,
    /// The address space that this process may still take (`RLIMIT_AS`), if that is limited, in
    /// bytes.
    pub address_space: Option<u64>,
    /// The control group around this process that dies as a whole when one of its processes takes
    /// more memory than there is (`memory.oom.group`). A kernel that kills there ends the caller,
    /// too, and not its worker alone.
    pub dies_whole: Option<PathBuf>,
}

/// A limit on memory: that of a control group, or the machine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryCapacity {
    /// Bytes that a process can still get, as an estimate: others take and give back.
    pub available: u64,
    /// The limit in bytes, swap included if it is the machine's.
    pub total: u64,
    /// The directory of the control group; `None` for the machine's memory.
    pub group: Option<PathBuf>,
}

/// How large a segment can be now, and what limits it. An estimate: others take memory, too. The
/// making of an array asks again and has the last word.
///
/// ```
/// use rowfork::{SharedArray, segment};
///
/// let capacity = segment::capacity()?;
/// let n = usize::try_from(capacity.bytes / 4 / 8).unwrap().min(1 << 20); // a quarter, in elements
/// let m = SharedArray::<f64, _>::zeros(None, n)?;
/// assert!(capacity.shm_total.is_none_or(|total| capacity.shm_available <= total));
/// # drop(m);
/// # Ok::<(), rowfork::Error>(())
/// ```
///
/// # Errors
/// [`Os`](crate::Error::Os) if `/dev/shm` or the limits of this process cannot be looked at.
pub fn capacity() -> Result<Capacity> {
    let shm = Path::new(SHM_DIR);
    let shm = File::open(shm).and_then(|dir| file::free_space(&dir)).map_err(os("examine", shm))?;
    let ours = "read the limits of";
    let file_size = limits::file_size().map_err(os(ours, Path::new("this process")))?;
    let address_space = limits::address_space().map_err(os(ours, Path::new("this process")))?;
    let memory = limits::available_memory();
    // Near the limit of a group that dies as a whole some memory is left alone, so less than
    // `available` can be asked for.
    let most = memory.as_ref().map(preflight::most);
    let mut capacity = Capacity {
        bytes: 0,
        shm_available: if shm.total > 0 { shm.available } else { u64::MAX },
        shm_total: (shm.total > 0).then_some(shm.total),
        memory: memory.map(described),
        file_size: (file_size < libc::RLIM_INFINITY).then_some(file_size),
        address_space: address_space.map(|space| space.available),
        dies_whole: limits::group_that_dies_whole(),
    };
    capacity.bytes = least(&capacity, most);
    Ok(capacity)
}

/// The least of all limits, in bytes. A limit that there is none of does not count.
fn least(capacity: &Capacity, memory: Option<u64>) -> u64 {
    // A large mapping takes 2 MiB more for a while, to be aligned. That part cannot be the
    // segment's.
    let mapped = capacity.address_space.map(|space| space.saturating_sub(HUGE_PAGE as u64));
    [memory, capacity.file_size, mapped]
        .into_iter()
        .flatten()
        .fold(capacity.shm_available, u64::min)
}

/// The public form of a limit, which tells a group by its directory.
fn described(memory: limits::AvailableMemory) -> MemoryCapacity {
    let limits::AvailableMemory { available, total, limit, victim } = memory;
    let group = (victim != limits::Victim::OfTheMachine).then(|| limit.into());
    MemoryCapacity { available, total, group }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_decides() {
        const MIB: u64 = 1 << 20;
        let mut capacity = Capacity {
            bytes: 0,
            shm_available: 100 * MIB,
            shm_total: None,
            memory: None,
            file_size: None,
            address_space: None,
            dies_whole: None,
        };
        // Each limit that is set from here on is tighter than the ones before.
        assert_eq!(least(&capacity, None), 100 * MIB);
        assert_eq!(least(&capacity, Some(90 * MIB)), 90 * MIB);
        capacity.address_space = Some(80 * MIB);
        assert_eq!(least(&capacity, Some(90 * MIB)), 78 * MIB, "2 MiB of it align the mapping");
        capacity.file_size = Some(70 * MIB);
        assert_eq!(least(&capacity, Some(90 * MIB)), 70 * MIB);
    }

    #[test]
    fn the_capacity_is_within_each_limit() {
        let capacity = capacity().unwrap();
        assert!(capacity.bytes <= capacity.shm_available, "{capacity:?}");
        let memory = capacity.memory.as_ref().expect("a machine says how much memory it has");
        assert!(
            memory.available <= memory.total && capacity.bytes <= memory.available,
            "{capacity:?}"
        );
    }
}
