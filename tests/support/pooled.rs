//! A pool's processes as `/proc` has them, and waiting for what becomes of them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Pool, PoolBuilder};

use super::harm::count_anew;
use super::isolated::{children_of, is_running, processes};

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

/// Kills a pool's zygote, and waits until it and its workers have ended.
pub(crate) fn end_zygote_of(pool: &Pool) {
    let stats = pool.stats();
    end(stats.zygote_pid);
    until(LIMIT, "the end of the zygote and of its workers", || {
        !is_running(stats.zygote_pid) && !stats.worker_pids.iter().any(|&pid| is_running(pid))
    });
}

/// Kills a pool's workers but `spared`, again and again, until the zygote forks no more. Returns
/// how many it has killed. Nobody looks at the pool meanwhile: the zygote has nobody to tell.
pub(crate) fn kill_until_it_forks_no_more(zygote: i32, spared: Option<i32>) -> usize {
    let victims = || {
        let mut victims = processes();
        victims.retain(|child| child.parent == i64::from(zygote) && Some(child.pid) != spared);
        victims
    };
    let mut killed = 0;
    until(6 * LIMIT, "the pool gives up", || {
        let now = victims();
        // A zygote that has reaped a worker forks the next one before it polls. So one that polls
        // without a child, dead ones included, will not fork.
        if now.is_empty() {
            return polls(zygote) && victims().is_empty();
        }
        let running = now.iter().filter(|child| !matches!(child.state, 'Z' | 'X'));
        killed += running.inspect(|child| end(child.pid)).count();
        false
    });
    assert!(spared.is_none_or(is_running), "the spared worker has died");
    killed
}

/// How long anything may take that a pool does by itself.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether a process sleeps in `poll`. Its state alone does not say so: the kernel has a process
/// that reaps a child look asleep as well.
fn polls(pid: i32) -> bool {
    #[cfg(target_arch = "x86_64")]
    const POLLS: [libc::c_long; 2] = [libc::SYS_poll, libc::SYS_ppoll];
    #[cfg(not(target_arch = "x86_64"))]
    const POLLS: [libc::c_long; 1] = [libc::SYS_ppoll];
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| POLLS.contains(&number))
}

/// How many descriptors are on their way in the sockets of a process, received by nobody yet;
/// `None` where the kernel does not say.
pub(crate) fn descriptors_under_way(pid: i32) -> Option<usize> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?;
    let counts = entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse::<usize>().ok())
    });
    counts.reduce(|one, other| one + other)
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
