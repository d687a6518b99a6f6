//! [`CallWorkers`]: the workers of one call on a pool, as the supervisor sees them.
//!
//! `mod.rs` makes one for each call and gives it to the supervisor, which knows it as a
//! [`WorkerSet`]. It puts the job on the board, admits workers and waits for them; it decides
//! nothing. The worker table beneath it outlives the call.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::job_board::JobBoard;
use super::mailboxes::Mailboxes;
use super::worker_table::WorkerTable;
use crate::engine::blocks::RowBlocks;
use crate::engine::control::{Control, Owner};
use crate::engine::worker_set::WorkerSet;
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sys::process::Exit;

/// How often to look whether workers have measured their memory: nothing wakes the caller then.
const MEASURE_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The workers of the first slots of a pool, for one call. If it is dropped before the call is
/// over, it kills them, since one of them might still write to the output.
pub(super) struct CallWorkers<'c> {
    pub(super) table: &'c mut WorkerTable,
    pub(super) board: &'c JobBoard,
    pub(super) mailboxes: &'c Mailboxes,
    pub(super) control: Control<'c>,
    pub(super) blocks: &'c RowBlocks,
    pub(super) segments: &'c [&'c Segment],
    /// The job as words. It is put on the board again whenever workers have to look once more.
    pub(super) record: &'c [u64],
    /// How many slots take part: those from 0 on.
    pub(super) workers: usize,
    pub(super) measure_memory: bool,
    /// No worker runs anything of the call any more.
    pub(super) is_over: bool,
}

impl CallWorkers<'_> {
    /// Puts the job on the board, once all workers that were admitted earlier have been sent what
    /// it needs.
    pub(super) fn begin(&mut self) {
        if self.table.has_messages() {
            self.table.listen();
        }
        self.deliver();
        self.board.put(self.record);
        self.wake();
    }

    /// Sends each admitted worker the segments that it has not mapped yet, and kills a worker that
    /// does not read its socket. The supervisor then takes another.
    fn deliver(&mut self) {
        let admitted: Vec<Owner> = self.table.admitted(self.workers).collect();
        for owner in admitted {
            let sent = self.mailboxes.deliver(usize::from(owner.slot), self.segments);
            if !matches!(sent, Ok(true)) {
                self.table.kill(owner);
            }
        }
    }

    /// Wakes all workers that sleep.
    fn wake(&self) {
        for slot in (0..self.workers).filter(|&slot| self.board.is_asleep(slot)) {
            let _ = self.mailboxes.wake(slot); // it has other messages to wake for
        }
    }
}

impl WorkerSet for CallWorkers<'_> {
    fn size(&self) -> usize {
        self.workers
    }

    fn owners(&self) -> Vec<Owner> {
        self.table.admitted(self.workers).collect()
    }

    fn live(&self) -> usize {
        self.table.admitted(self.workers).count()
    }

    fn next_owner(&self) -> Option<Owner> {
        self.table.first_empty(self.workers)
    }

    fn spawn(&mut self, owner: Owner) -> Result<()> {
        let (segments, slot) = (self.segments, usize::from(owner.slot));
        self.is_over = false;
        let waits = self.live() == 0;
        self.table.admit(owner, waits, |mailboxes| mailboxes.deliver(slot, segments))
    }

    /// Puts the job on the board once more, under a new sequence, so that workers that found
    /// nothing look again.
    fn wake_all(&mut self) -> Result<()> {
        self.board.clear();
        self.board.put(self.record);
        self.wake();
        Ok(())
    }

    fn reap_ended(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Vec<(Owner, Exit)>> {
        // First say that the caller sleeps, then look: a worker that does the last block in between
        // raises the wakeup.
        self.board.set_caller_sleeps(true);
        let known = self.table.has_ended() || self.control.is_over(self.blocks);
        let until = if known { Instant::now() } else { deadline };
        let slept = self.table.sleep(wake, until);
        self.board.set_caller_sleeps(false);
        slept.map_err(Error::of_watching)?;
        self.table.listen();
        self.table.check()?;
        let ended = self.table.take_ended(self.workers);
        if ended.is_empty() && Instant::now() >= deadline {
            self.table.check_zygote_answers();
            self.table.check()?;
            // No wake-up should be lost. One that is lost all the same, through a stray store to
            // the board, costs a tick.
            self.wake_all()?;
        }
        Ok(ended)
    }

    fn kill(&mut self, owner: Owner) -> bool {
        self.table.kill(owner)
    }

    fn give_up(&mut self, owner: Owner) -> Option<i32> {
        self.table.give_up(owner)
    }

    /// The workers stay for the next call. There is nothing to wait for but their figures, if they
    /// were asked for.
    fn release(&mut self, deadline: Instant) -> Result<(), i32> {
        let slots = &self.control.slots()[..self.workers];
        let number = self.control.call().number;
        let measured =
            || slots.iter().all(|slot| !slot.tally.is_of(number) || slot.tally.is_measured());
        while self.measure_memory && !measured() && Instant::now() < deadline {
            std::thread::sleep(MEASURE_POLL_INTERVAL);
        }
        self.is_over = true;
        Ok(())
    }

    fn end(&mut self) -> Result<(), i32> {
        let ended = self.table.end(self.workers);
        self.is_over = ended.is_ok();
        ended
    }
}

impl Drop for CallWorkers<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.table.end(self.workers); // who does not die is given up
        }
        self.board.clear();
    }
}
