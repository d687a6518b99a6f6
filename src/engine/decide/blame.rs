//! When a row is to blame for the deaths over it. Pure.
//!
//! A row that kills does so every time; somebody who kills from outside does so here and there. So
//! a row is convicted after [`Blame::new`]'s number of deaths while it was alone in its block.
//! Where the deaths may have come from outside each retry counts thrice, and as many more are borne
//! as other rows have suffered: with a killer about who hits one in ten who run a row, three hits
//! upon one are an accident of every hundredth call, seven one of every millionth.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::DeathCause;
use crate::failpoints::{Failpoint, is_on};

/// The most deaths more that are borne because others die, too: a call must end.
const EXTRA_ATTEMPTS_MAX: u32 = 5;

/// A worker that is killed while it holds no row was killed from outside: so many deaths more are
/// borne for each, and so many at most.
const EXTRA_ATTEMPTS_PER_FOREIGN_KILL: u32 = 5;
const EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX: u32 = 25;

/// So many times a row may be tried again, whatever is asked for: a call must end.
const RETRIES_MAX: u32 = 1000;

/// What is known against which unit.
#[derive(Debug)]
pub(super) struct Blame {
    attempts: u32,
    histories: HashMap<usize, RowHistory>,
    /// Where workers were that died of what may have come from outside.
    from_outside: Vec<Range<usize>>,
    /// Deaths that nobody but somebody outside can have caused.
    foreign_kills: u32,
}

/// Deaths over one unit, on one row.
#[derive(Debug, Clone, Copy)]
struct RowHistory {
    row: usize,
    deaths: u32,
    /// Of these, those that nobody from outside can have caused.
    beyond_doubt: u32,
}

impl Blame {
    /// A row is convicted after so many deaths.
    pub(super) fn new(attempts: u32) -> Self {
        Self {
            attempts: attempts.clamp(1, RETRIES_MAX + 1),
            histories: HashMap::new(),
            from_outside: Vec::new(),
            foreign_kills: 0,
        }
    }

    /// As many deaths as may come from outside are needed to convict a row while no other row
    /// suffers.
    fn attempts_in_doubt(&self) -> u32 {
        1 + 3 * (self.attempts - 1)
    }

    /// So many deaths over one row convict it in any case.
    pub(super) fn most_deaths(&self) -> usize {
        (self.attempts_in_doubt() + EXTRA_ATTEMPTS_MAX + EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX)
            as usize
    }

    /// Notes a death on one of `rows`. Call [`Blame::convicts`] if it can only have been one.
    pub(super) fn note(&mut self, rows: Range<usize>, cause: &DeathCause) {
        if cause.may_come_from_outside() {
            self.from_outside.push(rows);
        }
    }

    /// Notes a death of a worker that held no rows.
    pub(super) fn note_idle(&mut self, cause: &DeathCause) {
        let killed = matches!(cause, DeathCause::Signalled(_)) && cause.may_come_from_outside();
        self.foreign_kills = self.foreign_kills.saturating_add(u32::from(killed));
    }

    /// Counts a noted death against `row`, the only one that can have caused it in `unit`; deaths
    /// on another row of the unit are forgotten. The number of deaths when that is enough.
    pub(super) fn convicts(&mut self, unit: usize, row: usize, cause: &DeathCause) -> Option<u32> {
        let fresh = RowHistory { row, deaths: 0, beyond_doubt: 0 };
        let history = self.histories.entry(unit).or_insert(fresh);
        if history.row != row {
            *history = fresh;
        }
        history.deaths += 1;
        let in_doubt = cause.may_come_from_outside() && !is_on(Failpoint::BlameRowForOutsideKills);
        history.beyond_doubt += u32::from(!in_doubt);
        let RowHistory { deaths, beyond_doubt, .. } = *history;
        let elsewhere = self.from_outside.iter().filter(|rows| !rows.contains(&row)).count();
        let mercy = match cause {
            DeathCause::Stopped => EXTRA_ATTEMPTS_MAX, // few rows stop themselves
            _ => u32::try_from(elsewhere).unwrap_or(EXTRA_ATTEMPTS_MAX).min(EXTRA_ATTEMPTS_MAX),
        };
        let mercy = mercy
            + self
                .foreign_kills
                .saturating_mul(EXTRA_ATTEMPTS_PER_FOREIGN_KILL)
                .min(EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX);
        let enough = beyond_doubt >= self.attempts || deaths >= self.attempts_in_doubt() + mercy;
        enough.then_some(deaths)
    }

    /// Forgets what is held against rows; not what has been seen of kills from outside.
    pub(super) fn clear(&mut self) {
        self.histories.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: DeathCause = DeathCause::Signalled(9);
    const ABORTED: DeathCause = DeathCause::Signalled(6);

    fn die(blame: &mut Blame, unit: usize, row: usize, cause: &DeathCause) -> Option<u32> {
        blame.note(row..row + 1, cause);
        blame.convicts(unit, row, cause)
    }

    #[test]
    fn three_deaths_in_a_row_convict() {
        let mut blame = Blame::new(3);
        for row in [15, 15, 16, 15, 15] {
            assert_eq!(die(&mut blame, 1, row, &ABORTED), None);
        }
        assert_eq!(die(&mut blame, 1, 15, &ABORTED), Some(3));
    }

    #[test]
    fn a_row_that_is_killed_where_others_are_killed_too_is_given_the_benefit_of_the_doubt() {
        let mut blame = Blame::new(3);
        for unit in 10..14 {
            assert_eq!(die(&mut blame, unit, unit, &KILLED), None);
        }
        for _ in 0..10 {
            assert_eq!(die(&mut blame, 1, 15, &KILLED), None);
        }
        assert_eq!(
            die(&mut blame, 1, 15, &KILLED),
            Some(11),
            "seven, and one for each death elsewhere"
        );
        for _ in 0..2 {
            assert_eq!(die(&mut blame, 2, 25, &ABORTED), None);
        }
        assert_eq!(
            die(&mut blame, 2, 25, &ABORTED),
            Some(3),
            "nobody from outside makes a process abort"
        );
    }

    #[test]
    fn the_benefit_of_the_doubt_ends() {
        let mut blame = Blame::new(3);
        (0..1000).for_each(|_| blame.note(20..30, &KILLED));
        let convicted = (1..100).find(|_| die(&mut blame, 1, 15, &KILLED).is_some());
        assert_eq!(convicted, Some(12));
    }

    #[test]
    fn who_is_killed_while_holding_nothing_proves_that_somebody_kills() {
        for (cause, idle_deaths, needed) in
            [(&KILLED, 1, 12), (&KILLED, 100, 32), (&DeathCause::Exited(0), 100, 7)]
        {
            let mut blame = Blame::new(3);
            (0..idle_deaths).for_each(|_| blame.note_idle(cause));
            assert_eq!((1..100).find_map(|_| die(&mut blame, 1, 15, &KILLED)), Some(needed));
            assert!(needed as usize <= blame.most_deaths());
        }
    }

    #[test]
    fn without_retries_the_first_death_convicts_and_many_are_not_too_many() {
        assert_eq!(die(&mut Blame::new(1), 1, 15, &KILLED), Some(1));
        for (cause, attempts) in [(&ABORTED, 1001), (&KILLED, 3001)] {
            let mut blame = Blame::new(u32::MAX);
            assert_eq!((1..5000).find_map(|_| die(&mut blame, 1, 15, cause)), Some(attempts));
        }
    }

    #[test]
    fn a_row_that_stops_its_worker_is_convicted_last_of_all() {
        let mut blame = Blame::new(3);
        let convicted = (1..100).find(|_| die(&mut blame, 1, 15, &DeathCause::Stopped).is_some());
        assert_eq!(convicted, Some(12));
    }

    #[test]
    fn deaths_in_company_of_other_rows_are_no_deaths_elsewhere() {
        let mut blame = Blame::new(3);
        blame.note(10..20, &KILLED);
        let convicted = (1..100).find(|_| die(&mut blame, 1, 15, &KILLED).is_some());
        assert_eq!(convicted, Some(7));
    }
}
