//! The workers that are forked for one call: a private table of the processes that are alive,
//! beside the shared slots, which nobody need believe. Dropping the table ends and reaps every
//! worker, so that no error and no panic of the caller leaves a child.

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
    /// A child of this process for the slot of `owner`, which is clear.
    fn spawn(&self, owner: Owner) -> Result<ChildFd>;
}

/// Workers that are children of this process, one per slot.
#[derive(Debug)]
pub(crate) struct ForkedChildren<S> {
    source: S,
    slots: Vec<ChildSlot>,
}

#[derive(Debug, Default)]
struct ChildSlot {
    child: Option<ChildFd>,
    /// Of the process that sits here, or of the next to sit here.
    generation: u16,
}

impl<S> ForkedChildren<S> {
    /// With this many empty slots.
    pub(crate) fn new(slots: usize, source: S) -> Self {
        Self { source, slots: (0..slots).map(|_| ChildSlot::default()).collect() }
    }

    fn occupied(&self) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(|&index| self.slots[index].child.is_some())
    }

    fn child(&self, owner: Owner) -> Option<&ChildFd> {
        let slot = self
            .slots
            .get(usize::from(owner.slot))
            .filter(|slot| slot.generation == owner.generation)?;
        slot.child.as_ref()
    }

    fn owner(&self, index: usize) -> Owner {
        let slot = u16::try_from(index).expect("a table has at most MAX_WORKERS slots");
        Owner { slot, generation: self.slots[index].generation }
    }

    fn reap(&mut self, index: usize) -> (Owner, Exit) {
        let owner = self.owner(index);
        let slot = &mut self.slots[index];
        let exit = slot.child.take().map_or(Exit::Unknown, |child| child.reap());
        if !is_on(Failpoint::OneGenerationPerSlot) {
            slot.generation = slot.generation.wrapping_add(1);
        }
        (owner, exit)
    }

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

    /// Who found none has left; the supervisor hires others.
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
        // If they cannot be watched they get no grace.
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

/// SIGKILL.
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
