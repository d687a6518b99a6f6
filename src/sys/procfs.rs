//! The few things that only /proc tells or takes. What a worker calls allocates nothing.

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

/// Makes this process the first that the kernel kills when memory runs out: a worker costs one block, its parent the
/// program. Raising the score needs no privilege. Without /proc nothing happens.
pub(crate) fn prefer_as_oom_victim() {
    if let Ok(mut file) = File::options().write(true).open("/proc/self/oom_score_adj") {
        let _ = file.write_all(b"1000");
    }
}

/// This process's memory, from `/proc/self/smaps_rollup` (Linux 4.14). A walk over all page tables: a millisecond or more
/// per GiB of small pages.
pub(crate) fn own_memory() -> Option<Memory> {
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

/// How many threads this process has, by the number of entries in `/proc/self/task`; 1 without /proc.
pub(crate) fn thread_count() -> usize {
    let links = std::fs::metadata("/proc/self/task").map_or(0, |meta| meta.nlink());
    usize::try_from(links.saturating_sub(2)).unwrap_or(usize::MAX).max(1)
}

/// Whether a process is stopped (SIGSTOP, SIGTSTP) at this moment; no without /proc.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, parentheses included.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// Whether there is such a process that has not ended; without /proc whether its number is taken.
pub(crate) fn is_running(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with(['Z', 'X'])),
        Err(_) => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok(),
    }
}

fn parse_smaps(text: &str) -> Memory {
    let bytes_of = |field: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|rest| rest.split_ascii_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    Memory { private: bytes_of("Private_Clean:") + bytes_of("Private_Dirty:"), proportional: bytes_of("Pss:") }
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
