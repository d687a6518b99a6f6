//! What the integration tests share: names that tell who left them, this test binary as another
//! process, and a printed reason wherever a test cannot run.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod command;
pub(crate) mod disturbance;
pub(crate) mod executors;
pub(crate) mod harm;
pub(crate) mod isolated;
pub(crate) mod pooled;
pub(crate) mod process_resources;
pub(crate) mod shared;
pub(crate) mod timing;
pub(crate) mod value;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The variable that tells a re-run test binary which part to play.
pub(crate) const ROLE: &str = "ROWFORK_TEST_ROLE";

/// Names with a prefix of their own. Dropping it fails the test if one of them is still there.
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self {
            prefix: format!(
                "rft-{}-{}-",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
        }
    }

    pub(crate) fn name(&self, tag: &str) -> String {
        format!("{}{tag}", self.prefix)
    }

    pub(crate) fn left(&self) -> Vec<String> {
        segments_named(&self.prefix)
    }
}

/// The names in `/dev/shm` that begin with `prefix`.
pub(crate) fn segments_named(prefix: &str) -> Vec<String> {
    let names = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|n| n.starts_with(prefix)).collect()
}

impl Drop for Names {
    fn drop(&mut self) {
        let left = self.left();
        for name in &left {
            let path = shm(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        assert!(left.is_empty() || std::thread::panicking(), "left in /dev/shm: {left:?}");
    }
}

pub(crate) fn shm(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

pub(crate) fn golden(name: &str) -> PathBuf {
    project().join("tests/data").join(name)
}

/// The folder of the project. Some tests belong to a package in `tests/`.
pub(crate) fn project() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if env!("CARGO_PKG_NAME") == "rowfork" { package.into() } else { package.join("../..") }
}

/// Where the command is: as built with the tests, or where somebody has put it who runs them as
/// another user.
pub(crate) fn rowfork_path() -> PathBuf {
    std::env::var_os("ROWFORK_TEST_COMMAND")
        .or_else(|| option_env!("CARGO_BIN_EXE_rowfork").map(OsString::from))
        .map(PathBuf::from)
        .expect("a test in the package of the command")
}

/// Says why a test, or a part of it, is left out. Not by a macro: the harness would keep it to
/// itself when the test passes.
pub(crate) fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// This test binary, to be run as another process whose test `part` plays `role`.
pub(crate) fn player(part: impl Fn(), role: &str) -> Command {
    as_player(part, Command::new(std::env::current_exe().unwrap()), role)
}

/// A command that ends in this test binary (`strace ... BINARY`), likewise.
pub(crate) fn as_player<F: Fn()>(part: F, mut command: Command, role: &str) -> Command {
    command
        .args(["--ignored", "--exact", isolated::name_of(part)])
        .args(["--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

/// Runs a command to its end; what it printed between `[` and `]` lines, and how it ended.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs a player to its end; what it said. Fails the test if the player failed, or if it was no
/// player: a filter that matches no test makes a run of this binary succeed as well.
#[track_caller]
pub(crate) fn succeeds(player: Command) -> String {
    let done = run(player);
    let (said, complaint) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{:?}\n{said}\n{complaint}", done.status);
    assert!(said.contains("1 passed"), "no part was played:\n{said}\n{complaint}");
    said.into_owned()
}

/// A player that says `ready` and then holds what it has until it is let go or killed.
pub(crate) struct Holder {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Holder {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// The next thing that the player says.
    pub(crate) fn says(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "the player ended without a word"
            );
            // The harness prints `test plays_a_role ...` without a newline before the first word.
            if let Some((_, word)) = line.trim_end().split_once("> ") {
                return word.to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Lets the player end in its own time.
    pub(crate) fn let_go(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Said by a player, heard by [`Holder::says`].
#[allow(clippy::print_stdout, reason = "this is how a player speaks")]
pub(crate) fn say(word: &str) {
    println!("> {word}");
    std::io::stdout().flush().unwrap();
}

/// A player waits here until it is let go.
pub(crate) fn hold() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// What Python prints, without the newline; `None` (and the reason printed) where there is no
/// NumPy.
pub(crate) fn numpy(script: &str, args: &[&str]) -> Option<String> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let probe = || {
        Command::new("python3")
            .args(["-c", "import numpy"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !*INSTALLED.get_or_init(probe) {
        skip("python3 with numpy is not installed");
        return None;
    }
    let output = Command::new("python3").args(["-c", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}

/// Whether it comes true within some seconds. What has to do with the lock of a segment may not be
/// so at once after its maker was killed and waited for. Four things keep the lock for an instant
/// more:
///
/// - Other processes may have inherited the descriptor, and end later.
/// - The mapping is of the same open file as the lock. Whoever reads `/proc/PID/environ` or
///   `/proc/PID/maps` at that moment keeps the memory of the dead process from being unmapped.
/// - Another program's sweep, list or info takes the lock while it looks at the segment.
/// - Another thread of this test process may be between fork and exec.
pub(crate) fn eventually(condition: impl FnMut() -> bool) -> bool {
    within(Duration::from_secs(10), condition)
}

/// Whether it comes true within a limit.
pub(crate) fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sweeps until `condition` holds, and says whether it did within some seconds. One sweep is not
/// enough: the lock of a dead process may last an instant longer than the process, for each of the
/// reasons that [`eventually`] names, and a sweep passes over a segment whose lock is held.
pub(crate) fn sweeps_until(mut condition: impl FnMut() -> bool) -> bool {
    eventually(|| rowfork::segment::sweep().is_ok() && condition())
}

/// The number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
