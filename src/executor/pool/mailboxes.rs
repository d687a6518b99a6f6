//! [`Mailboxes`]: the caller's ends of the sockets to a pool's workers, and what each worker was
//! sent.
//!
//! They stand apart from the rest of the caller's side, because any thread may drop a segment at
//! any time. The workers are then told to unmap it, also while a call runs. The worker table and
//! `CallWorkers` send everything else. Sending never blocks.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job_board::JobBoard;
use super::maps::MAPPED_MAX;
use super::messages::ToWorker;
use crate::segment::Segment;
use crate::segment::registry::Observer;
use crate::sys::channel::Channel;

/// One mailbox for each slot.
#[derive(Debug)]
pub(super) struct Mailboxes {
    /// Counts what is sent.
    board: Arc<JobBoard>,
    all: Mutex<Vec<Mailbox>>,
}

/// The mailbox of one slot.
#[derive(Debug)]
struct Mailbox {
    /// The caller's end. All processes that get the slot read from the same other end, one after
    /// another.
    channel: Channel,
    /// Which process messages are for. The others skip them.
    generation: u16,
    /// The ids of the segments that the worker of this generation was sent, at most [`MAPPED_MAX`].
    mapped: Vec<u64>,
}

impl Mailboxes {
    pub(super) fn new(board: Arc<JobBoard>, channels: Vec<Channel>) -> Self {
        let mailbox = |channel| Mailbox { channel, generation: 0, mapped: Vec::new() };
        Self { board, all: Mutex::new(channels.into_iter().map(mailbox).collect()) }
    }

    /// Sends the worker of a slot those of `segments` that it has not mapped yet. If it has no room
    /// for them it is told to leave instead: its successor has room. (No segment is taken away from
    /// a living worker, since a kernel may have kept a view of an array that lives for ever.)
    /// `false` when the worker has read so little that a message finds no room.
    ///
    /// See [sendmsg(2)](https://man7.org/linux/man-pages/man2/sendmsg.2.html).
    ///
    /// # Errors
    /// That of `sendmsg`.
    pub(super) fn deliver(&self, slot: usize, segments: &[&Segment]) -> io::Result<bool> {
        let mailbox = &mut self.all()[slot];
        let is_new = |segment: &&Segment| !mailbox.mapped.contains(&segment.id());
        let new: Vec<&Segment> = segments.iter().copied().filter(is_new).collect();
        if mailbox.mapped.len() + new.len() > MAPPED_MAX {
            return mailbox.send(&self.board, slot, ToWorker::Leave, None);
        }
        for segment in new {
            let map = ToWorker::Map {
                id: segment.id(),
                len: segment.len(),
                caller_address: segment.address(),
            };
            if !mailbox.send(&self.board, slot, map, Some(segment))? {
                return Ok(false);
            }
            mailbox.mapped.push(segment.id());
        }
        Ok(true)
    }

    /// Admits the process that has the slot now. `false` as for [`deliver`](Self::deliver).
    ///
    /// # Errors
    /// That of `sendmsg`.
    pub(super) fn welcome(&self, slot: usize) -> io::Result<bool> {
        let mailbox = &mut self.all()[slot];
        // The worker counts the messages from here on, so it is told the number with this one.
        let sent = self.board.sent(slot).wrapping_add(1);
        mailbox.send(&self.board, slot, ToWorker::Welcome { sent }, None)
    }

    /// Wakes the worker of a slot.
    ///
    /// # Errors
    /// That of `sendmsg`.
    pub(super) fn wake(&self, slot: usize) -> io::Result<bool> {
        self.all()[slot].send(&self.board, slot, ToWorker::Wake, None)
    }

    /// From now on the slot's process is of this generation, and has nothing mapped.
    pub(super) fn renew(&self, slot: usize, generation: u16) {
        let mailbox = &mut self.all()[slot];
        mailbox.generation = generation;
        mailbox.mapped.clear();
        self.board.forget_sleeper(slot);
    }

    /// How many segments a worker has mapped: the highest number among the workers.
    pub(super) fn n_mapped(&self) -> usize {
        self.all().iter().map(|mailbox| mailbox.mapped.len()).max().unwrap_or(0)
    }

    /// All mailboxes, locked. A panic under this lock leaves them as they should be, except perhaps
    /// for the last message, so poison is ignored.
    fn all(&self) -> MutexGuard<'_, Vec<Mailbox>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// Sends one message, with a segment's file or without, and counts it after it went out: a
    /// worker that reads as many messages as are counted always finds them.
    fn send(
        &self,
        board: &JobBoard,
        slot: usize,
        message: ToWorker,
        segment: Option<&Segment>,
    ) -> io::Result<bool> {
        let fd = segment.map(|segment| segment.file().as_fd());
        let sent = self.channel.send(&message.encode(self.generation), fd)?;
        if sent {
            board.count_sent(slot);
        }
        Ok(sent)
    }
}

impl Observer for Mailboxes {
    fn is_gone(&self, id: u64) {
        for (slot, mailbox) in self.all().iter_mut().enumerate() {
            if let Some(at) = mailbox.mapped.iter().position(|&known| known == id) {
                mailbox.mapped.swap_remove(at);
                // A worker that does not read, or is dead, is replaced by the next call.
                let _ = mailbox.send(&self.board, slot, ToWorker::Unmap { id }, None);
            }
        }
    }
}
