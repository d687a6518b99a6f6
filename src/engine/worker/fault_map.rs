//! Where a worker has mapped what the caller has at other addresses, so that a fault is told by the
//! caller's address.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where this process has mapped what the caller has at other addresses, for the fault handler: a
/// fault is told by the caller's.
pub(crate) static FAULT_MAP: FaultMap =
    FaultMap([const { [const { AtomicUsize::new(0) }; 3] }; FAULT_MAP_MAX]);

const FAULT_MAP_MAX: usize = 256;

/// For each mapping where it starts and ends, and where it starts in the caller.
#[derive(Debug)]
pub(crate) struct FaultMap([[AtomicUsize; 3]; FAULT_MAP_MAX]);

impl FaultMap {
    /// One more mapping; more than there is room for are not told.
    pub(crate) fn add(&self, range: Range<usize>, caller_start: usize) {
        if let Some([start, end, caller]) =
            self.0.iter().find(|[_, end, _]| end.load(Ordering::Relaxed) == 0)
        {
            start.store(range.start, Ordering::Relaxed);
            caller.store(caller_start, Ordering::Relaxed);
            end.store(range.end, Ordering::Relaxed);
        }
    }

    /// A mapping is gone.
    pub(crate) fn remove(&self, address: usize) {
        let known = self.0.iter().find(|[start, ..]| start.load(Ordering::Relaxed) == address);
        known.into_iter().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(super) fn to_caller(&self, address: usize) -> usize {
        let words = self
            .0
            .iter()
            .map(|mapping| [0, 1, 2].map(|word: usize| mapping[word].load(Ordering::Relaxed)));
        let known = words.into_iter().find(|[start, end, _]| (*start..*end).contains(&address));
        known.map_or(address, |[start, _, caller]| address - start + caller)
    }
}
