//! Disturbance to this process's workers from outside: signals from another thread, at random.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// xorshift64*: enough to be unpredictable in time.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub(crate) fn count(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// What was sent.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) continues: usize,
}

/// How often something is sent, and what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disturbance {
    /// The pause between two signals lies between these.
    pub(crate) pause: (Duration, Duration),
    /// One signal in so many is a SIGSTOP; 0 for none.
    pub(crate) stop_one_in: u64,
}

/// Sends signals to random children of this process until `over`. Most who are stopped go on within
/// 20 ms, one in eight does not.
pub(crate) fn disturb_children_until(
    over: &AtomicBool,
    disturbance: Disturbance,
    seed: u64,
) -> Sent {
    let mut random = Random(seed | 1);
    let mut sent = Sent::default();
    let mut stopped: Vec<(i32, Instant)> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let (least, most) = disturbance.pause;
        let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap().max(1);
        std::thread::sleep(least + Duration::from_micros(random.below(spread)));
        stopped.retain(|&(pid, until)| {
            let over = Instant::now() >= until;
            sent.continues += usize::from(over && signal_own_child(pid, Signal::CONT));
            !over
        });
        let children = children_of_all_threads();
        if children.is_empty() {
            continue;
        }
        let victim = random.pick(&children);
        if disturbance.stop_one_in > 0 && random.one_in(disturbance.stop_one_in) {
            sent.stops += usize::from(signal_own_child(victim, Signal::STOP));
            if !random.one_in(8) {
                stopped.push((victim, Instant::now() + Duration::from_millis(random.below(20))));
            }
        } else {
            sent.kills += usize::from(signal_own_child(victim, Signal::KILL));
        }
    }
    sent
}

/// Runs `work` while somebody sends signals to the workers.
pub(crate) fn disturbed_from_outside<T>(
    disturbance: Disturbance,
    seed: u64,
    work: impl FnOnce() -> T,
) -> (T, Sent) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| disturb_children_until(&over, disturbance, seed));
        // Or a failure in `work` would wait for the thread for ever.
        let end = SetOnDrop(&over);
        let value = work();
        drop(end);
        (value, thread.join().unwrap())
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn children_of_all_threads() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let lists =
        threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .collect()
}

/// By pidfd, after a look that the number is still that of our child.
pub(crate) fn signal_own_child(pid: i32, signal: Signal) -> bool {
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return false };
    let Ok(fd) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    children_of_all_threads().contains(&pid) && pidfd_send_signal(fd, signal).is_ok()
}
