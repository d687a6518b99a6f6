//! The claim words: who works on which block, and which blocks are done. The bits are drawn in `README.md`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::blocks::RowBlock;

/// The most workers that a claim word can name.
pub(crate) const MAX_WORKERS: usize = 1 << WORKER_BITS;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const DONE: u64 = 2;

const WORKER_BITS: u32 = 16;
const GENERATION_SHIFT: u32 = STATE_BITS + WORKER_BITS;
const GENERATION_BITS: u32 = 16;
const ATTEMPT_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;
const ATTEMPT_MAX: u64 = 0xff;

/// One process: the worker slot, and which of the processes that held the slot in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) slot: u16,
    pub(crate) generation: u16,
}

/// A claim word, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimState {
    Free,
    Claimed(Owner),
    Done,
    /// Not a value that the protocol writes.
    Corrupt,
}

/// The claim words of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims<'a> {
    words: &'a [AtomicU64],
    nonce: u64,
}

/// A won block: proof that no other live process writes to its rows.
///
/// Dropped without [`Claim::publish`] the block stays claimed, until the supervisor sees this process die.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    block: RowBlock,
    word: &'a AtomicU64,
    done_word: u64,
}

impl<'a> Claims<'a> {
    pub(super) fn new(words: &'a [AtomicU64], nonce: u64) -> Self {
        Self { words, nonce }
    }

    /// Tries `FREE -> CLAIMED(owner)`. `None` when the block is not free.
    pub(crate) fn try_claim(&self, block: RowBlock, owner: Owner) -> Option<Claim<'a>> {
        let word = &self.words[block.index()];
        let seen = word.load(Ordering::Relaxed);
        if decode(seen, self.done_word(block.index())) != ClaimState::Free {
            return None;
        }
        // Acquire: pairs with the supervisor's Release in `free`, so this worker's stores come after those of the
        // dead one that had the block before. A failed exchange means that somebody else has it: look elsewhere.
        word.compare_exchange(seen, encode_claim(owner, attempt_of(seen)), Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Claim { done_word: self.done_word(block.index()), block, word })
    }

    /// The state of block number `index`. Acquire: pairs with the Release of [`Claim::publish`].
    pub(crate) fn state(&self, index: usize) -> ClaimState {
        decode(self.words[index].load(Ordering::Acquire), self.done_word(index))
    }

    /// Where a worker should begin that has none of the first `n` blocks yet, or has reached what others have done: as far
    /// from the others as can be, so that it has a long way to go through memory in order. `None` when no block is free.
    ///
    /// That is the longest run of free blocks: its middle if somebody is at work right before it, and on the way into it;
    /// else its start.
    pub(crate) fn clear_way(&self, n: usize) -> Option<usize> {
        let (mut longest, mut start) = (0..0, 0);
        for index in 0..n {
            if self.state(index) != ClaimState::Free {
                start = index + 1;
            } else if index + 1 - start > longest.len() {
                longest = start..index + 1;
            }
        }
        let first = longest.clone().next()?;
        let pursued = first > 0 && matches!(self.state(first - 1), ClaimState::Claimed(_));
        Some(if pursued { first + longest.len() / 2 } else { first })
    }

    /// Whether any of the first `n` blocks is free.
    pub(crate) fn any_free(&self, n: usize) -> bool {
        (0..n).any(|index| self.state(index) == ClaimState::Free)
    }

    /// All states, in order.
    pub(crate) fn states(&self) -> Vec<ClaimState> {
        (0..self.words.len()).map(|index| self.state(index)).collect()
    }

    /// `CLAIMED(owner) -> FREE`, counting one attempt more. Only once `owner` is known to be dead; without effect
    /// when the word says something else by now.
    pub(crate) fn free(&self, index: usize, owner: Owner) {
        let word = &self.words[index];
        let seen = word.load(Ordering::Relaxed);
        if decode(seen, self.done_word(index)) == ClaimState::Claimed(owner) {
            let attempt = (attempt_of(seen) + 1).min(ATTEMPT_MAX);
            // Release: the next claimer's Acquire orders its stores after the death that was seen.
            let _ = word.compare_exchange(seen, FREE | attempt << ATTEMPT_SHIFT, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Frees every block, whatever its word says. Only while no worker lives.
    pub(super) fn free_all(&self) {
        for word in self.words {
            word.store(FREE, Ordering::Release);
        }
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// The one value of word `index` that means done, in this call.
    fn done_word(&self, index: usize) -> u64 {
        mix(self.nonce ^ index as u64) << STATE_BITS | DONE
    }
}

impl Claim<'_> {
    /// The block that was won.
    pub(crate) fn block(&self) -> &RowBlock {
        &self.block
    }

    /// Says that the output of the block is complete.
    pub(crate) fn publish(self) {
        // Release: pairs with the Acquire in `Claims::state`; whoever sees DONE sees the rows.
        self.word.store(self.done_word, Ordering::Release);
    }
}

fn encode_claim(owner: Owner, attempt: u64) -> u64 {
    CLAIMED
        | u64::from(owner.slot) << STATE_BITS
        | u64::from(owner.generation) << GENERATION_SHIFT
        | attempt << ATTEMPT_SHIFT
}

fn attempt_of(word: u64) -> u64 {
    word >> ATTEMPT_SHIFT & ATTEMPT_MAX
}

#[expect(clippy::cast_possible_truncation, reason = "16-bit fields are cut out of the word")]
fn decode(word: u64, done_word: u64) -> ClaimState {
    let attempt = attempt_of(word);
    let owner = Owner { slot: (word >> STATE_BITS) as u16, generation: (word >> GENERATION_SHIFT) as u16 };
    match word & STATE_MASK {
        FREE if word == FREE | attempt << ATTEMPT_SHIFT => ClaimState::Free,
        CLAIMED if word == encode_claim(owner, attempt) => ClaimState::Claimed(owner),
        DONE if word == done_word => ClaimState::Done,
        _ => ClaimState::Corrupt,
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters neighbouring inputs.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::RowBlocks;

    const FIRST: Owner = Owner { slot: 0, generation: 0 };
    const SECOND: Owner = Owner { slot: 65_535, generation: 65_535 };

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(FREE)).collect()
    }

    fn block(index: usize) -> RowBlock {
        RowBlocks::with_block_rows(10, 1).get(index).unwrap()
    }

    #[test]
    fn a_block_has_one_owner_until_that_owner_is_dead() {
        let words = words(10);
        let claims = Claims::new(&words, 42);
        let claim = claims.try_claim(block(3), FIRST).unwrap();
        assert_eq!(claims.state(3), ClaimState::Claimed(FIRST));
        assert!(claims.try_claim(block(3), SECOND).is_none());
        let _ = claim; // dies without publishing
        claims.free(3, SECOND);
        claims.free(3, Owner { generation: 1, ..FIRST });
        assert_eq!(claims.state(3), ClaimState::Claimed(FIRST), "another worker's death frees nothing");
        claims.free(3, FIRST);
        assert_eq!(claims.state(3), ClaimState::Free);
        claims.try_claim(block(3), SECOND).unwrap().publish();
        assert_eq!(claims.state(3), ClaimState::Done);
        claims.free(3, SECOND);
        assert_eq!(claims.state(3), ClaimState::Done, "done is for ever");
    }

    #[test]
    fn workers_begin_far_from_each_other() {
        let words = words(10);
        let claims = Claims::new(&words, 42);
        assert_eq!(claims.clear_way(10), Some(0));
        let first = claims.try_claim(block(0), FIRST).unwrap();
        assert_eq!(claims.clear_way(10), Some(5), "the middle of 1..10");
        let _second = claims.try_claim(block(5), SECOND).unwrap();
        assert_eq!(claims.clear_way(10), Some(3), "of 1..5 and 6..10 the first");
        assert_eq!(claims.clear_way(3), Some(2));
        first.publish();
        assert_eq!(claims.clear_way(10), Some(1), "nobody is on the way to block 1");
        assert_eq!((claims.clear_way(1), claims.clear_way(0)), (None, None));
    }

    #[test]
    fn the_attempt_counter_saturates() {
        let words = words(1);
        let claims = Claims::new(&words, 7);
        for _ in 0..1000 {
            assert!(claims.try_claim(block(0), SECOND).is_some());
            claims.free(0, SECOND);
        }
        assert_eq!(claims.state(0), ClaimState::Free);
        assert_eq!(attempt_of(words[0].load(Ordering::Relaxed)), ATTEMPT_MAX);
    }

    #[test]
    fn a_done_word_of_another_block_or_call_is_corruption() {
        let words = words(2);
        let claims = Claims::new(&words, 1);
        claims.try_claim(block(0), FIRST).unwrap().publish();
        let done = words[0].load(Ordering::Relaxed);
        words[1].store(done, Ordering::Relaxed);
        assert_eq!(claims.state(1), ClaimState::Corrupt);
        assert_eq!(Claims::new(&words, 2).state(0), ClaimState::Corrupt);
    }

    #[test]
    fn stray_values_are_corruption() {
        let words = words(1);
        let claims = Claims::new(&words, 1);
        for value in [3, u64::MAX, 0x3ff0_0000_0000_0000, 1 << 63, FREE | 4, CLAIMED | 1 << 50] {
            words[0].store(value, Ordering::Relaxed);
            assert_eq!(claims.state(0), ClaimState::Corrupt, "{value:#x}");
            assert!(claims.try_claim(block(0), FIRST).is_none());
        }
    }
}
