//! [`FAULT_MAP`]: where a pool's worker has mapped the segments that the caller has at other
//! addresses, so that a fault is reported with the caller's address.
//!
//! `executor/pool/maps.rs` adds and removes mappings, and the fault handler looks them up. A signal
//! handler may read at any time, so the table is a static of atomics, without a lock and without an
//! allocation. In fork mode it is empty, because a worker has every segment where the caller has
//! it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The table of this process, for the fault handler.
pub(crate) static FAULT_MAP: FaultMap =
    FaultMap([const { [const { AtomicUsize::new(0) }; 3] }; FAULT_MAP_MAX]);

/// How many mappings the table holds: as many segments as a pool's worker keeps, which
/// `executor/pool/maps.rs` asserts.
pub(crate) const FAULT_MAP_MAX: usize = 256;

/// For each mapping its start and end in this process, and its start in the caller. An end of 0
/// marks a free entry.
#[derive(Debug)]
pub(crate) struct FaultMap([[AtomicUsize; 3]; FAULT_MAP_MAX]);

impl FaultMap {
    /// Adds a mapping. If the table is full nothing happens, and faults there are reported with
    /// this process's address.
    pub(crate) fn add(&self, range: Range<usize>, caller_start: usize) {
        if let Some([start, end, caller]) =
            self.0.iter().find(|[_, end, _]| end.load(Ordering::Relaxed) == 0)
        {
            start.store(range.start, Ordering::Relaxed);
            caller.store(caller_start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
    }

    /// Removes the mapping that starts at `address`. An address that is not there is no error.
    pub(crate) fn remove(&self, address: usize) {
        let known = self.0.iter().find(|[start, ..]| start.load(Ordering::Relaxed) == address);
        known.into_iter().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The caller's address for one of this process; the same address if it is in no mapping.
    pub(super) fn to_caller(&self, address: usize) -> usize {
        let words = self
            .0
            .iter()
            .map(|mapping| [0, 1, 2].map(|word: usize| mapping[word].load(Ordering::Relaxed)));
        let known = words.into_iter().find(|[start, end, _]| (*start..*end).contains(&address));
        known.map_or(address, |[start, _, caller]| address - start + caller)
    }
}
