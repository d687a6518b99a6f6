//! Calls of a program whose other threads hold, or fight for, every lock that a forked worker could
//! come to wait for: rowfork's own code in the worker waits for none of them.
#![allow(unsafe_code, reason = "walks the loaded objects, changes the environment")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ndarray::Ix2;
use nix::sys::signal::Signal;
use rayon::prelude::*;
use rowfork::{DeathCause, Error, SharedArray, fork};

use crate::support::harm::{self, bits, first_time, matrix};
use crate::support::isolated::isolated;
use crate::support::shared::{SharedWord, raise};

/// Until the calls are over.
static OVER: AtomicBool = AtomicBool::new(false);
/// Threads that have what they are to hold.
static HOLDING: AtomicUsize = AtomicUsize::new(0);

fn over() -> bool {
    OVER.load(Ordering::Relaxed)
}

/// Counts as holding, and holds.
fn hold() {
    HOLDING.fetch_add(1, Ordering::Relaxed);
    while !over() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn holds_stdout() {
    let _lock = std::io::stdout().lock();
    hold();
}

fn holds_stderr() {
    let _lock = std::io::stderr().lock();
    hold();
}

const STUCK: &str = "stuck";

fn is_stuck_in_a_panic_hook() {
    let _ = std::panic::catch_unwind(|| std::panic::panic_any(STUCK));
}

fn is_stuck_in_dl_iterate_phdr() {
    extern "C" fn stuck(_: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
        hold();
        1
    }
    // SAFETY: the callback touches nothing that it is given.
    unsafe { libc::dl_iterate_phdr(Some(stuck), std::ptr::null_mut()) };
}

fn holds_a_mutex() {
    static MUTEX: Mutex<()> = Mutex::new(());
    let _lock = MUTEX.lock().unwrap();
    hold();
}

fn sets_variables() {
    HOLDING.fetch_add(1, Ordering::Relaxed);
    for round in 0.. {
        if over() {
            break;
        }
        // (Values that come again: glibc never frees one.) SAFETY: this test is alone in its
        // process, and nothing but std reads the environment here, under std's lock.
        unsafe {
            std::env::set_var(
                format!("ROWFORK_TEST_TORTURE_{}", round % 50),
                (round % 7).to_string(),
            );
        };
    }
}

fn storms_the_allocator() {
    HOLDING.fetch_add(1, Ordering::Relaxed);
    for round in 0_usize.. {
        if over() {
            break;
        }
        let some: Vec<Vec<u8>> =
            (0..20).map(|i| Vec::with_capacity(1 + (round * 37 + i * 1009) % 9000)).collect();
        std::hint::black_box(some);
    }
}

fn keeps_rayon_busy() {
    HOLDING.fetch_add(1, Ordering::Relaxed);
    while !over() {
        std::hint::black_box((0..2000_u64).into_par_iter().map(|i| i.wrapping_mul(i)).sum::<u64>());
    }
}

/// Segments come and go: rowfork's own lock, which a fork is made under.
fn makes_and_drops_arrays() {
    HOLDING.fetch_add(1, Ordering::Relaxed);
    while !over() {
        drop(SharedArray::<f64, _>::zeros(None, 100).unwrap());
    }
}

/// Tells the threads to end, on a failure too.
struct EndThem;

impl Drop for EndThem {
    fn drop(&mut self) {
        OVER.store(true, Ordering::Relaxed);
    }
}

fn tortured(calls: impl FnOnce()) {
    let threads: [fn(); 10] = [
        holds_stdout,
        holds_stderr,
        is_stuck_in_a_panic_hook,
        is_stuck_in_dl_iterate_phdr,
        holds_a_mutex,
        sets_variables,
        storms_the_allocator,
        storms_the_allocator,
        keeps_rayon_busy,
        makes_and_drops_arrays,
    ];
    std::thread::scope(|scope| {
        let _end = EndThem;
        for thread in threads {
            scope.spawn(thread);
        }
        while HOLDING.load(Ordering::Relaxed) < threads.len() {
            std::thread::yield_now();
        }
        calls();
    });
}

struct Right {
    sums: Vec<u64>,
    mapped: Vec<u64>,
    transformed: Vec<f64>,
    updated: Vec<f64>,
}

fn sums(m: &SharedArray<f64, Ix2>) -> Vec<u64> {
    bits(&fork().workers(2).row_sums(m).unwrap())
}

fn mapped(
    m: &SharedArray<f64, Ix2>,
    harm: impl Fn(usize),
) -> rowfork::Result<(Vec<u64>, rowfork::Report)> {
    harm::harmed(m, 2, harm)
}

fn transformed(m: &SharedArray<f64, Ix2>) -> Vec<f64> {
    let halves = fork().workers(2).block_rows(10).transform_rows(m, 2, |row, out| {
        out[0] = row[0] / 2.0;
        out[1] = row[2] / 3.0;
    });
    halves.unwrap().view().iter().copied().collect()
}

fn updated(m: &SharedArray<f64, Ix2>) -> Vec<f64> {
    let mut own = SharedArray::copy_from(None, &m.view()).unwrap();
    fork().workers(2).block_rows(10).update_rows(&mut own, |row| *row /= 3.0).unwrap();
    own.view().iter().copied().collect()
}

/// So many by either executor.
fn a_number_of_jobs(jobs: usize) {
    std::panic::set_hook(Box::new(|info| match info.payload().downcast_ref::<&str>() {
        Some(&STUCK) => hold(),
        _ => drop(std::fs::write("/dev/stderr", info.to_string())),
    }));
    let m = matrix(100, 3);
    let kernel = |row: rowfork::Row<'_, f64, ndarray::Ix1>| row.sum() * 3.0;
    let right = bits(&fork().workers(2).map_rows(&m, kernel).unwrap());
    tortured(|| {
        for round in 0..jobs {
            assert!(
                bits(&fork().workers(2).map_rows(&m, kernel).unwrap()) == right,
                "fork, round {round}"
            );
        }
        // Every pool is made while the locks are held, for the fork is then.
        for made in 0..jobs / 50 {
            let pool = rowfork::Pool::builder().workers(2).build().unwrap();
            for round in 0..50 {
                assert!(
                    bits(&pool.map_rows(&m, kernel).unwrap()) == right,
                    "pool {made}, round {round}"
                );
            }
            let worker = pool.stats().worker_pids[0];
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL).unwrap();
            assert!(
                bits(&pool.map_rows(&m, kernel).unwrap()) == right,
                "pool {made}, after a death"
            );
        }
    });
}

#[test]
fn instructions_are_chosen_before_the_fork_not_in_a_worker() {
    isolated(|| {
        // SAFETY: this test is alone in its process; a worker has one thread.
        unsafe { std::env::remove_var("ROWFORK_ISA") };
        let m = SharedArray::<f64, Ix2>::zeros(None, (3, 3)).unwrap();
        // Who chooses in the worker, with threads of the caller about to change the environment,
        // may wait for ever.
        let chosen_late = fork().map_rows(&m, |_| {
            // SAFETY: as above.
            unsafe { std::env::set_var("ROWFORK_ISA", "scalar") };
            rowfork::instructions() == "scalar"
        });
        let only_one = rowfork::instructions() == "scalar";
        assert!(only_one || chosen_late.unwrap().view().iter().all(|late| !late.get()));
    });
}

#[test]
fn pure_jobs_end_rightly_by_either_executor_whatever_is_locked() {
    isolated(|| {
        a_number_of_jobs(100);
    });
}

#[test]
#[ignore = "minutes on a machine of two cores: cargo t-pool threaded -- --ignored"]
fn a_thousand_pure_jobs_end_rightly_whatever_locks_are_held() {
    isolated(|| {
        a_number_of_jobs(1000);
    });
}

#[test]
fn three_hundred_calls_end_rightly_whatever_locks_are_held() {
    isolated(|| {
        // One thread gets stuck in the hook. (A failure of this test is told past the lock of
        // stderr.)
        std::panic::set_hook(Box::new(|info| match info.payload().downcast_ref::<&str>() {
            Some(&STUCK) => hold(),
            _ => drop(std::fs::write("/dev/stderr", info.to_string())),
        }));
        let m = matrix(100, 3);
        // Wraps the hook, while there is nobody in it: to change it is to wait for those who are.
        let right = Right {
            sums: sums(&m),
            mapped: mapped(&m, |_| {}).unwrap().0,
            transformed: transformed(&m),
            updated: updated(&m),
        };
        tortured(|| {
            for round in 0..50 {
                assert!(sums(&m) == right.sums, "row_sums, round {round}");
                assert!(mapped(&m, |_| {}).unwrap().0 == right.mapped, "map_rows, round {round}");
                assert!(transformed(&m) == right.transformed, "transform_rows, round {round}");
                assert!(updated(&m) == right.updated, "update_rows, round {round}");
                match mapped(&m, |row| assert!(row != 57, "bad row {row}")).unwrap_err() {
                    Error::KernelPanicked { row: 57, message, location, .. } => {
                        assert!(
                            message == "bad row 57" && location.starts_with(file!()),
                            "{message} {location}"
                        );
                    }
                    other => panic!("round {round}: {other:?}"),
                }
                let deaths = SharedWord::new();
                let kill_once = |row| {
                    if row == 33 && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                };
                let (values, report) = mapped(&m, kill_once).unwrap();
                assert!(values == right.mapped, "a killed worker, round {round}");
                assert!(
                    report.deaths.len() == 1 && report.deaths[0].cause == DeathCause::Signalled(9)
                );
            }
        });
    });
}
