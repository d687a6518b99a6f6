//! When a row is to blame for the deaths over it. Pure.
//!
//! A poisoned row kills every time. A killer from outside (the OOM killer, an operator) hits here
//! and there. So a row is given up after a number of deaths, `retries` + 1, while it was alone in
//! its unit. Where the deaths may have come from outside each retry counts three times, and as many
//! more deaths are borne as other rows have suffered. The figures: with a killer that hits one in
//! ten workers that run a row, three hits on one row happen by accident in every hundredth call,
//! seven in every millionth.
//!
//! | cause of the deaths | may come from outside | deaths until the row is given up, by default |
//! |---|---|---|
//! | memory fault, SIGABRT and other signals of a crash, exit, stall | no | 3 |
//! | SIGKILL, the remaining signals, status unknown | yes | 7 to 12, as other rows suffer |
//! | found stopped (SIGSTOP) | yes | 12 |
//!
//! Kills of workers that held no unit raise the last two lines, by 25 at most. The causes may be
//! mixed: a row is given up as soon as either its deaths beyond doubt or all its deaths are enough.
//!
//! The ledger tells of every death by [`Blame::note`] or [`Blame::note_idle`]. It asks
//! [`Blame::poisoned_after`] only about a row that no other row can stand in for.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::DeathCause;
use crate::failpoints::{Failpoint, is_on};

/// The most extra deaths that are borne because workers on other rows die, too. There must be a
/// limit, because a call must end even under a killer that never rests.
const EXTRA_ATTEMPTS_MAX: u32 = 5;

/// A worker that is killed while it holds no unit was certainly killed from outside. For each such
/// kill this many more deaths are borne, and at most so many in all.
const EXTRA_ATTEMPTS_PER_FOREIGN_KILL: u32 = 5;
const EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX: u32 = 25;

/// A row may be tried again this often, whatever is asked for: a call must end. It also keeps the
/// arithmetic below far from an overflow.
const RETRIES_MAX: u32 = 1000;

/// What is known against which unit. Private to the supervisor: no worker can change it.
#[derive(Debug)]
pub(super) struct Blame {
    /// Deaths that suffice when nothing from outside can have caused them: 1 to [`RETRIES_MAX`] +
    /// 1.
    attempts: u32,
    /// By the number of the unit. A unit that is divided leaves its history behind; its pieces
    /// begin anew under numbers of their own.
    histories: HashMap<usize, RowHistory>,
    /// Where the workers were that died of something that may have come from outside: one row, or
    /// all rows of a unit if the row is not known. One entry per death.
    from_outside: Vec<Range<usize>>,
    /// Deaths that only somebody outside can have caused.
    foreign_kills: u32,
}

/// The deaths over one unit while one row of it was the only suspect.
#[derive(Debug, Clone, Copy)]
struct RowHistory {
    /// The suspect. In a unit that cannot be divided it may change from death to death.
    row: usize,
    /// All deaths on this row, from whatever cause.
    deaths: u32,
    /// Those of these deaths that nobody from outside can have caused: crashes, exits, stalls.
    beyond_doubt: u32,
}

impl Blame {
    /// A row is given up after `attempts` deaths; 0 counts as 1.
    pub(super) fn new(attempts: u32) -> Self {
        Self {
            attempts: attempts.clamp(1, RETRIES_MAX + 1),
            histories: HashMap::new(),
            from_outside: Vec::new(),
            foreign_kills: 0,
        }
    }

    /// How many deaths give a row up if all of them may have come from outside, and no other row
    /// suffers: 7 for 3 attempts. With one attempt it is 1: the caller who wants no retry gets
    /// none.
    fn attempts_in_doubt(&self) -> u32 {
        1 + 3 * (self.attempts - 1)
    }

    /// After this many deaths a row is given up in any case. The ledger needs it to tell a long
    /// search from no progress.
    pub(super) fn most_deaths(&self) -> usize {
        (self.attempts_in_doubt() + EXTRA_ATTEMPTS_MAX + EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX)
            as usize
    }

    /// Notes a death on one of `rows`. If it may have come from outside, it speaks for every row
    /// outside `rows`. [`Blame::poisoned_after`] comes after it, if only one row can be to blame.
    pub(super) fn note(&mut self, rows: Range<usize>, cause: &DeathCause) {
        if cause.may_come_from_outside() {
            self.from_outside.push(rows);
        }
    }

    /// Notes a death of a worker that held no unit. Only signals count as kills: a worker that
    /// exits by itself, or whose status is unknown, may have had nothing to do any more.
    pub(super) fn note_idle(&mut self, cause: &DeathCause) {
        let killed = matches!(cause, DeathCause::Signalled(_)) && cause.may_come_from_outside();
        self.foreign_kills = self.foreign_kills.saturating_add(u32::from(killed));
    }

    /// Counts a death, which [`Blame::note`] has noted, against `row`, the only one that can have
    /// caused it in `unit`. Deaths on another row of the unit are forgotten: a row that has been
    /// passed in the meantime was not to blame. The number of deaths when they are enough, else
    /// `None`.
    pub(super) fn poisoned_after(
        &mut self,
        unit: usize,
        row: usize,
        cause: &DeathCause,
    ) -> Option<u32> {
        let fresh = RowHistory { row, deaths: 0, beyond_doubt: 0 };
        let history = self.histories.entry(unit).or_insert(fresh);
        if history.row != row {
            *history = fresh;
        }
        history.deaths += 1;
        let in_doubt = cause.may_come_from_outside() && !is_on(Failpoint::BlameRowForOutsideKills);
        history.beyond_doubt += u32::from(!in_doubt);
        let RowHistory { deaths, beyond_doubt, .. } = *history;
        // With company, a death whose rows include this one is none elsewhere: this row may have
        // caused it.
        let elsewhere = self.from_outside.iter().filter(|rows| !rows.contains(&row)).count();
        // A stop (SIGSTOP) gets all the extra attempts, whether other rows suffer or not.
        let extra_attempts = match cause {
            DeathCause::Stopped => EXTRA_ATTEMPTS_MAX, // few rows stop themselves
            _ => u32::try_from(elsewhere).unwrap_or(EXTRA_ATTEMPTS_MAX).min(EXTRA_ATTEMPTS_MAX),
        };
        let extra_attempts = extra_attempts
            + self
                .foreign_kills
                .saturating_mul(EXTRA_ATTEMPTS_PER_FOREIGN_KILL)
                .min(EXTRA_ATTEMPTS_WITH_FOREIGN_KILLS_MAX);
        let enough =
            beyond_doubt >= self.attempts || deaths >= self.attempts_in_doubt() + extra_attempts;
        enough.then_some(deaths)
    }

    /// After a restart: forgets what is held against rows, since the run and the numbers of the
    /// pieces begin anew. What has been seen of kills from outside stays true.
    pub(super) fn clear(&mut self) {
        self.histories.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: DeathCause = DeathCause::Signalled(9);
    const ABORTED: DeathCause = DeathCause::Signalled(6);

    /// One death on a row that is alone in its unit.
    fn die(blame: &mut Blame, unit: usize, row: usize, cause: &DeathCause) -> Option<u32> {
        blame.note(row..row + 1, cause);
        blame.poisoned_after(unit, row, cause)
    }

    /// By a cause that cannot come from outside three deaths are enough, but they must be of one
    /// row.
    #[test]
    fn three_deaths_make_a_row_poisoned() {
        let mut blame = Blame::new(3);
        // Row 16 in between clears row 15, whose count begins anew.
        for row in [15, 15, 16, 15, 15] {
            assert_eq!(die(&mut blame, 1, row, &ABORTED), None);
        }
        assert_eq!(die(&mut blame, 1, 15, &ABORTED), Some(3));
    }

    #[test]
    fn a_row_killed_where_others_are_has_the_benefit_of_the_doubt() {
        let mut blame = Blame::new(3);
        // Four deaths on other rows: each of them bears one more.
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
        // A thousand deaths elsewhere count as five.
        (0..1000).for_each(|_| blame.note(20..30, &KILLED));
        let given_up = (1..100).find(|_| die(&mut blame, 1, 15, &KILLED).is_some());
        assert_eq!(given_up, Some(12));
    }

    /// With the extra deaths at their most a row still is given up, after `most_deaths` of them.
    #[test]
    fn a_kill_of_a_worker_that_holds_nothing_is_from_outside() {
        for (cause, idle_deaths, needed) in
            [(&KILLED, 1, 12), (&KILLED, 100, 32), (&DeathCause::Exited(0), 100, 7)]
        {
            let mut blame = Blame::new(3);
            // An exit is no kill, so a hundred of them bear nothing.
            (0..idle_deaths).for_each(|_| blame.note_idle(cause));
            assert_eq!((1..100).find_map(|_| die(&mut blame, 1, 15, &KILLED)), Some(needed));
            assert!(needed as usize <= blame.most_deaths());
        }
    }

    /// The bounds of `retries`: none, and more than are allowed.
    #[test]
    fn without_retries_the_first_death_makes_a_row_poisoned() {
        assert_eq!(die(&mut Blame::new(1), 1, 15, &KILLED), Some(1));
        for (cause, attempts) in [(&ABORTED, 1001), (&KILLED, 3001)] {
            let mut blame = Blame::new(u32::MAX);
            assert_eq!((1..5000).find_map(|_| die(&mut blame, 1, 15, cause)), Some(attempts));
        }
    }

    /// Seven, and the five extra deaths of a stop.
    #[test]
    fn a_row_that_stops_its_worker_is_given_up_last_of_all() {
        let mut blame = Blame::new(3);
        let given_up = (1..100).find(|_| die(&mut blame, 1, 15, &DeathCause::Stopped).is_some());
        assert_eq!(given_up, Some(12));
    }

    #[test]
    fn deaths_in_company_of_other_rows_are_no_deaths_elsewhere() {
        let mut blame = Blame::new(3);
        // The death of a worker that had all of 10..20, row 15 included, is no hint of a killer.
        blame.note(10..20, &KILLED);
        let given_up = (1..100).find(|_| die(&mut blame, 1, 15, &KILLED).is_some());
        assert_eq!(given_up, Some(7));
    }
}
