//! What a call on a pool costs: round trips hot and parked, small sums beside those of ndarray, a
//! heap, a death, the making; and where it pays to have workers at all. Prints, asserts no times:
//! `cargo measure figures_pool` on a quiet machine; `ROWFORK_FIGURES_MIB` sets the size of the
//! matrix, and the heap is four times that.

#[path = "../../benches/rivals/heap.rs"]
mod heap;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ndarray::{Ix1, Ix2, Zip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Pool, SharedArray, fork};

use heap::Heap;

use crate::support::timing::{mib, seconds, small_or_huge};

const WORKERS: usize = 2;

/// By then everybody sleeps.
const PAUSE: Duration = Duration::from_millis(2);

/// Of everything that is compared: in turns, so often.
const ROUNDS: usize = 51;

fn pool(inline_below: usize) -> Pool {
    Pool::builder().workers(WORKERS).inline_below(inline_below).build().unwrap()
}

fn ones(n_rows: usize, n_columns: usize) -> (SharedArray<f64, Ix2>, SharedArray<f64, Ix1>) {
    let m = SharedArray::from_shape_fn(None, (n_rows, n_columns), |_| 1.0).unwrap();
    (m, SharedArray::zeros(None, n_rows).unwrap())
}

/// Seconds of each of so many calls, after some that are not counted, sorted.
fn latencies(calls: usize, pause: Option<Duration>, call: &mut dyn FnMut()) -> Vec<f64> {
    let mut once = || {
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
        seconds(call)
    };
    for _ in 0..calls / 10 {
        once();
    }
    let mut times: Vec<f64> = (0..calls).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn print_latencies(what: &str, times: &[f64]) {
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000] * 1e6;
    let [p50, p90, p99, max] = [500, 900, 990, 1000].map(at);
    println!(
        "FIGURE {what}: p50 {p50:.2} us, p90 {p90:.2} us, p99 {p99:.2} us, max {max:.0} us, n = {}",
        times.len()
    );
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median seconds of each, in turns, every other time the other way round.
#[allow(clippy::needless_pass_by_value, reason = "closures are written where they are handed over")]
fn alternating<const N: usize>(rounds: usize, rivals: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0..rounds {
        for place in 0..N {
            let which = if round % 2 == 0 { place } else { N - 1 - place };
            times[which].push(rivals[which]());
        }
    }
    times.map(|mut times| median(&mut times))
}

/// Calls `measure` without a heap, and with one that is made before it; says so.
fn without_and_with_a_heap(measure: impl Fn(&str)) {
    measure("no private heap");
    match Heap::new(mib() << 22) {
        Ok(_heap) => measure(&format!("{} MiB of private heap", mib() << 2)),
        Err(reason) => println!("SKIPPED: {reason}"),
    }
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn round_trips_of_one_block() {
    without_and_with_a_heap(|heap| {
        let pool = pool(0);
        let (m, mut sums) = ones(8, 8);
        let report = pool.row_sums_into(&m, &mut sums).unwrap();
        assert_eq!((report.blocks, report.inline, sums[7]), (1, false, 8.0));
        let mut by_pool = || drop(pool.row_sums_into(&m, &mut sums).unwrap());
        print_latencies(&format!("pool, hot, {heap}"), &latencies(200_000, None, &mut by_pool));
        let hot = pool.stats().hot_calls;
        print_latencies(
            &format!("pool, after 2 ms, {heap}"),
            &latencies(2000, Some(PAUSE), &mut by_pool),
        );
        println!(
            "FIGURE calls whose caller did not sleep: {hot} hot, {} after 2 ms",
            pool.stats().hot_calls - hot
        );
        drop(pool);
        let mut by_fork = || drop(fork().workers(WORKERS).row_sums_into(&m, &mut sums).unwrap());
        print_latencies(&format!("fork, {heap}"), &latencies(200, None, &mut by_fork));
        print_latencies(
            &format!("fork, after 2 ms, {heap}"),
            &latencies(200, Some(PAUSE), &mut by_fork),
        );
    });
}

#[test]
#[ignore = "needs a quiet machine"]
fn a_thousand_rows_of_ten_against_serial_ndarray() {
    /// Calls between two looks at the clock, which takes long beside them.
    const CALLS: usize = 100;
    let (inline, workers) = (Pool::builder().workers(WORKERS).build().unwrap(), pool(0));
    let m = SharedArray::from_shape_fn(None, (1000, 10), |(i, j)| (i + j) as f64).unwrap();
    let (mut by_pool, mut by_workers, mut by_ndarray, mut by_kernel) = (
        SharedArray::<f64, Ix1>::zeros(None, 1000).unwrap(),
        SharedArray::<f64, Ix1>::zeros(None, 1000).unwrap(),
        vec![0.0; 1000],
        vec![0.0; 1000],
    );
    assert!(inline.row_sums_into(&m, &mut by_pool).unwrap().inline);
    let each =
        |work: &mut dyn FnMut()| seconds(&mut || (0..CALLS).for_each(|_| work())) / CALLS as f64;
    let [pool, workers, ndarray, kernel] = alternating(
        501,
        [
            &mut || each(&mut || drop(inline.row_sums_into(&m, &mut by_pool).unwrap())),
            &mut || each(&mut || drop(workers.row_sums_into(&m, &mut by_workers).unwrap())),
            &mut || {
                each(&mut || {
                    Zip::from(&mut by_ndarray[..])
                        .and(m.view().rows())
                        .for_each(|sum, row| *sum = row.sum());
                })
            },
            &mut || each(&mut || rowfork::exact_row_sums(m.as_slice(), 10, &mut by_kernel)),
        ],
    )
    .map(|seconds| seconds * 1e6);
    assert!(
        [by_pool.as_slice(), by_workers.as_slice(), &by_kernel]
            .iter()
            .all(|sums| *sums == by_ndarray)
    );
    println!(
        "FIGURE 1,000 x 10: pool {pool:.2} us, ndarray {ndarray:.2} us, difference {:.2} us",
        pool - ndarray
    );
    println!(
        "FIGURE 1,000 x 10: pool by workers {workers:.2} us, the sums themselves {kernel:.2} us"
    );
}

#[test]
#[ignore = "needs a quiet machine"]
fn the_making_of_a_pool() {
    without_and_with_a_heap(|heap| {
        for workers in [1, 2, 8] {
            let new = || Pool::builder().workers(workers).build().unwrap();
            let (mut made, mut gone) = (Vec::new(), Vec::new());
            for _ in 0..21 {
                let mut pool = None;
                made.push(seconds(&mut || pool = Some(new())));
                gone.push(seconds(&mut || drop(pool.take())));
            }
            let [made, gone] = [made, gone].map(|mut times| median(&mut times) * 1e3);
            println!(
                "FIGURE a pool of {workers}, {heap}: made in {made:.2} ms, dropped in {gone:.2} ms"
            );
        }
    });
}

/// The processes that a zygote has forked.
fn workers_of(zygote: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children"))
        .expect("CONFIG_PROC_CHILDREN");
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
#[ignore = "needs a quiet machine"]
fn a_worker_in_the_place_of_a_dead_one() {
    without_and_with_a_heap(|heap| {
        let pool = pool(0);
        let (m, mut sums) = ones(4000, 64);
        let (mut forked, mut back) = (Vec::new(), Vec::new());
        for _ in 0..101 {
            assert!(pool.row_sums_into(&m, &mut sums).unwrap().blocks > 1);
            let stats = pool.stats();
            let dead = stats.worker_pids[0];
            kill(Pid::from_raw(dead), Signal::SIGKILL).unwrap();
            let start = Instant::now();
            // The zygote knows of the next one before the caller lets it in, which the next call
            // does.
            while workers_of(stats.zygote_pid)
                .iter()
                .filter(|&&pid| pid != dead)
                .nth(WORKERS - 1)
                .is_none()
            {
                assert!(start.elapsed() < Duration::from_secs(5), "nobody came");
            }
            forked.push(start.elapsed().as_secs_f64());
            pool.row_sums_into(&m, &mut sums).unwrap();
            while pool.stats().worker_pids.len() < WORKERS {
                pool.row_sums_into(&m, &mut sums).unwrap();
            }
            assert!(!pool.stats().worker_pids.contains(&dead));
            back.push(start.elapsed().as_secs_f64());
        }
        print_sorted(&format!("killed while idle, another forked, {heap}"), forked);
        print_sorted(&format!("killed while idle, another let in by the next call, {heap}"), back);
    });
}

fn print_sorted(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    print_latencies(what, &times);
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn a_worker_killed_in_the_middle_of_a_large_call() {
    let pool = pool(0);
    let (_pages, m) = small_or_huge(true, mib()); // placed before anything is timed
    let sums = RefCell::new(SharedArray::<f64, _>::zeros(None, m.n_rows()).unwrap());
    let call = || pool.row_sums_into(&m, &mut sums.borrow_mut()).unwrap();
    call();
    let expected = sums.borrow().to_owned();
    let half = Duration::from_secs_f64(
        (0..9).map(|_| seconds(&mut || drop(call()))).fold(f64::MAX, f64::min) / 2.0,
    );
    let (hits, misses) = (RefCell::new(0), RefCell::new(0));
    // Half-way from when the call begins: the thread is there by then.
    let killed = || loop {
        call(); // all are let in, and awake
        let victim = Pid::from_raw(pool.stats().worker_pids[0]);
        let (sender, began) = std::sync::mpsc::channel();
        let (time, deaths) = std::thread::scope(|scope| {
            scope.spawn(move || {
                let start: Instant = began.recv().unwrap();
                std::thread::sleep(half.saturating_sub(start.elapsed()));
                let _ = kill(victim, Signal::SIGKILL);
            });
            let start = Instant::now();
            sender.send(start).unwrap();
            let report = call();
            (start.elapsed().as_secs_f64(), report.deaths.len())
        });
        if deaths > 0 {
            *hits.borrow_mut() += 1;
            return time;
        }
        *misses.borrow_mut() += 1;
        assert!(*misses.borrow() < 100, "the kill always comes too late");
    };
    let undisturbed = || {
        call();
        seconds(&mut || drop(call()))
    };
    let rival = || {
        seconds(&mut || {
            drop(fork().workers(WORKERS).row_sums_into(&m, &mut sums.borrow_mut()).unwrap());
        })
    };
    let [killed, undisturbed, forked] =
        alternating(ROUNDS, [&mut &killed, &mut &undisturbed, &mut &rival]);
    assert_eq!(sums.borrow().view(), expected);
    println!(
        "FIGURE {} MiB, a worker killed half-way: {:.2} ms, undisturbed {:.2} ms, ratio {:.3} \
         ({} kills, {} came too late); \
         fork mode undisturbed {:.2} ms",
        mib(),
        killed * 1e3,
        undisturbed * 1e3,
        killed / undisturbed,
        hits.borrow(),
        misses.borrow(),
        forked * 1e3
    );
}

/// Where the default of `inline_below` is from.
#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn by_the_caller_or_by_workers() {
    let (inline, workers) = (pool(usize::MAX), pool(0));
    for n_columns in [10, 512] {
        for kib in (4..=14).map(|power| 1 << power) {
            let (m, sums) = ones(((kib << 10) / (8 * n_columns)).max(1), n_columns);
            let sums = RefCell::new(sums);
            let one = |pool: &Pool| {
                let report = pool.row_sums_into(&m, &mut sums.borrow_mut()).unwrap();
                assert_eq!(report.inline, std::ptr::eq(pool, &raw const inline));
            };
            let blocks = workers.row_sums_into(&m, &mut sums.borrow_mut()).unwrap().blocks;
            // Some at a time, so that the workers of the one sleep while the other is timed.
            let calls = (8192 / kib).clamp(8, 100);
            let hot = |pool: &Pool| {
                std::thread::sleep(PAUSE);
                (0..4).for_each(|_| one(pool));
                seconds(&mut || (0..calls).for_each(|_| one(pool))) / calls as f64
            };
            let parked = |pool: &Pool| {
                std::thread::sleep(PAUSE);
                seconds(&mut || one(pool))
            };
            let hot =
                alternating(ROUNDS, [&mut || hot(&inline), &mut || hot(&workers)]).map(|s| s * 1e6);
            let late = alternating(4 * ROUNDS, [&mut || parked(&inline), &mut || parked(&workers)])
                .map(|s| s * 1e6);
            println!(
                "FIGURE {kib:5} KiB in {n_columns:3} columns, {blocks:2} blocks: hot, caller \
                 {:8.1} us, workers {:8.1} us; \
                 after 2 ms, caller {:8.1} us, workers {:8.1} us",
                hot[0], hot[1], late[0], late[1]
            );
        }
    }
}
