//! A worker's page in the control block: where it is, what it has done, and its last words.
//!
//! Written by its worker (also from the panic hook and a signal handler, so: no lock, no
//! allocation); read by the supervisor, who takes counters at any time and messages only from the
//! dead.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};

use crate::sys::shared::AllAtomic;

/// Bytes for a message and its location together.
const TEXT_BYTES: usize = 3072 + 512;

/// So much of an earlier panic's message is repeated behind a later one.
const EARLIER_BYTES: usize = 512;

const READY: u32 = 1;
const INITIALISING: u32 = 2;

/// No row.
const NO_ROW: u64 = u64::MAX;

/// A message longer than this is cut, so that the location still fits.
const MESSAGE_BYTES: usize = 3072;

/// One worker's page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// Set by the parent once it holds the worker's pidfd; the worker waits for it (shared futex).
    pub(crate) go: AtomicU32,
    /// 0 = none, else a [`MessageKind`]; stored last.
    kind: AtomicU32,
    message_len: AtomicU32,
    location_len: AtomicU32,
    message_row: AtomicU64,
    /// Signal of a memory fault, 0 = none; stored last.
    fault_signal: AtomicU32,
    fault_address: AtomicU64,
    /// The row that the kernel is at, or about to be.
    row: AtomicU64,
    /// In a call in place: how far the worker is, as [`Saved::encode`] has it, or [`NO_ROW`].
    saved: AtomicU64,
    /// How far the worker is with putting its process in order: nothing, [`INITIALISING`] or
    /// [`READY`].
    ready: AtomicU32,
    /// What the worker has done so far.
    pub(crate) tally: Tally,
    text: [AtomicU8; TEXT_BYTES],
}

const _: () = assert!(size_of::<Slot>() == 4096);

// SAFETY: atomics only, and padding that nobody reads.
unsafe impl AllAtomic for Slot {}

/// How far a worker is that changes the rows of its unit in place, some at a time: each time it
/// saves them first. All rows of the unit before these are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    /// The rows from this one on are being saved; none is touched yet.
    InProgress(usize),
    /// The first of the rows that are saved; they may have been changed.
    Complete(usize),
}

impl Saved {
    /// The first of the rows.
    pub(crate) fn first(self) -> usize {
        match self {
            Self::InProgress(row) | Self::Complete(row) => row,
        }
    }

    fn encode(self) -> u64 {
        (self.first() as u64) << 1 | u64::from(matches!(self, Self::Complete(_)))
    }

    fn decode(word: u64) -> Option<Self> {
        let row = usize::try_from(word >> 1).ok().filter(|_| word != NO_ROW)?;
        Some(if word & 1 == 1 { Self::Complete(row) } else { Self::InProgress(row) })
    }
}

/// Counters for the report. Each has one writer, the worker; they survive its death. Whoever reads
/// them believes nothing that cannot be.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) blocks: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    pub(crate) shortest_block_ns: AtomicU64,
    pub(crate) longest_block_ns: AtomicU64,
    pub(crate) private_bytes: AtomicU64,
    pub(crate) proportional_bytes: AtomicU64,
    /// Processes that have held the slot.
    starts: AtomicU64,
    /// The number of the call that the counters are of.
    call: AtomicU64,
}

/// Why a worker left a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A panic that may yet be caught by the kernel itself.
    PanicDraft = 1,
    /// A panic that ended the kernel.
    Panic = 2,
    /// The kernel returned an error.
    KernelError = 3,
    /// A system call failed that the worker cannot do without.
    Setup = 4,
}

impl MessageKind {
    fn from_word(word: u32) -> Option<Self> {
        [Self::PanicDraft, Self::Panic, Self::KernelError, Self::Setup]
            .into_iter()
            .find(|&kind| kind as u32 == word)
    }
}

/// A worker's last words on a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    pub(crate) row: usize,
    pub(crate) text: String,
    /// `file:line:column` of a panic, or empty.
    pub(crate) location: String,
}

/// The memory access that killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) signal: i32,
    pub(crate) address: usize,
}

impl Default for Slot {
    /// One that lies in no control block, for who works alone.
    fn default() -> Self {
        Self {
            go: AtomicU32::new(0),
            kind: AtomicU32::new(0),
            message_len: AtomicU32::new(0),
            location_len: AtomicU32::new(0),
            message_row: AtomicU64::new(0),
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
    /// Notes the row that the kernel is called for next. What the kernel stored for earlier rows
    /// comes before the note, what it stores for this one after it: when a worker dies, the note
    /// parts the rows that are done from those not begun. (The order of the program is enough, as
    /// the supervisor looks when the process is gone; no fence of the processor's.)
    #[inline]
    pub(crate) fn set_row(&self, row: usize) {
        compiler_fence(Ordering::SeqCst);
        self.row.store(row as u64, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Notes how far the worker is with rows in place. The order of the program is enough, as
    /// above.
    pub(crate) fn set_saved(&self, saved: Saved) {
        compiler_fence(Ordering::SeqCst);
        self.saved.store(saved.encode(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// How far it is.
    pub(crate) fn saved(&self) -> Option<Saved> {
        Saved::decode(self.saved.load(Ordering::Relaxed))
    }

    /// The worker is through its preparations.
    pub(crate) fn set_ready(&self) {
        self.ready.store(READY, Ordering::Release);
    }

    /// Whether it is.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) == READY
    }

    /// The worker runs a function of the user's that makes it fit for work, and may take its time.
    pub(crate) fn set_initialising(&self) {
        self.ready.store(INITIALISING, Ordering::Release);
    }

    /// Whether it does.
    pub(crate) fn is_initialising(&self) -> bool {
        self.ready.load(Ordering::Acquire) == INITIALISING
    }

    /// A pair that changes whenever the worker comes to another row or finishes a block.
    pub(crate) fn pulse(&self) -> (u64, u64) {
        (self.row.load(Ordering::Relaxed), self.tally.blocks.load(Ordering::Relaxed))
    }

    /// The row last noted.
    pub(crate) fn row(&self) -> usize {
        usize::try_from(self.row.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Leaves a message about the current row, instead of any that is there. Neither locks nor
    /// allocates.
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

    /// Notes a panic, from the panic hook. The kernel may yet catch it. When it comes on top of
    /// another on the same row (a destructor that panics while the stack unwinds), the earlier
    /// words are kept behind it.
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

    /// The panic with this text, on the current row, is final. False when it has not been drafted.
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

    /// Whether a message of this kind is there.
    pub(crate) fn has_message(&self, kind: MessageKind) -> bool {
        self.kind.load(Ordering::Relaxed) == kind as u32
    }

    fn drafted_here(&self) -> bool {
        self.kind.load(Ordering::Acquire) == MessageKind::PanicDraft as u32
            && self.message_row.load(Ordering::Relaxed) == self.row.load(Ordering::Relaxed)
    }

    /// The words of the draft on this row, as far as they fit.
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

    /// The message of a dead worker. Lengths and text are taken as untrusted: cut to what there is,
    /// made valid UTF-8.
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
        })
    }

    /// Notes a memory fault. Called from a signal handler: stores only.
    pub(crate) fn leave_fault(&self, fault: Fault) {
        self.fault_address.store(fault.address as u64, Ordering::Relaxed);
        self.fault_signal.store(fault.signal.unsigned_abs(), Ordering::Release);
    }

    /// The memory fault of a dead worker.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let signal = i32::try_from(self.fault_signal.load(Ordering::Acquire))
            .ok()
            .filter(|&signal| signal != 0)?;
        Some(Fault {
            signal,
            address: usize::try_from(self.fault_address.load(Ordering::Relaxed)).unwrap_or(0),
        })
    }

    /// In its worker: it begins with the call of this number. The tally of a predecessor in the
    /// same call goes on; what else was left of earlier calls is forgotten.
    pub(crate) fn begin(&self, call: u32) {
        if self.tally.is_of(call) {
            return;
        }
        self.kind.store(0, Ordering::Relaxed);
        self.row.store(NO_ROW, Ordering::Relaxed);
        self.saved.store(NO_ROW, Ordering::Relaxed);
        self.tally.begin(call);
    }

    /// Makes the slot ready for the next process that holds it. The tally goes on.
    pub(crate) fn clear(&self) {
        add(&self.tally.starts, 1);
        self.go.store(0, Ordering::Relaxed);
        self.kind.store(0, Ordering::Relaxed);
        self.fault_signal.store(0, Ordering::Relaxed);
        self.row.store(NO_ROW, Ordering::Relaxed);
        self.saved.store(NO_ROW, Ordering::Relaxed);
        self.ready.store(0, Ordering::Relaxed);
    }

    fn write_text(&self, start: usize, capacity: usize, text: impl fmt::Display) -> usize {
        let mut writer = TextWriter { text: &self.text[start..start + capacity], len: 0 };
        // The only error is "full", and a cut message is what is wanted then.
        let _ = fmt::write(&mut writer, format_args!("{text}"));
        writer.len
    }

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

    /// Whether the counters are of the call of this number; a worker that has not begun with a call
    /// counts another.
    pub(crate) fn is_of(&self, call: u32) -> bool {
        self.call.load(Ordering::Relaxed) == u64::from(call)
    }

    /// Whether memory was noted.
    pub(crate) fn is_measured(&self) -> bool {
        self.proportional_bytes.load(Ordering::Relaxed) != 0
    }

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

    /// Notes the worker's memory, at the end of its life.
    pub(crate) fn note_memory(&self, private_bytes: u64, proportional_bytes: u64) {
        self.private_bytes.store(private_bytes, Ordering::Relaxed);
        self.proportional_bytes.store(proportional_bytes, Ordering::Relaxed);
    }

    /// Counts a finished block.
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

/// Adds to a counter that has one writer: a load and a store, cheaper than a locked add.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a text is at most a page")
}

/// Formats into a slot's text, cutting at the last whole character that fits.
struct TextWriter<'a> {
    text: &'a [AtomicU8],
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
/// Rust 1.91).
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
}
