//! The claim words: who works on which unit, and which units are done. `README.md` draws the bits.
//!
//! A word that another process might change at the same time is changed by compare-and-exchange.
//! Each step names the step in another process that its ordering pairs with. Workers call
//! [`Claims::try_claim`], [`Claims::longest_free_run`] and [`Claim::publish`]; the supervisor calls
//! the rest.
//!
//! Nothing here waits, allocates in a worker, or makes a system call. `tests/model` runs this very
//! file under loom, so every atomic comes from `sys::atomic`.

use std::ops::Range;

use crate::engine::blocks::RowBlock;
use crate::sys::atomic::{AtomicU64, Ordering};

/// The most workers that a claim word can name: 65,536.
pub(crate) const MAX_WORKERS: usize = 1 << WORKER_BITS;

/// The state takes the lowest two bits: four states, and none to spare.
const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const DONE: u64 = 2;
const RETIRED: u64 = 3;

/// The number of the worker's slot comes next.
const WORKER_BITS: u32 = 16;
/// Above it stands the generation of the process in that slot. It wraps after 65,536 processes, so
/// a word could name the wrong one only if it outlived as many successors; a unit is freed when its
/// owner's death is seen.
const GENERATION_SHIFT: u32 = STATE_BITS + WORKER_BITS;
const GENERATION_BITS: u32 = 16;
const _: () = assert!(
    WORKER_BITS + GENERATION_BITS == u32::BITS,
    "a free word has the number of the call there"
);

/// The seal of a word: the upper 30 bits, a hash over the bits below them, and more. See
/// [`sealed`].
const SEAL_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;

/// What the words of one call are sealed with. The caller makes one for each call and hands it to
/// the workers by the fork, or in a pool with the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallKey {
    /// A random value. It keeps a word of one call from looking valid in another, and a stray store
    /// from hitting a valid word by habit.
    pub(crate) nonce: u64,
    /// Which of the calls that the same memory serves in turn: in a pool the low 32 bits of a count
    /// of its calls, in fork mode always 0. A free word contains the number itself and not only its
    /// hash, so a worker that is late for one call takes no unit of the next, not even by an
    /// accident of the seal.
    pub(crate) number: u32,
}

/// One process: the worker slot, and which of the processes that held the slot in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    /// Which slot, from 0.
    pub(crate) slot: u16,
    /// How many processes held the slot before this one, modulo 2^16.
    pub(crate) generation: u16,
}

/// A claim word, decoded. Only the caller's side decodes a whole word, since that takes the rows of
/// the unit; a worker gets by with a [`Glance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimState {
    /// To be done, by the first worker that claims it.
    Free,
    /// This process works on it, or has died over it.
    Claimed(Owner),
    /// Its output is complete, and this process wrote it. (After a crash under guard everything
    /// that the crashed process wrote is done again, so the name matters.)
    Done(Owner),
    /// Not to be done: its rows are in pieces of it, or have failed.
    Retired,
    /// Not a value that the protocol writes for this unit in this call: a stray store has hit the
    /// word, or the rows that its worker went by.
    Corrupt,
}

/// The claim words of one call: a view of the shared memory, and the key to read it with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims<'a> {
    /// One word per unit: the blocks, then the pieces that there were when the view was made.
    words: &'a [AtomicU64],
    call: CallKey,
}

/// A won unit: proof that no other live process writes to its rows. Only [`Claims::try_claim`]
/// makes one.
///
/// If it is dropped without [`Claim::publish`], the unit stays claimed until the supervisor sees
/// this process die. That is the intention: a worker whose kernel fails keeps its claim, and the
/// claim tells the supervisor what the worker died over.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    block: RowBlock,
    word: &'a AtomicU64,
    /// The word as this process left it. If it has changed, [`Claim::publish`] must not overwrite
    /// it.
    claimed: u64,
    owner: Owner,
    nonce: u64,
}

/// What a unit is, as its seal has it: its number, its rows, and those of its rows that were passed
/// over.
///
/// The worker computes the digest of what it did, the supervisor the digest of what was to be done.
/// If a stray store has changed the rows of a piece, or an entry of the list of skipped rows, on
/// the way to the worker, the two differ and the word counts as corrupt.
pub(crate) fn digest(
    index: usize,
    rows: &Range<usize>,
    skipped: impl Iterator<Item = usize>,
) -> u64 {
    // An exclusive or, because it must not depend on the order of the list.
    let skipped = skipped.fold(0, |all, row| all ^ mix(row as u64));
    // One `mix` inside the other, because here the order counts: rows 2..7 are not rows 7..2.
    mix(index as u64 ^ mix(rows.start as u64 ^ mix(rows.end as u64 ^ skipped)))
}

impl<'a> Claims<'a> {
    /// A view of words that lie in the control block of the call of this key.
    pub(super) fn new(words: &'a [AtomicU64], call: CallKey) -> Self {
        Self { words, call }
    }

    /// In a worker: tries `FREE -> CLAIMED(owner)`. `None` when the unit is not free, or is of
    /// another call.
    ///
    /// Writing `block` from now on is safe for the holder of the claim; the exchange is what makes
    /// it so.
    pub(crate) fn try_claim(&self, block: RowBlock, owner: Owner) -> Option<Claim<'a>> {
        let word = &self.words[block.index()];
        // Relaxed: a stale value makes the exchange below fail, and nothing else is read on the
        // strength of this load. Looking first saves a write to a cache line that others read.
        let seen = word.load(Ordering::Relaxed);
        if self.read(seen, block.index()) != Glance::Free {
            return None;
        }
        // Acquire: pairs with the supervisor's Release in `free`, `settle` or `free_all`, so this
        // worker's stores come after those of the dead one that had the unit before. A failed
        // exchange means that another worker has the unit, so the caller looks elsewhere; no
        // ordering is needed for that.
        let claimed = self.open(CLAIMED | bits_of(owner), block.index());
        word.compare_exchange(seen, claimed, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Claim { block, word, claimed, owner, nonce: self.call.nonce })
    }

    /// The state of unit number `index`, if the unit is what `digest` says. Acquire: pairs with the
    /// Release of [`Claim::publish`], so a caller that finds `DONE` also finds the rows.
    pub(crate) fn state(&self, index: usize, digest: u64) -> ClaimState {
        self.decode(self.words[index].load(Ordering::Acquire), index, digest)
    }

    /// All states, in order, given the digest of each unit. Each word is loaded by itself: the
    /// result is no snapshot of one moment, and the supervisor relies on none. A word of a live
    /// worker may change after it has been loaded, but the word of a dead worker changes only by
    /// the supervisor's hand.
    pub(crate) fn states(&self, digest: impl Fn(usize) -> u64) -> Vec<ClaimState> {
        (0..self.words.len()).map(|index| self.state(index, digest(index))).collect()
    }

    /// Whether a unit is neither free nor claimed. A corrupt word counts as ended: workers leave it
    /// alone, and the supervisor finds it.
    pub(crate) fn is_ended(&self, index: usize) -> bool {
        self.glance(index) == Glance::Other
    }

    /// What a worker can say of a unit. Acquire, as in [`Claims::state`]: `Control::is_over` builds
    /// on it.
    fn glance(&self, index: usize) -> Glance {
        self.read(self.words[index].load(Ordering::Acquire), index)
    }

    /// Decodes a word as far as its seal depends on nothing but the unit's number.
    fn read(&self, word: u64, index: usize) -> Glance {
        let owner = owner_of(word);
        match word & STATE_MASK {
            FREE if word == self.free_word(index) => Glance::Free,
            CLAIMED if word == self.open(CLAIMED | bits_of(owner), index) => Glance::Claimed(owner),
            _ => Glance::Other,
        }
    }

    /// Decodes a word with knowledge of the unit. Whatever is not exactly what the protocol writes
    /// is [`ClaimState::Corrupt`]; there is no attempt to guess what it was.
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

    /// The free word of a unit. It has the number of the call where other words have worker and
    /// generation.
    fn free_word(&self, index: usize) -> u64 {
        self.open(FREE | u64::from(self.call.number) << STATE_BITS, index)
    }

    /// A word of a unit that is not ended. Its seal covers the unit's number but not its rows: a
    /// worker scans the words of units whose rows it has not looked up, and the rows are checked
    /// when the unit is done.
    fn open(&self, low: u64, index: usize) -> u64 {
        sealed(low, self.call.nonce, index as u64)
    }

    /// In a worker: where it should go on if it has none of the first `n` blocks yet, or has
    /// reached blocks that others have done. The place is as far from the other workers as
    /// possible, so that the worker has a long way to go through memory in order. `None` when no
    /// block is free.
    ///
    /// That is the longest run of free blocks, and the first of several that are equally long. The
    /// worker gets its middle if another worker is at work right before the run, and so on the way
    /// into it; else its start. Halving what is left again and again keeps the number of such
    /// searches small: each costs one load per block.
    ///
    /// The answer is out of date at once. Two workers may get the same one; the exchange in
    /// [`Claims::try_claim`] then decides, and the loser searches again.
    pub(crate) fn longest_free_run(&self, n: usize) -> Option<usize> {
        let (mut longest, mut start) = (0..0, 0);
        for index in 0..n {
            if self.glance(index) != Glance::Free {
                start = index + 1;
            } else if index + 1 - start > longest.len() {
                longest = start..index + 1;
            }
        }
        // `None` here means that the longest run is empty.
        let first = longest.clone().next()?;
        let pursued = first > 0 && matches!(self.glance(first - 1), Glance::Claimed(_));
        Some(if pursued { first + longest.len() / 2 } else { first })
    }

    /// In the supervisor: `CLAIMED(owner)` or `DONE` by it to `FREE`. Only once `owner` is known to
    /// be dead: its stores would otherwise meet those of the next owner. The call has no effect
    /// when the word says something else by now, so a unit that another worker owns stays with it.
    pub(crate) fn free(&self, index: usize, owner: Owner, digest: u64) {
        let word = &self.words[index];
        // Relaxed: the supervisor has seen the death, and no live process changes a word of the
        // dead one.
        let seen = word.load(Ordering::Relaxed);
        let was = self.decode(seen, index, digest);
        if ![ClaimState::Claimed(owner), ClaimState::Done(owner)].contains(&was) {
            return;
        }
        let free = self.free_word(index);
        // Release: the next claimer's Acquire orders its stores after the death that was seen. If
        // the exchange fails, a stray store has come between, and the next look at the word finds
        // that out.
        let _ = word.compare_exchange(seen, free, Ordering::Release, Ordering::Relaxed);
    }

    /// In the supervisor: its word on a unit that no live worker holds, whatever was there: to be
    /// done, done, or not to be done.
    ///
    /// For a state that the supervisor never assigns (`Claimed`, `Corrupt`) it writes `RETIRED`,
    /// the one state in which nobody touches the rows.
    pub(crate) fn settle(&self, index: usize, state: ClaimState, digest: u64) {
        let word = match state {
            ClaimState::Free => self.free_word(index),
            ClaimState::Done(owner) => sealed(DONE | bits_of(owner), self.call.nonce, digest),
            ClaimState::Claimed(_) | ClaimState::Retired | ClaimState::Corrupt => {
                sealed(RETIRED, self.call.nonce, digest)
            }
        };
        // Release: as in `free`. For `FREE` it orders the next owner's stores after everything that
        // the supervisor knows of, the rows of the last owner included.
        self.words[index].store(word, Ordering::Release);
    }

    /// Frees every block, whatever its word says. Only while no worker works on this call: a store,
    /// unlike an exchange, asks nobody.
    pub(super) fn free_all(&self) {
        for (index, word) in self.words.iter().enumerate() {
            // Release: not needed as the code stands, because the fork, or in a pool the Release of
            // the board's sequence, comes after it and before any claim.
            word.store(self.free_word(index), Ordering::Release);
        }
    }

    /// How many units this view has: the blocks, and the pieces that there were when it was made.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}

/// What can be said of a word without knowing the rows of the unit: all that a worker asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glance {
    /// To be claimed.
    Free,
    /// Another worker is at it, or has died over it.
    Claimed(Owner),
    /// Done, retired or corrupt: there is no work for a worker here.
    Other,
}

/// A word with its seal, in the call of this nonce. `low` has the bits below the seal, `digest`
/// what the word says of its unit.
///
/// A stray store, even of zeros, passes for such a word with a chance of one in 2^30: for each
/// `low` one of as many seals is right. The seal is a checksum against accidents. It is no
/// protection against a kernel that wants to forge a word, since the nonce can be read.
fn sealed(low: u64, nonce: u64, digest: u64) -> u64 {
    low | mix(nonce ^ mix(low) ^ digest) >> SEAL_SHIFT << SEAL_SHIFT
}

impl Claim<'_> {
    /// The unit that was won, with its number and rows.
    pub(crate) fn block(&self) -> &RowBlock {
        &self.block
    }

    /// In a worker: says that the output of the unit is complete, and that `digest` describes what
    /// was done. The last thing that a worker does with a unit.
    pub(crate) fn publish(self, digest: u64) {
        let done = sealed(DONE | bits_of(self.owner), self.nonce, digest);
        // Release: pairs with the Acquire in `Claims::state`, so a process that sees `DONE` sees
        // the rows. A word that is no longer our claim was overwritten. The exchange fails then and
        // the result is dropped on purpose: the supervisor must find the strange word, not a `DONE`
        // over it.
        let _ =
            self.word.compare_exchange(self.claimed, done, Ordering::Release, Ordering::Relaxed);
    }
}

/// Worker and generation at their places in a word, the other bits 0.
fn bits_of(owner: Owner) -> u64 {
    u64::from(owner.slot) << STATE_BITS | u64::from(owner.generation) << GENERATION_SHIFT
}

/// The inverse of [`bits_of`]. It cuts the bits out of any word; whether they mean an owner is for
/// the seal to say.
#[expect(clippy::cast_possible_truncation, reason = "16-bit fields are cut out of the word")]
fn owner_of(word: u64) -> Owner {
    Owner { slot: (word >> STATE_BITS) as u16, generation: (word >> GENERATION_SHIFT) as u16 }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014). It is a bijection that scatters neighbouring inputs, so units with
/// neighbouring numbers and rows get unlike seals. It costs two multiplications, and a claim needs
/// a few of them.
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

    /// Block number `index` of ten blocks of one row each.
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
