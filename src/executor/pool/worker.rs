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

use super::job::{Job, Wanted};
use super::job_board::RECORD_WORDS;
use super::maps::Maps;
use super::messages::ToWorker;
use super::shared_state::Nest;
use super::spin::Patience;
use crate::engine::args::{Unpacker, from_word};
use crate::engine::control::{CallKey, Control, Owner, Slot};
use crate::engine::worker::{self, at_work};
use crate::executor::mode::Entry;
use crate::sys::channel::Received;
use crate::sys::process::{Pid, exit_now};
use crate::sys::{fpu, inherited, signal};

/// The memory that a worker works with. Its parents have it before the fork, since workers allocate
/// nothing of their own accord.
#[derive(Debug)]
pub(super) struct Desk {
    maps: Maps,
    buffer: Vec<u64>,
}

impl Desk {
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
    nest: &'n Nest<'n>,
    owner: Owner,
    slot: &'n Slot,
    maps: Maps,
    /// Messages that have come, counted as the board counts them.
    received: u32,
    patience: Patience,
    /// Calls that it has taken part in, and the last of them.
    calls: u32,
    last_call: Option<u32>,
    /// Where records are copied to.
    buffer: Vec<u64>,
}

/// The worker's life.
pub(super) fn live(nest: &Nest<'_>, zygote: Pid, owner: Owner, desk: Desk) -> ! {
    inherited::set_process_name(c"rowfork-worker");
    if worker::die_with_parent(zygote).is_err() {
        exit_now(1); // the zygote sees it, and forks another
    }
    let index = usize::from(owner.slot);
    let own = [nest.posts[index].as_fd().as_raw_fd(), nest.bell.as_fd().as_raw_fd()];
    // SAFETY: the other slots' and the zygote's own are none of a worker's business.
    unsafe { inherited::blank_descriptors(|fd| own.contains(&fd)) };
    worker::put_process_in_order();
    let (mut maps, buffer) = (desk.maps, desk.buffer);
    let Some(received) = wait_to_be_let_in(nest, owner, &mut maps) else { exit_now(0) };
    let slot = &Control::in_pages(nest.control, 0, nest.posts.len(), NO_CALL).slots()[index];
    worker::take_slot(slot);
    signal::unblock_all();
    initialise(nest, slot);
    let most = if index < nest.n_spinning { nest.spin } else { Duration::ZERO };
    Worker {
        nest,
        owner,
        slot,
        maps,
        received,
        patience: Patience::new(most),
        calls: 0,
        last_call: None,
        buffer,
    }
    .serve()
}

/// Runs the caller's function for new workers.
fn initialise(nest: &Nest<'_>, slot: &Slot) {
    slot.set_initialising();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(nest.init)) {
        worker::fail_setup(
            slot,
            format_args!("the pool's init function panicked: {}", worker::panic_text(&*payload)),
        );
    }
    slot.set_ready();
}

/// Waits until the slot is clear, and belongs to this process; maps what is sent before. How many
/// messages were sent by then.
fn wait_to_be_let_in(nest: &Nest<'_>, owner: Owner, maps: &mut Maps) -> Option<u32> {
    loop {
        match nest.posts[usize::from(owner.slot)].receive(true) {
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
        let mut last_turn = 0;
        loop {
            if let Some(turn) = self.nest.board.new_turn(last_turn) {
                last_turn = turn;
                self.take_up(turn);
            } else {
                self.wait(last_turn);
            }
        }
    }

    /// Waits for another turn: awake for as long as that has paid so far, then asleep.
    fn wait(&mut self, last_turn: u64) {
        let (board, index) = (self.nest.board, usize::from(self.owner.slot));
        let began = Instant::now();
        if !self.patience.look_for(began, || board.has_new(last_turn)) {
            board.sleep_until_new(index, last_turn, || {
                self.collect(true);
            });
        }
        self.patience.learn(began.elapsed());
    }

    /// Does what a message says; waits for one, if there is none and it is to. Whether there was
    /// one.
    fn collect(&mut self, wait: bool) -> bool {
        match self.nest.posts[usize::from(self.owner.slot)].receive(wait) {
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

    /// Takes part in the job of this turn, if it has one for this slot.
    fn take_up(&mut self, turn: u64) {
        // Segments first: what the job speaks of was sent before it.
        while self.received != self.nest.board.sent(usize::from(self.owner.slot))
            && self.collect(false)
        {}
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(record) = self.nest.board.read(turn, &mut buffer) {
            // SAFETY: a whole record, of the caller's: the word is that of a function of this
            // program.
            let job = Job::decode(record, |entry| unsafe { from_word::<Entry>(entry as u64) });
            if let Some((job, segments, packet)) = job
                && usize::from(self.owner.slot) < job.workers
            {
                self.run(turn, &job, segments, packet);
            }
        }
        self.buffer = buffer;
    }

    fn run(&mut self, turn: u64, job: &Job, segments: &[u64], packet: &[u64]) {
        self.slot.begin(job.key.number);
        match self.maps.prepare(&segments.iter().map(|&word| Wanted::of_word(word))) {
            Ok(true) => {}
            // The job is over, and its arrays are gone; or they could not be received.
            Ok(false) if self.nest.board.turn() != turn => return,
            Ok(false) => worker::fail_setup(
                self.slot,
                "an array of the call could not be received (too many descriptors?)",
            ),
            Err(error) => worker::fail_setup(
                self.slot,
                format_args!("mprotect of a segment: {}", worker::errno(&error)),
            ),
        }
        let arrived = self.maps.arrived(segments.iter().map(|&word| Wanted::of_word(word).id));
        let packet = match segments.last() {
            Some(&word) if job.is_long => self.maps.words(Wanted::of_word(word).id),
            _ => packet,
        };
        let blocks = job.blocks();
        let control =
            Control::in_pages(self.nest.control, blocks.len(), self.nest.posts.len(), job.key);
        fpu::set_default();
        let mut desk = |run: &worker::BlockFn<'_>| {
            let job = worker::Job { control, blocks: &blocks, run };
            if let Err(code) = at_work(&job, self.slot, self.owner) {
                exit_now(code);
            }
        };
        // SAFETY: the packet is the one that the caller has packed for this entry, in a whole
        // record; it and the mappings stay as long as this function runs.
        let entered = catch_unwind(AssertUnwindSafe(|| unsafe {
            (job.entry)(&mut Unpacker::new(packet, &arrived), &mut desk)
        }));
        match entered {
            Ok(Ok(())) => {}
            Ok(Err(error)) => worker::fail_setup(self.slot, error),
            Err(payload) => worker::fail_setup(self.slot, worker::panic_text(&*payload)),
        }
        if job.measure_memory {
            worker::measure_memory(self.slot);
        }
        if self.nest.board.caller_sleeps() && control.is_over(&blocks) {
            self.nest.bell.raise();
        }
        if self.last_call != Some(job.key.number) {
            (self.calls, self.last_call) = (self.calls + 1, Some(job.key.number));
        }
        if self.nest.calls_per_worker.is_some_and(|most| self.calls >= most.get()) {
            exit_now(EXIT_RECYCLED); // a fresh one takes its place
        }
    }
}
