//! When memory runs out the kernel kills, and it kills a worker: a call goes on, or ends with a
//! typed error, in a program that lives. In a control group of 150 MB, for real.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ndarray::Ix2;
use rowfork::{DeathCause, Error, NpyDraft, SharedArray, fork};

use crate::support::isolated::{self, isolated};
use crate::support::shared::SharedWord;
use crate::support::{self, as_player, say, skip};

const LIMIT: &str = "150000000";

const MB: usize = 1_000_000;

/// Memory of so many bytes that is really there.
fn touched(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    for byte in memory.iter_mut().step_by(4096) {
        *byte = 1;
    }
    std::hint::black_box(memory)
}

fn matrix() -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i * 7 + j) as f64 * 0.1).unwrap()
}

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    match std::env::var(support::ROLE).as_deref() {
        Ok("once") => a_row_takes_too_much_once(),
        Ok("always") => a_row_always_takes_too_much(),
        Ok("draft") => a_file_in_memory_takes_too_much(),
        Ok(role) => panic!("unknown role {role}"),
        Err(_) => {}
    }
}

/// The caller is by far the largest process when it happens, the one that the kernel would choose
/// by itself.
fn a_row_takes_too_much_once() {
    let m = matrix();
    let right: Vec<u64> = m.view().rows().into_iter().map(|row| row.sum().to_bits()).collect();
    let (reached, grown) = (SharedWord::new(), SharedWord::new());
    let sums = std::thread::scope(|scope| {
        scope.spawn(|| {
            while reached.load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let memory = touched(90 * MB); // after the fork: the workers have no part in it
            grown.store(1, Ordering::Release);
            while grown.load(Ordering::Acquire) == 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(memory);
        });
        let sums = fork().workers(2).block_rows(10).map_rows(&m, |row| {
            if row.index() == 40 && reached.fetch_add(1, Ordering::AcqRel) == 0 {
                while grown.load(Ordering::Acquire) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(touched(400 * MB));
            }
            row.sum()
        });
        reached.store(1, Ordering::Release);
        while grown.load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        grown.store(2, Ordering::Release);
        sums.unwrap()
    });
    assert!(sums.view().iter().map(|sum| sum.to_bits()).eq(right), "a wrong sum");
    let deaths = &sums.report().deaths;
    assert_eq!(deaths.len(), 1, "{}", sums.report());
    assert_eq!(deaths[0].cause, DeathCause::Signalled(libc::SIGKILL));
    assert!(deaths[0].rows.as_ref().is_some_and(|rows| rows.contains(&40)), "{deaths:?}");
    say("one worker was killed, and nothing else happened");
}

fn a_row_always_takes_too_much() {
    let m = matrix();
    let outcome = fork().workers(2).block_rows(10).map_rows(&m, |row| {
        if row.index() == 40 {
            drop(touched(400 * MB));
        }
        row.sum()
    });
    let (row, cause) = fatal_row(outcome.unwrap_err());
    assert_eq!((row, cause), (40, DeathCause::Signalled(libc::SIGKILL)));
    say("the row is named, and nothing else happened");
}

/// The row that killed its workers, and how.
fn a_file_in_memory_takes_too_much() {
    let path = format!("/dev/shm/{}.npy", isolated::unique_name("draft"));
    match NpyDraft::<u8, _>::create(&path, 300_000_000) {
        Err(Error::MemoryLimit { need, .. }) => assert!(need >= 300_000_000),
        other => panic!("{other:?}"),
    }
    // What fits is had, if only just.
    drop(NpyDraft::<u8, _>::create(&path, 100_000_000).unwrap());
    assert!(!std::path::Path::new(&path).exists());
    say("the limit is named, and nobody was killed");
}

fn fatal_row(error: Error) -> (usize, DeathCause) {
    match error {
        Error::PoisonedRows { mut rows, .. } if rows.len() == 1 => {
            let failed = rows.remove(0);
            (failed.row, failed.cause)
        }
        other => panic!("{other:?}"),
    }
}

/// A control group that goes when it is dropped.
struct Group(PathBuf);

impl Group {
    /// One whose processes may have [`LIMIT`] bytes together; `None` (with the reason printed)
    /// where that cannot be.
    fn limited(tag: &str) -> Option<Self> {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (mount, limit, swap) = if v1.is_dir() {
            (v1, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        } else {
            (v2, "memory.max", "memory.swap.max")
        };
        let group = Self(mount.join(format!("rft-oom-{}-{tag}", std::process::id())));
        if std::fs::create_dir(&group.0).is_err() {
            skip("may not make a control group");
            return None;
        }
        if std::fs::write(group.0.join(limit), LIMIT).is_err() {
            skip("may not limit a control group's memory");
            return None;
        }
        // Memory and swap together in version 1, swap alone in version 2; missing where swap is not
        // accounted for.
        let _ = std::fs::write(group.0.join(swap), if v1.is_dir() { LIMIT } else { "0" });
        Some(group)
    }

    /// This binary in the group, as a player.
    fn player(&self, role: &str) -> Command {
        let mut command = Command::new("sh");
        let script = "echo $$ > \"$1\" && shift && exec \"$@\"";
        command
            .args(["-c", script, "sh"])
            .arg(self.0.join("cgroup.procs"))
            .arg(std::env::current_exe().unwrap());
        as_player(plays_a_role, command, role)
    }

    /// How many processes of it the kernel has killed; `None` where it does not say.
    fn kills(&self) -> Option<u64> {
        ["memory.oom_control", "memory.events"].iter().find_map(|file| {
            let text = std::fs::read_to_string(self.0.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = support::eventually(|| std::fs::remove_dir(&self.0).is_ok());
        assert!(
            removed || !self.0.exists() || std::thread::panicking(),
            "left: {}",
            self.0.display()
        );
    }
}

fn plays_to_its_end(role: &str, word: &str, kills: u64) {
    let Some(group) = Group::limited(role) else { return };
    let (succeeded, output) = isolated::output_within(group.player(role), Duration::from_secs(60));
    assert!(succeeded && output.contains(word), "{:?} processes killed\n{output}", group.kills());
    assert!(group.kills().is_none_or(|n| n == kills), "{:?} processes killed", group.kills());
}

#[test]
fn an_oom_kill_costs_a_block_even_where_the_caller_is_larger() {
    isolated(|| {
        plays_to_its_end("once", "one worker was killed", 1);
    });
}

#[test]
fn too_large_an_output_file_in_memory_is_an_error_and_no_kill() {
    isolated(|| {
        plays_to_its_end("draft", "the limit is named", 0);
    });
}

#[test]
fn a_row_that_takes_too_much_memory_is_named_by_a_live_caller() {
    isolated(|| {
        plays_to_its_end("always", "the row is named", 8); // one in company, seven alone
    });
}
