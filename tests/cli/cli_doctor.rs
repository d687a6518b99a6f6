//! `rowfork doctor` and `rowfork bench`, run as anybody runs them: what they say, how they end, and
//! that they leave nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{SharedArray, segment};

use crate::support::{self, Names, eventually, is_root, run, skip};

/// All that `doctor` looks at.
const LOOKED_AT: [&str; 14] = [
    "kernel",
    "cores",
    "/dev/shm",
    "memory",
    "memory.oom.group",
    "huge pages",
    "pidfds",
    "RemoveIPC",
    "vm.max_map_count",
    "RLIMIT_FSIZE",
    "RLIMIT_AS",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "stale segments",
];

fn rowfork(args: &[&str]) -> Command {
    let mut command = Command::new(support::rowfork_path());
    command.args(args);
    command
}

/// The same by way of a shell, which does something before.
fn rowfork_after(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{script} && exec \"$0\" \"$@\"")])
        .arg(support::rowfork_path())
        .args(args);
    command
}

/// The same with a `/dev/shm` of its own, which has to be empty in the end; `None` and the reason
/// printed where there can be none.
fn with_a_shm_of(size: &str, args: &[&str]) -> Option<Command> {
    if !is_root() {
        skip("only root can mount a /dev/shm of its own");
        return None;
    }
    let mut command = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size={size},mode=1777 rowfork-test /dev/shm || exit 99; \
         \"$0\" \"$@\"; code=$?; \
         [ -z \"$(ls -A /dev/shm)\" ] || exit 98; exit $code"
    );
    command
        .args(["--mount", "--propagation=private", "sh", "-c", &script])
        .arg(support::rowfork_path())
        .args(args);
    Some(command)
}

fn said(done: &Output) -> String {
    let text = [&*done.stdout, &*done.stderr].map(String::from_utf8_lossy).concat();
    format!("{:?}\n{text}", done.status)
}

/// Verdict, what, and the rest, of each finding.
fn findings(done: &Output) -> Vec<(String, String, String)> {
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with("      -> "));
    let parts = lines.map(|line| {
        let (verdict, rest) = line.split_at(6);
        let what = LOOKED_AT
            .iter()
            .rfind(|what| rest.starts_with(&format!("{what} ")))
            .expect("something known");
        (verdict.trim().to_owned(), (*what).to_owned(), rest[what.len()..].trim().to_owned())
    });
    parts.collect()
}

fn finding(done: &Output, what: &str) -> (String, String) {
    let found = findings(done)
        .into_iter()
        .find(|(_, of, _)| of == what)
        .unwrap_or_else(|| panic!("{}", said(done)));
    (found.0, found.2)
}

// ---- doctor
// --------------------------------------------------------------------------------------------

#[test]
fn doctor_says_all_there_is_and_exits_by_whether_any_is_bad() {
    let done = run(rowfork(&["doctor"]));
    let found = findings(&done);
    let whats: Vec<&str> = found.iter().map(|(_, what, _)| &**what).collect();
    assert_eq!(whats, LOOKED_AT, "{}", said(&done));
    assert!(
        found
            .iter()
            .all(|(verdict, _, is)| ["good", "note", "bad"].contains(&&**verdict)
                && !is.is_empty())
    );
    let bad = found.iter().any(|(verdict, ..)| verdict == "bad");
    assert_eq!(done.status.code(), Some(i32::from(bad)), "{}", said(&done));
    let advised = String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter(|line| line.starts_with("      -> "))
        .count();
    assert_eq!(
        advised,
        found.iter().filter(|(verdict, ..)| verdict != "good").count(),
        "{}",
        said(&done)
    );
    assert!(done.stderr.is_empty(), "{}", said(&done));
}

#[test]
fn a_tiny_shm_is_bad_and_what_to_do_stands_below() {
    let Some(command) = with_a_shm_of("64k", &["doctor"]) else { return };
    let done = run(command);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert_eq!(
        finding(&done, "/dev/shm"),
        ("bad".to_owned(), "64.00 KiB, 64.00 KiB free".to_owned())
    );
    assert!(
        said(&done).contains("--shm-size=2g") && said(&done).contains("remount,size="),
        "{}",
        said(&done)
    );
    assert_eq!(finding(&done, "huge pages").0, "note", "{}", said(&done));
}

#[test]
fn without_a_shm_the_rest_is_said_all_the_same() {
    if !is_root() {
        return skip("only root can hide /dev/shm");
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs rowfork-test /dev && exec \"$0\" doctor";
    command
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(support::rowfork_path());
    let done = run(command);
    assert_eq!((done.status.code(), findings(&done).len()), (Some(1), 14), "{}", said(&done));
    assert_eq!(finding(&done, "/dev/shm").0, "bad", "{}", said(&done));
}

#[test]
fn limits_that_are_low_are_told_from_those_that_are_not() {
    let done = run(rowfork_after("ulimit -f 2048 && ulimit -n 100", &["doctor"]));
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let (verdict, is) = finding(&done, "RLIMIT_FSIZE");
    assert!(
        verdict == "bad" && is.starts_with(['1', '2']),
        "a block of a shell is 512 or 1024 bytes: {is}"
    );
    assert_eq!(finding(&done, "RLIMIT_NOFILE"), ("note".to_owned(), "100".to_owned()));
    assert_eq!(finding(&done, "RLIMIT_AS").1, "no limit");
}

#[test]
fn huge_pages_that_are_forbidden_are_said_to_be() {
    let mut command = rowfork(&["doctor"]);
    command.env("ROWFORK_HUGE_PAGES", "never");
    let done = run(command);
    assert_eq!(finding(&done, "huge pages").0, "note", "{}", said(&done));
    assert!(said(&done).contains("unset ROWFORK_HUGE_PAGES"), "{}", said(&done));
}

/// Beside a lasting segment and one in use.
#[test]
fn a_segment_whose_maker_is_gone_is_counted_and_left_alone() {
    let names = Names::new();
    let mut kept = SharedArray::<f64, _>::zeros(names.name("kept"), 10).unwrap();
    kept.persist().unwrap();
    let in_use = SharedArray::<f64, _>::zeros(names.name("used"), 10).unwrap();
    let stale = names.name("stale");
    std::fs::copy(support::shm(&names.name("used")), support::shm(&stale)).unwrap();
    std::fs::set_permissions(support::shm(&stale), Permissions::from_mode(0o1600)).unwrap();
    let seen = eventually(|| {
        let done = run(rowfork(&["doctor"]));
        let counted = finding(&done, "stale segments").1.starts_with(|c: char| c.is_ascii_digit());
        counted || !support::shm(&stale).exists() // another program's sweep was quicker
    });
    assert!(seen);
    let left = segment::list()
        .unwrap()
        .into_iter()
        .filter(|found| found.name.starts_with(&names.name("")))
        .count();
    assert!(left >= 2, "it looks, and removes nothing");
    drop((kept, in_use));
    for tag in ["kept", "stale"] {
        let _ = std::fs::remove_file(support::shm(&names.name(tag)));
    }
}

// ---- bench
// --------------------------------------------------------------------------------------------

const BENCH: [&str; 5] = ["bench", "--size", "1MiB", "--columns", "100"];

#[test]
fn bench_says_what_all_need_in_one_table_and_leaves_nothing() {
    let done = match with_a_shm_of("64m", &BENCH) {
        Some(command) => run(command),
        None => run(rowfork(&BENCH)),
    };
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(done.stderr.is_empty(), "no bar where there is no terminal: {}", said(&done));
    let text = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("1310 rows of 100 doubles, 1023.44 KiB; medians of "), "{text}");
    assert!(
        lines[0].contains("; at most 2.0") && lines[0].ends_with("MiB of /dev/shm in use"),
        "{text}"
    );
    let begins = |start: &str| lines.iter().any(|line| line.starts_with(start));
    for start in
        ["reading: 1 thread ", "exact sums: fork mode, 1 worker ", "exact sums: a pool, 1 worker "]
    {
        assert!(begins(start), "{start}: {text}");
    }
    for start in
        ["exact sums: 1 thread ", "plain sums: ndarray, serial ", "placing: a copy in a segment "]
    {
        assert!(begins(start), "{start}: {text}");
    }
    for start in
        ["a tiny call: fork mode ", "a tiny call: a pool, hot ", "a tiny call: a pool, parked "]
    {
        assert!(begins(start), "{start}: {text}");
    }
    assert!(text.contains("100 %"), "somebody is the ceiling: {text}");
    assert!(
        lines.last().unwrap().ends_with('.') && lines.last().unwrap().contains("worker"),
        "{text}"
    );
}

#[test]
fn a_bench_that_does_not_fit_is_one_line_that_says_so() {
    let Some(command) = with_a_shm_of("8m", &["bench", "--size", "7MiB"]) else { return };
    let done = run(command);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0), "{}", said(&done));
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert!(
        complaint.lines().count() == 1 && complaint.contains("choose a smaller --size"),
        "{complaint}"
    );
    for room in ["64k", "1m"] {
        let Some(command) = with_a_shm_of(room, &["bench", "--columns", "10"]) else { return };
        let done = run(command);
        // In 64 KiB there is room for nothing; both end in order.
        assert_eq!(done.status.code(), Some(i32::from(room == "64k")), "{}", said(&done));
    }
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    for args in [&["bench", "--size", "many"][..], &["bench", "--columns", "0"], &["doctor", "me"]]
    {
        let done = run(rowfork(args));
        assert_eq!(done.status.code(), Some(2), "{}", said(&done));
    }
}

#[test]
fn an_interrupted_bench_ends_at_once_and_leaves_no_process() {
    for ms in [5, 50, 200, 400, 700] {
        let mut command = rowfork(&["bench", "--size", "16MiB"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        std::thread::sleep(Duration::from_millis(ms));
        kill(pid, Signal::SIGINT).unwrap();
        assert!(eventually(|| child.try_wait().unwrap().is_some()), "{ms} ms: it goes on");
        // Whoever of its processes lives has the pipe: this waits for them, too.
        let done = child.wait_with_output().unwrap();
        let (code, signal) = (done.status.code(), done.status.signal());
        // The signal itself ends what does not listen yet; and on some machine all may be over by
        // then.
        assert!(
            code == Some(130) || code == Some(0) || signal == Some(2),
            "{ms} ms: {}",
            said(&done)
        );
        assert!(code == Some(0) || done.stdout.is_empty(), "{}", said(&done));
    }
}
