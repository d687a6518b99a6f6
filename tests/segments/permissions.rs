//! Other users get at a segment by no way that Linux has, not by the descriptors and the memory of
//! the processes that hold it either; and what a worker that crashes leaves behind holds none of
//! the data. (Names, modes and the umask: see `segments`.)

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ndarray::Ix1;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use rowfork::{DeathCause, SharedArray, fork};

use crate::support::isolated;
use crate::support::shared::SharedWord;
use crate::support::{self, Holder, Names, as_player, hold, is_root, player, say, skip};

/// Two users, other than those that tests of other files play.
const OWNER: &str = "65531";
const STRANGER: &str = "65532";

fn as_user(id: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", id, "--regid", id, "--clear-groups"])
        .arg(std::env::current_exe().unwrap());
    command
}

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["holds", name] => holds_segments_in_itself_and_in_a_worker(name),
        ["looks", caller, worker] => [caller, worker].into_iter().for_each(looks_into),
        ["a-worker-dumps-core"] => a_worker_dumps_core(),
        _ => panic!("unknown role {role}"),
    }
}

/// Says its own pid and that of a worker in the middle of a call.
fn holds_segments_in_itself_and_in_a_worker(name: &str) {
    nix::unistd::alarm::set(60);
    let _named = SharedArray::from_shape_fn(name, 10, |i| i as f64).unwrap();
    let nameless = SharedArray::<f64, _>::zeros(None, (2, 3)).unwrap();
    let pid = SharedWord::new();
    let over = SharedWord::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while pid.load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            say(&format!("{} {}", std::process::id(), pid.load(Ordering::Acquire)));
            hold();
            over.store(1, Ordering::Release);
        });
        let held = fork().workers(1).map_rows(&nameless, |_| {
            pid.store(std::process::id().into(), Ordering::Release);
            while over.load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            0.0
        });
        held.unwrap();
    });
}

/// The descriptors of a process that lead to segments.
fn segments_of(pid: &str) -> Vec<String> {
    let leads_to_shm = |number: &u32| {
        std::fs::read_link(format!("/proc/{pid}/fd/{number}"))
            .is_ok_and(|to| to.starts_with("/dev/shm"))
    };
    (0..100_u32).filter(leads_to_shm).map(|number| format!("/proc/{pid}/fd/{number}")).collect()
}

/// As another user: every way in is shut.
fn looks_into(pid: &str) {
    let denied = |path: String| {
        let refused = File::open(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::PermissionDenied), "{path}");
    };
    let directory = std::fs::read_dir(format!("/proc/{pid}/fd")).map(drop).unwrap_err();
    assert_eq!(directory.kind(), std::io::ErrorKind::PermissionDenied);
    for number in 3..20 {
        denied(format!("/proc/{pid}/fd/{number}"));
    }
    denied(format!("/proc/{pid}/mem"));
    denied(format!("/proc/{pid}/maps"));
    assert!(std::fs::read_dir(format!("/proc/{pid}/map_files")).is_err());
}

#[test]
fn other_users_get_at_no_segment_by_the_processes_that_hold_it() {
    if !is_root() {
        return skip("only root can play two other users");
    }
    let names = Names::new();
    for mut owner in [
        Holder::start(player(plays_a_role, &format!("holds {}", names.name("roots")))),
        Holder::start(as_player(
            plays_a_role,
            as_user(OWNER),
            &format!("holds {}", names.name("owners")),
        )),
    ] {
        let pids = owner.says();
        for pid in pids.split(' ') {
            // To root the ways in are open: there is something to be seen.
            let ways_in = segments_of(pid);
            assert!(ways_in.len() >= 2, "{ways_in:?}");
            assert!(ways_in.iter().all(|way_in| File::open(way_in).is_ok()));
        }
        let (succeeded, output) = isolated::output_within(
            as_player(plays_a_role, as_user(STRANGER), &format!("looks {pids}")),
            Duration::from_secs(20),
        );
        assert!(succeeded && output.contains("1 passed"), "{output}");
        owner.let_go();
    }
}

const MIB: usize = 1 << 20;

fn a_worker_dumps_core() {
    let unlimited = setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).is_ok();
    say(if unlimited { "unlimited" } else { "limited" });
    let aborts = SharedWord::new();
    let nameless: SharedArray<f64, Ix1> =
        SharedArray::from_shape_fn(None, 64 * MIB / 8, |i| i as f64 + 0.5).unwrap();
    let doubled = fork().workers(1).map_rows(&nameless, |row| {
        if row.index() == 1000 && aborts.fetch_add(1, Ordering::Relaxed) == 0 {
            std::process::abort();
        }
        row.value() * 2.0
    });
    let doubled = doubled.unwrap();
    assert_eq!(doubled.report().deaths[0].cause, DeathCause::Signalled(libc::SIGABRT));
    assert_eq!((doubled.as_slice()[0], doubled.as_slice()[1000]), (1.0, 2001.0));
}

#[test]
fn the_core_dump_of_a_worker_holds_none_of_the_segments() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        return skip(&format!(
            "core dumps do not go to a file called core here, but to {:?}",
            pattern.trim()
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = player(plays_a_role, "a-worker-dumps-core");
    command.current_dir(dir.path());
    let (succeeded, output) = isolated::output_within(command, Duration::from_secs(60));
    assert!(succeeded && output.contains("1 passed"), "{output}");
    if !output.contains("> unlimited") {
        return skip("core dumps are limited");
    }
    let core = std::fs::read_dir(dir.path()).unwrap().next().expect("a core dump").unwrap();
    let written = core.metadata().unwrap().blocks() * 512;
    assert!((4096..32 << 20).contains(&written), "a core dump of {written} bytes");
}
