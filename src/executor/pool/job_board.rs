//! The job board: a seqlock in shared memory that holds the current job of a pool, and the words
//! that say which processes sleep.
//!
//! The caller and its workers look at it all the time, the caller from `mod.rs`, `call_workers.rs`
//! and `mailboxes.rs`, a worker from `worker.rs`. The zygote only counts its messages here.
//!
//! | word | written by | says |
//! |---|---|---|
//! | `sequence` | the caller | changes with every job; odd while there is none, or one is being written |
//! | record: header and words | the caller | the job, sealed |
//! | `caller_sleeps` | the caller | raise the wakeup (an eventfd) when nothing is left to do |
//! | `messages_sent` | the zygote | how many messages it has sent to the caller |
//! | worker words `w`: `asleep` | worker `w`; the caller once that worker is dead | wake the worker by a message |
//! | worker words `w`: `sent` | the caller | how many messages it has sent to the slot |
//!
//! A record is read whole or not at all. The reader copies it, looks whether the sequence is still
//! the same, and checks the seal, so it takes neither a part of the next job nor a stray store for
//! a part of this one. For the fences see Hans-J. Boehm, *Can Seqlocks Get Along With Programming
//! Language Memory Models?* (MSPC 2012).
//!
//! Nothing here makes a system call or waits, apart from the mapping at the start. The protocol
//! around the board is in `README.md`. The models in `tests/model` compile this file with the
//! atomics of loom.
//!
//! # Safety
//! As in `control`: the types that lie in shared memory consist of atomics alone, so a store by any
//! other process is a value and never undefined behaviour.
#![allow(unsafe_code, reason = "marks the types that may lie in shared memory")]

use std::io;

use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sys::shared::{AllAtomic, SharedPages};

/// The most words of a record: 32 KiB. Arguments that may not fit travel in a segment of their own.
pub(super) const RECORD_WORDS: usize = 4096;

/// The counter of the seqlock. It has two cache lines for itself, since every worker that spins
/// reads it and processors fetch lines in pairs. The caller's, the zygote's and each worker's words
/// are kept apart in the same way.
#[repr(C, align(128))]
#[derive(Default)]
struct Sequence {
    /// Odd: no job. Even, and not the last one that a worker has taken up: a new job. Starts at 0,
    /// which workers take for seen.
    sequence: AtomicU64,
}

/// The caller's own word.
#[repr(C, align(128))]
#[derive(Default)]
struct CallerWords {
    /// 1 while the caller sleeps or is about to, else 0.
    caller_sleeps: AtomicU32,
}

/// The zygote's word.
#[repr(C, align(128))]
#[derive(Default)]
struct MessagesSent {
    /// Messages to the caller, since the pool was made.
    sent: AtomicU64,
}

/// The words of one slot.
#[repr(C, align(128))]
#[derive(Default)]
pub(super) struct WorkerWords {
    /// 1 while the worker sleeps or is about to, else 0.
    asleep: AtomicU32,
    /// Messages to the slot, whichever process had it. Wraps.
    sent: AtomicU32,
}

/// What stands before the words of a record.
#[repr(C)]
#[derive(Default)]
struct RecordHeader {
    /// How many words the record has, at most [`RECORD_WORDS`]. A reader does not believe it.
    len: AtomicU64,
    /// [`seal`] of the words.
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
    /// Maps a board for this many workers, with no job on it.
    ///
    /// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
    ///
    /// # Errors
    /// That of `mmap`.
    pub(super) fn new(n_workers: usize) -> io::Result<Self> {
        Ok(Self {
            pages: SharedPages::new(WORKER_WORDS_AT + n_workers * size_of::<WorkerWords>())?,
            n_workers,
        })
    }

    /// In the caller, after it has forked the zygote: keeps the board from the children of later
    /// forks of this process. The workers of a later fork call have nothing to do with it.
    ///
    /// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
    pub(super) fn keep_from_children(&self) {
        self.pages.keep_from_children();
    }

    /// The sequence. There is a new job when it is even and not the last one seen. Acquire: pairs
    /// with the Release in [`put`](Self::put).
    pub(super) fn sequence(&self) -> u64 {
        self.sequence_word().load(Ordering::Acquire)
    }

    /// In the caller: takes the job away. No worker takes it up from now on. A worker that has
    /// taken it up goes on, and its claims fail once the control block has another key.
    pub(super) fn clear(&self) {
        let sequence = self.sequence_word();
        let now = sequence.load(Ordering::Relaxed);
        sequence.store((now + 1) | 1, Ordering::Relaxed);
        // Pairs with the Acquire fence in `read`: a reader that sees a word that is written from
        // here on sees the odd sequence, too.
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
        let sequence = self.sequence_word();
        // Release: pairs with the Acquire in `sequence`. A worker that sees the sequence sees the
        // record, and the control block as it was made ready for the job.
        sequence.store(sequence.load(Ordering::Relaxed) + 1, Ordering::Release);
        // Pairs with the fence in `sleep_until_new`. A worker looks at the sequence after it has
        // said that it sleeps, and the caller looks which workers sleep after it has changed the
        // sequence: one of them sees the other.
        fence(Ordering::SeqCst);
    }

    /// In a worker: copies the record of this sequence to `buffer`. `None` when the board has
    /// another sequence by now, or when the record is not what the caller wrote. The worker then
    /// waits for the next sequence.
    pub(super) fn read<'b>(&self, sequence: u64, buffer: &'b mut [u64]) -> Option<&'b [u64]> {
        let header = self.header();
        let len = usize::try_from(header.len.load(Ordering::Relaxed)).ok()?;
        let words = buffer.get_mut(..len)?;
        for (word, cell) in words.iter_mut().zip(self.words()) {
            *word = cell.load(Ordering::Relaxed);
        }
        let sealed = header.seal.load(Ordering::Relaxed);
        // Pairs with the fence in `clear`: a reader that has read a word of the next record sees
        // that the sequence has changed.
        fence(Ordering::Acquire);
        (self.sequence_word().load(Ordering::Relaxed) == sequence && seal(words) == sealed)
            .then_some(words)
    }

    /// In the caller, after [`put`](Self::put): whether worker `slot` has to be woken by a message.
    /// Relaxed: the fence in `put` stands between the sequence and this look.
    pub(super) fn is_asleep(&self, slot: usize) -> bool {
        self.worker_words()[slot].asleep.load(Ordering::Relaxed) != 0
    }

    /// In a worker: the sequence of the job, if there is a job with another sequence than the last
    /// one that the worker has taken up.
    pub(super) fn new_sequence(&self, last_sequence: u64) -> Option<u64> {
        Some(self.sequence())
            .filter(|sequence| *sequence != last_sequence && sequence.is_multiple_of(2))
    }

    /// In a worker: whether there is such a job. For the spin before the sleep.
    pub(super) fn has_new(&self, last_sequence: u64) -> bool {
        self.new_sequence(last_sequence).is_some()
    }

    /// In a worker: sleeps until [`has_new`](Self::has_new). `sleep` waits for one message, which
    /// may be any, so it may be called several times.
    pub(super) fn sleep_until_new(&self, slot: usize, last_sequence: u64, mut sleep: impl FnMut()) {
        let asleep = &self.worker_words()[slot].asleep;
        asleep.store(1, Ordering::Relaxed);
        // Pairs with the fence in `put`.
        fence(Ordering::SeqCst);
        while !self.has_new(last_sequence) {
            sleep();
        }
        asleep.store(0, Ordering::Relaxed);
    }

    /// In the caller: the process that had `slot` is dead, and may have died asleep. Its successor
    /// begins awake, and does not look at the board before it is admitted.
    pub(super) fn forget_sleeper(&self, slot: usize) {
        self.worker_words()[slot].asleep.store(0, Ordering::Relaxed);
    }

    /// In the caller: counts one more message to worker `slot`, after it was sent. Release: pairs
    /// with the Acquire in [`sent`](Self::sent), so a counted message is there.
    pub(super) fn count_sent(&self, slot: usize) {
        self.worker_words()[slot].sent.fetch_add(1, Ordering::Release);
    }

    /// How many messages were sent to worker `slot`, modulo 2<sup>32</sup>.
    pub(super) fn sent(&self, slot: usize) -> u32 {
        self.worker_words()[slot].sent.load(Ordering::Acquire)
    }

    /// In the caller: says that it wants to be woken when nothing is left to do, or no longer wants
    /// it.
    pub(super) fn set_caller_sleeps(&self, sleeps: bool) {
        self.caller_words().caller_sleeps.store(sleeps.into(), Ordering::Relaxed);
        // Pairs with the fence in `caller_sleeps`. The caller looks once more whether anything is
        // left after it has said this, and a worker that has done the last block looks here: one of
        // them sees the other.
        fence(Ordering::SeqCst);
    }

    /// In a worker, after its last block: whether the caller wants to be woken.
    pub(super) fn caller_sleeps(&self) -> bool {
        // Pairs with the fence in `set_caller_sleeps`, and with itself in another worker: of two
        // workers that have done the last two blocks, one sees that both are done.
        fence(Ordering::SeqCst);
        self.caller_words().caller_sleeps.load(Ordering::Relaxed) != 0
    }

    /// In the zygote: counts one more message to the caller, after it was sent. Release: pairs with
    /// the Acquire in [`messages_sent`](Self::messages_sent), so a counted message is there.
    pub(super) fn count_message(&self) {
        self.messages_word().fetch_add(1, Ordering::Release);
    }

    /// How many messages the zygote has sent. The caller compares it with the number that it has
    /// read, which saves a system call per call.
    pub(super) fn messages_sent(&self) -> u64 {
        self.messages_word().load(Ordering::Acquire)
    }

    fn messages_word(&self) -> &AtomicU64 {
        &self.pages.slice_of::<MessagesSent>(MESSAGES_SENT_AT, 1)[0].sent
    }

    fn sequence_word(&self) -> &AtomicU64 {
        &self.pages.slice_of::<Sequence>(0, 1)[0].sequence
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

/// A hash of a record, to find what a stray store has changed. It multiplies and rotates as
/// `FxHash` does, and begins with the length. It is no protection against a process that means
/// harm.
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
