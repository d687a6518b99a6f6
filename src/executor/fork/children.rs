//! [`ForkedChildren`]: the workers that are forked for one call.
//!
//! It is the caller's private table of the processes that are alive. The slots in shared memory
//! mirror it, and the caller believes the table. The supervisor uses it as a [`WorkerSet`].
//! Dropping the table kills and reaps every worker, so that no error and no panic of the caller
//! leaves a child behind. It decides nothing: it forks, kills and reaps as it is told.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::engine::control::Owner;
use crate::engine::decide::DEATH_LIMIT;
use crate::engine::worker_set::WorkerSet;
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::process::{ChildFd, Exit, wait_for_end};

/// Where the workers of a [`ForkedChildren`] come from.
pub(crate) trait Spawn {
    /// Forks a child of this process for the slot of `owner`, which is clear.
    fn spawn(&self, owner: Owner) -> Result<ChildFd>;
}

/// Workers that are children of this process, at most one per slot.
#[derive(Debug)]
pub(crate) struct ForkedChildren<S> {
    source: S,
    slots: Vec<ChildSlot>,
}

/// One slot.
#[derive(Debug, Default)]
struct ChildSlot {
    child: Option<ChildFd>,
    /// The generation of the child in this slot, or of the next one while it is empty. It differs
    /// from child to child, so the claim words of a dead worker are not taken for its successor's.
    generation: u16,
}

impl<S> ForkedChildren<S> {
    /// A table of this many empty slots.
    pub(crate) fn new(slots: usize, source: S) -> Self {
        Self { source, slots: (0..slots).map(|_| ChildSlot::default()).collect() }
    }

    /// The slots that have a child.
    fn occupied(&self) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(|&index| self.slots[index].child.is_some())
    }

    /// The child that is this very process, if it is there.
    fn child(&self, owner: Owner) -> Option<&ChildFd> {
        let slot = self
            .slots
            .get(usize::from(owner.slot))
            .filter(|slot| slot.generation == owner.generation)?;
        slot.child.as_ref()
    }

    /// The process in a slot, or the next one that will be in it.
    fn owner(&self, index: usize) -> Owner {
        let slot = u16::try_from(index).expect("a table has at most MAX_WORKERS slots");
        Owner { slot, generation: self.slots[index].generation }
    }

    /// Reaps the child of a slot, waiting for its end if need be. The slot is then empty and has
    /// the next generation.
    fn reap(&mut self, index: usize) -> (Owner, Exit) {
        let owner = self.owner(index);
        let slot = &mut self.slots[index];
        let exit = slot.child.take().map_or(Exit::Unknown, |child| child.reap());
        if !is_on(Failpoint::OneGenerationPerSlot) {
            slot.generation = slot.generation.wrapping_add(1);
        }
        (owner, exit)
    }

    /// Sleeps until a child has ended, `wake` is readable, a signal comes or `deadline` is there,
    /// and reaps the children that have ended.
    fn reap_by(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> io::Result<Vec<(Owner, Exit)>> {
        let occupied: Vec<usize> = self.occupied().collect();
        let children = occupied.iter().filter_map(|&index| self.slots[index].child.as_ref());
        let ended = wait_for_end(children, wake, deadline)?;
        let ended =
            occupied.into_iter().zip(ended).filter_map(|(index, ended)| ended.then_some(index));
        Ok(ended.map(|index| self.reap(index)).collect())
    }

    /// Kills and reaps all children. One that is not dead after [`DEATH_LIMIT`] is given up; its
    /// process id is the error, and the first such if there are several.
    fn kill_all(&mut self) -> Result<(), i32> {
        self.slots.iter().filter_map(|slot| slot.child.as_ref()).for_each(kill);
        let deadline = Instant::now() + DEATH_LIMIT;
        let mut unkillable = None;
        for index in 0..self.slots.len() {
            match &self.slots[index].child {
                Some(child) if child.ends_by(deadline) => drop(self.reap(index)),
                Some(child) => {
                    unkillable.get_or_insert(child.pid());
                    self.slots[index].child = None;
                }
                None => {}
            }
        }
        unkillable.map_or(Ok(()), Err)
    }
}

impl<S: Spawn> WorkerSet for ForkedChildren<S> {
    fn size(&self) -> usize {
        self.slots.len()
    }

    fn owners(&self) -> Vec<Owner> {
        self.occupied().map(|index| self.owner(index)).collect()
    }

    fn next_owner(&self) -> Option<Owner> {
        let index = self.slots.iter().position(|slot| slot.child.is_none())?;
        Some(self.owner(index))
    }

    fn spawn(&mut self, owner: Owner) -> Result<()> {
        let child = self.source.spawn(owner)?;
        let slot = &mut self.slots[usize::from(owner.slot)];
        debug_assert!(slot.child.is_none() && slot.generation == owner.generation);
        slot.child = Some(child);
        Ok(())
    }

    /// Nothing to do: a worker that found no unit has left, and the supervisor forks others.
    fn wake_all(&mut self) -> Result<()> {
        Ok(())
    }

    fn reap_ended(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<Vec<(Owner, Exit)>> {
        self.reap_by(wake, deadline).map_err(Error::of_watching)
    }

    fn kill(&mut self, owner: Owner) -> bool {
        let Some(child) = self.child(owner) else { return false };
        let stopped = child.is_stopped();
        kill(child);
        stopped
    }

    fn give_up(&mut self, owner: Owner) -> Option<i32> {
        let pid = self.child(owner)?.pid();
        self.slots[usize::from(owner.slot)].child = None;
        Some(pid)
    }

    fn release(&mut self, deadline: Instant) -> Result<(), i32> {
        // Workers that cannot be watched get no grace.
        while self.occupied().next().is_some()
            && Instant::now() < deadline
            && self.reap_by(None, deadline).is_ok()
        {}
        self.kill_all()
    }

    fn end(&mut self) -> Result<(), i32> {
        self.kill_all()
    }
}

/// Sends SIGKILL.
fn kill(child: &ChildFd) {
    if !is_on(Failpoint::UnkillableWorkers) {
        child.kill();
    }
}

impl<S> Drop for ForkedChildren<S> {
    fn drop(&mut self) {
        let _ = self.kill_all(); // who does not die is given up
    }
}
