//! A worker's page in the control block: where it is, what it has done, and its last words.
//!
//! Its worker writes to it, also from the panic hook and from a signal handler, so nothing on the
//! worker's side takes a lock or allocates. The supervisor takes the counters at any time, but a
//! message only from a dead worker. It believes none of this: a stray store may have written
//! anything here, so every value is cut to what can be, and `decide` checks it against what the
//! worker held.
//!
//! The atomics are those of `std`, not of `sys::atomic`: the model of the claim protocol leaves
//! slots out.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};

use crate::sys::shared::AllAtomic;

/// Bytes for a message and its location together: the location has 512 bytes at least.
const TEXT_BYTES: usize = 3072 + 512;

/// How much of an earlier panic's message is repeated behind a later one. It is copied to the stack
/// of the panic hook first, so it must be small.
const EARLIER_BYTES: usize = 512;

/// Values of `ready`. 0 is neither: the process is being put in order, or the slot is empty.
const READY: u32 = 1;
const INITIALISING: u32 = 2;

/// No row: in `row` none has been noted yet, in `saved` nothing has been saved.
const NO_ROW: u64 = u64::MAX;

/// A message longer than this is cut, so that the location still fits.
const MESSAGE_BYTES: usize = 3072;

/// One worker's page. A page of its own keeps what two workers write all the time out of one cache
/// line.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// In fork mode: set by the parent once it holds the worker's pidfd. The worker waits for it in
    /// a futex that is shared between processes. Its values are in `worker/mod.rs`.
    pub(crate) go: AtomicU32,
    /// 0 = none, else a [`MessageKind`]. Stored last, so a kind that is there vouches for the words
    /// below.
    kind: AtomicU32,
    /// Bytes of `text` that the message takes, from its start.
    message_len: AtomicU32,
    /// Bytes of `text` that the location takes, behind the message.
    location_len: AtomicU32,
    /// The row that the message is about.
    message_row: AtomicU64,
    /// The two halves of a sum that does not fit, the low one first.
    overflow: [AtomicU64; 2],
    /// The signal of a memory fault, 0 = none. Stored last.
    fault_signal: AtomicU32,
    /// The address of the fault, as it is in the caller's address space.
    fault_address: AtomicU64,
    /// The row that the kernel is at, or about to be at; [`NO_ROW`] before the first.
    row: AtomicU64,
    /// In a call in place: how far the worker is, as [`Saved::encode`] has it, or [`NO_ROW`].
    saved: AtomicU64,
    /// How far the worker is with putting its process in order: 0, [`INITIALISING`] or [`READY`].
    ready: AtomicU32,
    /// What the worker has done so far.
    pub(crate) tally: Tally,
    /// UTF-8 of the message, then of the location. Bytes and not words, since both may have any
    /// length.
    text: [AtomicU8; TEXT_BYTES],
}

const _: () = assert!(size_of::<Slot>() == 4096);

// SAFETY: atomics only, and padding that nobody reads.
unsafe impl AllAtomic for Slot {}

/// How far a worker is that changes the rows of its unit in place. It takes some rows at a time and
/// saves them first, in its undo buffer. In both states all rows of the unit before these are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    /// The rows from this one on are being saved, and none is touched yet. They need not be put
    /// back.
    InProgress(usize),
    /// The first of the rows that are saved. They may have been changed, so they must be put back
    /// before another worker runs them.
    Complete(usize),
}

impl Saved {
    /// The first of the rows.
    pub(crate) fn first(self) -> usize {
        match self {
            Self::InProgress(row) | Self::Complete(row) => row,
        }
    }

    /// Both halves in one word, the state in the lowest bit. One store then notes both, so a death
    /// cannot leave the row of one note with the state of another.
    fn encode(self) -> u64 {
        (self.first() as u64) << 1 | u64::from(matches!(self, Self::Complete(_)))
    }

    /// The inverse of [`encode`](Self::encode). `None` for [`NO_ROW`]; any other word means
    /// something, and the supervisor checks that the row is one of the unit.
    fn decode(word: u64) -> Option<Self> {
        let row = usize::try_from(word >> 1).ok().filter(|_| word != NO_ROW)?;
        Some(if word & 1 == 1 { Self::Complete(row) } else { Self::InProgress(row) })
    }
}

/// Counters for the report. Each has one writer, the worker, and survives its death. The report
/// believes no value that cannot be.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Units that the worker has finished, each before its `DONE`.
    pub(crate) blocks: AtomicU64,
    /// Rows of these units.
    pub(crate) rows: AtomicU64,
    /// Nanoseconds of all these units. A unit's time begins at the end of the one before, or at the
    /// start of the work, so it includes the search for the unit.
    pub(crate) busy_ns: AtomicU64,
    /// Nanoseconds of the quickest unit; means nothing while `blocks` is 0.
    pub(crate) shortest_block_ns: AtomicU64,
    /// Nanoseconds of the slowest unit.
    pub(crate) longest_block_ns: AtomicU64,
    /// Memory that the worker shares with no process, at the end of its work. 0 if nobody asked.
    pub(crate) private_bytes: AtomicU64,
    /// The same with its share of shared pages; a process always has some, so 0 means "not
    /// measured".
    pub(crate) proportional_bytes: AtomicU64,
    /// Processes that have held the slot.
    starts: AtomicU64,
    /// The number of the call that the counters are of.
    call: AtomicU64,
}

/// Why a worker left a message. The numbers lie in shared memory; 0 is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A panic that the kernel itself may yet catch. Nobody acts on it.
    PanicDraft = 1,
    /// A panic that ended the kernel.
    Panic = 2,
    /// The kernel returned an error.
    KernelError = 3,
    /// A system call failed that the worker cannot do without. No row is to blame.
    Setup = 4,
    /// The sum of the row does not fit an `i64`. The sum is in `overflow`, and there is no text.
    SignedOverflow = 5,
    /// The same of a `u64`.
    UnsignedOverflow = 6,
}

impl MessageKind {
    /// `None` for 0 and for everything that a stray store may have left.
    fn from_word(word: u32) -> Option<Self> {
        const ALL: [MessageKind; 6] = [
            MessageKind::PanicDraft,
            MessageKind::Panic,
            MessageKind::KernelError,
            MessageKind::Setup,
            MessageKind::SignedOverflow,
            MessageKind::UnsignedOverflow,
        ];
        ALL.into_iter().find(|&kind| kind as u32 == word)
    }
}

/// A sum of integers that its type, `i64` or `u64`, does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SumOverflow {
    /// The exact sum.
    pub(crate) sum: i128,
    /// The type is `i64`, not `u64`.
    pub(crate) signed: bool,
}

impl SumOverflow {
    fn kind(self) -> MessageKind {
        if self.signed { MessageKind::SignedOverflow } else { MessageKind::UnsignedOverflow }
    }
}

/// A worker's last words on a row, copied out of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    /// The row, or `usize::MAX` if none had been noted. Untrusted.
    pub(crate) row: usize,
    /// The panic message, the error, or what could not be set up. Cut at 3 KiB.
    pub(crate) text: String,
    /// `file:line:column` of a panic, or empty.
    pub(crate) location: String,
    /// What the kinds of overflows are about; `None` for all other kinds.
    pub(crate) overflow: Option<SumOverflow>,
}

/// The memory access that killed a worker, as its signal handler saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// SIGSEGV or SIGBUS, if no stray store has been here.
    pub(crate) signal: i32,
    /// In the caller's address space.
    pub(crate) address: usize,
}

impl Default for Slot {
    /// A slot that lies in no control block, for a caller that works alone.
    fn default() -> Self {
        Self {
            go: AtomicU32::new(0),
            kind: AtomicU32::new(0),
            message_len: AtomicU32::new(0),
            location_len: AtomicU32::new(0),
            message_row: AtomicU64::new(0),
            overflow: [const { AtomicU64::new(0) }; 2],
            fault_signal: AtomicU32::new(0),
            fault_address: AtomicU64::new(0),
            row: AtomicU64::new(NO_ROW),
            saved: AtomicU64::new(NO_ROW),
            ready: AtomicU32::new(0),
            tally: Tally::default(),
            text: [const { AtomicU8::new(0) }; TEXT_BYTES],
        }
    }
}

impl Slot {
    /// In a worker: notes the row that the kernel is called for next. Stores of the kernel for
    /// earlier rows come before the note, stores for this row after it. When the worker dies, the
    /// note therefore separates the rows that are done from those that have not been begun.
    ///
    /// Program order is enough for that, since the supervisor reads the note when the process is
    /// gone. So there are fences for the compiler and none for the processor, and a note costs one
    /// plain store per row.
    #[inline]
    pub(crate) fn set_row(&self, row: usize) {
        compiler_fence(Ordering::SeqCst);
        self.row.store(row as u64, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// In a worker: notes how far it is with rows in place. `Complete` is noted after the last byte
    /// is saved, and before the first byte of the rows changes. Program order is enough, as in
    /// [`set_row`](Self::set_row).
    pub(crate) fn set_saved(&self, saved: Saved) {
        compiler_fence(Ordering::SeqCst);
        self.saved.store(saved.encode(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// In the supervisor, for a dead worker: what was noted last.
    pub(crate) fn saved(&self) -> Option<Saved> {
        Saved::decode(self.saved.load(Ordering::Relaxed))
    }

    /// In a worker: its preparations are over. From then on it is overdue by the stall limit, no
    /// longer by the limit of a start.
    pub(crate) fn set_ready(&self) {
        self.ready.store(READY, Ordering::Release);
    }

    /// Whether the preparations are over. Acquire: pairs with the Release in
    /// [`set_ready`](Self::set_ready).
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) == READY
    }

    /// In a worker of a pool: it runs the user's `init` function, which may take longer than the
    /// rest of a start.
    pub(crate) fn set_initialising(&self) {
        self.ready.store(INITIALISING, Ordering::Release);
    }

    /// Whether it runs that function now.
    pub(crate) fn is_initialising(&self) -> bool {
        self.ready.load(Ordering::Acquire) == INITIALISING
    }

    /// A pair that changes whenever the worker comes to another row or finishes a unit. The
    /// supervisor compares it with the last one to tell a slow worker from one that hangs. The
    /// count of units is in it because a unit whose rows are not noted shows no other sign of life.
    pub(crate) fn pulse(&self) -> (u64, u64) {
        (self.row.load(Ordering::Relaxed), self.tally.blocks.load(Ordering::Relaxed))
    }

    /// The row last noted, `usize::MAX` if none is. Untrusted.
    pub(crate) fn row(&self) -> usize {
        usize::try_from(self.row.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// In a worker: leaves a message about the current row, instead of any that is there. Cuts what
    /// does not fit. Neither locks nor allocates, apart from what the `Display` of a user's error
    /// may do.
    pub(crate) fn leave_message(
        &self,
        kind: MessageKind,
        message: impl fmt::Display,
        location: impl fmt::Display,
    ) {
        let message_len = self.write_text(0, MESSAGE_BYTES, message);
        let location_len = self.write_text(message_len, TEXT_BYTES - message_len, location);
        self.message_len.store(len_u32(message_len), Ordering::Relaxed);
        self.location_len.store(len_u32(location_len), Ordering::Relaxed);
        self.message_row.store(self.row.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: pairs with the Acquire in `message`, so a kind that is seen comes with its text.
        self.kind.store(kind as u32, Ordering::Release);
    }

    /// In a worker: leaves word that the sum of the current row does not fit, instead of any
    /// message that is there. It only stores.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bits of each half are what is stored"
    )]
    pub(crate) fn leave_overflow(&self, overflow: SumOverflow) {
        // The two halves of the sum, the low one first.
        for (word, shift) in self.overflow.iter().zip([0, 64]) {
            word.store((overflow.sum >> shift) as u64, Ordering::Relaxed);
        }
        self.leave_message(overflow.kind(), "", "");
    }

    /// The sum of an overflow of this kind, as [`leave_overflow`](Self::leave_overflow) stored it.
    fn overflow(&self, kind: MessageKind) -> Option<SumOverflow> {
        let signed = kind == MessageKind::SignedOverflow;
        let [low, high] = [0, 1].map(|half: usize| self.overflow[half].load(Ordering::Relaxed));
        let sum = i128::from(high.cast_signed()) << 64 | i128::from(low);
        Some(SumOverflow { sum, signed }).filter(|overflow| overflow.kind() == kind)
    }

    /// In the panic hook of a worker: notes a panic, which the kernel may yet catch. If it comes on
    /// top of another on the same row (a destructor that panics while the stack unwinds), the
    /// earlier words are kept behind it: they are the cause.
    pub(crate) fn draft_panic(&self, message: impl fmt::Display, location: impl fmt::Display) {
        let mut earlier = [0; EARLIER_BYTES];
        match self.copy_draft(&mut earlier) {
            Some(earlier) => {
                let both =
                    format_args!("{message} (after an earlier panic on this row: {earlier})");
                self.leave_message(MessageKind::PanicDraft, both, location);
            }
            None => self.leave_message(MessageKind::PanicDraft, message, location),
        }
    }

    /// In a worker: the panic with this text, on the current row, is final. False when no such
    /// panic has been drafted.
    ///
    /// The text is compared as far as both are long, since a draft may have been cut, or have
    /// earlier words behind it. An empty text therefore confirms any draft on the row.
    pub(crate) fn confirm_panic(&self, text: &str) -> bool {
        let len = (self.message_len.load(Ordering::Relaxed) as usize).min(text.len());
        let same = self
            .text
            .iter()
            .zip(&text.as_bytes()[..len])
            .all(|(cell, &byte)| cell.load(Ordering::Relaxed) == byte);
        let drafted = same && self.drafted_here();
        if drafted {
            self.kind.store(MessageKind::Panic as u32, Ordering::Release);
        }
        drafted
    }

    /// In a worker: whether a message of this kind is there. It asks about its own stores, so
    /// Relaxed is enough.
    pub(crate) fn has_message(&self, kind: MessageKind) -> bool {
        self.kind.load(Ordering::Relaxed) == kind as u32
    }

    /// Whether the panic that was last drafted is of the current row. A draft on an earlier row is
    /// of a panic that the kernel has caught.
    fn drafted_here(&self) -> bool {
        self.kind.load(Ordering::Acquire) == MessageKind::PanicDraft as u32
            && self.message_row.load(Ordering::Relaxed) == self.row.load(Ordering::Relaxed)
    }

    /// The words of the draft on this row, as far as they fit, cut at a whole character. On the
    /// stack, since the hook must not allocate.
    fn copy_draft<'b>(&self, buffer: &'b mut [u8; EARLIER_BYTES]) -> Option<&'b str> {
        if !self.drafted_here() {
            return None;
        }
        let len = (self.message_len.load(Ordering::Relaxed) as usize).min(buffer.len());
        for (byte, cell) in buffer.iter_mut().zip(&self.text[..len]) {
            *byte = cell.load(Ordering::Relaxed);
        }
        let whole =
            str::from_utf8(&buffer[..len]).map_or_else(|error| error.valid_up_to(), |_| len);
        str::from_utf8(&buffer[..whole]).ok()
    }

    /// In the supervisor: the message of a dead worker. Lengths and text are untrusted: they are
    /// cut to what there is, and made valid UTF-8.
    pub(crate) fn message(&self) -> Option<Message> {
        let kind = MessageKind::from_word(self.kind.load(Ordering::Acquire))?;
        let message_len = (self.message_len.load(Ordering::Relaxed) as usize).min(TEXT_BYTES);
        let location_len =
            (self.location_len.load(Ordering::Relaxed) as usize).min(TEXT_BYTES - message_len);
        Some(Message {
            kind,
            row: usize::try_from(self.message_row.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
            text: self.read_text(0, message_len),
            location: self.read_text(message_len, location_len),
            overflow: self.overflow(kind),
        })
    }

    /// In the signal handler of a worker: notes a memory fault. It only stores, which is
    /// async-signal-safe; see
    /// [signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html).
    pub(crate) fn leave_fault(&self, fault: Fault) {
        self.fault_address.store(fault.address as u64, Ordering::Relaxed);
        self.fault_signal.store(fault.signal.unsigned_abs(), Ordering::Release);
    }

    /// In the supervisor: the memory fault of a dead worker. A stray store may have written it, so
    /// it counts only if the process ended by that very signal, or if nobody knows how it ended.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let signal = i32::try_from(self.fault_signal.load(Ordering::Acquire))
            .ok()
            .filter(|&signal| signal != 0)?;
        Some(Fault {
            signal,
            address: usize::try_from(self.fault_address.load(Ordering::Relaxed)).unwrap_or(0),
        })
    }

    /// In a pool's worker: it begins with the call of this number. The tally of a predecessor in
    /// the same call goes on. Everything else that is left of earlier calls is forgotten: a row
    /// noted for an earlier call would look like one of this.
    pub(crate) fn begin(&self, call: u32) {
        if self.tally.is_of(call) {
            return;
        }
        self.kind.store(0, Ordering::Relaxed);
        self.row.store(NO_ROW, Ordering::Relaxed);
        self.saved.store(NO_ROW, Ordering::Relaxed);
        self.tally.begin(call);
    }

    /// In the caller: makes the slot ready for the next process that gets it. Only while no process
    /// uses it. The tally goes on, so that the report counts for a slot and not for a process.
    /// `text` stays as it is: without a kind nobody reads it.
    pub(crate) fn clear(&self) {
        add(&self.tally.starts, 1);
        self.go.store(0, Ordering::Relaxed);
        self.kind.store(0, Ordering::Relaxed);
        self.fault_signal.store(0, Ordering::Relaxed);
        self.row.store(NO_ROW, Ordering::Relaxed);
        self.saved.store(NO_ROW, Ordering::Relaxed);
        self.ready.store(0, Ordering::Relaxed);
    }

    /// Writes from byte `start` on, `capacity` bytes at most. How many it took.
    fn write_text(&self, start: usize, capacity: usize, text: impl fmt::Display) -> usize {
        let mut writer = TextWriter { text: &self.text[start..start + capacity], len: 0 };
        // The only error is "full", and a cut message is what is wanted then.
        let _ = fmt::write(&mut writer, format_args!("{text}"));
        writer.len
    }

    /// The inverse, in the supervisor. What is not UTF-8 becomes replacement characters.
    fn read_text(&self, start: usize, len: usize) -> String {
        let bytes: Vec<u8> =
            self.text[start..start + len].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Tally {
    /// How many processes have held the slot, this one included.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Whether the counters are of the call of this number. A pool's worker that has not begun with
    /// a call still has those of another.
    pub(crate) fn is_of(&self, call: u32) -> bool {
        self.call.load(Ordering::Relaxed) == u64::from(call)
    }

    /// Whether memory was noted.
    pub(crate) fn is_measured(&self) -> bool {
        self.proportional_bytes.load(Ordering::Relaxed) != 0
    }

    /// All counters of a call to 0, except `starts`, which belongs to the slot.
    fn begin(&self, call: u32) {
        let Self {
            blocks,
            rows,
            busy_ns,
            shortest_block_ns,
            longest_block_ns,
            private_bytes,
            proportional_bytes,
            ..
        } = self;
        let counters = [
            blocks,
            rows,
            busy_ns,
            shortest_block_ns,
            longest_block_ns,
            private_bytes,
            proportional_bytes,
        ];
        for counter in counters {
            counter.store(0, Ordering::Relaxed);
        }
        self.call.store(call.into(), Ordering::Relaxed);
    }

    /// In a worker: notes its memory in bytes, when it has nothing left to do.
    pub(crate) fn note_memory(&self, private_bytes: u64, proportional_bytes: u64) {
        self.private_bytes.store(private_bytes, Ordering::Relaxed);
        self.proportional_bytes.store(proportional_bytes, Ordering::Relaxed);
    }

    /// In a worker: counts a finished unit. Before its `DONE`: with that the call may be over, and
    /// the next begin to count in the same slot.
    pub(crate) fn count_block(&self, n_rows: usize, busy_ns: u64) {
        let blocks = self.blocks.load(Ordering::Relaxed);
        if blocks == 0 || busy_ns < self.shortest_block_ns.load(Ordering::Relaxed) {
            self.shortest_block_ns.store(busy_ns, Ordering::Relaxed);
        }
        if busy_ns > self.longest_block_ns.load(Ordering::Relaxed) {
            self.longest_block_ns.store(busy_ns, Ordering::Relaxed);
        }
        add(&self.busy_ns, busy_ns);
        add(&self.rows, n_rows as u64);
        add(&self.blocks, 1);
    }
}

/// Adds to a counter that has one writer: a load and a store, which are cheaper than a locked add.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// A length for the words of a slot. Never past [`TEXT_BYTES`].
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a text is at most a page")
}

/// Formats into a slot's text without a buffer. It cuts at the last whole character that fits.
struct TextWriter<'a> {
    text: &'a [AtomicU8],
    /// Bytes written so far, in whole characters.
    len: usize,
}

impl fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let fits = floor_char_boundary(s, self.text.len() - self.len);
        for (cell, &byte) in self.text[self.len..].iter().zip(&s.as_bytes()[..fits]) {
            cell.store(byte, Ordering::Relaxed);
        }
        self.len += fits;
        if fits == s.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The longest prefix of at most `max` bytes that is whole characters (`str::floor_char_boundary`,
/// which is stable from Rust 1.91).
fn floor_char_boundary(s: &str, max: usize) -> usize {
    if max >= s.len() {
        return s.len();
    }
    (0..=max).rev().find(|&at| s.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::control::CallKey;
    use crate::engine::control::Control;
    use crate::sys::shared::SharedPages;

    /// A slot in fresh pages, as workers have it: zeroed, so its noted row is 0 and not [`NO_ROW`].
    fn slot() -> &'static Slot {
        let pages = Box::leak(Box::new(SharedPages::new(Control::bytes(1, 1)).unwrap()));
        &Control::in_pages(pages, 1, 1, CallKey { nonce: 0, number: 0 }).slots()[0]
    }

    #[test]
    fn a_message_comes_back_with_its_row_and_place() {
        let slot = slot();
        slot.set_row(7);
        assert_eq!(slot.message(), None);
        slot.leave_message(
            MessageKind::Panic,
            format_args!("index {} of {}", 9, 4),
            "src/lib.rs:1:2",
        );
        let message = slot.message().unwrap();
        assert_eq!((message.kind, message.row), (MessageKind::Panic, 7));
        assert_eq!((&*message.text, &*message.location), ("index 9 of 4", "src/lib.rs:1:2"));
        slot.clear();
        assert_eq!(slot.message(), None);
    }

    #[test]
    fn a_message_of_a_megabyte_is_cut_at_a_whole_character() {
        let slot = slot();
        slot.leave_message(
            MessageKind::KernelError,
            "x".to_owned() + &"ä".repeat(1 << 19),
            "here:1:1",
        );
        let message = slot.message().unwrap();
        assert_eq!(message.text, "x".to_owned() + &"ä".repeat(MESSAGE_BYTES / 2 - 1));
        assert_eq!(message.location, "here:1:1");
    }

    #[test]
    fn lengths_that_a_stray_store_left_are_not_believed() {
        let slot = slot();
        slot.leave_message(MessageKind::Panic, "m", "l");
        slot.message_len.store(u32::MAX, Ordering::Relaxed);
        slot.location_len.store(u32::MAX, Ordering::Relaxed);
        for cell in &slot.text {
            cell.store(0xff, Ordering::Relaxed);
        }
        assert_eq!(slot.message().unwrap().text.chars().count(), TEXT_BYTES);
    }

    #[test]
    fn a_panic_counts_only_once_it_is_confirmed_on_its_row() {
        let slot = slot();
        slot.set_row(1);
        assert!(!slot.confirm_panic(""));
        slot.draft_panic("first", "a:1:1");
        assert!(!slot.confirm_panic("another"));
        slot.set_row(2);
        assert!(!slot.confirm_panic("first"), "the kernel caught it and went on");
        slot.draft_panic("real", "b:1:1");
        assert_eq!(slot.message().unwrap().kind, MessageKind::PanicDraft);
        assert!(slot.confirm_panic("real"));
        let message = slot.message().unwrap();
        assert_eq!((message.kind, &*message.text, message.row), (MessageKind::Panic, "real", 2));
    }

    #[test]
    fn a_panic_on_top_of_another_keeps_the_earlier_words() {
        let slot = slot();
        slot.draft_panic("ü".repeat(3000), "a:1:1");
        slot.draft_panic("second", "b:1:1");
        let text = slot.message().unwrap().text;
        assert!(
            text.starts_with("second (after an earlier panic on this row: üüü")
                && text.ends_with("ü)"),
            "{text}"
        );
        assert!(text.len() < 600, "{}", text.len());
    }

    #[test]
    fn a_fault_comes_back() {
        let slot = slot();
        assert_eq!(slot.fault(), None);
        slot.leave_fault(Fault { signal: 11, address: 0x1234 });
        assert_eq!(slot.fault(), Some(Fault { signal: 11, address: 0x1234 }));
    }

    #[test]
    fn a_sum_that_does_not_fit_comes_back_with_its_type_and_sign() {
        let slot = slot();
        for sum in [i128::MIN, i64::MIN.into(), -1, 0, 1 << 63, 1 << 64, i128::MAX] {
            for signed in [true, false] {
                slot.set_row(7);
                slot.leave_overflow(SumOverflow { sum, signed });
                let message = slot.message().unwrap();
                assert_eq!(message.overflow, Some(SumOverflow { sum, signed }));
                assert_eq!((message.row, &*message.text), (7, ""));
            }
        }
        slot.leave_message(MessageKind::KernelError, "an error", "");
        assert_eq!(slot.message().unwrap().overflow, None, "an old sum is of no other message");
    }
}
