//! The calling process's side of a call: looks at the control block, has `supervise` decide, performs what it decides,
//! sleeps until a worker ends; and gives the account in the end.
//!
//! Called by the executors, which say where workers come from ([`Spawn`]). What the processes agree on is in
//! `control/README.md`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use crate::blocks::RowBlocks;
use crate::call::Call;
use crate::control::{ClaimState, Control, Fault, Owner, Slot};
use crate::crew::Crew;
use crate::error::{DeathCause, Error, Result};
use crate::interrupted::interrupted;
use crate::options::Options;
use crate::report::{BlockTimes, Progress, Report, WorkerDeath, WorkerReport};
use crate::segment::registry;
use crate::supervise::{Action, Death, Ledger, Snapshot, believable, decide};
use crate::sys::process::{ChildFd, Exit};
use crate::sys::shared::SharedPages;
use crate::worker;

/// How often the supervisor looks up from its sleep: for progress, and for what no pidfd tells.
const TICK: Duration = Duration::from_millis(100);

/// How long a worker may take to leave by itself once everything is done.
const LEAVE_GRACE: Duration = Duration::from_millis(100);

/// The same where it has its page tables to walk first.
const MEASURE_GRACE: Duration = Duration::from_secs(10);

/// Where workers come from.
pub(crate) trait Spawn {
    /// A worker for `call` in the slot of `owner`, which is clear.
    fn spawn(&self, call: &Call<'_>, control: &Control, blocks: &RowBlocks, owner: Owner) -> Result<ChildFd>;
}

/// The calling process's side of one call.
struct Supervisor<'a> {
    options: &'a Options<'a>,
    call: &'a Call<'a>,
    source: &'a dyn Spawn,
    blocks: RowBlocks,
    control: Control,
    ledger: Ledger,
    crew: Crew,
    deaths: Vec<WorkerDeath>,
    began: Instant,
    next_progress: Instant,
    rows_shown: usize,
}

/// Runs a call with workers from `source`, from the first to the last reap.
pub(crate) fn run(options: &Options<'_>, call: &Call<'_>, source: &dyn Spawn) -> Result<Report> {
    let began = Instant::now();
    options.check()?;
    let mut supervisor = Supervisor::new(options, call, source, began)?;
    match supervisor.run() {
        Ok(()) => Ok(supervisor.report()),
        Err(error) if call.in_place => Err(supervisor.interrupted(error)),
        Err(error) => Err(error),
    }
}

impl<'a> Supervisor<'a> {
    fn new(options: &'a Options<'a>, call: &'a Call<'a>, source: &'a dyn Spawn, began: Instant) -> Result<Self> {
        let blocks = call.cut.blocks(call.n_rows, options.block_rows);
        let workers = options.max_workers().min(blocks.len());
        let nonce = RandomState::new().build_hasher().finish();
        let pages = SharedPages::new(Control::bytes(blocks.len(), workers)).map_err(|source| Error::Os {
            action: "map",
            subject: format!("the control block for {} blocks and {workers} workers", blocks.len()),
            source,
        })?;
        worker::install_panic_hook();
        let ledger = Ledger::new(blocks.clone(), workers);
        Ok(Self {
            options,
            call,
            source,
            ledger: if call.in_place { ledger.in_place() } else { ledger },
            control: Control::in_pages(pages, blocks.len(), workers, nonce),
            blocks,
            crew: Crew::new(workers),
            deaths: Vec::new(),
            began,
            next_progress: began + TICK,
            rows_shown: 0,
        })
    }

    /// Looks, decides, acts, sleeps; until the decision is to finish.
    fn run(&mut self) -> Result<()> {
        let mut deaths = Vec::new();
        loop {
            let states = self.control.claims().states();
            let snapshot = Snapshot { blocks: &states, deaths: &deaths, live: self.crew.live() };
            for action in decide(&mut self.ledger, &snapshot) {
                if let Some(verdict) = self.perform(action)? {
                    return verdict;
                }
            }
            self.show_progress(&states);
            deaths = self.wait_for_deaths()?;
        }
    }

    /// Performs one action; `Some` is the end of the call.
    fn perform(&mut self, action: Action) -> Result<Option<Result<()>>> {
        match action {
            Action::Free { block, owner } => {
                self.control.claims().free(block, owner);
                self.control.hand_back(block);
            }
            Action::Limit(limit) => self.control.set_limit(limit),
            Action::Restart => {
                self.crew.end(Instant::now());
                self.control.reset();
                self.spawn(self.crew.size())?;
            }
            Action::Spawn(n) => self.spawn(n)?,
            Action::Finish(verdict) => {
                let grace = match verdict {
                    Ok(()) if self.options.measure_memory => MEASURE_GRACE,
                    Ok(()) => LEAVE_GRACE,
                    Err(_) => Duration::ZERO,
                };
                self.crew.end(Instant::now() + grace);
                if verdict.is_ok() {
                    self.show_end();
                }
                return Ok(Some(verdict));
            }
        }
        Ok(None)
    }

    /// Forks up to `n` workers into empty slots. Fewer are enough, none is an error.
    fn spawn(&mut self, n: usize) -> Result<()> {
        // A stray store may have changed the workers' copy.
        self.control.set_limit(self.ledger.limit());
        for _ in 0..n {
            let Some(owner) = self.crew.next_owner() else { break };
            // While the later ones are forked the first may have finished everything.
            if self.crew.live() > 0 && !self.control.claims().any_free(self.ledger.limit()) {
                break;
            }
            self.control.slots()[usize::from(owner.slot)].clear();
            match self.source.spawn(self.call, &self.control, &self.blocks, owner) {
                Ok(child) => self.crew.admit(owner, child),
                Err(_) if self.crew.live() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sleeps until a worker ends or the next tick; reaps, and says how each ended.
    fn wait_for_deaths(&mut self) -> Result<Vec<Death>> {
        let ended = self.crew.reap_ended(Instant::now() + TICK).map_err(watch_error)?;
        let states = self.control.claims().states();
        Ok(ended.into_iter().map(|(owner, exit)| self.death_of(owner, exit, &states)).collect())
    }

    fn death_of(&mut self, owner: Owner, exit: Exit, states: &[ClaimState]) -> Death {
        let slot = &self.control.slots()[usize::from(owner.slot)];
        let cause = self.cause_of(exit, slot.fault());
        let held = states.iter().position(|state| *state == ClaimState::Claimed(owner));
        let message = slot.message().filter(|message| worker::vouches_for(exit, message.kind));
        let death = Death { owner, cause, row: slot.row(), message };
        // Without a block, a status of 0 or one that somebody else has taken is that of a worker that was done.
        let undone = held.is_some() || !matches!(exit, Exit::Code(0) | Exit::Unknown);
        if undone && believable(&self.ledger, states, &death).is_none() {
            let rows = held.and_then(|block| self.blocks.get(block)).map(|block| block.rows());
            self.deaths.push(WorkerDeath { worker: owner.slot.into(), cause: death.cause.clone(), rows });
        }
        death
    }

    fn cause_of(&self, exit: Exit, fault: Option<Fault>) -> DeathCause {
        match (exit, fault) {
            (Exit::Code(code), _) => DeathCause::Exited(code),
            (Exit::Unknown, _) => DeathCause::Unknown,
            (Exit::Signal(signal), Some(Fault { signal: noted, address })) if noted == signal => {
                // SIGBUS there is a page that is gone, not one that may not be written.
                let read_only_segment = (signal == libc::SIGSEGV).then(|| self.read_only_segment(address)).flatten();
                DeathCause::MemoryFault { signal, address, read_only_segment }
            }
            (Exit::Signal(signal), _) => DeathCause::Signalled(signal),
        }
    }

    /// What error messages call the segment that holds `address`, if workers may not write to it.
    fn read_only_segment(&self, address: usize) -> Option<String> {
        let registry = registry::lock();
        let mapping = registry.mappings().iter().find(|mapping| mapping.range().contains(&address))?;
        (mapping.address != self.call.output_mapping).then(|| (*mapping.label).to_owned())
    }

    fn progress_callback(&self) -> Option<&'a (dyn Fn(&Progress) + 'a)> {
        self.options.progress.as_deref().filter(|_| !self.call.silent)
    }

    fn show_progress(&mut self, states: &[ClaimState]) {
        let Some(callback) = self.progress_callback() else { return };
        let now = Instant::now();
        if now < self.next_progress {
            return;
        }
        self.next_progress = now + TICK;
        self.rows_shown = self.rows_shown.max(self.rows_done(states));
        callback(&Progress {
            rows_done: self.rows_shown,
            rows_total: self.blocks.n_rows(),
            elapsed: now.duration_since(self.began),
        });
    }

    fn show_end(&self) {
        if let Some(callback) = self.progress_callback() {
            let rows = self.blocks.n_rows();
            callback(&Progress { rows_done: rows, rows_total: rows, elapsed: self.began.elapsed() });
        }
    }

    /// Rows of finished blocks, and of claimed blocks the rows before the one that the worker is at.
    fn rows_done(&self, states: &[ClaimState]) -> usize {
        let rows_of = |(index, state): (usize, &ClaimState)| {
            let rows = self.blocks.get(index).map_or(0..0, |block| block.rows());
            match state {
                ClaimState::Done => rows.len(),
                ClaimState::Claimed(owner) => {
                    let slot = self.control.slots().get(usize::from(owner.slot));
                    slot.map(Slot::row).filter(|row| rows.contains(row)).map_or(0, |row| row - rows.start)
                }
                ClaimState::Free | ClaimState::Corrupt => 0,
            }
        };
        states.iter().enumerate().map(rows_of).sum()
    }

    /// What has become of the rows of a call in place that has failed: no worker touches them any more.
    fn interrupted(mut self, source: Error) -> Error {
        self.crew.end(Instant::now());
        let slots = self.control.slots();
        let row_at = |block: usize, owner: Owner| {
            self.ledger.torn_at(block).or_else(|| slots.get(usize::from(owner.slot)).map(Slot::row))
        };
        interrupted(&self.blocks, &self.control.claims().states(), row_at, source)
    }

    fn report(self) -> Report {
        let elapsed = self.began.elapsed();
        let tallies: Vec<_> = self.control.slots().iter().map(|slot| &slot.tally).collect();
        let rows = self.blocks.n_rows();
        Report {
            rows,
            blocks: self.blocks.len(),
            elapsed,
            block_times: BlockTimes::from_tallies(&tallies),
            workers: tallies
                .iter()
                .map(|tally| WorkerReport::from_tally(tally, &self.blocks, elapsed, self.options.measure_memory))
                .collect(),
            deaths: self.deaths,
            rerun_rows: self.ledger.rerun_rows,
            bytes_read: self.call.bytes_read,
            bytes_written: self.call.bytes_written,
            input_pages: self.call.input_pages,
            output_pages: self.call.output_pages,
        }
    }
}

fn watch_error(source: std::io::Error) -> Error {
    Error::Os { action: "watch", subject: "the workers".to_owned(), source }
}
