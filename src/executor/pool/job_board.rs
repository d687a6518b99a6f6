//! What the caller of a pool and its workers look at all the time, in shared memory: which job
//! there is, who sleeps, and who wants to be woken. Atomics only, as in the control block, which
//! lies beside it.
//!
//! | word | written by | says |
//! |---|---|---|
//! | `sequence` | the caller | changes with every job; odd while the record below is being written |
//! | record | the caller | the job, sealed |
//! | `caller_sleeps` | the caller | it wants the wakeup to be rung when nothing is left to do |
//! | `messages_sent` | the zygote | how many messages it has sent to the caller |
//! | post `w`: `asleep` | worker `w` | it has to be woken by a message |
//! | post `w`: `sent` | the caller | how many messages it has sent to the worker |
//!
//! A record is read whole or not at all: the reader copies it, looks whether the sequence is still
//! the same, and checks the seal, so that neither the next job nor a stray store is taken for a
//! part of it.
//!
//! # Safety
//! As in `control`: types of atomics alone.
#![allow(unsafe_code, reason = "marks the types that may lie in shared memory")]

use std::io;

use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sys::shared::{AllAtomic, SharedPages};

/// The most words of a record. What is longer travels in a segment of its own.
pub(super) const RECORD_WORDS: usize = 4096;

/// Two cache lines, which processors fetch in pairs.
#[repr(C, align(128))]
#[derive(Default)]
struct Sequence {
    sequence: AtomicU64,
}

#[repr(C, align(128))]
#[derive(Default)]
struct CallerWords {
    caller_sleeps: AtomicU32,
}

#[repr(C, align(128))]
#[derive(Default)]
struct MessagesSent {
    sent: AtomicU64,
}

/// A worker's words.
#[repr(C, align(128))]
#[derive(Default)]
pub(super) struct WorkerWords {
    asleep: AtomicU32,
    sent: AtomicU32,
}

/// What stands before the words of a record.
#[repr(C)]
#[derive(Default)]
struct RecordHeader {
    len: AtomicU64,
    seal: AtomicU64,
}

// SAFETY: atomics only, and padding that nobody reads; here and below.
unsafe impl AllAtomic for Sequence {}
// SAFETY: as above.
unsafe impl AllAtomic for CallerWords {}
// SAFETY: as above.
unsafe impl AllAtomic for MessagesSent {}
// SAFETY: as above.
unsafe impl AllAtomic for WorkerWords {}
// SAFETY: as above.
unsafe impl AllAtomic for RecordHeader {}

const CALLER_WORDS_AT: usize = size_of::<Sequence>();
const MESSAGES_SENT_AT: usize = CALLER_WORDS_AT + size_of::<CallerWords>();
const HEADER_AT: usize = MESSAGES_SENT_AT + size_of::<MessagesSent>();
const WORDS_AT: usize = HEADER_AT + size_of::<RecordHeader>();
const WORKER_WORDS_AT: usize =
    (WORDS_AT + RECORD_WORDS * size_of::<AtomicU64>()).next_multiple_of(align_of::<WorkerWords>());

/// The board of one pool.
#[derive(Debug)]
pub(super) struct JobBoard {
    pages: SharedPages,
    n_workers: usize,
}

impl JobBoard {
    /// With no job on it, for so many workers.
    ///
    /// # Errors
    /// That of `mmap`.
    pub(super) fn new(n_workers: usize) -> io::Result<Self> {
        Ok(Self {
            pages: SharedPages::new(WORKER_WORDS_AT + n_workers * size_of::<WorkerWords>())?,
            n_workers,
        })
    }

    /// Keeps it from the children of later forks of this process.
    pub(super) fn keep_from_children(&self) {
        self.pages.keep_from_children();
    }

    /// The sequence. A job is there when it is another than the last, and even.
    pub(super) fn sequence(&self) -> u64 {
        self.head().sequence.load(Ordering::Acquire)
    }

    /// In the caller: takes the job away, so that nobody takes it up any more who has not yet.
    pub(super) fn clear(&self) {
        let sequence = &self.head().sequence;
        let now = sequence.load(Ordering::Relaxed);
        sequence.store((now + 1) | 1, Ordering::Relaxed);
        // Nothing that is written from here on is seen by one who does not see the sequence
        // changed.
        fence(Ordering::Release);
    }

    /// In the caller, after [`clear`](Self::clear): puts a job on the board.
    ///
    /// # Panics
    /// For a record of more than [`RECORD_WORDS`] words.
    pub(super) fn put(&self, words: &[u64]) {
        let (header, cells) = (self.header(), self.words());
        assert!(words.len() <= cells.len(), "a record of {} words", words.len());
        for (cell, &word) in cells.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        header.len.store(words.len() as u64, Ordering::Relaxed);
        header.seal.store(seal(words), Ordering::Relaxed);
        let sequence = &self.head().sequence;
        // Release: who sees the sequence sees the record, and the control block as it was made
        // ready for it.
        sequence.store(sequence.load(Ordering::Relaxed) + 1, Ordering::Release);
        // A worker that goes to sleep looks at the sequence after it has said so, and the caller
        // looks who sleeps after it has changed the sequence: one of them sees the other.
        fence(Ordering::SeqCst);
    }

    /// In a worker: copies the record of this sequence. `None` when it is another's by now, or not
    /// what it should be.
    pub(super) fn read<'b>(&self, sequence: u64, buffer: &'b mut [u64]) -> Option<&'b [u64]> {
        let header = self.header();
        let len = usize::try_from(header.len.load(Ordering::Relaxed)).ok()?;
        let words = buffer.get_mut(..len)?;
        for (word, cell) in words.iter_mut().zip(self.words()) {
            *word = cell.load(Ordering::Relaxed);
        }
        let sealed = header.seal.load(Ordering::Relaxed);
        // Pairs with the fence in `clear`: who has read a word of the next record sees that the
        // sequence has changed.
        fence(Ordering::Acquire);
        (self.head().sequence.load(Ordering::Relaxed) == sequence && seal(words) == sealed)
            .then_some(words)
    }

    /// In the caller, after [`put`](Self::put): whether worker `slot` has to be woken by a message.
    pub(super) fn is_asleep(&self, slot: usize) -> bool {
        self.worker_words()[slot].asleep.load(Ordering::Relaxed) != 0
    }

    /// In a worker: the sequence of the job, if there is one of another sequence than the last that
    /// it has taken up.
    pub(super) fn new_sequence(&self, last_sequence: u64) -> Option<u64> {
        Some(self.sequence())
            .filter(|sequence| *sequence != last_sequence && sequence.is_multiple_of(2))
    }

    /// In a worker: whether there is such a job.
    pub(super) fn has_new(&self, last_sequence: u64) -> bool {
        self.new_sequence(last_sequence).is_some()
    }

    /// In a worker: sleeps until [`has_new`](Self::has_new). `sleep` waits for a message.
    pub(super) fn sleep_until_new(&self, slot: usize, last_sequence: u64, mut sleep: impl FnMut()) {
        let asleep = &self.worker_words()[slot].asleep;
        asleep.store(1, Ordering::Relaxed);
        // As in `put`.
        fence(Ordering::SeqCst);
        while !self.has_new(last_sequence) {
            sleep();
        }
        asleep.store(0, Ordering::Relaxed);
    }

    /// In the caller: who sat in `slot` is dead, and may have died asleep; who comes begins awake.
    pub(super) fn forget_sleeper(&self, slot: usize) {
        self.worker_words()[slot].asleep.store(0, Ordering::Relaxed);
    }

    /// In the caller: one more message is sent to worker `slot`.
    pub(super) fn count_sent(&self, slot: usize) {
        self.worker_words()[slot].sent.fetch_add(1, Ordering::Release);
    }

    /// How many messages were sent to worker `slot`.
    pub(super) fn sent(&self, slot: usize) -> u32 {
        self.worker_words()[slot].sent.load(Ordering::Acquire)
    }

    /// In the caller: it wants to be woken when nothing is left to do; or not any more.
    pub(super) fn set_caller_sleeps(&self, sleeps: bool) {
        self.caller_words().caller_sleeps.store(sleeps.into(), Ordering::Relaxed);
        // It looks once more whether anything is left, and a worker that has done the last looks
        // here: one sees the other.
        fence(Ordering::SeqCst);
    }

    /// In a worker, after its last block: whether the caller wants to be woken.
    pub(super) fn caller_sleeps(&self) -> bool {
        // Also between two workers of which each has done one of the last two blocks: one sees that
        // both are done.
        fence(Ordering::SeqCst);
        self.caller_words().caller_sleeps.load(Ordering::Relaxed) != 0
    }

    /// In the zygote: one more message is sent to the caller.
    pub(super) fn count_message(&self) {
        self.messages_word().fetch_add(1, Ordering::Release);
    }

    /// How many messages the zygote has sent.
    pub(super) fn messages_sent(&self) -> u64 {
        self.messages_word().load(Ordering::Acquire)
    }

    fn messages_word(&self) -> &AtomicU64 {
        &self.pages.slice_of::<MessagesSent>(MESSAGES_SENT_AT, 1)[0].sent
    }

    fn head(&self) -> &Sequence {
        &self.pages.slice_of::<Sequence>(0, 1)[0]
    }

    fn caller_words(&self) -> &CallerWords {
        &self.pages.slice_of::<CallerWords>(CALLER_WORDS_AT, 1)[0]
    }

    fn header(&self) -> &RecordHeader {
        &self.pages.slice_of::<RecordHeader>(HEADER_AT, 1)[0]
    }

    fn words(&self) -> &[AtomicU64] {
        self.pages.slice_of::<AtomicU64>(WORDS_AT, RECORD_WORDS)
    }

    fn worker_words(&self) -> &[WorkerWords] {
        self.pages.slice_of::<WorkerWords>(WORKER_WORDS_AT, self.n_workers)
    }
}

/// A hash of a record: multiplication and rotation, as `FxHash` has them, which scatters what a
/// stray store may be.
fn seal(words: &[u64]) -> u64 {
    let start = 0x9e37_79b9_7f4a_7c15 ^ words.len() as u64;
    words
        .iter()
        .fold(start, |seal, &word| (seal.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let board = JobBoard::new(1).unwrap();
        let mut buffer = vec![0; RECORD_WORDS];
        assert_eq!(board.sequence(), 0);
        board.clear();
        assert_eq!(board.sequence() % 2, 1, "nothing to be had");
        board.put(&[1, 2, 3]);
        let sequence = board.sequence();
        assert_eq!(sequence % 2, 0);
        assert_eq!(board.read(sequence, &mut buffer), Some(&[1, 2, 3][..]));
        board.words()[1].store(7, Ordering::Relaxed);
        assert_eq!(board.read(sequence, &mut buffer), None, "a stray store");
        board.clear();
        board.put(&[1, 2, 3]);
        assert_eq!(board.read(sequence, &mut buffer), None, "another sequence");
        board.header().len.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(board.read(board.sequence(), &mut buffer), None);
    }

    #[test]
    fn every_word_and_the_length_are_sealed() {
        let words = [5, 0, 0, 9];
        let others: [&[u64]; 4] = [&[5, 0, 0, 8], &[5, 0, 9, 0], &[5, 0, 0], &[5, 0, 0, 9, 0]];
        assert!(others.iter().all(|other| seal(other) != seal(&words)));
    }
}
