//! One call on a pool, as the supervisor has its workers.

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

/// How often to look whether workers have measured their memory.
const MEASURE_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The workers of the first slots of a pool, for one call. If it is dropped before the call is
/// over, they are ended: one of them might still write to the output.
pub(super) struct CallWorkers<'c> {
    pub(super) table: &'c mut WorkerTable,
    pub(super) board: &'c JobBoard,
    pub(super) mailboxes: &'c Mailboxes,
    pub(super) control: Control<'c>,
    pub(super) blocks: &'c RowBlocks,
    pub(super) segments: &'c [&'c Segment],
    /// The job, as it stands on the board.
    pub(super) record: &'c [u64],
    /// So many slots take part.
    pub(super) workers: usize,
    pub(super) measure_memory: bool,
    /// No worker is at the call any more.
    pub(super) is_over: bool,
}

impl CallWorkers<'_> {
    /// Puts the job on the board, where all who were let in before have what it needs.
    pub(super) fn begin(&mut self) {
        if self.table.has_messages() {
            self.table.listen();
        }
        self.deliver();
        self.board.put(self.record);
        self.wake();
    }

    /// Sends those who were let in before what they need; ends who does not read.
    fn deliver(&mut self) {
        let admitted: Vec<Owner> = self.table.admitted(self.workers).collect();
        for owner in admitted {
            let sent = self.mailboxes.deliver(usize::from(owner.slot), self.segments);
            if !matches!(sent, Ok(true)) {
                self.table.kill(owner);
            }
        }
    }

    /// Wakes all who sleep.
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

    /// Puts the job on the board once more.
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
            self.table.note_silence();
            self.table.check()?;
            // Nothing should be lost; what is lost all the same (a stray store to the board) costs
            // a tick.
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
