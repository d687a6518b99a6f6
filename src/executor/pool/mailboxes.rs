//! What each worker of a pool was sent: its end of the channel, and the segments that it has
//! mapped.
//!
//! Apart from the rest of the caller's side, since a segment may be dropped by any thread at any
//! time: the workers are then told to let go of it, also while a call runs.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job_board::JobBoard;
use super::maps::MAPPED_MAX;
use super::messages::ToWorker;
use crate::segment::Segment;
use crate::segment::registry::Observer;
use crate::sys::channel::Channel;

/// One for each slot.
#[derive(Debug)]
pub(super) struct Mailboxes {
    board: Arc<JobBoard>,
    all: Mutex<Vec<Mailbox>>,
}

#[derive(Debug)]
struct Mailbox {
    channel: Channel,
    generation: u16,
    /// The ids of what the worker of this generation has mapped.
    mapped: Vec<u64>,
}

impl Mailboxes {
    pub(super) fn new(board: Arc<JobBoard>, channels: Vec<Channel>) -> Self {
        let mailbox = |channel| Mailbox { channel, generation: 0, mapped: Vec::new() };
        Self { board, all: Mutex::new(channels.into_iter().map(mailbox).collect()) }
    }

    /// Sends the worker of a slot the segments that it does not have; or, where it has no room for
    /// them, the word to leave: its successor has. (None is taken away from it: a kernel may have
    /// kept a view of an array that lives for ever.) `false` when it does not read what it is sent.
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

    /// Lets the process of this generation in. `false` as for [`deliver`](Self::deliver).
    ///
    /// # Errors
    /// That of `sendmsg`.
    pub(super) fn welcome(&self, slot: usize) -> io::Result<bool> {
        let mailbox = &mut self.all()[slot];
        // It counts from the message after this one.
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

    /// From now on the slot's process is of this generation, and has nothing.
    pub(super) fn renew(&self, slot: usize, generation: u16) {
        let mailbox = &mut self.all()[slot];
        mailbox.generation = generation;
        mailbox.mapped.clear();
        self.board.forget_sleeper(slot);
    }

    /// The most segments that a worker has mapped.
    pub(super) fn n_mapped(&self) -> usize {
        self.all().iter().map(|mailbox| mailbox.mapped.len()).max().unwrap_or(0)
    }

    /// A panic under this lock leaves a table that is right but for the last message.
    fn all(&self) -> MutexGuard<'_, Vec<Mailbox>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
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
                // One that does not read, or is dead, is replaced by the next call.
                let _ = mailbox.send(&self.board, slot, ToWorker::Unmap { id }, None);
            }
        }
    }
}
