//! The zygote: a process between the caller and the workers. It is forked when the pool is made,
//! and has a single thread for ever.
//!
//! It forks workers, reaps them, forks others in their place, and tells the caller of both. When
//! the caller is gone it ends the workers, takes the caller's volatile names away, and leaves.
//!
//! Workers are its children, so it does not matter which thread of the caller made the pool,
//! whether that thread still lives, or what the caller does with `SIGCHLD`.
//!
//! It sleeps in `poll` on three descriptors: the caller's pidfd, the channel to the caller, and a
//! `signalfd` for `SIGCHLD`. It takes no lock, and allocates nothing before the caller is dead. It
//! calls no function of the user's, reads nothing in shared memory, and decides nothing about a
//! call.
//!
//! # Safety
//! There are two forks. The children of this process run [`worker::live`] and nothing else, and the
//! caller's child runs [`live`] and nothing else. Both leave by `_exit` only.
#![allow(unsafe_code, reason = "forks, and lets go of what it has inherited")]

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::messages::{ToCaller, ToZygote};
use super::shared_state::PoolShared;
use super::worker::{self, WorkerBuffers};
use crate::engine::control::Owner;
use crate::failpoints::{Failpoint, is_on};
use crate::segment;
use crate::sys::channel::Received;
use crate::sys::process::{self, Exit, Pid, Side, exit_now};
use crate::sys::{file_pages, inherited, signal};

/// How many forks are tried while the caller reads no message: this many, and
/// [`RESPAWNS_PER_SLOT`] more for each slot. Workers that die at once would otherwise be replaced
/// for ever.
const RESPAWNS: u32 = 64;
const RESPAWNS_PER_SLOT: u32 = 16;

/// How long to wait after a fork that was refused before the next, and how often to look for the
/// caller where there are no pidfds.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long workers may take to die of SIGKILL when all is over.
const WORKER_DEATH_LIMIT: Duration = Duration::from_secs(5);

/// How many milliseconds to wait before each sweep for names of the dead caller: none before the
/// first. The later sweeps find names that another child of the caller held a moment longer.
const SWEEPS_MS: [u64; 4] = [0, 4, 20, 80];

/// The process of one slot, as the zygote knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForkedWorker {
    generation: u16,
    state: ForkedState,
}

/// What has become of a slot's process, and whether the caller knows.
///
/// `Empty -> New -> Known -> Dead -> Empty`, with the next generation at the end. A worker that
/// dies while it is `New` leaves its slot `Empty`, under the same generation: the caller never
/// hears of it.
#[derive(Debug, Clone, Copy)]
enum ForkedState {
    /// There is no process. One is to be forked.
    Empty,
    /// The process was forked, and the caller does not know it yet.
    New(Pid),
    /// The caller knows the process.
    Known(Pid),
    /// The process was reaped, and the caller does not know it yet.
    Dead(Exit),
}

impl ForkedWorker {
    /// Before the first process.
    pub(super) const EMPTY: Self = Self { generation: 0, state: ForkedState::Empty };
}

/// The running zygote.
struct Zygote<'n> {
    shared: &'n PoolShared<'n>,
    /// One for each slot. The caller allocated it before the fork.
    workers: &'n mut [ForkedWorker],
    /// For the workers: each takes its own copy after its fork. Always there in the zygote itself.
    buffers: Option<WorkerBuffers>,
    /// Readable when a child has ended.
    children: SignalFd,
    pid: Pid,
    /// How many forks were tried since the caller last read the messages.
    respawns: u32,
    /// The caller has been told that no more workers are forked.
    spent_told: bool,
    /// When to try to fork again, after a refusal.
    refused_until: Option<Instant>,
    /// The slot and errno of a refusal that the caller has not been told of.
    refusal: Option<(u16, i32)>,
}

/// Why the zygote leaves.
enum End {
    /// The caller says so.
    Told,
    /// There is no caller any more.
    Orphaned,
}

/// The zygote's life. Never returns.
///
/// `segments` are the mappings that the caller had before the fork. The zygote lets go of them, so
/// that no worker keeps the memory of an array that the caller drops.
///
/// See [setsid(2)](https://man7.org/linux/man-pages/man2/setsid.2.html) and
/// [signalfd(2)](https://man7.org/linux/man-pages/man2/signalfd.2.html).
pub(super) fn live(
    shared: &PoolShared<'_>,
    workers: &mut [ForkedWorker],
    buffers: WorkerBuffers,
    segments: &[Range<usize>],
) -> ! {
    inherited::set_process_name(c"rowfork-zygote");
    // The zygote leaves the terminal's process group, and the workers with it: ^C is for the caller
    // to answer.
    let _ = nix::unistd::setsid();
    signal::reset_dispositions();
    let keep = |fd: RawFd| {
        let pidfd = shared.caller_pidfd.as_ref().map(AsRawFd::as_raw_fd);
        let ours = [shared.channel.as_fd().as_raw_fd(), shared.wakeup.as_fd().as_raw_fd()];
        ours.contains(&fd)
            || pidfd == Some(fd)
            || shared.worker_channels.iter().any(|channel| channel.as_fd().as_raw_fd() == fd)
    };
    if !is_on(Failpoint::KeepDescriptorsOfCaller) {
        // SAFETY: nothing that runs here uses other descriptors than those that are kept. The
        // documentation of pools says so to authors of functions that run in workers.
        unsafe { inherited::blank_descriptors(keep) };
    }
    for range in segments {
        // SAFETY: whole mappings of segments. They are from the registry, whose lock was held
        // across the fork.
        let _ = unsafe { inherited::vacate(range) };
    }
    file_pages::forget();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let Ok(children) = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
    else {
        exit_now(1)
    };
    let mut zygote = Zygote {
        shared,
        workers,
        buffers: Some(buffers),
        children,
        pid: process::own_pid(),
        respawns: 0,
        spent_told: false,
        refused_until: None,
        refusal: None,
    };
    let end = zygote.serve();
    zygote.end_workers();
    if let End::Orphaned = end {
        zygote.drain_mailboxes();
        take_names_away();
    }
    exit_now(0)
}

impl Zygote<'_> {
    /// Forks, tells, sleeps, listens and reaps, until there is a reason to leave.
    fn serve(&mut self) -> End {
        loop {
            let all_told = self.fill_slots_and_tell();
            if let Some(end) = self.sleep(all_told).or_else(|| self.listen()) {
                return end;
            }
            self.reap();
        }
    }

    /// Forks where a slot is empty, and tells the caller what it does not know yet. Returns whether
    /// all could be told. What could not is told when the caller has read something.
    fn fill_slots_and_tell(&mut self) -> bool {
        let mut all_told = true;
        if self.refused_until.is_some_and(|until| Instant::now() >= until) {
            self.refused_until = None;
        }
        for slot in 0..self.workers.len() {
            if let ForkedState::Dead(exit) = self.workers[slot].state {
                let told = self.tell(ToCaller::Died { owner: self.owner(slot), exit }, None);
                all_told &= told;
                if !told {
                    continue; // no more births than can be told
                }
                self.workers[slot] = ForkedWorker {
                    generation: self.workers[slot].generation.wrapping_add(1),
                    state: ForkedState::Empty,
                };
            }
            if matches!(self.workers[slot].state, ForkedState::Empty) {
                self.fork_worker(slot);
            }
            if let ForkedState::New(pid) = self.workers[slot].state {
                let pidfd = process::open_pidfd(pid).ok().flatten();
                let told = self.tell(
                    ToCaller::Born { owner: self.owner(slot), pid: pid.as_raw() },
                    pidfd.as_ref(),
                );
                all_told &= told;
                if told {
                    self.workers[slot].state = ForkedState::Known(pid);
                }
            }
        }
        if let Some((slot, errno)) = self.refusal.take() {
            all_told &= self.tell(ToCaller::Refused { slot, errno }, None);
        }
        if self.is_spent() && !self.spent_told {
            self.spent_told = self.tell(ToCaller::Spent { respawns: self.respawns }, None);
            all_told &= self.spent_told;
        }
        all_told
    }

    /// Forks a worker for an empty slot, unless too many were forked or a fork was just refused.
    fn fork_worker(&mut self, slot: usize) {
        if self.is_spent() || self.refused_until.is_some() {
            return;
        }
        let owner = self.owner(slot);
        self.respawns += 1;
        // SAFETY: the child does nothing but `live`. This process has one thread, so no other
        // thread can hold a lock.
        match unsafe { process::fork() } {
            Ok(Side::Child) => worker::live(
                self.shared,
                self.pid,
                owner,
                self.buffers.take().expect("one for each process"),
            ),
            Ok(Side::Parent(pid)) => self.workers[slot].state = ForkedState::New(pid),
            Err(error) => {
                self.refused_until = Some(Instant::now() + RETRY_INTERVAL);
                self.refusal = Some((owner.slot, error.raw_os_error().unwrap_or(libc::EAGAIN)));
            }
        }
    }

    /// Whether so many workers were forked while the caller did not look that it would go on for
    /// ever.
    fn is_spent(&self) -> bool {
        let slots = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        self.respawns >= RESPAWNS.saturating_add(RESPAWNS_PER_SLOT.saturating_mul(slots))
    }

    /// Sends a message to the caller, with a pidfd if there is one. `false` when there is no room
    /// for it. A message to a caller that is gone counts as sent.
    fn tell(&self, message: ToCaller, fd: Option<&OwnedFd>) -> bool {
        let try_with = |fd| self.shared.channel.send(&message.encode(), fd);
        // Where no descriptor can be sent (too many are under way) the message goes without it.
        let sent = try_with(fd.map(AsFd::as_fd)).or_else(|_| try_with(None));
        if matches!(sent, Ok(true)) {
            self.shared.board.count_message();
        }
        // Where the other end is closed the caller is gone, and the next `sleep` or `listen` says
        // so.
        !matches!(sent, Ok(false))
    }

    /// Sleeps until there is something to do: a message, a death, room for messages that could not
    /// be sent, the end of a wait after a refused fork. Returns the reason to leave, if the caller
    /// is gone.
    ///
    /// See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html),
    /// [`pidfd_open(2)`](https://man7.org/linux/man-pages/man2/pidfd_open.2.html) and
    /// [getppid(2)](https://man7.org/linux/man-pages/man2/getppid.2.html).
    fn sleep(&self, all_told: bool) -> Option<End> {
        let out = if all_told { PollFlags::empty() } else { PollFlags::POLLOUT };
        let pidfd = self.shared.caller_pidfd.as_ref();
        let mut polled = [
            PollFd::new(self.shared.channel.as_fd(), PollFlags::POLLIN | out),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(pidfd.map_or(self.children.as_fd(), AsFd::as_fd), PollFlags::POLLIN),
        ];
        let timeout = match (self.refused_until, pidfd) {
            (None, Some(_)) => PollTimeout::NONE,
            _ => PollTimeout::try_from(RETRY_INTERVAL).unwrap_or(PollTimeout::ZERO),
        };
        let _ = poll(&mut polled, timeout);
        let orphaned = match pidfd {
            Some(_) => polled[2].any().unwrap_or(false),
            None => nix::unistd::getppid() != self.shared.caller,
        };
        orphaned.then_some(End::Orphaned)
    }

    /// Does what the caller's messages say. Returns the reason to leave, if there is one.
    fn listen(&mut self) -> Option<End> {
        loop {
            match self.shared.channel.receive(false) {
                Received::Message(message, _) => match ToZygote::decode(message) {
                    Some(ToZygote::Kill(owner)) => self.kill(owner),
                    Some(ToZygote::Seen) if !self.spent_told => self.respawns = 0,
                    Some(ToZygote::End) => return Some(End::Told),
                    Some(ToZygote::Seen) | None => {}
                },
                Received::Nothing => return None,
                Received::Closed => return Some(End::Orphaned),
            }
        }
    }

    /// Sends SIGKILL to a worker, if this very process still has the slot. The worker is a child of
    /// this process and not reaped, so its number is its own.
    ///
    /// See [kill(2)](https://man7.org/linux/man-pages/man2/kill.2.html).
    fn kill(&self, owner: Owner) {
        let worker = self
            .workers
            .get(usize::from(owner.slot))
            .filter(|worker| worker.generation == owner.generation);
        if let Some(ForkedState::New(pid) | ForkedState::Known(pid)) =
            worker.map(|worker| worker.state)
        {
            let _ = kill(pid, Signal::SIGKILL); // ours, and not reaped
        }
    }

    /// Reaps all children that have ended. First it empties the signalfd, so that a child that ends
    /// afterwards makes it readable again.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Some((pid, exit)) = process::reap_any() {
            let worker = self.workers.iter_mut().find(|worker| match worker.state {
                ForkedState::New(other) | ForkedState::Known(other) => other.as_raw() == pid,
                ForkedState::Empty | ForkedState::Dead(_) => false,
            });
            if let Some(worker) = worker {
                // A worker that the caller was never told of was not admitted, and does not count.
                worker.state = if let ForkedState::New(_) = worker.state {
                    ForkedState::Empty
                } else {
                    ForkedState::Dead(exit)
                };
            }
        }
    }

    /// Kills all workers and reaps them, for [`WORKER_DEATH_LIMIT`] at most.
    fn end_workers(&mut self) {
        let deadline = Instant::now() + WORKER_DEATH_LIMIT;
        loop {
            let living = self.workers.iter().filter_map(|worker| match worker.state {
                ForkedState::New(pid) | ForkedState::Known(pid) => Some(pid),
                ForkedState::Empty | ForkedState::Dead(_) => None,
            });
            let mut none = true;
            living.for_each(|pid| {
                none = false;
                let _ = kill(pid, Signal::SIGKILL);
            });
            if none || Instant::now() >= deadline {
                return;
            }
            let mut polled = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut polled, PollTimeout::from(10u8));
            self.reap();
        }
    }

    /// Receives the messages that no worker has read. A segment's file that is under way in a
    /// socket stays open, and with it the lock by which a sweep knows that the segment is in use.
    fn drain_mailboxes(&self) {
        for channel in self.shared.worker_channels {
            while let Received::Message(..) = channel.receive(false) {}
        }
    }

    /// The process in a slot, or the next one that will be in it.
    fn owner(&self, slot: usize) -> Owner {
        let generation = self.workers[slot].generation;
        Owner { slot: u16::try_from(slot).expect("at most MAX_WORKERS slots"), generation }
    }
}

/// Takes away the volatile names that the caller has left, and those of other dead programs of this
/// user: by inode, and only where no process holds the lock.
///
/// The sweep allocates, which is allowed now that nothing depends on this process any more. The
/// alarm ends the process should the allocator hang in a lock that a thread of the caller held at
/// the fork.
///
/// See [alarm(2)](https://man7.org/linux/man-pages/man2/alarm.2.html).
fn take_names_away() {
    signal::unblock_all();
    nix::unistd::alarm::set(5);
    for wait in SWEEPS_MS {
        std::thread::sleep(Duration::from_millis(wait));
        let _ = segment::sweep();
    }
}
