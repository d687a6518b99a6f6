//! What killed programs leave in `/dev/shm`, who sweeps it up, and what a core dump holds of it. In
//! a `/dev/shm` of its own: the programs of other tests sweep, too.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use ndarray::Ix1;
use rowfork::SharedArray;

use crate::support::{
    self, Holder, as_player, eventually, hold, is_root, isolated, run, say, shm, skip, succeeds,
};

fn zeros(name: Option<&str>) -> rowfork::Result<SharedArray<f64, Ix1>> {
    SharedArray::zeros(name, 10)
}

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["hold", a, b] => {
            let _made = (zeros(Some(a)).unwrap(), zeros(Some(b)).unwrap());
            say("ready");
            hold();
        }
        ["first-name-is-swept"] => {
            leave_two();
            zeros(Some("next")).unwrap();
            assert!(!shm("a").exists() && !shm("b").exists());
        }
        ["first-name-is-published"] => {
            leave_two();
            zeros(None).unwrap().publish("a").unwrap();
            assert!(!shm("b").exists());
        }
        ["two-threads"] => {
            leave_two();
            for i in 0..5000 {
                std::fs::write(shm(&format!("other-{i}")), "slows a sweep down").unwrap();
            }
            std::thread::scope(|scope| {
                let makers =
                    ["a", "b"].map(|name| scope.spawn(move || zeros(Some(name)).map(drop)));
                for maker in makers {
                    maker.join().unwrap().unwrap();
                }
            });
        }
        ["dumps-core"] => {
            use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
            let unlimited = setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).is_ok();
            say(if unlimited { "unlimited" } else { "limited" });
            let made =
                SharedArray::from_shape_fn(None, (64 << 20) / 8, |i| i as f64 + 0.5).unwrap();
            assert_eq!(made.view()[1], 1.5);
            std::process::abort();
        }
        _ => panic!("unknown role {role}"),
    }
}

/// A program is killed that had two names.
fn leave_two() {
    let mut victim = Holder::start(support::player(plays_a_role, "hold a b"));
    assert_eq!(victim.says(), "ready");
    victim.kill();
    let is_unlocked = |name| File::open(shm(name)).unwrap().try_lock().is_ok();
    assert!(eventually(|| is_unlocked("a") && is_unlocked("b")), "a lock outlives its process");
}

fn alone(role: &str) {
    if !is_root() {
        return skip("only root can mount a /dev/shm of its own");
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o mode=1777 rowfork-test /dev/shm && exec \"$0\" \"$@\"";
    command
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap());
    let _place = isolated::beside_others();
    succeeds(as_player(plays_a_role, command, role));
}

#[test]
fn the_first_name_of_a_program_sweeps_up_after_killed_ones() {
    alone("first-name-is-swept");
}

#[test]
fn a_killed_programs_name_does_not_block_its_next_start() {
    alone("first-name-is-published");
}

#[test]
fn no_thread_is_refused_a_name_while_another_still_sweeps() {
    alone("two-threads");
}

#[test]
fn the_core_dump_of_a_program_holds_none_of_its_segments() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        return skip(&format!(
            "core dumps do not go to a file called core here, but to {:?}",
            pattern.trim()
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let _place = isolated::beside_others();
    let mut command = support::player(plays_a_role, "dumps-core");
    let done = run({
        command.current_dir(dir.path());
        command
    });
    assert_eq!(done.status.signal(), Some(6));
    if !String::from_utf8_lossy(&done.stdout).contains("> unlimited") {
        return skip("core dumps are limited");
    }
    let core = std::fs::read_dir(dir.path()).unwrap().next().expect("a core dump").unwrap();
    let written = core.metadata().unwrap().blocks() * 512;
    assert!((4096..32 << 20).contains(&written), "a core dump of {written} bytes");
}
