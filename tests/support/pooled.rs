//! A pool's processes as `/proc` has them, and waiting for what becomes of them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Pool, PoolBuilder};

use super::harm::count_anew;
use super::isolated::{children_of, is_running};

/// Options for a pool of so many workers, with what kernels count in mapped before.
pub(crate) fn pool_of(workers: usize) -> PoolBuilder {
    count_anew();
    Pool::builder().workers(workers)
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
