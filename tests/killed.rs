//! What killed programs leave in `/dev/shm`, and who sweeps it up. In a `/dev/shm` of its own: the programs of other
//! tests sweep, too.

mod support;

use std::process::Command;

use ndarray::Ix1;
use rowfork::SharedArray;
use support::{Holder, as_player, hold, is_root, run, say, shm, skip};

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
                let makers = ["a", "b"].map(|name| scope.spawn(move || zeros(Some(name)).map(drop)));
                makers.into_iter().for_each(|maker| maker.join().unwrap().unwrap());
            });
        }
        _ => panic!("unknown role {role}"),
    }
}

/// A program is killed that had two names.
fn leave_two() {
    let mut victim = Holder::start(support::player("hold a b"));
    assert_eq!(victim.says(), "ready");
    victim.kill();
    assert!(shm("a").exists() && shm("b").exists());
}

fn alone(role: &str) {
    if !is_root() {
        return skip("only root can mount a /dev/shm of its own");
    }
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o mode=1777 rowfork-test /dev/shm && exec \"$0\" \"$@\"";
    command.args(["--mount", "--propagation=private", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
    let done = run(as_player(command, role));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_first_name_of_a_program_sweeps_up_after_killed_ones() {
    alone("first-name-is-swept");
}

#[test]
fn a_killed_programs_published_name_does_not_block_its_next_start() {
    alone("first-name-is-published");
}

#[test]
fn no_thread_is_refused_a_name_while_another_still_sweeps() {
    alone("two-threads");
}
