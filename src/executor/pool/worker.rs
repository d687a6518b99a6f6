//! A pool worker's whole life, from the zygote's fork to `_exit`: put the process in order, wait to
//! be let in, then take up one job after the other: look at the board, map what it speaks of,
//! claim, run, publish until nothing is left, and wait for the next, awake for a while, then
//! asleep.
//!
//! What is run on a won block, and how blocks are won, is the same as in a worker that is forked
//! for one call: see [`at_work`].
//!
//! # Safety
//! What a job names is made into a function and called: it stands on the board whole, as the seal
//! says, and was put there by the caller, of which this process is a copy as far as code goes.
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

/// The memory that a worker works with. Its parents have it before the fork, since workers allocate
/// nothing of their own accord.
#[derive(Debug)]
pub(super) struct WorkerBuffers {
    maps: Maps,
    buffer: Vec<u64>,
}

impl WorkerBuffers {
    pub(super) fn new() -> Self {
        Self { maps: Maps::new(), buffer: vec![0; RECORD_WORDS] }
    }
}

/// What a worker leaves with after as many calls as it may make, or with as many arrays as it may
/// have.
pub(super) const EXIT_RECYCLED: i32 = 104;

/// Before the first.
pub(super) const NO_CALL: CallKey = CallKey { nonce: 0, number: 0 };

struct Worker<'n> {
    shared: &'n PoolShared<'n>,
    owner: Owner,
    slot: &'n Slot,
    maps: Maps,
    /// Messages that have come, counted as the board counts them.
    received: u32,
    spin: SpinBudget,
    /// Calls that it has taken part in, and the last of them.
    calls: u32,
    last_call: Option<u32>,
    /// Where records are copied to.
    buffer: Vec<u64>,
}

/// The worker's life.
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
    // SAFETY: the other slots' and the zygote's own are none of a worker's business.
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

/// Runs the caller's function for new workers.
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

/// Waits until the slot is clear, and belongs to this process; maps what is sent before. How many
/// messages were sent by then.
fn wait_for_admission(shared: &PoolShared<'_>, owner: Owner, maps: &mut Maps) -> Option<u32> {
    loop {
        match shared.worker_channels[usize::from(owner.slot)].receive(true) {
            Received::Message(message, fd) => match ToWorker::decode(message, owner.generation) {
                Some(ToWorker::Welcome { sent }) => return Some(sent),
                // What cannot be mapped is missed by the job that speaks of it, which says so.
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

    /// Waits for another sequence: awake for as long as that has paid so far, then asleep.
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

    /// Does what a message says; waits for one, if there is none and it is to. Whether there was
    /// one.
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

    /// Takes part in the job of this sequence, if it has one for this slot.
    fn take_up(&mut self, sequence: u64) {
        // Segments first: what the job speaks of was sent before it.
        while self.received != self.shared.board.sent(usize::from(self.owner.slot))
            && self.collect(false)
        {}
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(record) = self.shared.board.read(sequence, &mut buffer) {
            // SAFETY: a whole record, of the caller's: the word is that of a function of this
            // program.
            let job = Job::decode(record, |entry| unsafe { from_word::<EntryPoint>(entry as u64) });
            if let Some((job, segments, args)) = job
                && usize::from(self.owner.slot) < job.workers
            {
                self.run(sequence, &job, segments, args);
            }
        }
        self.buffer = buffer;
    }

    fn run(&mut self, sequence: u64, job: &Job, segments: &[u64], args: &[u64]) {
        self.slot.begin(job.key.number);
        match self.maps.prepare(&segments.iter().map(|&word| SegmentRef::of_word(word))) {
            Ok(true) => {}
            // The job is over, and its arrays are gone; or they could not be received.
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
        // SAFETY: the arguments are the one that the caller has packed for this entry, in a whole
        // record; it and the mappings stay as long as this function runs.
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
