//! What to do when workers die: [`decide`], a function of what is known, with no clock, no process and no system call
//! in it, and so tested without any.
//!
//! Called by the executors, which see the deaths and perform the actions. The protocol is in `control/README.md`.

use std::collections::HashMap;
use std::ops::Range;

use crate::blocks::RowBlocks;
use crate::control::{ClaimState, Message, MessageKind, Owner};
use crate::error::{DeathCause, Error};

/// A row that is running at this many deaths in a row ends the call.
const ROW_DEATHS_MAX: u32 = 3;

/// So many deaths over blocks, with no block finished in between, end the call; and two more for each worker, since an
/// innocent call may lose every worker at once, and once more.
const BARREN_DEATHS_MAX: usize = 64;

/// The same for exits of workers that held no block. They blame no row, and under a killer on a loaded machine they can be
/// many; the bound is there so that workers which cannot even start do not go on for ever.
const IDLE_EXITS_MAX: usize = 1024;

/// The end of one worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) owner: Owner,
    pub(crate) cause: DeathCause,
    /// The row that its slot says it was at; untrusted.
    pub(crate) row: usize,
    /// What it left in its slot; untrusted.
    pub(crate) message: Option<Message>,
}

/// What the supervisor sees at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    /// The claim words, decoded after the deaths below were seen.
    pub(crate) blocks: &'a [ClaimState],
    /// Deaths since the last decision.
    pub(crate) deaths: &'a [Death],
    /// Workers that are alive.
    pub(crate) live: usize,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// `CLAIMED(owner) -> FREE`.
    Free { block: usize, owner: Owner },
    /// Blocks from here on need not be done.
    Limit(usize),
    /// Kill all workers, free every block, begin again.
    Restart,
    /// Fork this many workers.
    Spawn(usize),
    /// Every block that counts is done, or none will be: end all workers and return this.
    Finish(Result<(), Error>),
}

/// What the supervisor remembers of one call, in private memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    blocks: RowBlocks,
    workers: usize,
    /// Blocks from here on need not be done: a row at or before its start has failed.
    limit: usize,
    /// The lowest row that ends the call so far, and with what.
    failure: Option<(usize, Error)>,
    /// The output is the input: a block that was begun cannot be run again.
    in_place: bool,
    /// In place only, per block whose worker has ended in it: the row that the worker was at; untrusted.
    torn: HashMap<usize, usize>,
    /// Per block: the row that was running at its last death, and at how many deaths in a row.
    blame: HashMap<usize, (usize, u32)>,
    done_at_last_exit: usize,
    /// Since a block was last finished: deaths of workers that held a block, and exits of those that held none.
    barren_deaths: usize,
    idle_exits: usize,
    restarted: bool,
    /// Rows freed from dead workers, for the report.
    pub(crate) rerun_rows: usize,
}

impl Ledger {
    /// For a call on `blocks` with up to `workers` workers at a time.
    pub(crate) fn new(blocks: RowBlocks, workers: usize) -> Self {
        Self {
            limit: blocks.len(),
            blocks,
            workers,
            failure: None,
            in_place: false,
            torn: HashMap::new(),
            blame: HashMap::new(),
            done_at_last_exit: 0,
            barren_deaths: 0,
            idle_exits: 0,
            restarted: false,
            rerun_rows: 0,
        }
    }

    /// For a call whose blocks cannot be run again.
    pub(crate) fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// Where the worker was that ended in this block, if one did; untrusted. In place only.
    pub(crate) fn torn_at(&self, block: usize) -> Option<usize> {
        self.torn.get(&block).copied()
    }

    /// Blocks from here on need not be done.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes what happened on a row as the answer if no lower row has one.
    fn accept_failure(&mut self, row: usize, error: impl FnOnce() -> Error) {
        if self.failure.as_ref().is_none_or(|known| row < known.0) {
            self.limit = self.limit.min(self.blocks.block_of(row));
            self.failure = Some((row, error()));
        }
    }

    /// Counts a death against the row that was running. True when the row has killed enough.
    fn convicts(&mut self, block: usize, row: usize) -> bool {
        let blame = self.blame.entry(block).or_insert((row, 0));
        *blame = if blame.0 == row { (row, blame.1 + 1) } else { (row, 1) };
        blame.1 >= ROW_DEATHS_MAX
    }

    /// Counts the ends of workers since a block was last finished. True when there are too many.
    fn despairs(&mut self, snapshot: &Snapshot<'_>, n_done: usize) -> bool {
        if n_done > self.done_at_last_exit {
            (self.barren_deaths, self.idle_exits) = (0, 0);
            self.done_at_last_exit = n_done;
        }
        for death in snapshot.deaths {
            let held = snapshot.blocks.contains(&ClaimState::Claimed(death.owner));
            *(if held { &mut self.barren_deaths } else { &mut self.idle_exits }) += 1;
        }
        let patience = 2 * self.workers;
        self.barren_deaths > BARREN_DEATHS_MAX + patience || self.idle_exits > IDLE_EXITS_MAX + patience
    }
}

/// Decides what to do about a snapshot. Its one effect is on the ledger.
pub(crate) fn decide(ledger: &mut Ledger, snapshot: &Snapshot<'_>) -> Vec<Action> {
    if let Some(block) = snapshot.blocks.iter().position(|state| *state == ClaimState::Corrupt) {
        return vec![restart_or_give_up(ledger, block)];
    }
    let mut actions = Vec::new();
    let limit_before = ledger.limit;
    // Failures first: no row beyond the lowest of them is convicted, in whatever order the workers ended.
    for death in snapshot.deaths {
        if let Some(message) = believable(ledger, snapshot.blocks, death) {
            ledger.accept_failure(message.row, || kernel_failure(message.clone()));
        }
    }
    for death in snapshot.deaths {
        match judge(ledger, snapshot.blocks, death) {
            Ok(freed) => actions.extend(freed),
            Err(verdict) => return vec![Action::Finish(Err(verdict))],
        }
    }
    if ledger.limit < limit_before {
        actions.push(Action::Limit(ledger.limit));
    }

    // A failed row's own block lies at the limit, not below it.
    let unfinished = || (0..ledger.limit).filter(|&block| snapshot.blocks[block] != ClaimState::Done);
    let n_unfinished = unfinished().count();
    if n_unfinished == 0 {
        // In place nobody is killed in the middle of a row that can be finished: workers leave after their block.
        let draining = ledger.in_place && ledger.failure.is_some() && snapshot.live > 0;
        if !draining {
            actions.push(Action::Finish(ledger.failure.take().map_or(Ok(()), |(_, error)| Err(error))));
        }
        return actions;
    }
    let n_done = snapshot.blocks.iter().filter(|&&state| state == ClaimState::Done).count();
    let rows = rows_of(&ledger.blocks, unfinished());
    if ledger.despairs(snapshot, n_done) {
        let cause = snapshot.deaths.last().map_or(DeathCause::Unknown, |death| death.cause.clone());
        let deaths = ledger.barren_deaths + ledger.idle_exits;
        return vec![Action::Finish(Err(Error::WorkersKeepDying { deaths, rows, cause }))];
    }
    if let Some(message) = snapshot.deaths.iter().find_map(setup_failure) {
        // The others can do the work, if there are any.
        if snapshot.live == 0 {
            return vec![Action::Finish(Err(Error::WorkerSetup { message: message.to_owned() }))];
        }
        return actions;
    }
    let wanted = ledger.workers.min(n_unfinished);
    if snapshot.live < wanted {
        actions.push(Action::Spawn(wanted - snapshot.live));
    }
    actions
}

/// Frees the blocks of a dead worker, and finds out whether its row is to blame.
fn judge(ledger: &mut Ledger, blocks: &[ClaimState], death: &Death) -> Result<Vec<Action>, Error> {
    let mut freed = Vec::new();
    for block in held_by(blocks, death.owner) {
        let rows = ledger.blocks.get(block).map_or(0..0, |block| block.rows());
        if ledger.in_place {
            ledger.torn.insert(block, death.row);
            let row = if rows.contains(&death.row) { death.row } else { rows.start };
            let told = believable(ledger, blocks, death).map(|message| ledger.blocks.block_of(message.row));
            if told != Some(block) {
                let cause = death.cause.clone();
                ledger.accept_failure(row, || Error::RowKillsWorkers { row, attempts: 1, cause });
            }
            continue;
        }
        if block < ledger.limit {
            ledger.rerun_rows += rows.len();
            if rows.contains(&death.row) && ledger.convicts(block, death.row) {
                let cause = death.cause.clone();
                return Err(Error::RowKillsWorkers { row: death.row, attempts: ROW_DEATHS_MAX, cause });
            }
        }
        freed.push(Action::Free { block, owner: death.owner });
    }
    Ok(freed)
}

/// The kernel's own failure that a worker reports, if it is about the row that the worker was at, in a block that it held:
/// anything else is a stray store.
pub(crate) fn believable<'a>(ledger: &Ledger, blocks: &[ClaimState], death: &'a Death) -> Option<&'a Message> {
    let message = death.message.as_ref().filter(|message| message.kind != MessageKind::Setup)?;
    let held = blocks.get(ledger.blocks.block_of(message.row)) == Some(&ClaimState::Claimed(death.owner));
    (held && message.row == death.row && message.row < ledger.blocks.n_rows()).then_some(message)
}

fn setup_failure(death: &Death) -> Option<&str> {
    death.message.as_ref().filter(|message| message.kind == MessageKind::Setup).map(|message| &*message.text)
}

/// The blocks that a worker has claimed and not finished.
fn held_by(blocks: &[ClaimState], owner: Owner) -> impl Iterator<Item = usize> {
    (0..blocks.len()).filter(move |&block| blocks[block] == ClaimState::Claimed(owner))
}

fn restart_or_give_up(ledger: &mut Ledger, block: usize) -> Action {
    if ledger.restarted || ledger.in_place {
        return Action::Finish(Err(Error::ControlCorrupted { block }));
    }
    ledger.restarted = true;
    ledger.done_at_last_exit = 0;
    ledger.rerun_rows += ledger.blocks.n_rows();
    Action::Restart
}

/// From the first row to past the last row of these blocks, which are in order.
fn rows_of(blocks: &RowBlocks, mut indices: impl Iterator<Item = usize>) -> Range<usize> {
    let first = indices.next().and_then(|index| blocks.get(index));
    let last = indices.last().and_then(|index| blocks.get(index)).or_else(|| first.clone());
    match (first, last) {
        (Some(first), Some(last)) => first.rows().start..last.rows().end,
        _ => 0..0,
    }
}

fn kernel_failure(failure: Message) -> Error {
    let Message { kind, row, text: message, location } = failure;
    match kind {
        MessageKind::KernelError => Error::KernelFailed { row, message },
        MessageKind::Panic | MessageKind::PanicDraft | MessageKind::Setup => {
            let location = if location.is_empty() { "location unknown".to_owned() } else { location };
            Error::KernelPanicked { row, message, location }
        }
    }
}

#[cfg(test)]
mod tests {
    use ClaimState::{Claimed, Corrupt, Done, Free};

    use super::*;

    const A: Owner = Owner { slot: 0, generation: 0 };
    const B: Owner = Owner { slot: 1, generation: 0 };

    /// Ten blocks of ten rows, two workers.
    fn ledger() -> Ledger {
        Ledger::new(RowBlocks::with_block_rows(100, 10), 2)
    }

    fn killed(owner: Owner, row: usize) -> Death {
        Death { owner, cause: DeathCause::Signalled(9), row, message: None }
    }

    fn failed(owner: Owner, row: usize) -> Death {
        let message =
            Message { kind: MessageKind::KernelError, row, text: format!("row {row}"), location: String::new() };
        Death { owner, cause: DeathCause::Exited(1), row, message: Some(message) }
    }

    fn run(ledger: &mut Ledger, blocks: &[ClaimState], deaths: &[Death], live: usize) -> String {
        let actions = decide(ledger, &Snapshot { blocks, deaths, live });
        actions
            .iter()
            .map(|action| match action {
                Action::Free { block, owner } => format!("free {block} of {}; ", owner.slot),
                Action::Limit(limit) => format!("limit {limit}; "),
                Action::Restart => "restart; ".to_owned(),
                Action::Spawn(n) => format!("spawn {n}; "),
                Action::Finish(Ok(())) => "finish; ".to_owned(),
                Action::Finish(Err(error)) => format!("fail: {error}; "),
            })
            .collect()
    }

    fn blocks(pairs: &[(usize, ClaimState)]) -> Vec<ClaimState> {
        let mut blocks = vec![Free; 10];
        for &(index, state) in pairs {
            blocks[index] = state;
        }
        blocks
    }

    #[test]
    fn a_call_begins_with_all_its_workers() {
        assert_eq!(run(&mut ledger(), &blocks(&[]), &[], 0), "spawn 2; ");
        let mut one_block = Ledger::new(RowBlocks::with_block_rows(3, 10), 8);
        assert_eq!(run(&mut one_block, &[Free], &[], 0), "spawn 1; ");
    }

    #[test]
    fn no_blocks_are_done_at_once() {
        assert_eq!(run(&mut Ledger::new(RowBlocks::with_block_rows(0, 1), 2), &[], &[], 0), "finish; ");
    }

    #[test]
    fn the_call_is_over_when_all_is_done_and_workers_may_still_live() {
        assert_eq!(run(&mut ledger(), &[Done; 10], &[], 2), "finish; ");
    }

    #[test]
    fn a_dead_worker_costs_its_block_and_is_replaced() {
        let mut ledger = ledger();
        let state = blocks(&[(0, Done), (1, Claimed(A)), (2, Claimed(B))]);
        assert_eq!(run(&mut ledger, &state, &[killed(A, 15)], 1), "free 1 of 0; spawn 1; ");
        assert_eq!(ledger.rerun_rows, 10);
    }

    #[test]
    fn an_earlier_process_of_the_slot_frees_nothing_of_the_later_one() {
        let later = Owner { slot: 0, generation: 1 };
        assert_eq!(run(&mut ledger(), &blocks(&[(1, Claimed(later))]), &[killed(A, 15)], 2), "");
    }

    #[test]
    fn a_worker_that_dies_after_its_last_block_costs_nothing() {
        assert_eq!(run(&mut ledger(), &[Done; 10], &[killed(A, 99)], 1), "finish; ");
    }

    #[test]
    fn only_the_same_row_three_times_in_a_row_is_convicted() {
        let mut ledger = ledger();
        let state = blocks(&[(1, Claimed(A))]);
        for row in [15, 15, 16, 15, 15] {
            assert_eq!(run(&mut ledger, &state, &[killed(A, row)], 1), "free 1 of 0; spawn 1; ");
        }
        let verdict = run(&mut ledger, &state, &[killed(A, 15)], 1);
        assert!(verdict.contains("fail: row 15 was running at the death of 3 workers in a row"), "{verdict}");
    }

    #[test]
    fn a_row_outside_the_block_is_not_believed() {
        let mut ledger = ledger();
        let state = blocks(&[(1, Claimed(A))]);
        for _ in 0..10 {
            assert_eq!(run(&mut ledger, &state, &[killed(A, usize::MAX)], 1), "free 1 of 0; spawn 1; ");
        }
    }

    #[test]
    fn endless_dying_without_progress_ends_the_call() {
        let mut ledger = ledger();
        let state = blocks(&[(0, Done), (1, Claimed(A))]);
        let mut rows = (10..20).cycle();
        for _ in 0..BARREN_DEATHS_MAX + 2 * 2 {
            assert_eq!(run(&mut ledger, &state, &[killed(A, rows.next().unwrap())], 1), "free 1 of 0; spawn 1; ");
        }
        let verdict = run(&mut ledger, &state, &[killed(A, 11)], 1);
        let deaths = format!("{} workers ended", BARREN_DEATHS_MAX + 5);
        assert!(verdict.contains(&deaths) && verdict.contains("rows 10..100"), "{verdict}");
    }

    #[test]
    fn workers_that_die_before_they_hold_a_block_try_the_patience_less() {
        let mut ledger = ledger();
        for _ in 0..IDLE_EXITS_MAX + 2 * 2 {
            assert_eq!(run(&mut ledger, &blocks(&[]), &[killed(A, usize::MAX)], 1), "spawn 1; ");
        }
        assert!(run(&mut ledger, &blocks(&[]), &[killed(A, usize::MAX)], 1).starts_with("fail: 1029 workers ended"));
    }

    #[test]
    fn a_row_beyond_a_known_failure_is_not_convicted() {
        let mut ledger = ledger();
        let state = blocks(&[(3, Claimed(B)), (5, Claimed(A))]);
        for _ in 0..2 {
            run(&mut ledger, &state, &[killed(A, 55)], 1);
        }
        assert_eq!(run(&mut ledger, &state, &[failed(B, 33)], 1), "free 3 of 1; limit 3; spawn 1; ");
        assert_eq!(run(&mut ledger, &state, &[killed(A, 55)], 1), "free 5 of 0; spawn 1; ");
    }

    #[test]
    fn deaths_are_judged_alike_in_any_order() {
        let state = blocks(&[(1, Claimed(B)), (5, Claimed(A))]);
        for deaths in [[killed(A, 55), failed(B, 12)], [failed(B, 12), killed(A, 55)]] {
            let mut ledger = ledger();
            for _ in 0..2 {
                run(&mut ledger, &state, &[killed(A, 55)], 1);
            }
            assert!(run(&mut ledger, &state, &deaths, 0).ends_with("limit 1; spawn 1; "));
        }
    }

    #[test]
    fn a_worker_that_cannot_be_set_up_ends_the_call_only_if_nobody_else_can_work() {
        let mut death = failed(A, 0);
        death.message.as_mut().unwrap().kind = MessageKind::Setup;
        assert_eq!(run(&mut ledger(), &blocks(&[]), &[death.clone()], 1), "");
        assert_eq!(run(&mut ledger(), &[Done; 10], &[death.clone()], 0), "finish; ");
        let verdict = run(&mut ledger(), &blocks(&[]), &[death], 0);
        assert_eq!(verdict, "fail: a worker could not be set up: row 0; ");
    }

    #[test]
    fn a_finished_block_renews_the_patience() {
        let mut ledger = ledger();
        for round in 0..200 {
            let mut state = blocks(&[(9, Claimed(A))]);
            state[..round / 25].fill(Done);
            assert_eq!(run(&mut ledger, &state, &[killed(A, 90 + round % 10)], 1), "free 9 of 0; spawn 1; ");
        }
    }

    #[test]
    fn the_lowest_failing_row_is_the_answer_whichever_is_seen_first() {
        let mut ledger = ledger();
        let state = blocks(&[(0, Done), (1, Claimed(A)), (2, Done), (3, Claimed(B))]);
        assert_eq!(run(&mut ledger, &state, &[failed(B, 33)], 1), "free 3 of 1; limit 3; ");
        let state = blocks(&[(0, Done), (1, Claimed(A)), (2, Done)]);
        assert_eq!(
            run(&mut ledger, &state, &[failed(A, 12)], 0),
            "free 1 of 0; limit 1; fail: the kernel failed on row 12: row 12; "
        );
    }

    #[test]
    fn rows_below_a_failure_are_still_done() {
        let mut ledger = ledger();
        let state = blocks(&[(0, Claimed(A)), (1, Claimed(B))]);
        assert_eq!(run(&mut ledger, &state, &[failed(B, 11)], 1), "free 1 of 1; limit 1; ");
        let state = blocks(&[(0, Claimed(A))]);
        assert_eq!(run(&mut ledger, &state, &[killed(A, 5)], 0), "free 0 of 0; spawn 1; ");
        let state = blocks(&[(0, Done)]);
        assert_eq!(run(&mut ledger, &state, &[], 1), "fail: the kernel failed on row 11: row 11; ");
    }

    #[test]
    fn a_message_about_a_row_that_was_not_held_is_not_believed() {
        let state = blocks(&[(1, Claimed(A))]);
        let mut death = failed(A, 55);
        death.row = 15;
        assert_eq!(run(&mut ledger(), &state, &[death], 1), "free 1 of 0; spawn 1; ");
    }

    #[test]
    fn in_place_a_death_ends_the_call_once_the_others_have_left() {
        let mut ledger = ledger().in_place();
        let state = blocks(&[(0, Done), (1, Done), (2, Claimed(A)), (3, Claimed(B))]);
        assert_eq!(run(&mut ledger, &state, &[killed(A, 27)], 1), "limit 2; ");
        assert_eq!((ledger.torn_at(2), ledger.torn_at(3), ledger.rerun_rows), (Some(27), None, 0));
        let state = blocks(&[(0, Done), (1, Done), (2, Claimed(A)), (3, Done)]);
        assert_eq!(run(&mut ledger, &state, &[], 1), "");
        let end = run(&mut ledger, &state, &[], 0);
        assert_eq!(end, "fail: row 27 was running when its worker was killed by SIGKILL; ");
    }

    #[test]
    fn in_place_a_second_block_in_a_dead_workers_name_ends_the_call_too() {
        let mut ledger = ledger().in_place();
        let state = blocks(&[(0, Done), (1, Claimed(A)), (3, Claimed(A))]);
        let end = run(&mut ledger, &state, &[failed(A, 33)], 0);
        assert!(end.starts_with("limit 1; fail: row 10 was running when its worker exited"), "{end}");
    }

    #[test]
    fn in_place_rows_below_a_failure_are_still_done_and_a_corrupt_word_ends_the_call() {
        let mut ledger = ledger().in_place();
        let state = blocks(&[(0, Done), (2, Claimed(A))]);
        assert_eq!(run(&mut ledger, &state, &[failed(A, 27)], 0), "limit 2; spawn 1; ");
        let state = blocks(&[(0, Done), (1, Claimed(B)), (2, Claimed(A))]);
        assert_eq!(run(&mut ledger, &state, &[], 1), "");
        let state = blocks(&[(0, Done), (1, Claimed(B)), (2, Claimed(A)), (9, Corrupt)]);
        assert!(run(&mut ledger, &state, &[], 0).starts_with("fail: the control block was overwritten in block 9"));
    }

    #[test]
    fn a_corrupt_word_runs_everything_again_once() {
        let mut ledger = ledger();
        let state = blocks(&[(0, Done), (4, Corrupt)]);
        assert_eq!(run(&mut ledger, &state, &[], 2), "restart; ");
        assert_eq!(ledger.rerun_rows, 100);
        assert_eq!(run(&mut ledger, &blocks(&[]), &[], 0), "spawn 2; ");
        assert!(run(&mut ledger, &state, &[], 2).starts_with("fail: the control block was overwritten in block 4"));
    }
}
