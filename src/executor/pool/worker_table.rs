//! [`WorkerTable`]: the caller's private table of a pool's processes. It knows the zygote, which
//! process is in which slot, and what has become of the processes before it.
//!
//! `PostgreSQL` says of its table of child processes (`src/backend/postmaster/pmchild.c`) that the
//! structures are private to the postmaster, and that an array in shared memory mirrors them. It is
//! the same here: nothing in this table lies in shared memory, and the slots of the control block
//! mirror it. The caller signals and waits by this table, so a stray store to a slot cannot make it
//! signal a wrong process.
//!
//! Entries change only by the zygote's messages, which [`WorkerTable::listen`] reads, and when the
//! caller gives up a worker or the pool. One thread at a time uses the table: the one that makes a
//! call, or asks for `stats()` while there is no call. What becomes of a dead worker's blocks is
//! not decided here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::counters::{Counters, count};
use super::job_board::JobBoard;
use super::mailboxes::Mailboxes;
use super::messages::{ToCaller, ToZygote};
use super::silence::Silence;
use super::worker::EXIT_RECYCLED;
use crate::engine::control::Owner;
use crate::engine::decide::DEATH_LIMIT;
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::channel::{Channel, Received};
use crate::sys::event::Event;
use crate::sys::process::{self, ChildFd, Exit};
use crate::sys::procfs;

/// How long the zygote may take to fork a worker, and a worker to make room in its mailbox. A fork
/// takes 0.2 ms.
const BIRTH_LIMIT: Duration = Duration::from_secs(10);

/// How long the zygote may take to end all workers and leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(6);

/// What an error says when the zygote has ended by itself. It does so for no other reasons than
/// these.
const ZYGOTE_GONE: &str = "its zygote is gone: somebody has killed it, or the system had no descriptor for it when it began";

/// What an error says when the zygote lives and says nothing. It was stopped, or is kept from
/// running.
const ZYGOTE_SILENT: &str = "its zygote does not answer (stopped?)";

/// How often to look for dead workers while the zygote says nothing.
const DEATH_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often to look where there is no descriptor to wait for.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The caller's table of one pool.
#[derive(Debug)]
pub(super) struct WorkerTable {
    zygote: ChildFd,
    /// The caller's end of the channel to the zygote.
    channel: Channel,
    board: Arc<JobBoard>,
    mailboxes: Arc<Mailboxes>,
    wakeup: Arc<Event>,
    counters: Arc<Counters>,
    /// One for each slot.
    entries: Vec<WorkerEntry>,
    /// How many messages of the zygote were read. (The board counts those that were sent.)
    messages_read: u64,
    /// Ends of admitted workers that no call has been told of yet.
    ended: Vec<(Owner, Exit)>,
    /// The error of a fork that was refused since [`admit`](Self::admit) last looked.
    refused: Option<i32>,
    /// Why the pool can make no more calls, if so. Never taken back.
    broken: Option<String>,
    /// The process id of a worker that does not die: it may still write to the output of its call.
    unkillable: Option<i32>,
    /// How long a worker is known to be dead whose death the zygote has not told.
    silence: Silence,
}

/// One slot.
#[derive(Debug, Default)]
struct WorkerEntry {
    /// The generation of the process in this slot, or of the next one while it is empty.
    generation: u16,
    process: Option<Process>,
    /// The process was sent `Welcome`, and works on calls.
    admitted: bool,
}

/// A worker process. It is a child of the zygote, so the caller cannot reap it.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// `None` where there are none, or where it could not be sent.
    pidfd: Option<OwnedFd>,
}

impl WorkerTable {
    /// A table of this many empty slots.
    pub(super) fn new(
        zygote: ChildFd,
        channel: Channel,
        (board, mailboxes, wakeup): (Arc<JobBoard>, Arc<Mailboxes>, Arc<Event>),
        counters: Arc<Counters>,
        slots: usize,
    ) -> Self {
        Self {
            zygote,
            channel,
            board,
            mailboxes,
            wakeup,
            counters,
            entries: (0..slots).map(|_| WorkerEntry::default()).collect(),
            messages_read: 0,
            ended: Vec::new(),
            refused: None,
            broken: None,
            unkillable: None,
            silence: Silence::default(),
        }
    }

    /// Whether the zygote has said something since it was last listened to.
    pub(super) fn has_messages(&self) -> bool {
        self.board.messages_sent() != self.messages_read
    }

    /// The admitted workers of the first `n` slots that are alive as far as the caller knows.
    pub(super) fn admitted(&self, n: usize) -> impl Iterator<Item = Owner> {
        (0..n).filter(|&slot| self.entries[slot].admitted).map(|slot| self.owner(slot))
    }

    /// The first of the first `n` slots that has no admitted worker. A slot whose worker has ended
    /// without a call having been told is left out: it still holds the last words of that worker.
    pub(super) fn first_empty(&self, n: usize) -> Option<Owner> {
        let is_told = |slot| !self.ended.iter().any(|(owner, _)| usize::from(owner.slot) == slot);
        (0..n)
            .find(|&slot| !self.entries[slot].admitted && is_told(slot))
            .map(|slot| self.owner(slot))
    }

    /// Whether an admitted worker has ended and no call has been told yet.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The process ids of the workers.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.entries
            .iter()
            .filter_map(|entry| entry.process.as_ref())
            .map(|process| process.pid)
            .collect()
    }

    /// The process in a slot, or the next one that will be in it.
    pub(super) fn owner(&self, slot: usize) -> Owner {
        let generation = self.entries[slot].generation;
        Owner { slot: u16::try_from(slot).expect("at most MAX_WORKERS slots"), generation }
    }

    /// Admits the next process of a slot, which is clear. First `deliver` sends the process what it
    /// needs. With `waits` the function waits until the zygote has forked that process.
    ///
    /// Nothing happens where it is not to wait and no process is born yet, or where the process
    /// that was born has died meanwhile. The supervisor then asks again.
    ///
    /// # Errors
    /// [`PoolBroken`](Error::PoolBroken), [`ForkFailed`](Error::ForkFailed), [`Os`](Error::Os).
    pub(super) fn admit(
        &mut self,
        owner: Owner,
        waits: bool,
        deliver: impl Fn(&Mailboxes) -> io::Result<bool>,
    ) -> Result<()> {
        let slot = usize::from(owner.slot);
        let limit = Instant::now() + BIRTH_LIMIT;
        loop {
            self.listen();
            self.check()?;
            if self.entries[slot].process.is_some() {
                break;
            }
            if !waits {
                return Ok(());
            }
            if let Some(errno) = self.refused.take() {
                return Err(Error::ForkFailed(io::Error::from_raw_os_error(errno)));
            }
            if Instant::now() >= limit {
                return Err(self
                    .note_broken(format!("its zygote has forked no worker for {BIRTH_LIMIT:?}")));
            }
            self.sleep(None, limit).map_err(Error::of_watching)?;
        }
        // The predecessor may have left so much unread that there is no room yet. The new process
        // reads it, and skips what is not its own.
        while !(matches!(deliver(&self.mailboxes), Ok(true))
            && matches!(self.mailboxes.welcome(slot), Ok(true)))
        {
            std::thread::sleep(POLL_INTERVAL);
            self.listen();
            self.check()?;
            if self.owner(slot) != owner {
                return Ok(());
            }
            if Instant::now() >= limit {
                let cause = io::ErrorKind::BrokenPipe.into();
                return Err(Error::Os {
                    action: "send segments to",
                    subject: format!("the worker in slot {slot}"),
                    cause,
                });
            }
        }
        self.entries[slot].admitted = true;
        Ok(())
    }

    /// Refuses to go on with a pool that is broken.
    ///
    /// # Errors
    /// [`PoolBroken`](Error::PoolBroken) with the reason.
    pub(super) fn check(&self) -> Result<()> {
        self.broken
            .as_ref()
            .map_or(Ok(()), |reason| Err(Error::PoolBroken { reason: reason.clone() }))
    }

    /// Sleeps until the zygote has sent something or is dead, the wakeup is raised, `wake` is
    /// readable, a signal comes, or `deadline` is there. The caller then has to call
    /// [`listen`](Self::listen). Where the zygote has no pidfd it looks every [`POLL_INTERVAL`].
    ///
    /// See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    ///
    /// # Errors
    /// That of `poll`. A zygote that is dead is none: it is noted, and [`check`](Self::check) says
    /// so.
    pub(super) fn sleep(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> io::Result<()> {
        let zygote = self.zygote.pidfd();
        let mut left = deadline.saturating_duration_since(Instant::now());
        if zygote.is_none() {
            left = left.min(POLL_INTERVAL);
        }
        let fds = [Some(self.wakeup.as_fd()), Some(self.channel.as_fd()), zygote, wake];
        let mut polled: Vec<_> =
            fds.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up to the milliseconds in which `poll` counts: rounded down, the last fraction of
        // a millisecond would be a busy loop.
        let timeout =
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, if left.is_zero() { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let wakeup_raised = polled[0].any().unwrap_or(false);
        let zygote_ended = match zygote {
            Some(_) => polled[2].any().unwrap_or(false),
            None => self.zygote.ends_by(Instant::now()),
        };
        if wakeup_raised {
            self.wakeup.lower();
        }
        if zygote_ended {
            self.listen();
            self.note_broken(ZYGOTE_GONE.to_owned());
        }
        Ok(())
    }

    /// Looks whether anything has happened, without waiting. For `stats()`, between calls.
    pub(super) fn look(&mut self) {
        let _ = self.sleep(None, Instant::now());
        self.listen();
    }

    /// Reads the zygote's messages and notes them in the table. Tells the zygote so, which then
    /// knows that somebody looks.
    pub(super) fn listen(&mut self) {
        let mut any = false;
        loop {
            match self.channel.receive(false) {
                Received::Message(message, fd) => {
                    any = true;
                    self.messages_read += 1;
                    match ToCaller::decode(message) {
                        Some(ToCaller::Born { owner, pid }) => {
                            self.born(owner, Process { pid, pidfd: fd });
                        }
                        Some(ToCaller::Died { owner, exit }) => self.died(owner, exit),
                        Some(ToCaller::Refused { errno, .. }) => self.refused = Some(errno),
                        Some(ToCaller::Spent { respawns }) => {
                            self.note_broken(format!(
                                "{respawns} workers died while no call was running"
                            ));
                        }
                        None => {}
                    }
                }
                Received::Nothing => break,
                Received::Closed => {
                    self.note_broken(ZYGOTE_GONE.to_owned());
                    break;
                }
            }
        }
        if any {
            self.silence.is_over();
            let _ = self.channel.send(&ToZygote::Seen.encode(), None);
        }
    }

    /// A process has the slot, and is not admitted yet.
    fn born(&mut self, owner: Owner, process: Process) {
        let slot = usize::from(owner.slot);
        if let Some(entry) = self.entries.get_mut(slot) {
            *entry = WorkerEntry {
                generation: owner.generation,
                process: Some(process),
                admitted: false,
            };
            self.mailboxes.renew(slot, owner.generation);
        }
    }

    /// The process that had the slot is dead and reaped. The slot waits for the next generation.
    fn died(&mut self, owner: Owner, exit: Exit) {
        let slot = usize::from(owner.slot);
        if self.entries.get(slot).is_none_or(|entry| entry.generation != owner.generation) {
            return;
        }
        let generation = owner.generation.wrapping_add(1);
        let before = std::mem::replace(
            &mut self.entries[slot],
            WorkerEntry { generation, process: None, admitted: false },
        );
        self.mailboxes.renew(slot, generation);
        // For the supervisor a worker that was recycled is one that had nothing left to do.
        let (counter, exit) = match exit {
            Exit::Code(EXIT_RECYCLED) => (&self.counters.recycled, Exit::Code(0)),
            _ => (&self.counters.deaths, exit),
        };
        count(counter);
        if before.admitted {
            self.ended.push((owner, exit));
        }
    }

    /// The admitted workers of the first `n` slots that have ended since this was last asked. The
    /// ends of workers in other slots are dropped: those worked on no call.
    pub(super) fn take_ended(&mut self, n: usize) -> Vec<(Owner, Exit)> {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|(owner, _)| usize::from(owner.slot) < n);
        ended
    }

    /// Sends SIGKILL to a worker, through the zygote where there is no pidfd. Returns whether the
    /// worker was found stopped. A worker that is dead already is no error.
    ///
    /// See [`pidfd_send_signal(2)`][signal].
    ///
    /// [signal]: https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html
    pub(super) fn kill(&self, owner: Owner) -> bool {
        let entry = &self.entries[usize::from(owner.slot)];
        let Some(process) = entry.process.as_ref().filter(|_| entry.generation == owner.generation)
        else {
            return false;
        };
        let stopped = procfs::is_stopped(process.pid);
        if is_on(Failpoint::UnkillableWorkers) {
            return stopped;
        }
        let by_pidfd = process.pidfd.as_ref().is_some_and(|fd| process::kill_by(fd).is_ok());
        if !by_pidfd {
            let _ = self.channel.send(&ToZygote::Kill(owner).encode(), None);
        }
        stopped
    }

    /// Gives up a worker that does not die, and the pool with it. Returns the worker's process id,
    /// or `None` if it is not there any more.
    pub(super) fn give_up(&mut self, owner: Owner) -> Option<i32> {
        let entry = &mut self.entries[usize::from(owner.slot)];
        let process = entry.process.take_if(|_| entry.generation == owner.generation)?;
        entry.admitted = false;
        self.broken.get_or_insert_with(|| format!("its worker {} does not die", process.pid));
        Some(process.pid)
    }

    /// Kills the admitted workers of the first `n` slots, and waits until the zygote has reaped
    /// them. No later call is told of these ends.
    ///
    /// # Errors
    /// The process id of a worker that is not dead after [`DEATH_LIMIT`]. It is given up.
    pub(super) fn end(&mut self, n: usize) -> Result<(), i32> {
        let ending: Vec<Owner> = self.admitted(n).collect();
        for &owner in &ending {
            self.kill(owner);
        }
        let limit = Instant::now() + DEATH_LIMIT;
        self.silence.is_over();
        while self.broken.is_none()
            && Instant::now() < limit
            && ending.iter().any(|who| self.process_of(*who).is_some())
        {
            if self.sleep(None, Instant::now() + DEATH_POLL_INTERVAL).is_err() {
                std::thread::sleep(POLL_INTERVAL);
            }
            self.listen();
            let left: Vec<&Process> =
                ending.iter().filter_map(|owner| self.process_of(*owner)).collect();
            if left.is_empty() || !left.into_iter().all(Process::has_ended) {
                continue;
            }
            // All are dead, and the zygote does not say so. It may be stopped.
            if self.is_zygote_silent() {
                self.note_broken(ZYGOTE_SILENT.to_owned());
            }
        }
        self.ended.retain(|(owner, _)| !ending.contains(owner));
        if let Some(pid) = self.unkillable {
            return Err(pid);
        }
        let left = ending.into_iter().find(|owner| self.process_of(*owner).is_some());
        left.and_then(|owner| self.give_up(owner)).map_or(Ok(()), Err)
    }

    /// After a tick without an end: looks for a worker that is dead without the zygote having said
    /// so. If that [`Silence`] lasts for too long the pool is broken.
    pub(super) fn check_zygote_answers(&mut self) {
        let any_dead = self
            .entries
            .iter()
            .any(|entry| entry.admitted && entry.process.as_ref().is_some_and(Process::has_ended));
        if !any_dead {
            self.silence.is_over();
        } else if self.is_zygote_silent() {
            self.note_broken(ZYGOTE_SILENT.to_owned());
        }
    }

    /// Whether the [`Silence`] of the zygote lasts for too long.
    fn is_zygote_silent(&mut self) -> bool {
        let pid = self.zygote.pid();
        self.silence.goes_on(Instant::now(), || procfs::wants_processor(pid))
    }

    /// The process of an admitted worker, as long as the zygote has not said that it is dead.
    fn process_of(&self, owner: Owner) -> Option<&Process> {
        let entry = &self.entries[usize::from(owner.slot)];
        entry.process.as_ref().filter(|_| entry.admitted && entry.generation == owner.generation)
    }

    /// The pool can make no more calls: kills the zygote and every worker, waits until they are
    /// dead, and remembers the reason. If it is broken already, the first reason stays.
    fn note_broken(&mut self, reason: String) -> Error {
        if self.broken.is_none() {
            self.broken = Some(reason.clone());
            self.zygote.kill(); // its workers die with it
            let limit = Instant::now() + DEATH_LIMIT;
            for slot in 0..self.entries.len() {
                let owner = self.owner(slot);
                let entry = &mut self.entries[slot];
                let admitted = std::mem::take(&mut entry.admitted);
                if let Some(process) = entry.process.take() {
                    if !process.end_by(limit) {
                        self.unkillable.get_or_insert(process.pid);
                    }
                    self.ended.extend(admitted.then_some((owner, Exit::Unknown)));
                }
            }
        }
        Error::PoolBroken { reason: self.broken.clone().unwrap_or(reason) }
    }

    /// Ends all workers and the zygote, when the pool is dropped: asks the zygote to do so, and
    /// kills it if it does not.
    pub(super) fn leave(&mut self) {
        let told = self.channel.send(&ToZygote::End.encode(), None);
        if !matches!(told, Ok(true)) || !self.zygote.ends_by(Instant::now() + LEAVE_LIMIT) {
            self.zygote.kill(); // its workers die with it
            self.zygote.ends_by(Instant::now() + LEAVE_LIMIT);
        }
        if self.zygote.ends_by(Instant::now()) {
            self.zygote.reap();
        }
    }
}

impl Process {
    /// Whether it has ended, reaped or not. Its pidfd is then readable. Without a pidfd `/proc`
    /// says so.
    ///
    /// See [`pidfd_open(2)`](https://man7.org/linux/man-pages/man2/pidfd_open.2.html) and
    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return !procfs::is_running(self.pid) };
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
    }

    /// Kills a worker whose zygote was killed, and waits until `limit` for its end. Returns whether
    /// it has ended. Without a pidfd it is not signalled, since its number may be another's by now:
    /// it dies of its parent's death.
    fn end_by(&self, limit: Instant) -> bool {
        if let Some(pidfd) = &self.pidfd {
            let _ = process::kill_by(pidfd);
        }
        while !self.has_ended() {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match &self.pidfd {
                // A signal to this thread ends `poll` early; then the loop asks again.
                Some(pidfd) => {
                    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                    let _ =
                        poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
                }
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
        true
    }
}
