//! [`Silence`]: for how long the zygote has said nothing of a worker that is dead. Pure: the time is
//! passed in.

use std::time::{Duration, Instant};

/// How long the zygote may say nothing of a dead worker.
const LIMIT: Duration = Duration::from_secs(1);

/// What counts of the time between two looks. The caller looks more often than that, unless it was
/// itself kept from running: stopped, or on a machine that stood still. Then the zygote was kept
/// from running as well, and needs time to answer.
const LONGEST_STEP: Duration = Duration::from_millis(200);

/// How long a worker was known to be dead while the zygote did not say so.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last_look: Option<Instant>,
    lasted: Duration,
}

impl Silence {
    /// At `now` a worker is dead, and the zygote has not said so. Returns whether that lasts for too
    /// long. A zygote that `wants_processor` is not silent but late, on a machine with more to do
    /// than it can; it is asked only when the time is over.
    pub(super) fn goes_on(&mut self, now: Instant, wants_processor: impl FnOnce() -> bool) -> bool {
        let since = self.last_look.replace(now).map_or(Duration::ZERO, |last| now - last);
        self.lasted += since.min(LONGEST_STEP);
        self.lasted >= LIMIT && !wants_processor()
    }

    /// The zygote has said something, or there is nothing to say.
    pub(super) fn is_over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms until the silence is too long: how many looks that took.
    fn looks_until_too_long(silence: &mut Silence, mut now: Instant) -> u32 {
        let mut looks = 1;
        while !silence.goes_on(now, || false) {
            now += Duration::from_millis(100);
            looks += 1;
        }
        looks
    }

    #[test]
    fn a_zygote_that_says_nothing_for_a_second_is_silent() {
        assert_eq!(looks_until_too_long(&mut Silence::default(), Instant::now()), 11);
    }

    #[test]
    fn what_the_zygote_says_ends_the_silence() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        for i in 0..9 {
            assert!(!silence.goes_on(begin + i * Duration::from_millis(100), || false));
        }
        silence.is_over();
        let later = begin + Duration::from_secs(1000);
        assert_eq!(looks_until_too_long(&mut silence, later), 11);
    }

    #[test]
    fn a_zygote_that_waits_for_a_processor_is_late_and_not_silent() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        for i in 0..100 {
            assert!(!silence.goes_on(begin + i * Duration::from_millis(100), || true));
        }
        assert!(silence.goes_on(begin + Duration::from_secs(10), || false), "it sleeps");
    }

    #[test]
    fn a_caller_that_was_itself_stopped_counts_one_step_of_that() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        assert!(!silence.goes_on(begin, || false));
        let later = begin + Duration::from_secs(3600);
        assert_eq!(looks_until_too_long(&mut silence, later), 9, "200 ms count of the hour");
    }
}
