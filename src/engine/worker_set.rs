//! [`WorkerSet`]: the workers of a call as the supervisor sees them, wherever they come from.
//!
//! `executor/fork/children.rs` and `executor/pool/call_workers.rs` implement it. An implementation
//! forks or admits, watches and kills. It decides nothing about units and rows, and does not touch
//! the claim words.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::engine::control::Owner;
use crate::error::Result;
use crate::sys::process::Exit;

/// The workers of one call, one for each slot at most.
pub(crate) trait WorkerSet {
    /// How many slots there are.
    fn size(&self) -> usize;

    /// The workers that are alive, as far as the caller knows.
    fn owners(&self) -> Vec<Owner>;

    /// Which process the next worker will be: the first empty slot, and its generation. `None` when
    /// no slot is empty.
    fn next_owner(&self) -> Option<Owner>;

    /// Puts a worker into the empty slot of `owner`, which the supervisor has cleared. A pool may
    /// have none ready; then nothing happens.
    fn spawn(&mut self, owner: Owner) -> Result<()>;

    /// Some units are free again: workers that found none have to look once more.
    fn wake_all(&mut self) -> Result<()>;

    /// Sleeps until a worker has ended, all is done as far as the workers know, `wake` is readable,
    /// a signal has come, or `deadline` is there. Returns which workers have ended, and how. These
    /// processes have left their memory, so no store of theirs can follow.
    fn reap_ended(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Vec<(Owner, Exit)>>;

    /// Sends SIGKILL to a worker. Returns whether it was found stopped. It counts as dead only when
    /// [`reap_ended`](Self::reap_ended) says so.
    fn kill(&mut self, owner: Owner) -> bool;

    /// Gives up a worker that does not die: nothing waits for it any more. Returns its process id.
    fn give_up(&mut self, owner: Owner) -> Option<i32>;

    /// Everything is done. The workers may finish what they are at until `deadline`: leave, or
    /// measure their memory.
    ///
    /// # Errors
    /// As for [`WorkerSet::end`].
    fn release(&mut self, deadline: Instant) -> Result<(), i32>;

    /// Kills all workers, and waits until they are really dead. The caller may not touch the output
    /// before.
    ///
    /// # Errors
    /// The process id of a worker that is not dead after
    /// [`DEATH_LIMIT`](super::decide::DEATH_LIMIT). It is given up.
    fn end(&mut self) -> Result<(), i32>;

    /// How many workers are alive, as far as is known.
    fn live(&self) -> usize {
        self.owners().len()
    }
}
