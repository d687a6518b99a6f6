//! The rule book of deaths, over a table of claim words without a process.

use std::ops::Range;
use std::time::{Duration, Instant};

use ClaimState::{Claimed, Corrupt, Done, Free, Retired};

use super::*;
use crate::engine::blocks::RowBlocks;
use crate::engine::control::{MAX_FAILED_ROWS, Message, MessageKind, Owner, Saved};
use crate::error::DeathCause;

const A: Owner = Owner { slot: 0, generation: 0 };
const B: Owner = Owner { slot: 1, generation: 0 };

const RULES: Rules = Rules {
    workers: 2,
    attempts: 3,
    fill: false,
    in_place: false,
    kernel: KernelTrust::Guarded,
    division: Division::AtTheRow,
};

/// A call and its claim words.
struct Table {
    ledger: Ledger,
    states: Vec<ClaimState>,
    offered_first: Vec<usize>,
    now: Instant,
}

impl Table {
    /// Ten blocks of ten rows.
    fn new(rules: Rules) -> Self {
        Self::with(rules, RowBlocks::with_block_rows(100, 10), Clock::default())
    }

    fn with(rules: Rules, blocks: RowBlocks, clock: Clock) -> Self {
        let states = vec![Free; blocks.len()];
        Self {
            ledger: Ledger::new(rules, blocks, clock),
            states,
            offered_first: Vec::new(),
            now: Instant::now(),
        }
    }

    fn set(&mut self, pairs: &[(usize, ClaimState)]) -> &mut Self {
        for &(unit, state) in pairs {
            self.states[unit] = state;
        }
        self
    }

    /// The rows of the units that are in this state.
    fn rows_in(&self, wanted: ClaimState) -> Vec<Range<usize>> {
        let units = (0..self.states.len()).filter(|&unit| self.states[unit] == wanted);
        units.map(|unit| self.ledger.rows(unit)).collect()
    }

    /// Judges the deaths, makes the changes, and returns them as text.
    fn after_deaths(&mut self, deaths: &[Death]) -> String {
        let changes = after_deaths(&mut self.ledger, &self.states, deaths);
        changes.into_iter().map(|change| self.make(change)).collect()
    }

    fn make(&mut self, change: Change) -> String {
        match change {
            Change::Restore { rows, owner } => format!("restore {rows:?} of {}; ", owner.slot),
            Change::Free { unit, owner } => {
                self.states[unit] = Free;
                format!("free {unit} of {}; ", owner.slot)
            }
            Change::Retire { unit } => {
                self.states[unit] = Retired;
                format!("retire {unit}; ")
            }
            Change::Add { unit, rows, state } => {
                assert_eq!(unit, self.states.len(), "pieces are added in order");
                self.states.push(state);
                format!("add {rows:?}{}; ", if state == Free { "" } else { " done" })
            }
            Change::OfferFirst { unit } => {
                self.offered_first.push(unit);
                format!("first {:?}; ", self.ledger.rows(unit))
            }
            Change::Skip { row } => format!("skip {row}; "),
            Change::Limit { row } => format!("limit {row}; "),
        }
    }

    /// Decides, with this many workers alive, and returns the actions as text.
    fn decide(&mut self, live: usize) -> String {
        let vitals: Vec<Vital> = [A, B][..live]
            .iter()
            .map(|&owner| Vital { owner, ready: true, start_limit: STARTUP_LIMIT, pulse: (0, 0) })
            .collect();
        self.decide_with(&vitals, false)
    }

    fn decide_with(&mut self, vitals: &[Vital], cancelled: bool) -> String {
        let snapshot = Snapshot { units: &self.states, vitals, cancelled, now: self.now };
        let actions = decide(&mut self.ledger, &snapshot);
        actions.iter().map(in_words).collect()
    }

    /// Kills a worker over the unit that holds `row`, again and again, until the row is given up.
    /// The unit is claimed anew each time that it has come back. Returns the number of deaths, and
    /// the last decision as text.
    fn kill_over(&mut self, row: usize, death: impl Fn() -> Death) -> (usize, String) {
        for times in 1..100 {
            let unit = (0..self.states.len()).find(|&unit| {
                matches!(self.states[unit], Free | Claimed(_))
                    && self.ledger.rows(unit).contains(&row)
            });
            let Some(unit) = unit else { return (times - 1, self.decide(1)) };
            self.states[unit] = Claimed(A);
            self.after_deaths(&[death()]);
            let outcome = self.decide(1);
            if outcome.starts_with("fail") {
                return (times, outcome);
            }
        }
        panic!("row {row} kills for ever");
    }
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Kill(owner) => format!("kill {}; ", owner.slot),
        Action::Restart => "restart; ".to_owned(),
        Action::RunAgain => "run again; ".to_owned(),
        Action::Spawn(n) => format!("spawn {n}; "),
        Action::Finish(Verdict::Complete) => "finish; ".to_owned(),
        Action::Finish(Verdict::Early(end)) => format!("finish early: {end:?}; "),
        Action::Finish(Verdict::Failed(error)) => format!("fail: {error}; "),
        Action::Finish(Verdict::Unkillable(owner)) => format!("unkillable {}; ", owner.slot),
    }
}

fn died(owner: Owner, row: usize, cause: DeathCause) -> Death {
    Death { owner, cause, row, saved: None, message: None }
}

fn killed(owner: Owner, row: usize) -> Death {
    died(owner, row, DeathCause::Signalled(9))
}

fn crashed(owner: Owner, row: usize) -> Death {
    died(owner, row, DeathCause::Signalled(11))
}

fn exited(owner: Owner, row: usize) -> Death {
    died(owner, row, DeathCause::Exited(0))
}

fn failed(owner: Owner, row: usize) -> Death {
    let message = Message {
        kind: MessageKind::KernelError,
        row,
        text: format!("row {row}"),
        location: String::new(),
        overflow: None,
    };
    Death { message: Some(message), ..died(owner, row, DeathCause::Exited(101)) }
}

#[test]
fn a_call_begins_with_all_its_workers() {
    assert_eq!(Table::new(RULES).decide(0), "spawn 2; ");
    let one_block = RowBlocks::with_block_rows(3, 10);
    assert_eq!(
        Table::with(Rules { workers: 8, ..RULES }, one_block, Clock::default()).decide(0),
        "spawn 1; "
    );
}

#[test]
fn no_blocks_are_done_at_once() {
    assert_eq!(
        Table::with(RULES, RowBlocks::with_block_rows(0, 1), Clock::default()).decide(0),
        "finish; "
    );
}

#[test]
fn the_call_is_over_when_all_is_done_and_workers_may_still_live() {
    let mut table = Table::new(RULES);
    table.states.fill(Done(A));
    assert_eq!(table.decide(2), "finish; ");
}

#[test]
fn a_dead_worker_costs_its_block_which_is_divided_at_its_row() {
    let mut table = Table::new(RULES);
    table.set(&[(0, Done(A)), (1, Claimed(A)), (2, Claimed(B))]);
    assert_eq!(
        table.after_deaths(&[killed(A, 15)]),
        "retire 1; add 10..15; add 15..16; first 15..16; add 16..20; "
    );
    assert_eq!((table.decide(1), table.ledger.rerun_rows), ("spawn 1; ".to_owned(), 10));
}

#[test]
fn a_row_at_the_edge_makes_two_pieces_and_a_row_alone_none() {
    let mut table = Table::new(RULES);
    table.set(&[(1, Claimed(A)), (2, Claimed(B))]);
    assert_eq!(
        table.after_deaths(&[killed(A, 10)]),
        "retire 1; add 10..11; first 10..11; add 11..20; "
    );
    assert_eq!(
        table.after_deaths(&[killed(B, 29)]),
        "retire 2; add 20..29; add 29..30; first 29..30; "
    );
    table.set(&[(10, Claimed(A))]);
    assert_eq!(table.after_deaths(&[killed(A, 10)]), "free 10 of 0; first 10..11; ");
}

#[test]
fn a_row_not_of_the_block_is_not_believed_and_the_block_halved() {
    let mut table = Table::new(RULES);
    table.set(&[(1, Claimed(A))]);
    assert_eq!(
        table.after_deaths(&[killed(A, usize::MAX)]),
        "retire 1; add 10..15; first 10..15; add 15..20; "
    );
}

#[test]
fn an_earlier_process_of_a_slot_frees_nothing_of_a_later_one() {
    let later = Owner { slot: 0, generation: 1 };
    let mut table = Table::new(RULES);
    assert_eq!(table.set(&[(1, Claimed(later))]).after_deaths(&[killed(A, 15)]), "");
}

#[test]
fn a_worker_that_dies_after_its_last_block_costs_nothing() {
    let mut table = Table::new(RULES);
    table.states.fill(Done(B));
    assert_eq!(
        (table.after_deaths(&[killed(A, 99)]), table.decide(1)),
        (String::new(), "finish; ".to_owned())
    );
}

#[test]
fn a_row_is_poisoned_alone_in_its_block_after_three_deaths() {
    for (death, end) in [
        (exited as fn(Owner, usize) -> Death, "exited with code 0"),
        (crashed, "killed by SIGSEGV"),
    ] {
        let (times, verdict) = Table::new(RULES).kill_over(15, || death(A, 15));
        assert_eq!(times, 4, "one in company, three alone");
        assert!(
            verdict.starts_with("fail: row 15 was fatal to 3 workers") && verdict.contains(end),
            "{verdict}"
        );
    }
    let (times, _) = Table::new(Rules { attempts: 1, ..RULES }).kill_over(15, || exited(A, 15));
    assert_eq!(times, 2);
}

#[test]
fn of_what_may_come_from_outside_more_deaths_are_needed() {
    let (times, verdict) = Table::new(RULES).kill_over(15, || killed(A, 15));
    assert_eq!(times, 8, "one in company, seven alone");
    assert!(verdict.starts_with("fail: row 15 was fatal to 7 workers"), "{verdict}");
}

#[test]
fn deaths_are_borne_until_all_workers_rows_are_poisoned() {
    let rules = Rules { workers: 16, fill: true, ..RULES };
    let mut table = Table::with(rules, RowBlocks::with_block_rows(16, 1), Clock::default());
    for _ in 0..20 {
        for row in 0..16 {
            if table.states[row] == Free {
                table.set(&[(row, Claimed(A))]).after_deaths(&[killed(A, row)]);
            }
            assert!(!table.decide(1).starts_with("fail"));
        }
    }
    assert_eq!(table.ledger.failed_so_far().len(), 16);
}

#[test]
fn a_row_that_names_nobody_is_found_by_halves() {
    let mut table = Table::new(Rules { division: Division::InHalves, fill: true, ..RULES });
    let (times, outcome) = table.kill_over(13, || exited(A, 10));
    assert_eq!(times, 6, "among 10, 5 and 2 rows; then three alone");
    assert_eq!(outcome, "spawn 1; ");
    assert_eq!(
        table.ledger.failed_so_far().iter().map(|failed| failed.row).collect::<Vec<_>>(),
        [13]
    );
}

#[test]
fn a_call_that_fills_goes_on_without_the_row() {
    let mut table = Table::new(Rules { fill: true, ..RULES });
    table.states.fill(Done(B));
    table.set(&[(1, Free)]);
    table.kill_over(15, || exited(A, 15));
    assert_eq!(table.rows_in(Free), [10..15, 16..20]);
    let pieces: Vec<_> =
        (10..table.states.len()).filter(|&unit| table.states[unit] == Free).collect();
    for unit in pieces {
        table.states[unit] = Done(B);
    }
    assert_eq!(table.decide(1), "finish; ");
    let failed = table.ledger.into_failed();
    assert_eq!((failed.len(), failed[0].row, failed[0].attempts, failed[0].worker), (1, 15, 3, 0));
}

#[test]
fn random_kills_poison_no_row() {
    let mut table = Table::new(RULES);
    for round in 0..60 {
        let unit = (0..table.states.len())
            .filter(|&unit| table.states[unit] == Free)
            .nth(round % 7)
            .unwrap();
        table.states[unit] = Claimed(A);
        let rows = table.ledger.rows(unit);
        table.after_deaths(&[killed(A, rows.start + round % rows.len())]);
        let outcome = table.decide(1);
        assert_eq!(outcome, "spawn 1; ", "round {round}");
    }
}

#[test]
fn a_worker_that_was_stopped_hardly_blames_its_row() {
    let (times, verdict) = Table::new(RULES).kill_over(15, || died(A, 15, DeathCause::Stopped));
    assert!(
        times == 13 && verdict.starts_with("fail: row 15 was fatal to 12 workers"),
        "{times} {verdict}"
    );
}

#[test]
fn without_room_for_pieces_a_block_is_run_again_whole() {
    let blocks = RowBlocks::with_block_rows(100_000, 100_000);
    let mut table = Table::with(RULES, blocks, Clock::default());
    // Each death on the second row of what is left makes three pieces, of which the last is the
    // next to be divided.
    while table.ledger.n_units() + 3 <= 1 + crate::engine::control::MAX_PIECES {
        let last = table.states.len() - 1;
        let rows = table.ledger.rows(last);
        assert!(
            table
                .set(&[(last, Claimed(A))])
                .after_deaths(&[killed(A, rows.start + 1)])
                .starts_with("retire")
        );
    }
    let last = table.states.len() - 1;
    let row = table.ledger.rows(last).start + 1;
    assert!(table.set(&[(last, Claimed(A))]).after_deaths(&[killed(A, row)]).starts_with("free"));
}

#[test]
fn endless_dying_without_progress_ends_the_call() {
    let mut table = Table::new(Rules { division: Division::Never, ..RULES });
    let mut rows = (10..20).cycle();
    for _ in 0..64 + 2 * 37 {
        table.set(&[(1, Claimed(A))]).after_deaths(&[killed(A, rows.next().unwrap())]);
        assert_eq!(table.decide(1), "spawn 1; ");
    }
    table.set(&[(1, Claimed(A))]).after_deaths(&[killed(A, 11)]);
    let verdict = table.decide(1);
    assert!(
        verdict.starts_with("fail: 139 workers ended") && verdict.contains("rows 0..100"),
        "{verdict}"
    );
}

#[test]
fn workers_that_die_without_a_block_try_the_patience_less() {
    let mut table = Table::new(RULES);
    for _ in 0..1024 + 2 * 2 {
        table.after_deaths(&[killed(A, usize::MAX)]);
        assert_eq!(table.decide(1), "spawn 1; ");
    }
    table.after_deaths(&[killed(A, usize::MAX)]);
    assert!(table.decide(1).starts_with("fail: 1029 workers ended"));
}

#[test]
fn the_lowest_failing_row_is_the_answer_whichever_is_seen_first() {
    let mut table = Table::new(RULES);
    table.set(&[(0, Done(A)), (1, Claimed(A)), (2, Done(A)), (3, Claimed(B))]);
    assert_eq!(table.after_deaths(&[failed(B, 33)]), "free 3 of 1; first 30..40; limit 30; ");
    assert_eq!(table.decide(1), "", "block 1 is being done");
    assert_eq!(table.after_deaths(&[failed(A, 12)]), "free 1 of 0; first 10..20; limit 10; ");
    assert_eq!(table.decide(0), "fail: the kernel failed on row 12: row 12; ");
}

#[test]
fn rows_below_a_failure_are_done_and_none_beyond_is_poisoned() {
    let mut table = Table::with(RULES, RowBlocks::with_block_rows(10, 1), Clock::default());
    table.set(&[(3, Claimed(B)), (5, Claimed(A)), (2, Claimed(A))]);
    for _ in 0..2 {
        table.set(&[(5, Claimed(A))]).after_deaths(&[exited(A, 5)]);
    }
    table.set(&[(5, Claimed(A)), (2, Claimed(B)), (3, Claimed(B))]);
    assert!(table.after_deaths(&[exited(A, 5), failed(B, 3)]).ends_with("limit 3; "));
    assert_eq!(table.decide(0), "spawn 2; ");
    table.set(&[(0, Done(A)), (1, Done(A)), (2, Done(A))]);
    assert!(table.decide(0).starts_with("fail: the kernel failed on row 3"));
}

#[test]
fn a_call_that_fills_goes_on_without_a_row_that_fails_by_itself() {
    let mut table = Table::new(Rules { fill: true, ..RULES });
    table.set(&[(1, Claimed(A))]);
    assert_eq!(table.after_deaths(&[failed(A, 12)]), "retire 1; add 10..12; add 13..20; ");
    let failed_rows = table.ledger.into_failed();
    assert_eq!((failed_rows[0].row, failed_rows[0].attempts), (12, 1));
    assert_eq!(failed_rows[0].cause, DeathCause::Failed { message: "row 12".to_owned() });
}

#[test]
fn of_a_block_that_fails_as_a_whole_the_row_is_found_first() {
    let mut table = Table::new(Rules { fill: true, division: Division::InHalves, ..RULES });
    table.set(&[(1, Claimed(A))]);
    assert_eq!(
        table.after_deaths(&[failed(A, 10)]),
        "retire 1; add 10..15; first 10..15; add 15..20; "
    );
    assert!(table.ledger.failed_so_far().is_empty());
    let mut table = Table::new(Rules {
        fill: true,
        division: Division::InHalves,
        kernel: KernelTrust::BuiltIn,
        ..RULES
    });
    table.set(&[(1, Claimed(A))]);
    assert_eq!(
        table.after_deaths(&[failed(A, 12)]),
        "retire 1; add 10..12; add 13..20; ",
        "our own kernel knows the row"
    );
}

#[test]
fn a_call_goes_on_without_so_many_rows_and_no_more() {
    let blocks = RowBlocks::with_block_rows(4000, 1);
    let mut table = Table::with(Rules { fill: true, ..RULES }, blocks, Clock::default());
    for row in 0..MAX_FAILED_ROWS {
        table.set(&[(row, Claimed(A))]).after_deaths(&[failed(A, row)]);
        assert_eq!(table.decide(1), "spawn 1; ");
    }
    table.set(&[(2000, Claimed(A))]).after_deaths(&[failed(A, 2000)]);
    assert!(table.decide(1).starts_with(
        "fail: 1025 rows failed, more than a call goes on without: row 0: its worker"
    ));
}

#[test]
fn what_cannot_be_divided_passes_over_the_row() {
    let rules = Rules { fill: true, division: Division::Never, ..RULES };
    let mut table = Table::new(rules.clone());
    for _ in 0..2 {
        assert_eq!(
            table.set(&[(1, Claimed(A))]).after_deaths(&[exited(A, 15)]),
            "free 1 of 0; first 10..20; "
        );
    }
    assert_eq!(
        table.set(&[(1, Claimed(A))]).after_deaths(&[exited(A, 15)]),
        "skip 15; free 1 of 0; first 10..20; "
    );
    assert_eq!(
        table.set(&[(1, Claimed(A))]).after_deaths(&[failed(A, 17)]),
        "skip 17; free 1 of 0; first 10..20; "
    );
    assert_eq!(table.ledger.into_failed().len(), 2);
    let (times, verdict) =
        Table::new(Rules { fill: false, ..rules }).kill_over(15, || exited(A, 15));
    assert!(
        times == 3 && verdict.starts_with("fail: row 15 was fatal to 3 workers"),
        "{times} {verdict}"
    );
}

#[test]
fn a_message_about_a_row_that_was_not_held_is_not_believed() {
    let mut table = Table::new(RULES);
    let mut death = failed(A, 55);
    death.row = 15;
    assert!(table.set(&[(1, Claimed(A))]).after_deaths(&[death]).starts_with("retire 1"));
    assert_eq!(table.decide(1), "spawn 1; ");
}

#[test]
fn after_a_guarded_crash_all_that_its_worker_did_is_done_again() {
    let mut table = Table::new(RULES);
    table.set(&[(0, Done(A)), (1, Claimed(A)), (2, Done(B)), (3, Done(A))]);
    let changes = table.after_deaths(&[crashed(A, 15)]);
    assert!(changes.starts_with("free 0 of 0; free 3 of 0; retire 1; "), "{changes}");
    assert_eq!(table.states[2], Done(B));
    let mut table = Table::new(RULES);
    table.set(&[(0, Done(A)), (1, Claimed(A))]);
    assert!(
        table.after_deaths(&[killed(A, 15)]).starts_with("retire 1; "),
        "a kill spoils nothing"
    );
}

#[test]
fn all_is_rerun_once_the_row_of_an_unguarded_crash_is_known() {
    let mut table = Table::new(Rules { kernel: KernelTrust::Unguarded, ..RULES });
    table.set(&[(0, Done(A)), (1, Claimed(A))]);
    for run in 2..=3 {
        assert!(!table.after_deaths(&[crashed(A, 15)]).contains("free 0"));
        assert_eq!(table.decide(1), "spawn 1; ", "first to the end");
        table
            .states
            .iter_mut()
            .filter(|state| **state != Retired)
            .for_each(|state| *state = Done(B));
        assert_eq!(table.decide(1), "run again; ", "run {run}");
        table.states.iter_mut().filter(|state| **state != Retired).for_each(|state| *state = Free);
        table.set(&[(0, Claimed(A))]);
    }
    table.after_deaths(&[crashed(A, 5)]);
    table.states.iter_mut().filter(|state| **state != Retired).for_each(|state| *state = Done(B));
    let verdict = table.decide(1);
    assert!(
        verdict.starts_with(
            "fail: worker 0 was killed by SIGSEGV on row 5, as others did in each of 3 runs"
        ),
        "{verdict}"
    );
}

#[test]
fn what_is_freed_and_done_again_is_no_progress() {
    let mut table = Table::new(RULES);
    let mut rounds = 0;
    // Every worker does one block and crashes over the next: nothing of it stays.
    let end = loop {
        rounds += 1;
        assert!(rounds < 1000, "for ever");
        let free: Vec<usize> =
            (0..table.states.len()).filter(|&unit| table.states[unit] == Free).collect();
        let (first, last) = (free[0], free[free.len() - 1 - rounds % (free.len() - 1)]);
        table.set(&[(first, Done(A)), (last, Claimed(A))]);
        table.decide(1);
        let row = table.ledger.rows(last).start;
        table.after_deaths(&[crashed(A, row)]);
        let outcome = table.decide(1);
        if outcome.starts_with("fail") {
            break outcome;
        }
    };
    assert!(rounds < 200, "{rounds} rounds, {end}");
}

#[test]
fn our_own_kernels_do_not_crash_into_anything() {
    let mut table = Table::new(Rules { kernel: KernelTrust::BuiltIn, ..RULES });
    table.set(&[(0, Done(A)), (1, Claimed(A))]);
    assert!(table.after_deaths(&[crashed(A, 15)]).starts_with("retire 1; "));
    table.states.iter_mut().filter(|state| **state != Retired).for_each(|state| *state = Done(B));
    assert_eq!(table.decide(1), "finish; ");
}

#[test]
fn a_panic_that_aborts_is_no_crash() {
    let mut table = Table::new(Rules { kernel: KernelTrust::Unguarded, fill: true, ..RULES });
    let death = Death { cause: DeathCause::Signalled(6), ..failed(A, 15) };
    table.set(&[(1, Claimed(A))]).after_deaths(&[death]);
    table.states.iter_mut().filter(|state| **state != Retired).for_each(|state| *state = Done(B));
    assert_eq!(table.decide(1), "finish; ");
}

#[test]
fn in_place_what_was_saved_is_put_back_and_what_was_done_stays() {
    let mut table = Table::new(Rules { in_place: true, ..RULES });
    table.set(&[(1, Claimed(A)), (2, Claimed(B))]);
    let death = Death { saved: Some(Saved::Complete(14)), ..killed(A, 16) };
    let changes = table.after_deaths(&[death]);
    assert_eq!(
        changes,
        "restore 14..20 of 0; retire 1; add 10..14 done; add 14..16; add 16..17; first 16..17; add 17..20; "
    );
    assert_eq!(table.ledger.rerun_rows, 6);
    assert!(
        !table
            .after_deaths(&[Death { saved: Some(Saved::Complete(5)), ..killed(B, 20) }])
            .contains("restore"),
        "not of this block"
    );
}

#[test]
fn in_place_rows_done_before_the_next_were_saved_are_not_rerun() {
    let mut table = Table::new(Rules { in_place: true, ..RULES });
    table.set(&[(1, Claimed(A))]);
    let changes =
        table.after_deaths(&[Death { saved: Some(Saved::InProgress(14)), ..killed(A, 13) }]);
    assert_eq!(
        changes, "retire 1; add 10..14 done; add 14..17; first 14..17; add 17..20; ",
        "nothing to put back"
    );
}

#[test]
fn in_place_without_guard_a_crash_ends_the_call() {
    let rules = Rules { in_place: true, kernel: KernelTrust::Unguarded, ..RULES };
    let mut table = Table::new(rules.clone());
    table.set(&[(0, Done(A)), (1, Claimed(A))]);
    assert!(
        table
            .after_deaths(&[Death { saved: Some(Saved::Complete(10)), ..crashed(A, 15) }])
            .starts_with("restore 10..20 of 0; ")
    );
    assert!(table.decide(1).starts_with("fail: worker 0 was killed by SIGSEGV on row 15"));
    let mut table = Table::new(Rules { kernel: KernelTrust::Guarded, ..rules });
    table.set(&[(0, Done(A)), (1, Claimed(A))]).after_deaths(&[crashed(A, 15)]);
    assert_eq!((table.states[0], &*table.decide(1)), (Done(A), "spawn 1; "));
}

#[test]
fn a_deadline_or_cancelling_ends_a_call_early_but_not_when_done() {
    let start = Instant::now();
    let clock = || Clock::new(Some(start + Duration::from_secs(1)), None, 1);
    let mut table = Table::with(RULES, RowBlocks::with_block_rows(10, 1), clock());
    table.now = start + Duration::from_millis(999);
    assert_eq!(table.decide(2), "");
    assert_eq!(table.decide_with(&[], true), "finish early: Cancelled; ");
    table.now = start + Duration::from_secs(1);
    assert_eq!(table.decide(2), "finish early: Deadline; ");
    table.states.fill(Done(A));
    assert_eq!(table.decide_with(&[], true), "finish; ");
}

#[test]
fn a_worker_that_does_not_come_to_another_row_is_killed() {
    let start = Instant::now();
    let mut table = Table::with(
        RULES,
        RowBlocks::with_block_rows(10, 1),
        Clock::new(None, Some(Duration::from_secs(1)), 1),
    );
    table.set(&[(3, Claimed(A))]);
    let mut decide_at = |ms: u64, row: u64| {
        table.now = start + Duration::from_millis(ms);
        table.decide_with(
            &[
                Vital { owner: A, ready: true, start_limit: STARTUP_LIMIT, pulse: (row, 0) },
                Vital { owner: B, ready: true, start_limit: STARTUP_LIMIT, pulse: (ms, 0) },
            ],
            false,
        )
    };
    assert_eq!(decide_at(0, 3), "");
    assert_eq!(decide_at(999, 3), "");
    assert_eq!(decide_at(1000, 3), "kill 0; ");
    assert_eq!(decide_at(1100, 3), "");
    assert_eq!(decide_at(6001, 3), "unkillable 0; ");
}

#[test]
fn workers_that_hang_before_they_are_ready_are_replaced_thrice() {
    let start = Instant::now();
    let mut table = Table::new(RULES);
    let mut outcome = String::new();
    for round in 0..6u16 {
        let owner = Owner { slot: 0, generation: round };
        let hung = [Vital { owner, ready: false, start_limit: STARTUP_LIMIT, pulse: (0, 0) }];
        for ms in [0, 2000] {
            table.now = start + Duration::from_millis(u64::from(round) * 3000 + ms);
            outcome = table.decide_with(&hung, false);
        }
        assert!(outcome.contains("kill 0; "), "{outcome}");
        table.after_deaths(&[died(owner, usize::MAX, DeathCause::HungAtStart)]);
        outcome = table.decide_with(&[], false);
    }
    assert!(
        outcome.starts_with("fail: a worker could not do its work: 6 workers in a row hung"),
        "{outcome}"
    );
}

#[test]
fn a_failed_setup_ends_the_call_only_if_nobody_else_can_work() {
    let mut death = failed(A, 0);
    death.message.as_mut().unwrap().kind = MessageKind::Setup;
    let mut table = Table::new(RULES);
    table.after_deaths(&[death.clone()]);
    assert_eq!(table.decide(1), "");
    table.after_deaths(&[death]);
    assert_eq!(table.decide(0), "fail: a worker could not do its work: row 0; ");
}

#[test]
fn a_finished_block_renews_the_patience() {
    let mut table = Table::new(Rules { division: Division::Never, ..RULES });
    for round in 0..200 {
        table.states[..round / 25].fill(Done(B));
        table.set(&[(9, Claimed(A))]).after_deaths(&[killed(A, 90 + round % 10)]);
        assert_eq!(table.decide(1), "spawn 1; ", "round {round}");
    }
}

#[test]
fn a_corrupt_word_runs_everything_again_once() {
    let mut table = Table::new(RULES);
    table.set(&[(0, Done(A)), (4, Corrupt)]);
    assert_eq!(
        (table.after_deaths(&[killed(A, 15)]), table.decide(2)),
        (String::new(), "restart; ".to_owned())
    );
    assert_eq!(table.ledger.rerun_rows, 100);
    table.states.fill(Free);
    assert_eq!(table.decide(0), "spawn 2; ");
    table.set(&[(4, Corrupt)]);
    assert!(table.decide(2).starts_with("fail: the control block was overwritten in block 4"));
    let mut table = Table::new(Rules { in_place: true, ..RULES });
    assert!(
        table.set(&[(4, Corrupt)]).decide(2).starts_with("fail: the control block was overwritten")
    );
}
