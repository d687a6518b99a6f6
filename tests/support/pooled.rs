//! What the tests of a pool share: kernels that do harm by a parameter, and the pool's processes as
//! `/proc` has them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Pool, PoolBuilder};

use super::isolated::{children_of, is_running};
use super::shared::SharedWord;

/// Counted by kernels, which capture nothing. Mapped before the pool is made, so that its workers
/// have it.
pub(crate) static TIMES: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

/// A kernel on its way says where it is; nothing else that it shares with the caller says so.
pub(crate) static WHERE: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

/// What the place of a panic in [`harm`] begins with.
pub(crate) const FILE: &str = concat!(file!(), ":");

/// What a kernel does on a row.
pub(crate) const NOTHING: u64 = 0;
pub(crate) const KILLED: u64 = 1;
pub(crate) const FAULTS: u64 = 2;
pub(crate) const ABORTS: u64 = 3;
pub(crate) const EXITS: u64 = 4;
pub(crate) const PANICS: u64 = 5;
pub(crate) const SPINS: u64 = 6;
pub(crate) const STOPS: u64 = 7;
pub(crate) const DAWDLES: u64 = 8;

/// A kind of harm, on which row, at which stage, and how many times over all processes.
pub(crate) type Harm = [u64; 4];

pub(crate) const ALWAYS: u64 = u64::MAX;

/// Rows that never come.
pub(crate) const NO_HARM: Harm = [NOTHING, u64::MAX, 0, 0];

/// Does the harm if this is the row and the stage of it.
pub(crate) fn harm([kind, victim, at, times]: Harm, row: usize, stage: u64) {
    if kind == DAWDLES && stage == 0 {
        std::thread::sleep(Duration::from_micros(times));
    }
    if (row as u64, stage) != (victim, at)
        || kind == DAWDLES
        || TIMES.fetch_add(1, Ordering::AcqRel) >= times
    {
        return;
    }
    WHERE.store(std::process::id().into(), Ordering::Release);
    match kind {
        KILLED => super::shared::raise(Signal::SIGKILL),
        STOPS => super::shared::raise(Signal::SIGSTOP),
        FAULTS => super::shared::raise(Signal::SIGSEGV),
        ABORTS => std::process::abort(),
        EXITS => std::process::exit(0),
        PANICS => panic!("bad row {row}"),
        SPINS => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
}

/// Options for a pool of so many workers, with what kernels count in mapped before.
pub(crate) fn pool_of(workers: usize) -> PoolBuilder {
    LazyLock::force(&TIMES).store(0, Ordering::Release);
    LazyLock::force(&WHERE).store(0, Ordering::Release);
    Pool::builder().workers(workers)
}

/// Harm is counted from here on.
pub(crate) fn count_anew() {
    TIMES.store(0, Ordering::Release);
    WHERE.store(0, Ordering::Release);
}

/// Workers that run, let in or not.
pub(crate) fn workers_of(zygote: i32) -> BTreeSet<i32> {
    children_of(zygote.cast_unsigned()).into_iter().filter(|&pid| is_running(pid)).collect()
}

/// SIGKILL by number. Those of a pool's workers are given out again only when all others have been.
pub(crate) fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// How long it takes until it is so.
pub(crate) fn until(limit: Duration, what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
    began.elapsed()
}

/// Writes each row in two halves, with harm before, between and behind them: 4 columns from 4.
#[macro_export]
macro_rules! transformed {
    ($executor:expr, $m:expr, $harm:expr) => {
        $executor.transform_rows(($m, rowfork::param($harm)), 4, |(row, harm), out| {
            let index = row.index();
            $crate::support::pooled::harm(harm, index, 0);
            (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
            $crate::support::pooled::harm(harm, index, 1);
            (2..4).for_each(|column| out[column] = row[column] / 3.0);
            $crate::support::pooled::harm(harm, index, 2);
        })
    };
}

pub(crate) fn bits<D: ndarray::Dimension>(array: &rowfork::SharedArray<f64, D>) -> Vec<u64> {
    array.as_slice().iter().map(|value| value.to_bits()).collect()
}
