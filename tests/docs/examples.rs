//! The examples, each run as the process that a reader would run: how it ends, what it says, what
//! it leaves.
//!
//! They lie beside this binary, in `examples/`, where `cargo test` has built them. Where they are
//! not (this binary was built or copied alone) the tests say so and are left out. An example that
//! is older than its sources is a failure: it says nothing of the sources of today.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{self, skip};

/// Example, small options, and what its output says when all went well.
const RUNS: &[(&str, &[&str], &str)] = &[
    (
        "abba",
        &["--rows", "2000", "--cols", "9", "--quadruples", "1"],
        "exact by threads, near-ties to uniform rows",
    ),
    ("capture", &[], "the kernel failed on row 6000: no rate for CHF"),
    ("column_means", &["--rows", "5000", "--workers", "3"], "1 worker and 3: the same bits"),
    ("images", &["--images", "200"], "200 thumbnails, as bright as their images"),
    ("in_place", &["--rows", "5000"], "5000 rows changed in place"),
    (
        "monte_carlo",
        &["--tasks", "40", "--points", "1000", "--workers", "5"],
        "1 worker and 5: the same bits",
    ),
    ("numpy_side_by_side", &["--rows", "100"], "Press Enter to end"),
    (
        "pool_service",
        &["--seconds", "1", "--threads", "3", "--workers", "2"],
        "requests, every answer checked",
    ),
    ("row_sums", &["--rows", "5000", "--cols", "20"], "every sum checked"),
    ("softmax_rows", &["--rows", "500"], "500 row sums checked"),
    ("survive_a_crash", &[], "100000 rows, 4 missing, all others are right"),
];

/// Scripts, which `tests/docs/numpy_page.rs` runs.
const ELSEWHERE: &[&str] = &["numpy_both_ways"];

/// Nothing here takes long; a hang is a failure, not a wait.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Where an example lies; `None`, and the reason printed, if it was not built. Fails the test if it
/// was built before its sources became what they are.
fn example(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent()?.parent()?.join("examples").join(name);
    if !binary.exists() {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            skip(
                "examples not built: `cargo test` builds them, `cargo test --test docs` does \
                 not",
            );
        });
        return None;
    }
    if let Some(source) = newer_source(&binary) {
        panic!(
            "the example {name} is older than {}: `cargo build --examples` builds it anew",
            source.display()
        );
    }
    Some(binary)
}

/// A file that an example was built from and that has changed since. Cargo's record beside the
/// example names all of them, those of the library included; without a record there is no answer.
fn newer_source(binary: &Path) -> Option<PathBuf> {
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let built = modified(binary)?;
    let record = std::fs::read_to_string(binary.with_extension("d")).ok()?;
    let mut sources = sources_in(record.lines().next()?);
    sources.find(|source| modified(source).is_some_and(|changed| changed > built))
}

/// The files after the colon in a line of a record. A blank in a path has a backslash before it.
fn sources_in(line: &str) -> impl Iterator<Item = PathBuf> {
    let (_, sources) = line.split_once(": ").unwrap_or_default();
    let sources = sources.replace("\\ ", "\0");
    sources
        .split_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .collect::<Vec<_>>()
        .into_iter()
}

#[test]
fn the_record_of_an_example_names_its_sources() {
    let sources: Vec<_> =
        sources_in("/t/examples/abba: /a/examples/abba.rs /a\\ b/lib.rs").collect();
    assert_eq!(sources, [Path::new("/a/examples/abba.rs"), Path::new("/a b/lib.rs")]);
    for (name, ..) in RUNS {
        let Some(binary) = example(name) else { continue };
        let Ok(record) = std::fs::read_to_string(binary.with_extension("d")) else {
            skip("an example without cargo's record of its sources");
            continue;
        };
        let sources: Vec<_> = sources_in(record.lines().next().unwrap()).collect();
        for source in [format!("examples/{name}.rs").as_str(), "src/lib.rs"] {
            assert!(sources.iter().any(|path| path.ends_with(source)), "{source} in {record}");
        }
    }
}

/// An example that runs. Killed by the watchdog, and with the test that fails.
struct Running {
    child: Child,
    /// Its drop calls the watchdog off.
    _watch: Sender<()>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let (watch, called_off) = mpsc::channel();
        let id = Pid::from_raw(child.id().cast_signed());
        std::thread::spawn(move || {
            if called_off.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(id, Signal::SIGKILL);
            }
        });
        Self { child, _watch: watch }
    }

    fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    /// Waits for the end, standard input closed; exit code, what was not yet read of its output,
    /// its complaints. Fails if it left names in `/dev/shm`.
    fn end(mut self) -> (Option<i32>, String, String) {
        drop(self.child.stdin.take());
        // Both pipes at once: a full one would keep it from ending.
        let collect = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                pipe.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut text)).unwrap();
                text
            })
        };
        let stdout = collect(self.child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = collect(self.child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let status = self.child.wait().unwrap();
        let left = self.names();
        assert!(left.is_empty(), "left in /dev/shm: {left:?}");
        (status.code(), stdout.join().unwrap(), stderr.join().unwrap())
    }

    /// Its names in `/dev/shm`: they carry its process id.
    fn names(&self) -> Vec<String> {
        let id = self.child.id().to_string();
        let names = std::fs::read_dir("/dev/shm")
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.split(|c: char| !c.is_ascii_digit()).any(|number| number == id))
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_example_runs_and_says_what_it_should() {
    let examples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
    for entry in examples.into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let known = RUNS.iter().any(|(example, ..)| *example == name) || ELSEWHERE.contains(&name);
        assert!(known || path.is_dir(), "{} is not run", path.display());
    }
    for (name, options, line) in RUNS {
        let Some(binary) = example(name) else { continue };
        let mut command = Command::new(binary);
        command.args(*options);
        let (code, stdout, stderr) = Running::start(command).end();
        assert_eq!((code, &*stderr), (Some(0), ""), "{name}: {stdout}");
        assert!(stdout.contains(line), "{name} does not say {line:?}:\n{stdout}");
    }
}

#[test]
fn an_example_without_its_array_ends_with_an_error_not_a_panic() {
    for (name, options, _) in RUNS {
        let Some(binary) = example(name) else { continue };
        // Files of one block at most, which is less than any array needs; pipes know no such limit.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 1 && exec \"$0\" \"$@\""]).arg(binary).args(*options);
        let (code, stdout, stderr) = Running::start(command).end();
        assert_eq!(code, Some(1), "{name}: {stdout}{stderr}");
        assert!(stderr.contains("FileSizeLimit"), "{name}: {stderr}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused_with_the_usage() {
    for (name, options, complaint) in [
        ("in_place", &["--rows", "0"][..], "--rows takes a number from 1 on"),
        ("images", &["--rows", "3"], "usage: images [--images N]"),
        ("monte_carlo", &["--tasks"], "--tasks needs a value"),
        ("column_means", &["--workers", "many"], "--workers takes a whole number, not \"many\""),
    ] {
        let Some(binary) = example(name) else { continue };
        let mut command = Command::new(binary);
        command.args(options);
        let (code, stdout, stderr) = Running::start(command).end();
        assert_eq!((code, &*stdout), (Some(2), ""), "{name}: {stderr}");
        assert!(stderr.contains(complaint), "{name}: {stderr}");
    }
}

#[test]
fn numpy_reads_what_stands_beside_it_by_the_printed_lines() {
    let Some(binary) = example("numpy_side_by_side") else { return };
    let mut command = Command::new(binary);
    command.args(["--rows", "300"]);
    let mut running = Running::start(command);
    let mut stdout = running.stdout();
    let (mut lines, mut python) = (String::new(), String::new());
    while !lines.contains("Press Enter") {
        let from = lines.len();
        assert!(stdout.read_line(&mut lines).unwrap() > 0, "it ended without waiting:\n{lines}");
        // What is indented is Python.
        python.extend(lines[from..].strip_prefix("    "));
    }
    assert_eq!(running.names().len(), 2, "{:?}", running.names());
    if let Some(answer) = support::numpy(&python, &[]) {
        assert_eq!(answer, "(300, 128) float64 (300, 2)\nTrue True");
        assert!(lines.contains("It prints (300, 128) float64 (300, 2), and True True."), "{lines}");
    }
    // Enter, with standard input left open: the line is what it waits for, not the end of the file.
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("gone: "), "{rest}");
    let (code, _, stderr) = running.end();
    assert_eq!((code, &*stderr), (Some(0), ""));
    drop(stdin);
}
