//! Tests that fork, leak-check or take the process apart run each in a process of its own: the test
//! re-runs its own binary for itself alone, under a watchdog, and that process must end with the
//! descriptors, children and `/dev/shm` names that it began with.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rowfork::failpoints::{self, Failpoint};

/// Set in the process that runs one test for real.
const MARK: &str = "ROWFORK_TEST_ISOLATED";

/// Nothing here takes long; a hang is a failure, not a wait.
const WATCHDOG: Duration = Duration::from_secs(120);

/// The same for a test that is to hang.
const SHORT_WATCHDOG: Duration = Duration::from_secs(15);

/// So long is read what a command's orphans hold the pipe of.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The tests of a binary run side by side, but for some that have the machine to themselves.
static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that runs beside others. Those that start other programs and need no isolation of
/// their own may take it as well.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that needs so much of the machine that others would be late: waits until no
/// isolated test of this binary runs, and keeps them from starting.
pub(crate) fn without_others() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test in a process of its own. `body` is a closure in the test's function: its type has
/// the test's name.
pub(crate) fn isolated(body: impl FnOnce()) {
    let (name, mut body) = (name_of(&body), Some(body));
    run_isolated(name, &mut || body.take().expect("runs once")(), &|| Box::new(beside_others()));
}

/// The same for a test beside which no isolated test of this binary runs.
pub(crate) fn isolated_without_others(body: impl FnOnce()) {
    let (name, mut body) = (name_of(&body), Some(body));
    run_isolated(name, &mut || body.take().expect("runs once")(), &|| Box::new(without_others()));
}

/// Not generic over the body, so that it is compiled once for a test binary.
fn run_isolated(of_body: &str, body: &mut dyn FnMut(), place: &dyn Fn() -> Box<dyn Any>) {
    let name = of_body.strip_suffix("::{{closure}}").expect("a closure");
    if std::env::var_os(MARK).is_some() {
        failpoints::throw_by_environment();
        let before = Belongings::of_this_process();
        body();
        assert_eq!(
            Belongings::of_this_process(),
            before,
            "left behind (descriptors, children, names)"
        );
        return;
    }
    let _place = place();
    let (succeeded, output) = output_within(command_of(name), WATCHDOG);
    for line in output.lines() {
        // The harness begins the first line with the test's name.
        if let Some(at) = line.find("SKIPPED").or_else(|| line.find("FIGURE")) {
            // Not by a macro: the harness would keep it to itself when the test passes.
            let _ = writeln!(std::io::stderr(), "{name}: {}", &line[at..]);
        }
    }
    assert!(output.contains("1 passed") || !succeeded, "no test of the name {name}:\n{output}");
    assert!(succeeded, "{name} failed in its own process:\n{output}");
}

/// The name of a test's function as the harness has it: with its modules and without the crate.
pub(crate) fn name_of<F>(_test: F) -> &'static str {
    let path = std::any::type_name::<F>().trim_start_matches('&');
    path.split_once("::").map_or(path, |(_crate, name)| name)
}

/// One test of this binary, in a process of its own.
fn command_of(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args([name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(MARK, "1");
    command
}

/// What becomes of a test without a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Fails,
    Hangs,
}

/// Sees what becomes of a test of this binary when a failpoint takes a protection away; what is
/// wrong, if it is not what was expected. Where the test itself is skipped, this is skipped, too.
///
/// A test that is to fail has as much time as ever: on a busy machine it may be slow, and a slow
/// test has noticed nothing.
fn look_without(failpoint: Failpoint, test: &str, expected: Without) -> Result<(), String> {
    let mut command = command_of(test);
    command.env(failpoints::VARIABLE, failpoint.to_string()).env("RUST_BACKTRACE", "0");
    let limit = if expected == Without::Hangs { SHORT_WATCHDOG } else { WATCHDOG };
    let (succeeded, output) = output_within(command, limit);
    if !output.contains("running 1 test") {
        return Err(format!("no test of the name {test}:\n{output}"));
    }
    if succeeded && output.contains("SKIPPED") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}, with {failpoint}");
        return Ok(());
    }
    if succeeded {
        return Err(format!("{test} does not notice {failpoint}\n{output}"));
    }
    let hung = output.starts_with(NOT_IN_TIME);
    match expected {
        Without::Fails if hung => {
            Err(format!("{test} hangs with {failpoint}, and was to fail\n{output}"))
        }
        Without::Hangs if !hung => {
            Err(format!("{test} fails with {failpoint}, and was to hang\n{output}"))
        }
        Without::Fails | Without::Hangs => Ok(()),
    }
}

/// Sees for each failpoint that the test beside it fails, some at a time. The panic names all that
/// no test notices. A test that hangs has not failed.
pub(crate) fn each_fails_without(table: &[(Failpoint, &str)]) {
    look_at_each(table, Without::Fails);
}

/// The same for tests that hang without the protection, which is one against hangs.
pub(crate) fn each_hangs_without(table: &[(Failpoint, &str)]) {
    look_at_each(table, Without::Hangs);
}

fn look_at_each(table: &[(Failpoint, &str)], expected: Without) {
    /// One table at a time: each starts several tests.
    static ONE_TABLE: Mutex<()> = Mutex::new(());
    let _one = ONE_TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let _place = beside_others();
    let mut unseen = Vec::new();
    for some in table.chunks(4) {
        std::thread::scope(|scope| {
            let tests: Vec<_> = some
                .iter()
                .map(|&(failpoint, test)| {
                    scope.spawn(move || look_without(failpoint, test, expected))
                })
                .collect();
            unseen.extend(tests.into_iter().filter_map(|test| test.join().expect("a look").err()));
        });
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

/// What the output of a command begins with that the watchdog has ended.
const NOT_IN_TIME: &str = "WATCHDOG: ";

/// Runs a command to its end, or to the watchdog's. What a command that has failed has started ends
/// with it.
pub(crate) fn output_within(mut command: Command, limit: Duration) -> (bool, String) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let stderr = writer.try_clone().expect("pipe");
    // A group of its own, so that the watchdog ends what the command has started, too.
    command.process_group(0);
    let mut child =
        command.stdin(Stdio::null()).stdout(writer).stderr(stderr).spawn().expect("spawn");
    drop(command);
    let output = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&output);
    let collector = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut piece) {
            collected.lock().expect("collected").extend_from_slice(&piece[..n]);
        }
    });
    let group = Pid::from_raw(child.id().cast_signed());
    let deadline = Instant::now() + limit;
    let in_time = loop {
        // Not reaped yet: until it is, the number of its group is nobody else's.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(group), look) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) if Instant::now() > deadline => {
                break false;
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(WaitStatus::Exited(_, 0)) => break true,
            Ok(_) => {
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
                break true;
            }
            Err(error) => panic!("wait: {error}"),
        }
    };
    if !in_time {
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).expect("kill");
    }
    let status = child.wait().expect("wait");
    // An orphan in another group may hold the pipe for ever.
    let deadline = Instant::now() + LAST_WORDS;
    while !collector.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = String::from_utf8_lossy(&output.lock().expect("collected")).into_owned();
    if in_time {
        (status.success(), output)
    } else {
        (false, format!("{NOT_IN_TIME}not done after {limit:?}\n{output}"))
    }
}

/// A name under /dev/shm that no other test run uses.
pub(crate) fn unique_name(tag: &str) -> String {
    format!("rowfork-test-{}-{tag}", std::process::id())
}

/// The names of this process under /dev/shm.
pub(crate) fn own_names() -> BTreeSet<String> {
    let own = format!("rowfork-test-{}-", std::process::id());
    let entries = std::fs::read_dir("/dev/shm").expect("read /dev/shm");
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&own))
        .collect()
}

/// The processes whose parent is this one, zombies included.
pub(crate) fn children() -> BTreeSet<i32> {
    children_of(std::process::id())
}

/// The processes whose parent is `parent`, zombies included.
pub(crate) fn children_of(parent: u32) -> BTreeSet<i32> {
    processes()
        .into_iter()
        .filter(|process| process.parent == i64::from(parent))
        .map(|process| process.pid)
        .collect()
}

/// One line of /proc.
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i64,
    pub(crate) state: char,
}

/// All processes that can be seen.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("read /proc");
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            Some(Process {
                pid,
                state: fields.next()?.chars().next()?,
                parent: fields.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// Whether a process runs (a zombie does not).
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Open descriptors of this process, by number and what they lead to.
pub(crate) fn descriptors() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("read /proc/self/fd");
    let list: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    list.iter()
        .filter_map(|path| {
            Some(format!(
                "{}: {}",
                path.file_name()?.display(),
                std::fs::read_link(path).ok()?.display()
            ))
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    descriptors: BTreeSet<String>,
    children: BTreeSet<i32>,
    names: BTreeSet<String>,
}

impl Belongings {
    fn of_this_process() -> Self {
        Self { descriptors: descriptors(), children: children(), names: own_names() }
    }
}
