//! [`WorkerSet`]: the workers of a call as the supervisor has them, wherever they come from.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::engine::control::Owner;
use crate::error::Result;
use crate::sys::process::Exit;

/// Those who work on one call, wherever they come from.
pub(crate) trait WorkerSet {
    /// How many slots there are.
    fn size(&self) -> usize;

    /// Who is alive, as far as is known.
    fn owners(&self) -> Vec<Owner>;

    /// Who the next worker will be: the first empty slot.
    fn next_owner(&self) -> Option<Owner>;

    /// Has a worker in the empty slot of `owner`, which is clear.
    fn spawn(&mut self, owner: Owner) -> Result<()>;

    /// There are units to be had again: workers that found none look once more.
    fn wake_all(&mut self) -> Result<()>;

    /// Sleeps until a worker has ended, all is done as far as the workers know, `wake` is readable,
    /// a signal has come, or `deadline` is there; says who has ended, and how.
    fn reap_ended(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Vec<(Owner, Exit)>>;

    /// SIGKILL to a worker. Whether it was found stopped.
    fn kill(&mut self, owner: Owner) -> bool;

    /// Gives up a worker that does not die: nobody waits for it any more. Its process id.
    fn give_up(&mut self, owner: Owner) -> Option<i32>;

    /// Everything is done, and the workers may go, by `deadline`.
    ///
    /// # Errors
    /// As for [`WorkerSet::end`].
    fn release(&mut self, deadline: Instant) -> Result<(), i32>;

    /// Kills all workers, and waits until they are really dead: not before may the caller touch the
    /// output again.
    ///
    /// # Errors
    /// The process id of a worker that is not dead after [`DEATH_LIMIT`](super::decide::DEATH_LIMIT). It is given up.
    fn end(&mut self) -> Result<(), i32>;

    /// How many workers are alive, as far as is known.
    fn live(&self) -> usize {
        self.owners().len()
    }
}
