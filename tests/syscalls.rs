//! The main job under strace, which kills it at, or fails, its n-th system call of each kind. Deterministic, no luck with
//! timing. Skipped, with the reason printed, where strace cannot be used.

#[path = "support/isolated.rs"]
mod isolated;

use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::Ix2;
use rowfork::{SharedArray, fork};

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
    assert!(sums.view().iter().enumerate().all(|(i, &sum)| sum == (i * 1225) as f64), "a wrong sum");
    sums.publish(&format!("{name}-sums")).expect("publish");
    println!("the job is done");
}

fn strace_works() -> bool {
    let works =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        println!("SKIPPED: strace is not installed, or may not trace");
    }
    works
}

/// Runs the job with one fault injected; whether it said that it is done, and all that it said.
fn job_with(tag: &str, calls: &str, fault: &str) -> (bool, String) {
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={calls}:{fault}"),
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["the_main_job", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(TAG, tag)
        .env("RAYON_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0");
    let (_, output) = isolated::output_within(command, Duration::from_secs(20));
    assert!(!output.contains("WATCHDOG"), "{calls} {fault}: {output}");
    assert!(!output.contains("a wrong sum"), "{calls} {fault}: {output}");
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
        assert!(Instant::now() < deadline, "{what}: after 1 s these still run: {:?}", processes_with(tag));
        std::thread::sleep(Duration::from_millis(1));
    }
    rowfork::segment::sweep().unwrap();
    let names = std::fs::read_dir("/dev/shm").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let left: Vec<_> = names.filter(|name| name.starts_with(&format!("rowfork-strace-{tag}"))).collect();
    assert!(left.is_empty(), "{what}: left {left:?}");
}

isolated_tests! {
    fn killed_at_any_system_call_the_job_leaves_nothing() {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        let (mut unharmed, mut harmed) = (0, 0);
        for call in SWEPT {
            for n in 1..=4 {
                // With -f every process counts for itself: its n-th such call kills caller and worker alike.
                let (done, _) = job_with(&tag, call, &format!("signal=SIGKILL:when={n}"));
                assert_nothing_is_left(&tag, &format!("SIGKILL at {call} number {n}"));
                if done { unharmed += 1 } else { harmed += 1 }
            }
        }
        println!("FIGURE {harmed} runs killed, {unharmed} ended well (the call was not reached, or workers alone were hit)");
        assert!(harmed >= 30, "only {harmed} runs were killed");
    }

    fn interrupted_system_calls_are_made_again() {
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
    }

    fn a_worker_that_cannot_be_tied_to_its_parent_is_a_typed_error_that_says_so() {
        if !strace_works() {
            return;
        }
        let (done, output) = job_with(&std::process::id().to_string(), "prctl", "error=EPERM:when=1+");
        assert!(!done && output.contains("WorkerSetup") && output.contains("PR_SET_PDEATHSIG"), "{output}");
    }

    fn failed_system_calls_end_in_a_result_or_a_typed_error() {
        if !strace_works() {
            return;
        }
        let tag = std::process::id().to_string();
        let faults = [
            ("clone", "EAGAIN"), ("clone", "ENOMEM"), ("pidfd_open", "EMFILE"), ("pidfd_open", "ENOSYS"),
            ("waitid", "ECHILD"), ("fallocate", "ENOSPC"), ("linkat", "EEXIST"), ("linkat", "ENOSPC"),
            ("madvise", "EINVAL"), ("madvise", "ENOMEM"), ("prctl", "EPERM"), ("poll", "ENOMEM"),
        ];
        for (call, error) in faults {
            for n in 1..=2 {
                let (done, output) = job_with(&tag, call, &format!("error={error}:when={n}"));
                // The job's own expect() prints the typed error; anything else would be a hang or a signal.
                let typed = ["placed: ", "sums: ", "publish: "].iter().any(|step| output.contains(step));
                assert!(done || typed, "{call} {error} number {n}: {output}");
                assert_nothing_is_left(&tag, &format!("{call} {error}"));
            }
        }
    }
}
