//! How long to look for something without going to sleep. To wake a sleeper costs 5 to 100 us; to
//! look costs a core.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// Looks between two looks at the clock, which costs as much as several.
const LOOKS: u32 = 32;

/// What comes after so many times the longest look would have come within it, had the other side
/// not slept and had to be woken: without this, two who sleep would find each other late for ever.
const WOKEN: u32 = 2;

/// Less is not worth the look at the clock.
const LEAST: Duration = Duration::from_micros(2);

/// How long it has paid to look, so far: as long as may be while what is waited for comes about in
/// that time, and half as long after each time that it has not.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpinBudget {
    most: Duration,
    now: Duration,
}

impl SpinBudget {
    /// With so much at most.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, now: most }
    }

    /// Looks until `there` or until spin is over; whether it is there.
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

    /// It has come, so long after the look began, with sleep or without: would looking have paid?
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
    fn who_waits_in_vain_looks_less_and_less_until_it_would_have_paid() {
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
