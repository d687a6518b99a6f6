//! The few things that only /proc tells or takes. Functions that a worker calls allocate nothing.
//!
//! Where /proc is not mounted each function has an answer that does no harm.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Pages that no other process shares (`Private_Clean` + `Private_Dirty`).
    pub(crate) private: u64,
    /// The proportional share of all its pages (`Pss`).
    pub(crate) proportional: u64,
}

/// Makes this process the first that the kernel kills when memory runs out: the death of a worker
/// costs one block, that of its parent costs the program. Raising the score needs no privilege, and
/// 1000 is the highest. Without /proc nothing happens.
///
/// See [`proc_pid_oom_score_adj(5)`].
///
/// [`proc_pid_oom_score_adj(5)`]: https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html
pub(crate) fn prefer_as_oom_victim() {
    if let Ok(mut file) = File::options().write(true).open("/proc/self/oom_score_adj") {
        let _ = file.write_all(b"1000");
    }
}

/// This process's memory, from `/proc/self/smaps_rollup` (Linux 4.14). The kernel walks over all
/// page tables for it: that takes a millisecond or more per GiB of small pages.
///
/// See [`proc_pid_smaps(5)`](https://man7.org/linux/man-pages/man5/proc_pid_smaps.5.html).
pub(crate) fn own_memory() -> Option<Memory> {
    // The file is shorter than this.
    let mut text = [0; 2048];
    let mut len = 0;
    let mut file = File::open("/proc/self/smaps_rollup").ok()?;
    while len < text.len() {
        match file.read(&mut text[len..]).ok()? {
            0 => break,
            n => len += n,
        }
    }
    Some(parse_smaps(std::str::from_utf8(&text[..len]).ok()?))
}

/// How many threads this process has, by the number of entries in `/proc/self/task`; 1 without
/// /proc.
///
/// See [`proc_pid_task(5)`](https://man7.org/linux/man-pages/man5/proc_pid_task.5.html).
pub(crate) fn thread_count() -> usize {
    // A directory has a link for each directory in it, and two for itself.
    let links = std::fs::metadata("/proc/self/task").map_or(0, |meta| meta.nlink());
    usize::try_from(links.saturating_sub(2)).unwrap_or(usize::MAX).max(1)
}

/// Whether a process is stopped (SIGSTOP, SIGTSTP) at this moment; no without /proc. A process that
/// a debugger has stopped (`t`) counts, too.
///
/// See [`proc_pid_stat(5)`](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
pub(crate) fn is_stopped(pid: i32) -> bool {
    is_in_state(pid, &['T', 't'])
}

/// Whether a process runs or waits for a processor at this moment (`R`); no without /proc.
///
/// See [`proc_pid_stat(5)`](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
pub(crate) fn wants_processor(pid: i32) -> bool {
    is_in_state(pid, &['R'])
}

fn is_in_state(pid: i32, states: &[char]) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, parentheses included.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(states))
}

/// Whether there is such a process that has not ended. A zombie (`Z`) and a dead one (`X`) have.
/// Without /proc the answer is whether the number is taken, which a zombie's still is.
///
/// See [`proc_pid_stat(5)`](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html) and
/// [kill(2)](https://man7.org/linux/man-pages/man2/kill.2.html).
pub(crate) fn is_running(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with(['Z', 'X'])),
        Err(_) => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok(),
    }
}

/// The ids of all processes that show here, in order; none without /proc. Processes outside this
/// PID namespace do not show.
///
/// See [proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html).
pub(crate) fn process_ids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let mut ids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// Device and inode of every file that a process has mapped. The set is empty for a process that
/// has ended, or that this one may not look at.
///
/// See [`proc_pid_maps(5)`](https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html).
pub(crate) fn mapped_files(pid: u32) -> BTreeSet<(u64, u64)> {
    // Read as bytes: a path may be no text.
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.split(|&byte| byte == b'\n').filter_map(parse_mapping).collect()
}

/// Reads one line, `address perms offset major:minor inode path`. All but the inode are
/// hexadecimal, with one blank between them up to there. Inode 0 stands for memory that belongs to
/// no file: `None`.
fn parse_mapping(line: &[u8]) -> Option<(u64, u64)> {
    let mut fields =
        line.split(u8::is_ascii_whitespace).filter_map(|field| std::str::from_utf8(field).ok());
    let (major, minor) = fields.nth(3)?.split_once(':')?;
    let [major, minor] = [major, minor].map(|part| u32::from_str_radix(part, 16));
    let inode = fields.next()?.parse().ok()?;
    (inode != 0).then_some((libc::makedev(major.ok()?, minor.ok()?), inode))
}

fn parse_smaps(text: &str) -> Memory {
    let bytes_of = |field: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .and_then(|n| n.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    Memory {
        private: bytes_of("Private_Clean:") + bytes_of("Private_Dirty:"),
        proportional: bytes_of("Pss:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_fields_are_read_in_kibibytes() {
        let text = "0-1 ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:    7 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 2 kB\nPrivate_Dirty: 3 kB\n";
        assert_eq!(parse_smaps(text), Memory { private: 5 * 1024, proportional: 7 * 1024 });
    }

    #[test]
    fn a_mapped_file_is_told_by_device_and_inode() {
        let line = b"7f839f7eb000-7f839f7ec000 r--p 00000000 fe:01 316542                     /usr/lib/\xff";
        assert_eq!(parse_mapping(line), Some((libc::makedev(0xfe, 1), 316_542)));
        assert_eq!(parse_mapping(b"7f839f7ee000-7f839f7f0000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(parse_mapping(b""), None);
        assert!(process_ids().contains(&std::process::id()));
        assert!(!mapped_files(std::process::id()).is_empty());
    }

    #[test]
    fn a_process_that_runs_wants_a_processor_and_is_not_stopped() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        while !wants_processor(id) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!wants_processor(id) && !is_stopped(id), "it is gone");
    }

    #[test]
    fn threads_are_counted() {
        let before = thread_count();
        let (keep, kept) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || kept.recv());
        // Other tests' threads come and go.
        assert!((0..1000).any(|_| thread_count() > before.min(1)));
        drop(keep);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn this_process_has_some_memory() {
        let memory = own_memory().unwrap();
        assert!(memory.private > 0 && memory.proportional >= memory.private / 2, "{memory:?}");
    }
}
