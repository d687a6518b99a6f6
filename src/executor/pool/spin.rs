//! How long to look for something before going to sleep. Waking a sleeper costs 5 to 100 us;
//! looking costs a core meanwhile.
//!
//! A worker looks for a job in this way, and the caller for the end of a call. The limit is about
//! what a wake-up costs, and what comes about decides whether the next look is as long: compare A.
//! Karlin, K. Li, M. Manasse, S. Owicki, *Empirical Studies of Competitive Spinning for a
//! Shared-Memory Multiprocessor* (SOSP 1991). Nothing here sleeps; the callers do that afterwards.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// How many looks come between two looks at the clock, which costs as much as several of them.
const LOOKS: u32 = 32;

/// An event that comes within this many times the longest look counts as one that looking would
/// have caught. It was late perhaps only because the other side slept and had to be woken. Without
/// this, two sides that sleep would find each other late for ever.
const WOKEN: u32 = 2;

/// The shortest look. A shorter one is not worth the look at the clock.
const LEAST: Duration = Duration::from_micros(2);

/// How long to look, by what has paid so far: as long as allowed while the event comes in that
/// time, and half as long after each time that it has not.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpinBudget {
    /// The longest look that is allowed. Zero is a single round of looks.
    most: Duration,
    /// How long the next look is, from [`LEAST`] (or `most`, if that is less) to `most`.
    now: Duration,
}

impl SpinBudget {
    /// A budget of this much at most, and for the first look of all of it.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    /// Looks until `there` is true or until the budget is used up, counted from `began`. Returns
    /// whether `there` was true.
    pub(super) fn look_for(&self, began: Instant, mut there: impl FnMut() -> bool) -> bool {
        loop {
            for _ in 0..LOOKS {
                if there() {
                    return true;
                }
                spin_loop();
            }
            if began.elapsed() >= self.now {
                return there();
            }
        }
    }

    /// Takes note that the event has come, this long after the look began, with a sleep in between
    /// or without.
    pub(super) fn learn(&mut self, after: Duration) {
        self.now = if after < self.most * WOKEN {
            self.most
        } else {
            (self.now / 2).max(LEAST.min(self.most))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(64);

    #[test]
    fn waits_in_vain_look_less_and_less_until_it_would_have_paid() {
        let mut spin = SpinBudget::new(MOST);
        for expected in [32, 16, 8, 4, 2, 2] {
            spin.learn(Duration::from_millis(1));
            assert_eq!(spin.now, Duration::from_micros(expected));
        }
        spin.learn(Duration::from_micros(127));
        assert_eq!(spin.now, MOST);
    }

    #[test]
    fn without_patience_one_still_looks() {
        let spin = SpinBudget::new(Duration::ZERO);
        assert!(spin.look_for(Instant::now(), || true));
        assert!(!spin.look_for(Instant::now(), || false));
    }
}
