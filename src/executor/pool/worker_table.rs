//! The caller's private table of a pool: the zygote, who sits in which slot, and what has become of
//! those who sat there. Nothing here lies in shared memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::counters::{Counters, count};
use super::job_board::JobBoard;
use super::mailboxes::Mailboxes;
use super::messages::{ToCaller, ToZygote};
use super::worker::EXIT_RECYCLED;
use crate::engine::control::Owner;
use crate::engine::decide::DEATH_LIMIT;
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::channel::{Channel, Received};
use crate::sys::event::Event;
use crate::sys::process::{self, ChildFd, Exit};
use crate::sys::procfs;

/// How long the zygote may take to fork a worker. It takes 0.2 ms.
const BIRTH_LIMIT: Duration = Duration::from_secs(10);

/// How long the zygote may take to end all workers and leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(6);

/// It ends for no other reason than these.
const ZYGOTE_GONE: &str = "its zygote is gone: somebody has killed it, or the system had no descriptor for it when it began";

/// It has been stopped, or is kept from running.
const ZYGOTE_SILENT: &str = "its zygote does not answer (stopped?)";

/// How long the zygote may say nothing of a dead worker.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);

/// How often to look whether workers are dead of whom the zygote says nothing.
const DEATH_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often to look where there is no descriptor to wait for.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct WorkerTable {
    zygote: ChildFd,
    channel: Channel,
    board: Arc<JobBoard>,
    mailboxes: Arc<Mailboxes>,
    wakeup: Arc<Event>,
    counters: Arc<Counters>,
    entries: Vec<WorkerEntry>,
    /// Messages of the zygote that were read.
    messages_sent: u64,
    /// Ends of workers that were let in, of which no call has been told.
    ended: Vec<(Owner, Exit)>,
    refused: Option<i32>,
    broken: Option<String>,
    /// A worker that does not die: it may still write to the output of its call.
    undying: Option<i32>,
    /// Since when a worker is dead of which the zygote has said nothing.
    silent_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct WorkerEntry {
    /// Of the process that sits here, or of the next to sit here.
    generation: u16,
    process: Option<Process>,
    /// It was let in.
    admitted: bool,
}

#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: Option<OwnedFd>,
}

impl WorkerTable {
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
            messages_sent: 0,
            ended: Vec::new(),
            refused: None,
            broken: None,
            undying: None,
            silent_since: None,
        }
    }

    /// Whether the zygote has said something since it was last listened to.
    pub(super) fn has_messages(&self) -> bool {
        self.board.messages_sent() != self.messages_sent
    }

    /// Those of the first `n` slots who were let in, as far as is known.
    pub(super) fn admitted(&self, n: usize) -> impl Iterator<Item = Owner> {
        (0..n).filter(|&slot| self.entries[slot].admitted).map(|slot| self.owner(slot))
    }

    /// The first of the first `n` slots where nobody was let in. Not where somebody has ended of
    /// whom no call has been told yet: the slot still has its last words.
    pub(super) fn first_empty(&self, n: usize) -> Option<Owner> {
        let is_told = |slot| !self.ended.iter().any(|(owner, _)| usize::from(owner.slot) == slot);
        (0..n)
            .find(|&slot| !self.entries[slot].admitted && is_told(slot))
            .map(|slot| self.owner(slot))
    }

    /// Whether somebody has ended of whom no call has been told yet.
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

    pub(super) fn owner(&self, slot: usize) -> Owner {
        let generation = self.entries[slot].generation;
        Owner { slot: u16::try_from(slot).expect("at most MAX_WORKERS slots"), generation }
    }

    /// Lets the next process of a slot in, which is clear: `deliver` first sends it what it needs.
    ///
    /// # Errors
    /// [`PoolBroken`](Error::PoolBroken), [`ForkFailed`](Error::ForkFailed), [`Os`](Error::Os).
    ///
    /// Where it is not to wait and nobody is born yet, and where who was born has died meanwhile,
    /// nothing has happened.
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
                return Err(
                    self.break_up(format!("its zygote has forked no worker for {BIRTH_LIMIT:?}"))
                );
            }
            self.sleep(None, limit).map_err(Error::of_watching)?;
        }
        // Its predecessor may have left so much unread that there is no room yet.
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
                let source = io::ErrorKind::BrokenPipe.into();
                return Err(Error::Os {
                    action: "send segments to",
                    subject: format!("the worker in slot {slot}"),
                    cause: source,
                });
            }
        }
        self.entries[slot].admitted = true;
        Ok(())
    }

    /// Why no call can be made any more, if so.
    pub(super) fn check(&self) -> Result<()> {
        self.broken
            .as_ref()
            .map_or(Ok(()), |reason| Err(Error::PoolBroken { reason: reason.clone() }))
    }

    /// Sleeps until the zygote has something to say or is dead, the wakeup rings, `wake` is
    /// readable, a signal comes, or `deadline` is there. Call [`listen`](Self::listen) then.
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
        // Rounded up to the milliseconds in which `poll` counts.
        let timeout =
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, if left.is_zero() { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let rung = polled[0].any().unwrap_or(false);
        let zygote_ended = match zygote {
            Some(_) => polled[2].any().unwrap_or(false),
            None => self.zygote.ends_by(Instant::now()),
        };
        if rung {
            self.wakeup.lower();
        }
        if zygote_ended {
            self.listen();
            self.break_up(ZYGOTE_GONE.to_owned());
        }
        Ok(())
    }

    /// Looks whether anything has happened.
    pub(super) fn look(&mut self) {
        let _ = self.sleep(None, Instant::now());
        self.listen();
    }

    /// Takes note of what the zygote has to say.
    pub(super) fn listen(&mut self) {
        let mut any = false;
        loop {
            match self.channel.receive(false) {
                Received::Message(message, fd) => {
                    any = true;
                    self.messages_sent += 1;
                    match ToCaller::decode(message) {
                        Some(ToCaller::Born { owner, pid }) => {
                            self.born(owner, Process { pid, pidfd: fd });
                        }
                        Some(ToCaller::Died { owner, exit }) => self.died(owner, exit),
                        Some(ToCaller::Refused { errno, .. }) => self.refused = Some(errno),
                        Some(ToCaller::Spent { respawns }) => {
                            self.break_up(format!(
                                "{respawns} workers died while no call was running"
                            ));
                        }
                        None => {}
                    }
                }
                Received::Nothing => break,
                Received::Closed => {
                    self.break_up(ZYGOTE_GONE.to_owned());
                    break;
                }
            }
        }
        if any {
            let _ = self.channel.send(&ToZygote::Seen.encode(), None);
        }
    }

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
        // Who leaves when its time is up has done nothing else than one that is done.
        let (counter, exit) = match exit {
            Exit::Code(EXIT_RECYCLED) => (&self.counters.recycled, Exit::Code(0)),
            _ => (&self.counters.deaths, exit),
        };
        count(counter);
        if before.admitted {
            self.ended.push((owner, exit));
        }
    }

    /// Who of the first `n` has ended since this was last asked. Nobody asks for the others: they
    /// were at no call.
    pub(super) fn take_ended(&mut self, n: usize) -> Vec<(Owner, Exit)> {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|(owner, _)| usize::from(owner.slot) < n);
        ended
    }

    /// SIGKILL to a worker. Whether it was found stopped.
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

    /// Gives up a worker that does not die, and the pool with it. Its process id.
    pub(super) fn give_up(&mut self, owner: Owner) -> Option<i32> {
        let entry = &mut self.entries[usize::from(owner.slot)];
        let process = entry.process.take_if(|_| entry.generation == owner.generation)?;
        entry.admitted = false;
        self.broken.get_or_insert_with(|| format!("its worker {} does not die", process.pid));
        Some(process.pid)
    }

    /// Kills those of the first `n` who were let in, and waits until they are really dead.
    ///
    /// # Errors
    /// The process id of one that is not dead after [`DEATH_LIMIT`].
    pub(super) fn end(&mut self, n: usize) -> Result<(), i32> {
        let ending: Vec<Owner> = self.admitted(n).collect();
        for &owner in &ending {
            self.kill(owner);
        }
        let limit = Instant::now() + DEATH_LIMIT;
        let mut dead_since = None;
        while self.broken.is_none()
            && Instant::now() < limit
            && ending.iter().any(|who| self.sits(*who).is_some())
        {
            if self.sleep(None, Instant::now() + DEATH_POLL_INTERVAL).is_err() {
                std::thread::sleep(POLL_INTERVAL);
            }
            self.listen();
            let left: Vec<&Process> = ending.iter().filter_map(|owner| self.sits(*owner)).collect();
            if left.is_empty() || !left.into_iter().all(Process::has_ended) {
                continue;
            }
            // All are dead, and the zygote does not say so.
            if dead_since.get_or_insert_with(Instant::now).elapsed() >= SILENCE_LIMIT {
                self.break_up(ZYGOTE_SILENT.to_owned());
            }
        }
        self.ended.retain(|(owner, _)| !ending.contains(owner));
        if let Some(pid) = self.undying {
            return Err(pid);
        }
        let left = ending.into_iter().find(|owner| self.sits(*owner).is_some());
        left.and_then(|owner| self.give_up(owner)).map_or(Ok(()), Err)
    }

    /// After a tick without a message: whether a worker is dead and the zygote has not said so
    /// for long, in which case the pool is broken.
    pub(super) fn note_silence(&mut self) {
        let any_dead = self
            .entries
            .iter()
            .any(|entry| entry.admitted && entry.process.as_ref().is_some_and(Process::has_ended));
        if !any_dead {
            self.silent_since = None;
        } else if self.silent_since.get_or_insert_with(Instant::now).elapsed() >= SILENCE_LIMIT {
            self.break_up(ZYGOTE_SILENT.to_owned());
        }
    }

    /// The process of a worker that was let in, as long as the zygote has not said that it is dead.
    fn sits(&self, owner: Owner) -> Option<&Process> {
        let entry = &self.entries[usize::from(owner.slot)];
        entry.process.as_ref().filter(|_| entry.admitted && entry.generation == owner.generation)
    }

    /// The pool can make no more calls: sees to it that neither the zygote nor a worker of its
    /// lives, and remembers the reason.
    fn break_up(&mut self, reason: String) -> Error {
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
                        self.undying.get_or_insert(process.pid);
                    }
                    self.ended.extend(admitted.then_some((owner, Exit::Unknown)));
                }
            }
        }
        Error::PoolBroken { reason: self.broken.clone().unwrap_or(reason) }
    }

    /// Ends all workers and the zygote.
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
    /// Whether it has ended, reaped or not.
    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return !procfs::is_running(self.pid) };
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
    }

    /// Kills it, whose parent was killed, and waits for its end; whether it has come. (By the
    /// number alone nobody is signalled: it dies of its parent's death.)
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
                // A signal to this thread ends it early.
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
