//! The main job under strace, which kills it at, or fails, its n-th system call of each kind.
//! Deterministic, no luck with timing. Skipped, with the reason printed, where strace cannot be
//! used.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ndarray::Ix2;
use nix::sys::signal::Signal;
use rowfork::{SharedArray, fork};

use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};
use crate::support::{segments_named, sweeps_until};

/// In the environment of every process of a run, so that all of them can be found.
const TAG: &str = "ROWFORK_TEST_UNDER_STRACE";

/// System calls that a call, or the life of its segments, makes in the caller or in a worker.
const SWEPT: [&str; 19] = [
    "clone",
    "pidfd_open",
    "waitid",
    "poll",
    "futex",
    "prctl",
    "getppid",
    "mprotect",
    "rt_sigaction",
    "rt_sigprocmask",
    "mmap",
    "munmap",
    "madvise",
    "fallocate",
    "linkat",
    "unlink",
    "flock",
    "fchmod",
    "exit_group",
];

/// Not a test: the program that the tests below run under strace.
#[test]
#[ignore = "a part of other tests"]
fn the_main_job() {
    let Some(tag) = std::env::var_os(TAG) else { return };
    let name = format!("rowfork-strace-{}", tag.to_str().unwrap());
    let m: SharedArray<f64, Ix2> =
        SharedArray::from_shape_fn(&*name, (200, 50), |(i, j)| (i * j) as f64).expect("placed");
    let mut sums = fork().workers(2).row_sums(&m).expect("sums");
    assert!(
        sums.view().iter().enumerate().all(|(i, &sum)| sum == (i * 1225) as f64),
        "a wrong sum"
    );
    sums.publish(&format!("{name}-sums")).expect("publish");
    println!("the job is done");
}

/// Not a test: the same with the other kernels of rowfork's own.
#[test]
#[ignore = "a part of other tests"]
fn the_job_of_means_and_dots() {
    if std::env::var_os(TAG).is_none() {
        return;
    }
    let m: SharedArray<f64, Ix2> =
        SharedArray::from_shape_fn(None, (200, 50), |(i, j)| (i * j) as f64).expect("placed");
    let fork = fork().workers(2);
    let means = fork.row_means(&m).expect("sums");
    let dots = fork.row_dot(&m, &[2.0; 50]).expect("sums");
    let weighted = fork.row_weighted_means(&m, &[2.0; 50]).expect("sums");
    let sums = fork.row_sums_fast(&m).expect("sums");
    for i in 0..200 {
        let found = [means[i], dots[i], weighted[i], sums[i]];
        assert_eq!(
            found,
            [24.5, 2450.0, 24.5, 1225.0].map(|of_row_1| of_row_1 * i as f64),
            "a wrong sum"
        );
    }
    println!("the job is done");
}

/// Not a test: another such program, one of whose workers is killed.
#[test]
#[ignore = "a part of other tests"]
fn the_job_that_loses_a_worker() {
    if std::env::var_os(TAG).is_none() {
        return;
    }
    let m: SharedArray<f64, Ix2> =
        SharedArray::from_shape_fn(None, (200, 50), |(i, j)| (i * j) as f64).expect("placed");
    let deaths = SharedWord::new();
    let sums = fork().workers(2).block_rows(10).map_rows(&m, |row| {
        if row.index() == 55 && deaths.fetch_add(1, Ordering::Relaxed) == 0 {
            raise(Signal::SIGKILL);
        }
        row.sum()
    });
    let sums = sums.expect("sums");
    assert!(
        sums.view().iter().enumerate().all(|(i, &sum)| sum == (i * 1225) as f64),
        "a wrong sum"
    );
    assert_eq!(deaths.load(Ordering::Relaxed), 2, "row 55 was run twice");
    println!("the job is done");
}

fn strace_works() -> bool {
    let works = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        println!("SKIPPED: strace is not installed, or may not trace");
    }
    works
}

/// Runs the main job with one fault injected; whether it said that it is done, and all that it
/// said.
fn job_with(tag: &str, calls: &str, fault: &str) -> (bool, String) {
    run_with(name_of(the_main_job), tag, calls, fault)
}

fn run_with(program: &str, tag: &str, calls: &str, fault: &str) -> (bool, String) {
    let options = [&*format!("trace={calls}"), &*format!("inject={calls}:{fault}")];
    let (done, output) =
        run_under_strace(program, tag, &["-o", "/dev/null", "-e", options[0], "-e", options[1]]);
    assert!(!output.contains("WATCHDOG"), "{program}, {calls} {fault}: {output}");
    assert!(!output.contains("a wrong sum"), "{program}, {calls} {fault}: {output}");
    (done, output)
}

fn run_under_strace(program: &str, tag: &str, options: &[&str]) -> (bool, String) {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq"])
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args([program, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(TAG, tag)
        .env("RAYON_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0");
    let (_, output) = isolated::output_within(command, Duration::from_secs(20));
    (output.contains("the job is done"), output)
}

fn processes_with(tag: &str) -> Vec<i32> {
    let entry = format!("{TAG}={tag}");
    let has_it = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == entry.as_bytes())
    };
    let all = isolated::processes().into_iter().map(|process| process.pid);
    all.filter(|&pid| isolated::is_running(pid) && has_it(pid)).collect()
}

fn assert_nothing_is_left(tag: &str, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while !processes_with(tag).is_empty() {
        assert!(
            Instant::now() < deadline,
            "{what}: after 1 s these still run: {:?}",
            processes_with(tag)
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let left = || segments_named(&format!("rowfork-strace-{tag}"));
    assert!(sweeps_until(|| left().is_empty()), "{what}: left {:?}", left());
}

#[test]
fn killed_at_any_system_call_the_job_leaves_nothing() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        let (mut unharmed, mut harmed) = (0, 0);
        for call in SWEPT {
            for n in 1..=4 {
                // With -f every process counts for itself: its n-th such call kills caller and
                // worker alike.
                let (done, _) = job_with(&tag, call, &format!("signal=SIGKILL:when={n}"));
                assert_nothing_is_left(&tag, &format!("SIGKILL at {call} number {n}"));
                if done { unharmed += 1 } else { harmed += 1 }
            }
        }
        println!(
            "FIGURE {harmed} runs killed, {unharmed} ended well (the call was not reached, or \
             workers alone were hit)"
        );
        assert!(harmed >= 30, "only {harmed} runs were killed");
    });
}

#[test]
fn interrupted_system_calls_are_made_again() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        // Not futex: strace fails wake-ups, too, which the kernel never does, and std loses them.
        for call in ["poll", "waitid", "fallocate", "flock"] {
            let (done, output) = job_with(&tag, call, "error=EINTR:when=1+2");
            assert!(done, "{call}: {output}");
            assert_nothing_is_left(&tag, call);
        }
    });
}

#[test]
fn a_worker_that_cannot_be_tied_to_its_parent_is_a_typed_error() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let (done, output) =
            job_with(&std::process::id().to_string(), "prctl", "error=EPERM:when=1+");
        assert!(
            !done && output.contains("WorkerSetup") && output.contains("PR_SET_PDEATHSIG"),
            "{output}"
        );
    });
}

#[test]
fn without_pidfds_all_rows_are_done_all_the_same() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        for program in [
            name_of(the_main_job),
            name_of(the_job_that_loses_a_worker),
            name_of(the_job_of_means_and_dots),
        ] {
            for error in ["ENOSYS", "EPERM"] {
                // None has one; the first, the second, and the one that comes for the dead have
                // none.
                for which in ["1+", "1", "2", "3"] {
                    let (done, output) = run_with(
                        program,
                        &tag,
                        "pidfd_open",
                        &format!("error={error}:when={which}"),
                    );
                    assert!(done, "{program}, {error} at {which}: {output}");
                    assert_nothing_is_left(&tag, &format!("{program}, {error} at {which}"));
                }
            }
        }
    });
}

#[test]
fn with_pidfds_two_waits_a_worker_and_nothing_goes_by_number() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        let record = tempfile::NamedTempFile::new().unwrap();
        let path = record.path().to_str().unwrap();
        for (program, workers) in
            [(name_of(the_main_job), 2), (name_of(the_job_that_loses_a_worker), 5)]
        {
            let trace = "trace=clone,waitid,poll,ioctl,kill,pidfd_open";
            let (done, output) = run_under_strace(program, &tag, &["-o", path, "-e", trace]);
            assert!(done, "{output}");
            let record = std::fs::read_to_string(path).unwrap();
            // Not the lines on which a call that another process's line has cut in two goes on.
            let count = |call: &str| record.lines().filter(|line| line.contains(call)).count();
            // A block that came back is three pieces, for which some that had nothing left to do
            // are forked anew.
            let forked = count(" clone(");
            assert!((1..=workers).contains(&forked), "{record}");
            assert_eq!(
                (count("waitid("), count("waitid(P_PIDFD, ")),
                (2 * forked, 2 * forked),
                "{record}"
            );
            assert_eq!(count(" pidfd_open("), forked, "{record}");
            // 100 ms, not the millisecond of those who have to look.
            let timeout = |line: &str| {
                line.rsplit_once("}], ")?.1.split([' ', ')']).nth(1)?.parse::<u32>().ok()
            };
            let polls = record
                .lines()
                .filter(|line| line.contains("events=POLLIN") && !line.contains("resumed>"));
            assert!(
                polls.clone().count() >= 1
                    && polls.clone().all(|line| timeout(line).unwrap_or(100) > 1),
                "{record}"
            );
            assert_eq!(count(" ioctl("), 0, "{record}");
            assert_eq!(count(" kill("), usize::from(program != name_of(the_main_job)), "{record}");
        }
    });
}

#[test]
fn a_fork_that_is_refused_costs_a_worker_or_is_a_typed_error() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        for program in [
            name_of(the_main_job),
            name_of(the_job_that_loses_a_worker),
            name_of(the_job_of_means_and_dots),
        ] {
            for which in ["1", "2", "3", "4", "1+", "2+", "3+"] {
                for error in ["EAGAIN", "ENOMEM"] {
                    let (done, output) =
                        run_with(program, &tag, "clone", &format!("error={error}:when={which}"));
                    let what = format!("{program}, {error} at {which}: {output}");
                    assert!(done || output.contains("sums: ForkFailed"), "{what}");
                    if which.starts_with('1') {
                        assert!(!done, "without the first there is none: {what}");
                    } else if program == name_of(the_main_job) {
                        assert!(done, "one worker is enough: {what}");
                    }
                    assert_nothing_is_left(&tag, &what);
                }
            }
        }
    });
}

#[test]
fn failed_system_calls_end_in_a_result_or_a_typed_error() {
    isolated(|| {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        let faults = [
            ("clone", "EAGAIN"),
            ("clone", "ENOMEM"),
            ("pidfd_open", "EMFILE"),
            ("pidfd_open", "ENOMEM"),
            ("waitid", "ECHILD"),
            ("fallocate", "ENOSPC"),
            ("linkat", "EEXIST"),
            ("linkat", "ENOSPC"),
            ("madvise", "EINVAL"),
            ("madvise", "ENOMEM"),
            ("prctl", "EPERM"),
            ("poll", "ENOMEM"),
        ];
        for (call, error) in faults {
            for n in 1..=2 {
                let (done, output) = job_with(&tag, call, &format!("error={error}:when={n}"));
                // The job's own expect() prints the typed error; anything else would be a hang or a
                // signal.
                let typed =
                    ["placed: ", "sums: ", "publish: "].iter().any(|step| output.contains(step));
                assert!(done || typed, "{call} {error} number {n}: {output}");
                assert_nothing_is_left(&tag, &format!("{call} {error}"));
            }
        }
    });
}
