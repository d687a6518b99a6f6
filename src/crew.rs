//! The workers of one call as child processes: a private table of who is alive, beside the shared slots that nobody need
//! believe. Dropping it ends and reaps every worker, so that no error and no panic of the caller leaves a child.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::control::Owner;
use crate::failpoints;
use crate::supervise::DEATH_LIMIT;
use crate::sys::process::{ChildFd, Exit, wait_for_end};

/// One entry per worker slot.
#[derive(Debug)]
pub(crate) struct Crew {
    seats: Vec<Seat>,
}

#[derive(Debug, Default)]
struct Seat {
    child: Option<ChildFd>,
    /// Of the process that sits here, or of the next to sit here.
    generation: u16,
}

impl Crew {
    /// With this many empty slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self { seats: (0..slots).map(|_| Seat::default()).collect() }
    }

    /// How many slots there are.
    pub(crate) fn size(&self) -> usize {
        self.seats.len()
    }

    /// How many workers are alive, as far as is known.
    pub(crate) fn live(&self) -> usize {
        self.seats.iter().filter(|seat| seat.child.is_some()).count()
    }

    /// Who the next worker will be: the first empty slot.
    pub(crate) fn next_owner(&self) -> Option<Owner> {
        let index = self.seats.iter().position(|seat| seat.child.is_none())?;
        Some(self.owner(index))
    }

    /// Puts a new worker in its slot.
    pub(crate) fn admit(&mut self, owner: Owner, child: ChildFd) {
        let seat = &mut self.seats[usize::from(owner.slot)];
        debug_assert!(seat.child.is_none() && seat.generation == owner.generation);
        seat.child = Some(child);
    }

    /// Sleeps until a worker has ended, `wake` is readable, a signal has come, or `deadline` is there; reaps all that have
    /// ended.
    ///
    /// # Errors
    /// That of `poll`.
    pub(crate) fn reap_ended(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> io::Result<Vec<(Owner, Exit)>> {
        let seated: Vec<usize> = (0..self.seats.len()).filter(|&index| self.seats[index].child.is_some()).collect();
        let children = seated.iter().filter_map(|&index| self.seats[index].child.as_ref());
        let ended = wait_for_end(children, wake, deadline)?;
        let ended = seated.into_iter().zip(ended).filter_map(|(index, ended)| ended.then_some(index));
        Ok(ended.map(|index| self.reap(index)).collect())
    }

    /// Who is alive, as far as is known.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Owner> {
        let seated = (0..self.seats.len()).filter(|&index| self.seats[index].child.is_some());
        seated.map(|index| self.owner(index))
    }

    /// SIGKILL to a worker. Whether it was found stopped.
    pub(crate) fn kill(&self, owner: Owner) -> bool {
        let Some(child) = self.child(owner) else { return false };
        let stopped = child.is_stopped();
        kill(child);
        stopped
    }

    /// Gives up a worker that does not die: nobody waits for it any more. Its process id.
    pub(crate) fn give_up(&mut self, owner: Owner) -> Option<i32> {
        let pid = self.child(owner)?.pid();
        self.seats[usize::from(owner.slot)].child = None;
        Some(pid)
    }

    fn child(&self, owner: Owner) -> Option<&ChildFd> {
        let seat = self.seats.get(usize::from(owner.slot)).filter(|seat| seat.generation == owner.generation)?;
        seat.child.as_ref()
    }

    /// Gives every worker until `deadline` to leave by itself, then kills, and waits until all are really dead: not before
    /// may the caller touch the output again.
    ///
    /// # Errors
    /// The process id of a worker that is not dead after [`DEATH_LIMIT`]. It is given up.
    pub(crate) fn end(&mut self, deadline: Instant) -> Result<(), i32> {
        // If they cannot be watched they get no grace.
        while self.live() > 0 && Instant::now() < deadline && self.reap_ended(None, deadline).is_ok() {}
        self.seats.iter().filter_map(|seat| seat.child.as_ref()).for_each(kill);
        let deadline = Instant::now() + DEATH_LIMIT;
        let mut unkillable = None;
        for index in 0..self.seats.len() {
            match &self.seats[index].child {
                Some(child) if child.ends_by(deadline) => drop(self.reap(index)),
                Some(child) => {
                    unkillable.get_or_insert(child.pid());
                    self.seats[index].child = None;
                }
                None => {}
            }
        }
        unkillable.map_or(Ok(()), Err)
    }

    fn reap(&mut self, index: usize) -> (Owner, Exit) {
        let owner = self.owner(index);
        let seat = &mut self.seats[index];
        let exit = seat.child.take().map_or(Exit::Unknown, |child| child.reap());
        if !failpoints::is_on("one generation for all") {
            seat.generation = seat.generation.wrapping_add(1);
        }
        (owner, exit)
    }

    fn owner(&self, index: usize) -> Owner {
        let slot = u16::try_from(index).expect("a crew has at most MAX_WORKERS slots");
        Owner { slot, generation: self.seats[index].generation }
    }
}

/// SIGKILL.
fn kill(child: &ChildFd) {
    if !failpoints::is_on("unkillable") {
        child.kill();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let _ = self.end(Instant::now()); // who does not die is given up
    }
}
