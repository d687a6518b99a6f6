//! The claim words: who works on which block, and which blocks are done. The bits are drawn in
//! `README.md`.

use std::ops::Range;

use crate::engine::blocks::RowBlock;
use crate::sys::atomic::{AtomicU64, Ordering};

/// The most workers that a claim word can name.
pub(crate) const MAX_WORKERS: usize = 1 << WORKER_BITS;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const DONE: u64 = 2;
const RETIRED: u64 = 3;

const WORKER_BITS: u32 = 16;
const GENERATION_SHIFT: u32 = STATE_BITS + WORKER_BITS;
const GENERATION_BITS: u32 = 16;
const _: () = assert!(
    WORKER_BITS + GENERATION_BITS == u32::BITS,
    "a free word has the number of the call there"
);

/// The seal of a word: hash bits over what lies below them, and more.
const SEAL_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;

/// What the words of one call are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallKey {
    /// Nobody can guess it.
    pub(crate) nonce: u64,
    /// Which of the calls that the same memory serves in turn. A worker that is late for one takes
    /// no unit of the next, not even by an accident of the seal.
    pub(crate) number: u32,
}

/// One process: the worker slot, and which of the processes that held the slot in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) slot: u16,
    pub(crate) generation: u16,
}

/// A claim word, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimState {
    Free,
    Claimed(Owner),
    /// By whom.
    Done(Owner),
    /// Not to be done: its rows are in pieces of it, or are settled.
    Retired,
    /// Not a value that the protocol writes.
    Corrupt,
}

/// The claim words of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims<'a> {
    words: &'a [AtomicU64],
    call: CallKey,
}

/// A won block: proof that no other live process writes to its rows.
///
/// Dropped without [`Claim::publish`] the block stays claimed, until the supervisor sees this
/// process die.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    block: RowBlock,
    word: &'a AtomicU64,
    claimed: u64,
    owner: Owner,
    nonce: u64,
}

/// What a unit is, as its seal has it: its number, its rows, and which of these are passed over.
/// The worker seals what it did, the supervisor looks for what was to be done, so that rows which a
/// stray store has changed on the way are found out.
pub(crate) fn digest(
    index: usize,
    rows: &Range<usize>,
    skipped: impl Iterator<Item = usize>,
) -> u64 {
    let skipped = skipped.fold(0, |all, row| all ^ mix(row as u64));
    mix(index as u64 ^ mix(rows.start as u64 ^ mix(rows.end as u64 ^ skipped)))
}

impl<'a> Claims<'a> {
    pub(super) fn new(words: &'a [AtomicU64], call: CallKey) -> Self {
        Self { words, call }
    }

    /// Tries `FREE -> CLAIMED(owner)`. `None` when the block is not free.
    pub(crate) fn try_claim(&self, block: RowBlock, owner: Owner) -> Option<Claim<'a>> {
        let word = &self.words[block.index()];
        let seen = word.load(Ordering::Relaxed);
        if self.read(seen, block.index()) != Glance::Free {
            return None;
        }
        // Acquire: pairs with the supervisor's Release in `free`, so this worker's stores come
        // after those of the dead one that had the block before. A failed exchange means that
        // somebody else has it: look elsewhere.
        let claimed = self.open(CLAIMED | bits_of(owner), block.index());
        word.compare_exchange(seen, claimed, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Claim { block, word, claimed, owner, nonce: self.call.nonce })
    }

    /// The state of unit number `index`. Acquire: pairs with the Release of [`Claim::publish`].
    pub(crate) fn state(&self, index: usize, digest: u64) -> ClaimState {
        self.decode(self.words[index].load(Ordering::Acquire), index, digest)
    }

    /// All states, in order, given the digest of each unit.
    pub(crate) fn states(&self, digest: impl Fn(usize) -> u64) -> Vec<ClaimState> {
        (0..self.words.len()).map(|index| self.state(index, digest(index))).collect()
    }

    /// Whether a unit is neither free nor claimed.
    pub(crate) fn is_ended(&self, index: usize) -> bool {
        self.glance(index) == Glance::Other
    }

    fn glance(&self, index: usize) -> Glance {
        self.read(self.words[index].load(Ordering::Acquire), index)
    }

    fn read(&self, word: u64, index: usize) -> Glance {
        let owner = owner_of(word);
        match word & STATE_MASK {
            FREE if word == self.free_word(index) => Glance::Free,
            CLAIMED if word == self.open(CLAIMED | bits_of(owner), index) => Glance::Claimed(owner),
            _ => Glance::Other,
        }
    }

    fn decode(&self, word: u64, index: usize, digest: u64) -> ClaimState {
        let owner = owner_of(word);
        match (self.read(word, index), word & STATE_MASK) {
            (Glance::Free, _) => ClaimState::Free,
            (Glance::Claimed(owner), _) => ClaimState::Claimed(owner),
            (_, DONE) if word == sealed(DONE | bits_of(owner), self.call.nonce, digest) => {
                ClaimState::Done(owner)
            }
            (_, RETIRED) if word == sealed(RETIRED, self.call.nonce, digest) => ClaimState::Retired,
            _ => ClaimState::Corrupt,
        }
    }

    /// Where others have worker and generation it has the number of the call.
    fn free_word(&self, index: usize) -> u64 {
        self.open(FREE | u64::from(self.call.number) << STATE_BITS, index)
    }

    /// A word of a unit that is not ended: its seal knows of the unit no more than the number.
    fn open(&self, low: u64, index: usize) -> u64 {
        sealed(low, self.call.nonce, index as u64)
    }

    /// Where a worker should begin that has none of the first `n` blocks yet, or has reached what
    /// others have done: as far from the others as can be, so that it has a long way to go through
    /// memory in order. `None` when no block is free.
    ///
    /// That is the longest run of free blocks: its middle if somebody is at work right before it,
    /// and on the way into it; else its start.
    pub(crate) fn longest_free_run(&self, n: usize) -> Option<usize> {
        let (mut longest, mut start) = (0..0, 0);
        for index in 0..n {
            if self.glance(index) != Glance::Free {
                start = index + 1;
            } else if index + 1 - start > longest.len() {
                longest = start..index + 1;
            }
        }
        let first = longest.clone().next()?;
        let pursued = first > 0 && matches!(self.glance(first - 1), Glance::Claimed(_));
        Some(if pursued { first + longest.len() / 2 } else { first })
    }

    /// `CLAIMED(owner)` or `DONE` by it to `FREE`. Only once `owner` is known to be dead; without
    /// effect when the word says something else by now.
    pub(crate) fn free(&self, index: usize, owner: Owner, digest: u64) {
        let word = &self.words[index];
        let seen = word.load(Ordering::Relaxed);
        let was = self.decode(seen, index, digest);
        if ![ClaimState::Claimed(owner), ClaimState::Done(owner)].contains(&was) {
            return;
        }
        let free = self.free_word(index);
        // Release: the next claimer's Acquire orders its stores after the death that was seen.
        let _ = word.compare_exchange(seen, free, Ordering::Release, Ordering::Relaxed);
    }

    /// The supervisor's word on a unit that no live worker holds, whatever was there: to be done,
    /// done, or not to be done.
    pub(crate) fn settle(&self, index: usize, state: ClaimState, digest: u64) {
        let word = match state {
            ClaimState::Free => self.free_word(index),
            ClaimState::Done(owner) => sealed(DONE | bits_of(owner), self.call.nonce, digest),
            ClaimState::Claimed(_) | ClaimState::Retired | ClaimState::Corrupt => {
                sealed(RETIRED, self.call.nonce, digest)
            }
        };
        // Release: as in `free`.
        self.words[index].store(word, Ordering::Release);
    }

    /// Frees every block, whatever its word says. Only while no worker lives.
    pub(super) fn free_all(&self) {
        for (index, word) in self.words.iter().enumerate() {
            word.store(self.free_word(index), Ordering::Release);
        }
    }

    /// How many units there are.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}

/// What can be said of a word without knowing the unit: all that a worker asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glance {
    Free,
    Claimed(Owner),
    /// Done, retired or corrupt: nothing to be had here.
    Other,
}

/// A word with its seal, in the call of this nonce: no stray store is taken for one, not even of
/// zeros.
fn sealed(low: u64, nonce: u64, digest: u64) -> u64 {
    low | mix(nonce ^ mix(low) ^ digest) >> SEAL_SHIFT << SEAL_SHIFT
}

impl Claim<'_> {
    /// The block that was won.
    pub(crate) fn block(&self) -> &RowBlock {
        &self.block
    }

    /// Says that the output of the unit is complete: of what [`digest`] says.
    pub(crate) fn publish(self, digest: u64) {
        let done = sealed(DONE | bits_of(self.owner), self.nonce, digest);
        // Release: pairs with the Acquire in `Claims::state`; whoever sees DONE sees the rows. A
        // word that is not our claim any more was overwritten: let the supervisor see that.
        let _ =
            self.word.compare_exchange(self.claimed, done, Ordering::Release, Ordering::Relaxed);
    }
}

fn bits_of(owner: Owner) -> u64 {
    u64::from(owner.slot) << STATE_BITS | u64::from(owner.generation) << GENERATION_SHIFT
}

#[expect(clippy::cast_possible_truncation, reason = "16-bit fields are cut out of the word")]
fn owner_of(word: u64) -> Owner {
    Owner { slot: (word >> STATE_BITS) as u16, generation: (word >> GENERATION_SHIFT) as u16 }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters neighbouring
/// inputs.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::blocks::RowBlocks;

    const FIRST: Owner = Owner { slot: 0, generation: 0 };
    const SECOND: Owner = Owner { slot: 65_535, generation: 65_535 };

    const KEY: CallKey = CallKey { nonce: 42, number: 7 };

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }

    fn block(index: usize) -> RowBlock {
        RowBlocks::with_block_rows(10, 1).get(index).unwrap()
    }

    #[test]
    fn a_block_has_one_owner_until_that_owner_is_dead() {
        let words = words(10);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        let claim = claims.try_claim(block(3), FIRST).unwrap();
        assert_eq!(claims.state(3, 3), ClaimState::Claimed(FIRST));
        assert!(claims.try_claim(block(3), SECOND).is_none());
        let _ = claim; // dies without publishing
        claims.free(3, SECOND, 3);
        claims.free(3, Owner { generation: 1, ..FIRST }, 3);
        assert_eq!(
            claims.state(3, 3),
            ClaimState::Claimed(FIRST),
            "another worker's death frees nothing"
        );
        claims.free(3, FIRST, 3);
        assert_eq!(claims.state(3, 3), ClaimState::Free);
        claims.try_claim(block(3), SECOND).unwrap().publish(3);
        assert_eq!(claims.state(3, 3), ClaimState::Done(SECOND));
        claims.free(3, FIRST, 3);
        assert_eq!(claims.state(3, 3), ClaimState::Done(SECOND), "another's block stays done");
        claims.free(3, SECOND, 3);
        assert_eq!(
            claims.state(3, 3),
            ClaimState::Free,
            "what a dead worker has done may be wanted again"
        );
    }

    #[test]
    fn what_is_settled_is_claimed_by_nobody() {
        let words = words(10);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        claims.settle(3, ClaimState::Retired, 3);
        claims.settle(4, ClaimState::Done(FIRST), 4);
        assert_eq!(
            (claims.state(3, 3), claims.state(4, 4)),
            (ClaimState::Retired, ClaimState::Done(FIRST))
        );
        assert!(
            claims.try_claim(block(3), SECOND).is_none()
                && claims.try_claim(block(4), SECOND).is_none()
        );
        claims.free(3, FIRST, 3);
        assert_eq!(claims.state(3, 3), ClaimState::Retired);
        claims.settle(4, ClaimState::Free, 4);
        assert!(claims.try_claim(block(4), SECOND).is_some());
    }

    #[test]
    fn workers_begin_far_from_each_other() {
        let words = words(10);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        assert_eq!(claims.longest_free_run(10), Some(0));
        let first = claims.try_claim(block(0), FIRST).unwrap();
        assert_eq!(claims.longest_free_run(10), Some(5), "the middle of 1..10");
        let _second = claims.try_claim(block(5), SECOND).unwrap();
        assert_eq!(claims.longest_free_run(10), Some(3), "of 1..5 and 6..10 the first");
        assert_eq!(claims.longest_free_run(3), Some(2));
        first.publish(0);
        assert_eq!(claims.longest_free_run(10), Some(1), "nobody is on the way to block 1");
        assert_eq!((claims.longest_free_run(1), claims.longest_free_run(0)), (None, None));
    }

    #[test]
    fn a_done_word_of_another_block_or_call_is_corruption() {
        let words = words(2);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        claims.try_claim(block(0), FIRST).unwrap().publish(0);
        let done = words[0].load(Ordering::Relaxed);
        words[1].store(done, Ordering::Relaxed);
        assert_eq!(claims.state(1, 1), ClaimState::Corrupt);
        assert_eq!(
            Claims::new(&words, CallKey { nonce: 2, ..KEY }).state(0, 0),
            ClaimState::Corrupt
        );
        words[0].store(done ^ 1 << STATE_BITS, Ordering::Relaxed);
        assert_eq!(
            claims.state(0, 0),
            ClaimState::Corrupt,
            "another worker's name under the same seal"
        );
    }

    #[test]
    fn a_word_seals_what_was_done() {
        let digests = [
            digest(7, &(10..20), [].into_iter()),
            digest(8, &(10..20), [].into_iter()),
            digest(7, &(10..19), [].into_iter()),
            digest(7, &(11..20), [].into_iter()),
            digest(7, &(10..20), [12].into_iter()),
            digest(7, &(10..20), [12, 13].into_iter()),
        ];
        let words = words(1);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        claims.try_claim(block(0), FIRST).unwrap().publish(digests[0]);
        let states = digests.map(|digest| claims.state(0, digest));
        assert_eq!(states[0], ClaimState::Done(FIRST));
        assert!(states[1..].iter().all(|state| *state == ClaimState::Corrupt), "{states:?}");
    }

    #[test]
    fn who_is_late_for_a_call_takes_nothing_of_the_next() {
        let words = words(10);
        let late = Claims::new(&words, KEY);
        late.free_all();
        Claims::new(&words, CallKey { number: KEY.number + 1, ..KEY }).free_all();
        assert!(late.try_claim(block(3), FIRST).is_none());
        assert_eq!(late.longest_free_run(10), None);
    }

    #[test]
    fn stray_values_are_corruption() {
        let words = words(1);
        let claims = Claims::new(&words, KEY);
        claims.free_all();
        for value in
            [0, 1, 2, 3, u64::MAX, 0x3ff0_0000_0000_0000, 1 << 63, FREE | 4, CLAIMED | 1 << 50]
        {
            words[0].store(value, Ordering::Relaxed);
            assert_eq!(claims.state(0, 0), ClaimState::Corrupt, "{value:#x}");
            assert!(claims.try_claim(block(0), FIRST).is_none());
        }
    }
}
