//! Signals at random times: no process, no name and no half of an answer stays, and of what SIGKILL
//! leaves `gc` leaves nothing.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ndarray::{Array2, Axis};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};
use rowfork::segment;
use tempfile::TempDir;

use crate::support::command::{command, read, rowfork, write};
use crate::support::{self, Names, eventually, shm};

const N_ROWS: usize = 600_000;

/// Tells the processes of one test from all others.
const MARK: &str = "ROWFORK_TEST_MARK";

/// A directory with a matrix, and the names that are asked for.
struct Scene {
    dir: TempDir,
    input: PathBuf,
    out: PathBuf,
    names: Names,
    name: String,
    /// Sums of all columns, and of those of the last thing that may be asked for.
    expected: [Vec<f64>; 2],
    /// What the command is to go without: a failpoint of the library.
    without: Option<Failpoint>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (input, out) = (dir.path().join("in.npy"), dir.path().join("out.npy"));
        let m = Array2::from_shape_fn((N_ROWS, 8), |(i, j)| (i * 8 + j) as f64);
        write(&input, &m);
        let some = m.select(Axis(1), &[0, 1, 3, 4, 5, 6, 7]);
        let (names, expected) = (Names::new(), [&m, &some].map(|m| m.sum_axis(Axis(1)).to_vec()));
        let name = names.name("kept");
        Self { dir, input, out, names, name, expected, without: None }
    }

    /// One of what may be asked for.
    fn asked(&self, which: usize) -> Vec<String> {
        let input = self.input.to_str().unwrap();
        let out = self.out.to_str().unwrap();
        let by_name = format!("shm:{}", self.name);
        let words: Vec<&str> = match which % 5 {
            0 => vec!["sum", input, "-o", out],
            1 => vec!["sum", input, "-o", &by_name],
            2 => vec!["load", input, &self.name, "-q"],
            3 => vec!["sum", input, "--executor", "pool", "--on-poison", "nan", "-o", out],
            _ => vec!["sum", input, "-c", "1,2,4-8", "-o", out],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn start(&self, which: usize) -> Child {
        let mut command = command(self.asked(which));
        if let Some(failpoint) = self.without {
            command.env(failpoints::VARIABLE, failpoint.to_string());
        }
        command.env(MARK, &self.name).process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Whether what is there now is a whole answer, or none.
    fn check_answer(&self, which: usize, done: bool) {
        if self.out.exists() {
            assert!(
                read(&self.out) == self.expected[usize::from(which % 5 == 4)],
                "half an answer"
            );
        }
        let kept = shm(&self.name).exists();
        assert!(
            done || (!self.out.exists() && !kept),
            "{which}: an answer of a command that did not end well"
        );
        if kept {
            let info = segment::info(&self.name).unwrap();
            assert!(!info.volatile, "{which}: {info:?}");
            assert_eq!(info.shape[0], N_ROWS as u64);
        }
    }

    /// Takes away what was asked for; nothing else may be there.
    fn clear(&self) {
        let _ = std::fs::remove_file(&self.out);
        if shm(&self.name).exists() {
            assert!(eventually(|| segment::remove(&self.name).is_ok()));
        }
        assert_eq!(left_in(self.dir.path()), ["in.npy"]);
        assert_eq!(self.names.left(), [""; 0]);
    }

    /// Whether nothing is there but the input and what a command has completed. Not so while a
    /// killed process, or somebody who looks, holds the lock of something else.
    fn has_only_what_was_to_stay(&self) -> bool {
        let is_to_stay = |name: &String| {
            *name == self.name && segment::info(name).is_ok_and(|info| !info.volatile)
        };
        left_in(self.dir.path()).iter().all(|name| name == "in.npy" || name == "out.npy")
            && self.names.left().iter().all(is_to_stay)
    }

    fn has_processes(&self) -> bool {
        let mark = format!("{MARK}={}", self.name).into_bytes();
        let marked = |pid: u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark)
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).any(marked)
    }

    /// Whether nobody holds the lock of a file that the command has made.
    fn holds_no_lock(&self) -> bool {
        let drafts = left_in(self.dir.path()).into_iter().filter(|name| name != "in.npy");
        let drafts = drafts.map(|name| self.dir.path().join(name));
        let segments = self.names.left().into_iter().map(|name| shm(&name));
        drafts
            .chain(segments)
            .all(|path| std::fs::File::open(path).map_or(true, |file| file.try_lock().is_ok()))
    }
}

fn left_in(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// How long one of each takes, undisturbed. (The shorter of two: the first pays for what others
/// have left to be done.)
fn durations(scene: &Scene) -> Vec<Duration> {
    let measure = |which| {
        let start = Instant::now();
        let ended = scene.start(which).wait().unwrap();
        assert!(ended.success());
        scene.check_answer(which, true);
        scene.clear();
        start.elapsed()
    };
    (0..5).map(|which| measure(which).min(measure(which))).collect()
}

/// On a busy machine a command takes longer at one time and shorter at another. A signal that came
/// too late has the next one of its kind come earlier.
fn adapt(lasts: &mut Duration, in_time: bool) {
    *lasts = lasts.mul_f64(if in_time { 1.1 } else { 0.7 });
}

/// Sends `signal` at a random time to a command, or as a terminal does to all its processes; how it
/// ended.
fn end_at_random(
    scene: &Scene,
    which: usize,
    lasts: Duration,
    signal: Signal,
    random: &mut u64,
) -> ExitStatus {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut child = scene.start(which);
    std::thread::sleep(lasts.mul_f64(0.8 * (*random >> 40) as f64 / f64::from(1 << 24)));
    let pid = Pid::from_raw(child.id().cast_signed());
    // Not reaped yet, so it is still the number of our child.
    let sent = if *random & 1 == 0 { kill(pid, signal) } else { killpg(pid, signal) };
    sent.unwrap();
    child.wait().unwrap()
}

#[test]
fn a_hundred_signals_leave_no_process_name_or_half_answer() {
    interrupted_at_random(&Scene::new());
}

#[test]
fn nor_do_they_where_a_file_has_a_name_while_it_is_made() {
    interrupted_at_random(&Scene { without: Some(Failpoint::NoNamelessDrafts), ..Scene::new() });
}

fn interrupted_at_random(scene: &Scene) {
    let mut lasts = durations(scene);
    let mut random = u64::from(std::process::id());
    let mut interrupted = 0;
    for round in 0..100 {
        let (which, signal) = (round, [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP][round % 3]);
        let ended = end_at_random(scene, which, lasts[which % 5], signal, &mut random);
        // A signal may come before the first instruction of `main`.
        let by_signal =
            ended.code() == Some(128 + signal as i32) || ended.signal() == Some(signal as i32);
        assert!(ended.success() || by_signal, "{:?}: {ended:?}", scene.asked(which));
        interrupted += i32::from(by_signal);
        adapt(&mut lasts[which % 5], by_signal);
        assert!(
            eventually(|| !scene.has_processes()),
            "{:?} {signal} left a process",
            scene.asked(which)
        );
        scene.check_answer(which, ended.success());
        scene.clear();
    }
    assert!(interrupted > 25, "only {interrupted} of 100 came in time");
}

#[test]
fn after_a_hundred_kills_gc_leaves_only_what_was_to_stay() {
    killed_at_random(&Scene::new());
}

#[test]
fn nor_does_more_stay_where_a_file_has_a_name_while_it_is_made() {
    killed_at_random(&Scene { without: Some(Failpoint::NoNamelessDrafts), ..Scene::new() });
}

fn killed_at_random(scene: &Scene) {
    let mut lasts = durations(scene);
    let mut random = u64::from(std::process::id()) << 7;
    let mut killed = 0;
    for round in 0..100 {
        let ended = end_at_random(scene, round, lasts[round % 5], Signal::SIGKILL, &mut random);
        killed += i32::from(!ended.success());
        adapt(&mut lasts[round % 5], !ended.success());
        assert!(eventually(|| !scene.has_processes()), "{:?} left a process", scene.asked(round));
        // A dying process gives up its memory, by which it was found, before its locks.
        assert!(eventually(|| scene.holds_no_lock()), "{:?} left a lock", scene.asked(round));
        let gone = eventually(|| {
            rowfork(["gc", scene.dir.path().to_str().unwrap()]).ok();
            scene.has_only_what_was_to_stay()
        });
        assert!(gone, "{:?} left something that gc leaves", scene.asked(round));
        scene.check_answer(round, true);
        scene.clear();
    }
    assert!(killed > 25, "only {killed} of 100 came in time");
}

#[test]
fn a_signal_before_or_after_the_work_removes_a_visible_draft() {
    let probe = std::process::Command::new("strace").args(["-qq", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return support::skip("strace is not installed, or may not trace");
    }
    let scene = Scene::new();
    let visible = Failpoint::NoNamelessDrafts.to_string();
    let copied = format!("{visible},{}", Failpoint::NoDraftsInPlace);
    // Not SIGINT, which a shell has ignored in what it runs in the background. The command gets the
    // signal at the very system call: when the room for the draft is taken; when
    // the answer is copied (before, its segment was made as long as it is); when the permissions of
    // the draft become those of what it replaces, before it does.
    for (at, when, without, replaced) in [
        ("fallocate", 1, &visible, false),
        ("ftruncate", 2, &copied, false),
        ("fchmod", 1, &visible, true),
    ] {
        if replaced {
            std::fs::write(&scene.out, "before").unwrap();
        }
        let inject = format!("inject={at}:signal=SIGTERM:when={when}");
        let record = tempfile::NamedTempFile::new().unwrap();
        let mut tracer = std::process::Command::new("strace");
        let trace = format!("trace={at},openat,linkat");
        tracer.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-o"]).arg(record.path());
        tracer.arg(support::rowfork_path()).args(scene.asked(0)).env(failpoints::VARIABLE, without);
        let ended = tracer.status().unwrap();
        let record = std::fs::read_to_string(record.path()).unwrap();
        let (before, _) = record.split_once("--- SIGTERM").expect("no signal in the record");
        let makes_draft = |line: &str| {
            let makes = line.contains("O_CREAT") || line.contains("linkat(");
            makes && line.contains("/.rowfork-") && !line.contains("= -1")
        };
        assert!(before.lines().any(makes_draft), "{at}: no draft is visible before:\n{record}");
        if replaced {
            // It had begun to get its name: that is finished.
            assert!(ended.success(), "{ended:?}");
            scene.check_answer(0, true);
        } else {
            assert_eq!(ended.code(), Some(128 + libc::SIGTERM), "{at}");
            assert!(!scene.out.exists());
        }
        scene.clear();
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let scene = Scene::new();
    for _ in 0..10 {
        // Hangups from its first instruction to its last.
        let script = "trap '' HUP; \"$@\" & while kill -HUP $! 2>/dev/null; do :; done; wait $!";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, "sh"]).arg(support::rowfork_path()).args(scene.asked(0));
        let status = command.status().unwrap();
        assert!(status.success(), "{status:?}");
        scene.check_answer(0, true);
        scene.clear();
    }
}

/// The workers of a command in fork mode.
fn children(pid: u32) -> Vec<i32> {
    let listed =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn workers_that_are_killed_change_no_bit_of_the_answer() {
    let scene = Scene::new();
    let mut killed = 0;
    for _ in 0..20 {
        let mut child = scene.start(0);
        while child.try_wait().unwrap().is_none() {
            // The command is not reaped yet, and reaps its workers itself: a number that is listed
            // now may be free by the time of the signal, and nobody else's within the microseconds
            // between.
            if let Some(&worker) = children(child.id()).first() {
                killed += i32::from(kill(Pid::from_raw(worker), Signal::SIGKILL).is_ok());
                break;
            }
        }
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        scene.check_answer(0, true);
        scene.clear();
    }
    assert!(killed > 10, "{killed}");
}

#[test]
fn an_input_that_is_cut_in_the_middle_is_one_line_or_none() {
    let scene = Scene::new();
    let whole = std::fs::read(&scene.input).unwrap();
    let mut cut = 0;
    for round in 0..20 {
        let mut child = scene.start([0, 3][round % 2]);
        while child.try_wait().unwrap().is_none() && children(child.id()).is_empty() {}
        std::fs::File::options().write(true).open(&scene.input).unwrap().set_len(10_000).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        if !ended.status.success() {
            assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
            assert!(
                said.contains("in.npy: truncated: ") && said.contains("make it again"),
                "{said}"
            );
            assert!(!scene.out.exists());
            cut += 1;
        }
        std::fs::write(&scene.input, &whole).unwrap();
        scene.clear();
    }
    assert!(cut > 5, "{cut}");
}
