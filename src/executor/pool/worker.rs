//! A pool worker's whole life, from the zygote's fork to `_exit`.
//!
//! The worker puts its process in order and waits to be admitted. Then it takes up one job after
//! the other: it looks at the board, maps the segments that the job names, and claims, runs and
//! publishes blocks until nothing is left. It waits for the next job awake for a while, then
//! asleep.
//!
//! The zygote calls [`live`] in the child. How blocks are won, and what is run on one, is the same
//! as in a worker that is forked for one call: see [`at_work`]. This file takes no lock and
//! allocates nothing; an operation that needs a buffer allocates it when it unpacks its arguments.
//!
//! # Safety
//! An address in the job is made into a function and called. The seal says that the record is
//! whole, so the caller has put it there, and this process has the same code at the same addresses
//! as the caller, which checked the address.
#![allow(unsafe_code, reason = "calls what the caller has packed")]

use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::job::{Job, SegmentRef};
use super::job_board::RECORD_WORDS;
use super::maps::Maps;
use super::messages::ToWorker;
use super::shared_state::PoolShared;
use super::spin::SpinBudget;
use crate::engine::args::{ArgReader, from_word};
use crate::engine::control::{CallKey, Control, Owner, Slot};
use crate::engine::worker::{self, at_work};
use crate::executor::mode::EntryPoint;
use crate::sys::channel::Received;
use crate::sys::process::{Pid, exit_now};
use crate::sys::{fpu, inherited, signal};

/// The memory that a worker works with. The caller allocates it before it forks the zygote, since
/// workers allocate nothing of their own accord. Each worker has a copy of it by its fork.
#[derive(Debug)]
pub(super) struct WorkerBuffers {
    maps: Maps,
    /// Room for one record.
    buffer: Vec<u64>,
}

impl WorkerBuffers {
    pub(super) fn new() -> Self {
        Self { maps: Maps::new(), buffer: vec![0; RECORD_WORDS] }
    }
}

/// The exit code of a worker that has made as many calls as it may, or that was told to leave since
/// it has no room for more segments. Such an end is not counted as a death.
pub(super) const EXIT_RECYCLED: i32 = 104;

/// The key of no call, for looks at the slots between calls.
pub(super) const NO_CALL: CallKey = CallKey { nonce: 0, number: 0 };

/// An admitted worker.
struct Worker<'n> {
    shared: &'n PoolShared<'n>,
    owner: Owner,
    slot: &'n Slot,
    maps: Maps,
    /// How many messages have been received in the slot, counted as the board counts those that
    /// were sent: modulo 2<sup>32</sup>, those of predecessors included.
    received: u32,
    /// How long to look for a job before sleeping.
    spin: SpinBudget,
    /// How many calls it has taken part in.
    calls: u32,
    /// The number of the last of them. A job that is put on the board again is the same call.
    last_call: Option<u32>,
    /// Where records are copied to.
    buffer: Vec<u64>,
}

/// The worker's life. Never returns.
pub(super) fn live(
    shared: &PoolShared<'_>,
    zygote: Pid,
    owner: Owner,
    buffers: WorkerBuffers,
) -> ! {
    inherited::set_process_name(c"rowfork-worker");
    if worker::die_with_parent(zygote).is_err() {
        exit_now(1); // the zygote sees it, and forks another
    }
    let index = usize::from(owner.slot);
    let own =
        [shared.worker_channels[index].as_fd().as_raw_fd(), shared.wakeup.as_fd().as_raw_fd()];
    // SAFETY: nothing in a worker uses the zygote's own descriptors or those of other slots.
    unsafe { inherited::blank_descriptors(|fd| own.contains(&fd)) };
    worker::put_process_in_order();
    let (mut maps, buffer) = (buffers.maps, buffers.buffer);
    let Some(received) = wait_for_admission(shared, owner, &mut maps) else { exit_now(0) };
    let slot =
        &Control::in_pages(shared.control, 0, shared.worker_channels.len(), NO_CALL).slots()[index];
    worker::take_slot(slot);
    signal::unblock_all();
    initialise(shared, slot);
    let most = if index < shared.n_spinning { shared.spin } else { Duration::ZERO };
    Worker {
        shared,
        owner,
        slot,
        maps,
        received,
        spin: SpinBudget::new(most),
        calls: 0,
        last_call: None,
        buffer,
    }
    .serve()
}

/// Runs the caller's function for new workers. A panic in it ends the worker, with a message in its
/// slot.
fn initialise(shared: &PoolShared<'_>, slot: &Slot) {
    slot.set_initialising();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(shared.init)) {
        worker::fail_setup(
            slot,
            format_args!("the pool's init function panicked: {}", worker::panic_text(&*payload)),
        );
    }
    slot.set_ready();
}

/// Waits for `Welcome`: then the slot is clear and belongs to this process. Maps the segments that
/// are sent before it. Returns how many messages were sent to the slot by then, or `None` if the
/// caller is gone.
fn wait_for_admission(shared: &PoolShared<'_>, owner: Owner, maps: &mut Maps) -> Option<u32> {
    loop {
        match shared.worker_channels[usize::from(owner.slot)].receive(true) {
            Received::Message(message, fd) => match ToWorker::decode(message, owner.generation) {
                Some(ToWorker::Welcome { sent }) => return Some(sent),
                // The slot is not this worker's yet, so an error cannot be left there. The job that
                // needs the segment will find it missing, and say so.
                Some(ToWorker::Map { id, len, caller_address }) => {
                    let _ = maps.add(id, fd, len, caller_address);
                }
                Some(ToWorker::Unmap { id }) => maps.remove(id),
                Some(ToWorker::Leave) => exit_now(EXIT_RECYCLED),
                Some(ToWorker::Wake) | None => {}
            },
            Received::Nothing => {}
            Received::Closed => return None,
        }
    }
}

impl Worker<'_> {
    /// Takes up jobs, for ever.
    fn serve(&mut self) -> ! {
        let mut last_sequence = 0;
        loop {
            if let Some(sequence) = self.shared.board.new_sequence(last_sequence) {
                last_sequence = sequence;
                self.take_up(sequence);
            } else {
                self.wait(last_sequence);
            }
        }
    }

    /// Waits for another sequence: awake for as long as that has paid so far, then asleep on the
    /// socket of the mailbox.
    fn wait(&mut self, last_sequence: u64) {
        let (board, index) = (self.shared.board, usize::from(self.owner.slot));
        let began = Instant::now();
        if !self.spin.look_for(began, || board.has_new(last_sequence)) {
            board.sleep_until_new(index, last_sequence, || {
                self.collect(true);
            });
        }
        self.spin.learn(began.elapsed());
    }

    /// Reads one message and does what it says. If there is none it waits for one, when `wait` says
    /// so. Returns whether there was one.
    fn collect(&mut self, wait: bool) -> bool {
        match self.shared.worker_channels[usize::from(self.owner.slot)].receive(wait) {
            Received::Message(message, fd) => {
                self.received = self.received.wrapping_add(1);
                match ToWorker::decode(message, self.owner.generation) {
                    Some(ToWorker::Map { id, len, caller_address }) => {
                        if let Err(error) = self.maps.add(id, fd, len, caller_address) {
                            worker::fail_setup(
                                self.slot,
                                format_args!("mmap of a segment: {}", worker::errno(&error)),
                            );
                        }
                    }
                    Some(ToWorker::Unmap { id }) => self.maps.remove(id),
                    Some(ToWorker::Leave) => exit_now(EXIT_RECYCLED),
                    Some(ToWorker::Welcome { .. } | ToWorker::Wake) | None => {}
                }
                true
            }
            Received::Nothing => false,
            Received::Closed => exit_now(0),
        }
    }

    /// Takes part in the job of this sequence, if the job is for this slot.
    fn take_up(&mut self, sequence: u64) {
        // Messages first: the segments of the job were sent before it.
        while self.received != self.shared.board.sent(usize::from(self.owner.slot))
            && self.collect(false)
        {}
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(record) = self.shared.board.read(sequence, &mut buffer) {
            // SAFETY: a whole record of the caller's, so the word is the address of a function of
            // this program.
            let job = Job::decode(record, |entry| unsafe { from_word::<EntryPoint>(entry as u64) });
            if let Some((job, segments, args)) = job
                && usize::from(self.owner.slot) < job.workers
            {
                self.run_job(sequence, &job, segments, args);
            }
        }
        self.buffer = buffer;
    }

    /// Works on a job until nothing is left for this worker, and wakes the caller if it sleeps and
    /// all is done.
    fn run_job(&mut self, sequence: u64, job: &Job, segments: &[u64], args: &[u64]) {
        self.slot.begin(job.key.number);
        match self.maps.prepare(&segments.iter().map(|&word| SegmentRef::of_word(word))) {
            Ok(true) => {}
            // Either the job is over and its arrays are gone, or a segment could not be received.
            // In the first case the board has another sequence.
            Ok(false) if self.shared.board.sequence() != sequence => return,
            Ok(false) => worker::fail_setup(
                self.slot,
                "an array of the call could not be received (too many descriptors?)",
            ),
            Err(error) => worker::fail_setup(
                self.slot,
                format_args!("mprotect of a segment: {}", worker::errno(&error)),
            ),
        }
        let mapped_segments =
            self.maps.mapped_segments(segments.iter().map(|&word| SegmentRef::of_word(word).id));
        let args = match segments.last() {
            Some(&word) if job.is_long => self.maps.words(SegmentRef::of_word(word).id),
            _ => args,
        };
        let blocks = job.blocks();
        let control = Control::in_pages(
            self.shared.control,
            blocks.len(),
            self.shared.worker_channels.len(),
            job.key,
        );
        fpu::set_default();
        let mut run_blocks = |run: &worker::BlockFn<'_>| {
            let work = worker::Work { control, blocks: &blocks, run };
            if let Err(code) = at_work(&work, self.slot, self.owner) {
                exit_now(code);
            }
        };
        // SAFETY: the arguments are those that the caller has packed for this entry point, from a
        // whole record. They and the mappings stay as long as this function runs.
        let entered = catch_unwind(AssertUnwindSafe(|| unsafe {
            (job.entry)(&mut ArgReader::new(args, &mapped_segments), &mut run_blocks)
        }));
        match entered {
            Ok(Ok(())) => {}
            Ok(Err(error)) => worker::fail_setup(self.slot, error),
            Err(payload) => worker::fail_setup(self.slot, worker::panic_text(&*payload)),
        }
        if job.measure_memory {
            worker::measure_memory(self.slot);
        }
        if self.shared.board.caller_sleeps() && control.is_over(&blocks) {
            self.shared.wakeup.raise();
        }
        if self.last_call != Some(job.key.number) {
            (self.calls, self.last_call) = (self.calls + 1, Some(job.key.number));
        }
        if self.shared.calls_per_worker.is_some_and(|most| self.calls >= most.get()) {
            exit_now(EXIT_RECYCLED); // a fresh one takes its place
        }
    }
}
