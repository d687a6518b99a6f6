//! The limits that this process runs under: file size, address space, memory of its control groups,
//! memory of the machine.
//!
//! Numbers alone are found here; `segment/preflight.rs` decides what follows from them. The files
//! of control groups are described in the kernel's documentation,
//! [cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html) and
//! [cgroup-v1](https://docs.kernel.org/admin-guide/cgroup-v1/memory.html).

use std::fs::read_to_string;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::memory::SMALL_PAGE;

/// The largest file that this process may make (`RLIMIT_FSIZE`), in bytes; `RLIM_INFINITY` where
/// there is no limit. Beyond it the kernel does not answer with an error but with the signal
/// SIGXFSZ, so it has to be asked for first.
///
/// See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub(crate) fn file_size() -> io::Result<u64> {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    Ok(soft)
}

/// What may still be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressSpace {
    /// What is left of the limit, in bytes.
    pub(crate) available: u64,
    /// The soft limit in bytes.
    pub(crate) limit: u64,
}

/// What the limit on address space (`RLIMIT_AS`) leaves to this process; `None` where there is no
/// limit, which is the quick answer. Without /proc nobody knows how much of it is in use: then all
/// of it counts as free.
///
/// See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html) and
/// [`proc_pid_statm(5)`](https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html).
pub(crate) fn address_space() -> io::Result<Option<AddressSpace>> {
    let (limit, _hard) = getrlimit(Resource::RLIMIT_AS)?;
    if limit == RLIM_INFINITY {
        return Ok(None);
    }
    let used =
        read_to_string("/proc/self/statm").ok().and_then(|text| mapped_bytes(&text)).unwrap_or(0);
    Ok(Some(AddressSpace { available: limit.saturating_sub(used), limit }))
}

/// The first field of `/proc/self/statm` counts all pages that are mapped, whether they have memory
/// or not. The limit counts in the same way.
fn mapped_bytes(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().next()?.parse().ok()?;
    pages.checked_mul(SMALL_PAGE as u64)
}

/// Memory that a process can still get, and what sets that limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AvailableMemory {
    /// What is left, in bytes.
    pub(crate) available: u64,
    /// The limit itself in bytes. Others have taken a part of it.
    pub(crate) total: u64,
    /// `the machine's memory`, or the control group's directory.
    pub(crate) limit: String,
    /// Which process dies when more is asked for.
    pub(crate) victim: Victim,
}

/// Which process the kernel kills beyond a limit on memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// Some process of the machine.
    OfTheMachine,
    /// One process of the control group: the one with the highest score.
    OfTheGroup,
    /// Every process of the control group (`memory.oom.group`).
    TheWholeGroup,
}

/// The tightest limit on memory, as far as it can be read; `None` where nothing can. Beyond it the
/// kernel does not answer with an error but kills a process. The number is an estimate and no
/// promise: others take memory meanwhile.
///
/// See [`proc_meminfo(5)`](https://man7.org/linux/man-pages/man5/proc_meminfo.5.html),
/// [`proc_pid_cgroup(5)`](https://man7.org/linux/man-pages/man5/proc_pid_cgroup.5.html) and
/// [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html).
pub(crate) fn available_memory() -> Option<AvailableMemory> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .filter_map(group_of)
        .flat_map(|group| group.memory())
        .chain(machine)
        .min_by_key(|memory| memory.available)
}

/// The outermost control group around this process that dies as a whole (`memory.oom.group`) when
/// the kernel kills one of its processes for want of memory, whether the group's own memory or the
/// machine's has run out.
pub(crate) fn group_that_dies_whole() -> Option<PathBuf> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .filter_map(group_of)
        .find_map(|group| group.directories().into_iter().rev().find(|dir| dies_whole(dir)))
}

/// Whether the group of this directory asks to die as a whole. Version 1 has no such file: no.
fn dies_whole(dir: &Path) -> bool {
    read_to_string(dir.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1")
}

/// What `/proc/meminfo` says that processes can take without a kill: shared memory may go to swap,
/// so free swap counts, too. `None` for a kernel before 3.14, which has no `MemAvailable`.
///
/// See [`proc_meminfo(5)`](https://man7.org/linux/man-pages/man5/proc_meminfo.5.html).
fn machine_memory(meminfo: &str) -> Option<AvailableMemory> {
    // The kernel writes `kB` and means 1024 bytes.
    let kib = |key: &str| {
        meminfo.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok())
    };
    let bytes = |memory: u64, swap: &str| (memory + kib(swap).unwrap_or(0)).saturating_mul(1024);
    let available = bytes(kib("MemAvailable:")?, "SwapFree:");
    let total = bytes(kib("MemTotal:").unwrap_or(0), "SwapTotal:").max(available);
    Some(AvailableMemory {
        available,
        total,
        limit: "the machine's memory".to_owned(),
        victim: Victim::OfTheMachine,
    })
}

/// A memory control group, and what its version of the interface calls things.
struct Group {
    /// Where groups of this version are mounted by convention.
    mount: &'static Path,
    /// The group's path below the mount.
    path: PathBuf,
    /// The file with the limit in bytes, or with `max`.
    limit: &'static str,
    /// The file with the bytes in use.
    usage: &'static str,
    /// The field of `memory.stat` that counts file pages which nobody has used for long. The kernel
    /// drops these before it kills. The blank at the end leaves the bare number.
    reclaimable: &'static str,
}

/// The group that a line of `/proc/self/cgroup` names, if that is a group that limits memory. A
/// line reads `id:controllers:path`; id 0 is the one hierarchy of version 2.
///
/// See [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html).
fn group_of(line: &str) -> Option<Group> {
    let (id, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let path = PathBuf::from(path.trim_start_matches('/'));
    let (mount, limit, usage, reclaimable) = if id == "0" {
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        )
    } else {
        return None;
    };
    Some(Group { mount: Path::new(mount), path, limit, usage, reclaimable })
}

impl Group {
    /// What is left in this group and in each around it, outwards. A limit of an outer group holds
    /// for all groups inside it. In a container the path may be the host's; only the last part of
    /// it is visible then, at the mount point, and directories that are not there are passed over.
    fn memory(&self) -> Vec<AvailableMemory> {
        let mut victim = Victim::OfTheGroup;
        let memory_at = |dir: PathBuf| {
            // The kernel kills the outermost group that asks for it, from the victim's up to the
            // one at its limit.
            if dies_whole(&dir) {
                victim = Victim::TheWholeGroup;
            }
            self.memory_at(&dir, victim)
        };
        self.directories().into_iter().filter_map(memory_at).collect()
    }

    /// The directories of this group and of all groups around it, the innermost first, the mount
    /// point last.
    fn directories(&self) -> Vec<PathBuf> {
        self.path.ancestors().map(|part| self.mount.join(part)).collect()
    }

    /// What is left in the group of one directory; `None` if it has no limit, or cannot be read.
    fn memory_at(&self, dir: &Path, victim: Victim) -> Option<AvailableMemory> {
        let number = |file: &str| read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?; // `max` is no number
        let stat = read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|l| l.strip_prefix(self.reclaimable)?.parse().ok()).unwrap_or(0);
        let used = number(self.usage)?.saturating_sub(reclaimable);
        let available = limit.saturating_sub(used);
        Some(AvailableMemory { available, total: limit, limit: dir.display().to_string(), victim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_mapped_counts_as_address_space() {
        assert_eq!(mapped_bytes("3 2 1 1 0 1 0\n"), Some(3 * 4096));
        assert_eq!(mapped_bytes("nonsense"), None);
        let mapped = mapped_bytes(&read_to_string("/proc/self/statm").unwrap()).unwrap();
        assert!(mapped > 1 << 20, "{mapped}");
    }

    #[test]
    fn swap_counts_as_memory() {
        let text = "MemTotal:       24684084 kB\nMemAvailable:         10 kB\nSwapFree:              2 kB\n";
        let memory = machine_memory(text).unwrap();
        assert_eq!((memory.available, memory.total), (12 << 10, 24_684_084 << 10));
        assert_eq!(machine_memory("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_group_is_as_tight_as_the_tightest_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |dir: &Path, limit: &str, usage: &str| {
            std::fs::write(dir.join("memory.max"), limit).unwrap();
            std::fs::write(dir.join("memory.current"), usage).unwrap();
            std::fs::write(dir.join("memory.stat"), "anon 5\ninactive_file 100\nactive_file 7\n")
                .unwrap();
        };
        write(&inner, "max\n", "1000\n");
        write(&dir.path().join("a"), "5000\n", "1000\n");
        write(dir.path(), "9000\n", "9500\n");
        let mut group = group_of("0::/a/b").unwrap();
        group.mount = Box::leak(dir.path().to_owned().into_boxed_path());
        let available: Vec<_> =
            group.memory().into_iter().map(|memory| (memory.available, memory.victim)).collect();
        assert_eq!(available, [(4100, Victim::OfTheGroup), (0, Victim::OfTheGroup)]);
    }

    #[test]
    fn a_group_dies_whole_at_its_own_limit_and_at_those_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        for (dir, whole) in [(&*inner, "0\n"), (&dir.path().join("a"), "1\n"), (dir.path(), "0\n")]
        {
            std::fs::write(dir.join("memory.max"), "5000\n").unwrap();
            std::fs::write(dir.join("memory.current"), "1000\n").unwrap();
            std::fs::write(dir.join("memory.oom.group"), whole).unwrap();
        }
        let mut group = group_of("0::/a/b").unwrap();
        group.mount = Box::leak(dir.path().to_owned().into_boxed_path());
        let victims: Vec<_> = group.memory().into_iter().map(|memory| memory.victim).collect();
        assert_eq!(victims, [Victim::OfTheGroup, Victim::TheWholeGroup, Victim::TheWholeGroup]);
    }

    #[test]
    fn only_memory_groups_count() {
        assert!(group_of("3:cpuset:/x").is_none() && group_of("nonsense").is_none());
        assert_eq!(group_of("4:cpu,memory:/x/y").unwrap().path, Path::new("x/y"));
    }
}
