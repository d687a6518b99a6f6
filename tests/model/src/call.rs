//! Models of the claim protocol.
//!
//! A worker is a thread, which ends where it is to die; the supervisor is the model's first thread,
//! and learns of a death by joining the thread, as it does by a readable pidfd: after all that the
//! worker stored. Rows are cells that the model watches: two accesses, one of them a write, of
//! which neither comes after the other, are an error.

use std::ops::Range;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use loom::thread::JoinHandle;

use crate::engine::blocks::RowBlocks;
use crate::engine::control::{CallKey, ClaimState, Control, Owner, digest};
use crate::sys::atomic::{mortal, step};
use crate::sys::shared::SharedPages;

pub(crate) const KEY: CallKey = CallKey { nonce: 42, number: 7 };
pub(crate) const A: Owner = Owner { slot: 0, generation: 0 };
pub(crate) const B: Owner = Owner { slot: 1, generation: 0 };
/// In the slot of A, after its death. (Two workers at a time are enough to be tried: it comes when
/// B has left.)
const HEIR: Owner = Owner { slot: 0, generation: 1 };

/// What all processes have.
pub(crate) struct World {
    pub(crate) blocks: RowBlocks,
    pub(crate) pages: SharedPages,
    rows: Vec<UnsafeCell<usize>>,
}

// SAFETY: the rows are watched by the model.
unsafe impl Sync for World {}

impl World {
    /// So many blocks of so many rows each, all free.
    pub(crate) fn new(n_blocks: usize, block_rows: usize) -> Self {
        let n_rows = n_blocks * block_rows;
        let blocks = RowBlocks::with_block_rows(n_rows, block_rows);
        let rows = (0..n_rows).map(|_| UnsafeCell::new(0)).collect();
        let world = Self { blocks, pages: SharedPages::default(), rows };
        // Comes to be before others look for it.
        assert_eq!(world.control(KEY).claims(n_blocks + 2).len(), n_blocks + 2);
        world.control(KEY).reset();
        world
    }

    pub(crate) fn control(&self, key: CallKey) -> Control<'_> {
        Control::in_pages(&self.pages, self.blocks.len(), 2, key)
    }

    /// What a kernel does.
    pub(crate) fn write(&self, row: usize, value: usize) {
        step();
        // SAFETY: as the model finds out.
        self.rows[row].with_mut(|cell| unsafe { *cell = value });
    }

    pub(crate) fn read(&self, row: usize) -> usize {
        // SAFETY: as the model finds out.
        self.rows[row].with(|cell| unsafe { *cell })
    }

    /// A worker's share of a call, as `work` in `src/engine/worker/mod.rs` has it.
    pub(crate) fn work(&self, key: CallKey, owner: Owner) {
        let (control, mut next) = (self.control(key), usize::MAX);
        while let Some(claim) = control.next_claim(&self.blocks, owner, &mut next) {
            let (index, rows) = (claim.block().index(), claim.block().rows());
            for row in rows.clone() {
                self.write(row, row + value_of(key));
            }
            claim.publish(digest_of(index, &rows));
        }
    }

    /// Does the first block, if it can be had.
    fn try_block(&self, owner: Owner) {
        let block = self.blocks.get(0).unwrap();
        if let Some(claim) = self.control(KEY).claims(1).try_claim(block, owner) {
            self.write(0, value_of(KEY));
            claim.publish(digest_of(0, &(0..1)));
        }
    }

    /// How the units are, and whether all are done or retired; then their rows are there, and with
    /// what they should be.
    pub(crate) fn look(&self, key: CallKey, units: &[Range<usize>]) -> (Vec<ClaimState>, bool) {
        let states =
            self.control(key).claims(units.len()).states(|unit| digest_of(unit, &units[unit]));
        assert!(!states.contains(&ClaimState::Corrupt), "{states:?}");
        let is_ended =
            |state: &ClaimState| matches!(state, ClaimState::Done(_) | ClaimState::Retired);
        let ended = states.iter().all(is_ended);
        for row in (0..self.rows.len()).filter(|_| ended) {
            assert_eq!(self.read(row), row + value_of(key), "row {row}");
        }
        (states, ended)
    }

    pub(crate) fn unit_rows(&self) -> Vec<Range<usize>> {
        (0..self.blocks.len()).map(|index| self.blocks.get(index).unwrap().rows()).collect()
    }
}

pub(crate) fn digest_of(index: usize, rows: &Range<usize>) -> u64 {
    digest(index, rows, std::iter::empty())
}

fn value_of(key: CallKey) -> usize {
    key.number as usize * 100
}

/// A and B at work, each in a thread; A dies after so many steps, if it is to. Whether each has
/// died.
fn at_work(
    world: &Arc<World>,
    steps: Option<u32>,
    work: fn(&World, Owner),
) -> [JoinHandle<bool>; 2] {
    [A, B].map(|owner| {
        let world = Arc::clone(world);
        let steps = steps.filter(|_| owner == A).unwrap_or(u32::MAX);
        thread::spawn(move || mortal(steps, || work(&world, owner)).is_none())
    })
}

/// What A's heir does when both have left, where they did not do all; then all is done.
fn finish(world: &World, units: &[Range<usize>], over: bool) {
    if !over {
        world.work(KEY, HEIR);
        assert!(world.look(KEY, units).1, "not all is done");
    }
}

/// A and B want the same block. A dies, and whatever the block's word is by then, the supervisor
/// frees what A has had of it; A's heir is there while B still is. The caller looks while they
/// work.
pub(crate) fn taken_over(steps: Option<u32>) -> bool {
    let world = Arc::new(World::new(1, 1));
    let units = world.unit_rows();
    let [a, b] = at_work(&world, steps, World::try_block);
    let died = a.join().unwrap();
    if died {
        world.control(KEY).claims(1).free(0, A, digest_of(0, &units[0]));
        world.try_block(HEIR);
    }
    world.look(KEY, &units);
    b.join().unwrap();
    assert!(world.look(KEY, &units).1, "not all is done");
    died
}

/// A and B want the same block. The supervisor has a block that is done done again, as it does when
/// what a crash may have spoilt is not to be trusted: by who comes for it, whether he has been
/// there all the time or comes now.
pub(crate) fn done_again(_: Option<u32>) -> bool {
    let world = Arc::new(World::new(1, 1));
    let units = world.unit_rows();
    let workers = at_work(&world, None, World::try_block);
    if world.look(KEY, &units).1 {
        world.control(KEY).claims(1).settle(0, ClaimState::Free, digest_of(0, &units[0]));
        world.try_block(HEIR);
    }
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(world.look(KEY, &units).1, "not all is done");
    false
}

/// A dies; B lives; what A held is freed and handed back. What is left when B has gone is done by
/// A's heir.
pub(crate) fn three_blocks(steps: Option<u32>) -> bool {
    let world = Arc::new(World::new(3, 1));
    let units = world.unit_rows();
    let [a, b] = at_work(&world, steps, |world, owner| world.work(KEY, owner));
    let died = a.join().unwrap();
    let control = world.control(KEY);
    let (states, over) = world.look(KEY, &units);
    for unit in (0..3).filter(|&unit| states[unit] == ClaimState::Claimed(A)) {
        assert!(died, "who lives publishes what it has won");
        control.claims(3).free(unit, A, digest_of(unit, &units[unit]));
        control.offer_first(unit);
    }
    b.join().unwrap();
    finish(&world, &units, over);
    died
}

/// A dies; what it held is retired, and its rows come back one by one. The memory has served a call
/// with pieces before.
pub(crate) fn pieces(steps: Option<u32>) -> bool {
    let world = Arc::new(World::new(2, 2));
    let before = CallKey { number: KEY.number - 1, ..KEY };
    for (unit, rows) in [(2, 2..3), (3, 3..4)] {
        world.control(before).add_piece(unit, &rows, ClaimState::Free, digest_of(unit, &rows));
    }
    world.control(KEY).reset();
    let mut units = world.unit_rows();
    let [a, b] = at_work(&world, steps, |world, owner| world.work(KEY, owner));
    let died = a.join().unwrap();
    let control = world.control(KEY);
    let (states, over) = world.look(KEY, &units);
    let held = states.iter().position(|state| *state == ClaimState::Claimed(A));
    if let Some(held) = held {
        let rows = units[held].clone();
        control.claims(2).settle(held, ClaimState::Retired, digest_of(held, &rows));
        for row in rows {
            let (unit, rows) = (units.len(), row..row + 1);
            control.add_piece(unit, &rows, ClaimState::Free, digest_of(unit, &rows));
            units.push(rows);
        }
        control.offer_first(2);
    }
    b.join().unwrap();
    finish(&world, &units, over);
    died
}

/// A has died with the only block, which comes back in pieces while B looks for something to do.
/// The memory has had other pieces before, under the same numbers.
pub(crate) fn pieces_come(_: Option<u32>) -> bool {
    let world = Arc::new(World::new(1, 2));
    let before = CallKey { number: KEY.number - 1, ..KEY };
    for (unit, rows) in [(1, 1..2), (2, 0..1)] {
        world.control(before).add_piece(unit, &rows, ClaimState::Free, digest_of(unit, &rows));
    }
    let control = world.control(KEY);
    control.reset();
    let mut units = world.unit_rows();
    let held = control.claims(1).try_claim(world.blocks.get(0).unwrap(), A);
    assert!(held.is_some(), "nobody else is there yet");
    let b = thread::spawn({
        let world = Arc::clone(&world);
        move || world.work(KEY, B)
    });
    control.claims(1).settle(0, ClaimState::Retired, digest_of(0, &units[0]));
    for (unit, rows) in [(1, 0..1), (2, 1..2)] {
        control.add_piece(unit, &rows, ClaimState::Free, digest_of(unit, &rows));
        units.push(rows);
    }
    control.offer_first(1);
    b.join().unwrap();
    world.work(KEY, HEIR);
    assert!(world.look(KEY, &units).1, "not all is done");
    false
}

/// A has done its part of a call and looks for more, while the caller begins the next on the same
/// words, where B comes in. The seals of both calls are the same, as they may be by accident.
pub(crate) fn late(_: Option<u32>) -> bool {
    let world = Arc::new(World::new(2, 1));
    let units = world.unit_rows();
    world.work(KEY, A);
    assert!(world.look(KEY, &units).1);
    let late = thread::spawn({
        let world = Arc::clone(&world);
        move || {
            let mut next = usize::MAX;
            let won = world.control(KEY).next_claim(&world.blocks, A, &mut next);
            assert!(won.is_none(), "{won:?} of the next call");
            world.control(KEY).is_over(&world.blocks)
        }
    });
    let next = CallKey { number: KEY.number + 1, ..KEY };
    let control = world.control(next);
    control.reset();
    let b = thread::spawn({
        let world = Arc::clone(&world);
        move || world.work(next, B)
    });
    control.offer_first(1); // a hint that the late one may take away
    b.join().unwrap();
    assert!(world.look(next, &units).1, "not all is done");
    late.join().unwrap();
    false
}
