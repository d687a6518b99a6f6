//! The facts that `doctor` judges, looked up. What cannot be looked up is `None`, or says why;
//! nothing here is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rowfork::segment::{self, Capacity, Pages};
use rowfork::{Result, SharedArray};

/// All that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// As `uname -r` has it.
    pub(super) kernel: String,
    pub(super) cores: Cores,
    pub(super) shm: Result<Shm, String>,
    pub(super) memory: Option<Memory>,
    /// The control group that dies as a whole.
    pub(super) dies_whole: Option<PathBuf>,
    pub(super) huge_pages: HugePages,
    /// Whether the kernel, or the sandbox around this process, gives them.
    pub(super) pidfds: bool,
    pub(super) logout: Logout,
    pub(super) max_map_count: Option<u64>,
    pub(super) limits: Limits,
    pub(super) stale: Stale,
}

/// Those that this process may use, of those that there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    pub(super) usable: usize,
    pub(super) online: usize,
}

/// `/dev/shm`; no total means no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shm {
    pub(super) available: u64,
    pub(super) total: Option<u64>,
}

/// The tightest limit on memory; no group means the machine's.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) available: u64,
    pub(super) total: u64,
    pub(super) group: Option<PathBuf>,
}

/// What came of trying to have some.
#[derive(Debug, Clone)]
pub(super) struct HugePages {
    /// Of an array that was made for it, or why there was none.
    pub(super) had: Result<Pages, String>,
    /// What `/sys/kernel/mm/transparent_hugepage` says of shared memory, with the word in force in
    /// brackets.
    pub(super) of_shared_memory: Option<String>,
    /// Whether the environment forbids them.
    pub(super) forbidden: bool,
}

/// What becomes of a user's segments when the user logs out.
#[derive(Debug, Clone)]
pub(super) struct Logout {
    /// Whether logind runs.
    pub(super) logind: bool,
    /// `RemoveIPC` as its files have it, if they do.
    pub(super) remove_ipc: Option<bool>,
    pub(super) uid: u32,
    /// Whether the user's processes and files outlive the session.
    pub(super) lingers: bool,
}

/// What this process may have; `None` is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) file_size: Option<u64>,
    pub(super) address_space: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) processes: Option<u64>,
}

/// Segments of this user that killed programs have left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stale {
    pub(super) segments: usize,
    pub(super) bytes: u64,
}

impl Facts {
    /// Looks.
    pub(super) fn gather() -> Self {
        let (capacity, shm) = match segment::capacity() {
            Ok(capacity) => {
                let shm = Shm { available: capacity.shm_available, total: capacity.shm_total };
                let shm = usable(&capacity).map(|()| shm);
                (Some(capacity), shm)
            }
            Err(error) => (None, Err(error.to_string())),
        };
        Self {
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| String::new(), |name| text_of(name.release())),
            cores: cores(),
            shm,
            memory: capacity.as_ref().and_then(memory),
            huge_pages: huge_pages(capacity.as_ref()),
            pidfds: rustix::process::pidfd_open(
                rustix::process::getpid(),
                rustix::process::PidfdFlags::empty(),
            )
            .is_ok(),
            logout: logout(),
            max_map_count: number("/proc/sys/vm/max_map_count"),
            limits: Limits {
                file_size: limit(Resource::RLIMIT_FSIZE),
                address_space: capacity.as_ref().and_then(|capacity| capacity.address_space),
                open_files: limit(Resource::RLIMIT_NOFILE),
                processes: limit(Resource::RLIMIT_NPROC),
            },
            stale: stale(),
            dies_whole: capacity.and_then(|capacity| capacity.dies_whole),
        }
    }
}

fn text_of(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn number(path: &str) -> Option<u64> {
    read_to_string(path).ok()?.trim().parse().ok()
}

fn limit(resource: Resource) -> Option<u64> {
    let (soft, _hard) = getrlimit(resource).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn cores() -> Cores {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    Cores { usable, online: online.and_then(|n| usize::try_from(n).ok()).unwrap_or(usable) }
}

fn memory(capacity: &Capacity) -> Option<Memory> {
    let memory = capacity.memory.clone()?;
    Some(Memory { available: memory.available, total: memory.total, group: memory.group })
}

fn huge_pages(capacity: Option<&Capacity>) -> HugePages {
    let of_shared_memory = read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").ok();
    HugePages {
        had: had(capacity),
        of_shared_memory: of_shared_memory.map(|text| text.trim().to_owned()),
        forbidden: std::env::var_os("ROWFORK_HUGE_PAGES").is_some_and(|value| value == "never"),
    }
}

/// Whether an array can be made at all, where there is room for one: for the mode of the directory,
/// say, or a mount that is read-only.
fn usable(capacity: &Capacity) -> Result<(), String> {
    const ONE: u64 = 64 << 10;
    let tried =
        if capacity.bytes < ONE { Ok(()) } else { SharedArray::<u8, _>::zeros(None, 1).map(drop) };
    tried.map_err(|error| error.to_string())
}

/// Makes an array that nobody sees, of some huge pages exactly.
fn had(capacity: Option<&Capacity>) -> Result<Pages, String> {
    const TRIED: u64 = 8 << 20;
    const HEADER: u64 = 4096;
    if capacity.is_some_and(|capacity| capacity.bytes < 2 * TRIED) {
        return Err("there is no room to try".to_owned());
    }
    let array = SharedArray::<u8, _>::zeros(None, usize::try_from(TRIED - HEADER).unwrap_or(0));
    let array = array.map_err(|error| error.to_string())?;
    array.pages().ok_or_else(|| "nobody counted them".to_owned())
}

fn logout() -> Logout {
    let user = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    Logout {
        // logind runs if its process is there. Where processes of others are hidden, the first seat
        // tells, which a running logind always has; container images without logind may still have
        // the directory.
        logind: runs("systemd-logind") || Path::new("/run/systemd/seats/seat0").exists(),
        remove_ipc: remove_ipc(&logind_files(Path::new("/"))),
        uid: user.as_raw(),
        lingers: name.is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists()),
    }
}

/// Whether there is a process of that name (at most 15 letters).
fn runs(name: &str) -> bool {
    let entries = read_dir("/proc").into_iter().flatten().flatten();
    let is_it = |entry: std::fs::DirEntry| {
        read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    entries.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).any(is_it)
}

/// The texts of logind's files, in the order in which it reads them (logind.conf(5)): the first
/// main file that there is, then all others by their names. If two have the same name, the one in
/// the earlier directory counts.
fn logind_files(root: &Path) -> Vec<String> {
    let directories =
        ["etc", "run", "usr/local/lib", "usr/lib"].map(|place| root.join(place).join("systemd"));
    let main =
        directories.iter().find_map(|directory| read_to_string(directory.join("logind.conf")).ok());
    let mut others: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in &directories {
        let entries = read_dir(directory.join("logind.conf.d")).into_iter().flatten().flatten();
        for entry in entries
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "conf"))
        {
            others.entry(entry.file_name()).or_insert_with(|| entry.path());
        }
    }
    main.into_iter().chain(others.values().filter_map(|path| read_to_string(path).ok())).collect()
}

/// The last valid value of `RemoveIPC` in these files, if there is one.
fn remove_ipc(files: &[String]) -> Option<bool> {
    let lines = files.iter().flat_map(|text| text.lines());
    let values = lines
        .filter_map(|line| line.trim().strip_prefix("RemoveIPC")?.trim_start().strip_prefix('='));
    values.filter_map(|value| truth(value.trim())).next_back()
}

/// As systemd reads it.
fn truth(word: &str) -> Option<bool> {
    match &*word.to_ascii_lowercase() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// What `rowfork gc` would remove.
fn stale() -> Stale {
    let ours = nix::unistd::geteuid().as_raw();
    let mut found = segment::list().unwrap_or_default();
    found.retain(|segment| segment.volatile && !segment.live && segment.owner_uid == ours);
    Stale { segments: found.len(), bytes: found.iter().map(|segment| segment.bytes).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_what_it_is() {
        let facts = Facts::gather();
        assert!(
            facts.kernel.contains('.') && facts.cores.usable >= 1 && facts.memory.is_some(),
            "{facts:?}"
        );
    }

    #[test]
    fn a_process_is_found_by_its_name() {
        let ours = read_to_string("/proc/self/comm").unwrap();
        assert!(runs(ours.trim()) && !runs("no such process"));
    }

    #[test]
    fn the_last_word_on_ipc_counts() {
        let said =
            |texts: &[&str]| remove_ipc(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(said(&[]), None);
        assert_eq!(said(&["[Login]\n#RemoveIPC=no\nRemoveIPCs=no\nRemoveIPC=perhaps\n"]), None);
        assert_eq!(
            said(&["[Login]\nRemoveIPC=yes\n", "[Login]\n  RemoveIPC = Off \n"]),
            Some(false)
        );
        assert_eq!(said(&["RemoveIPC=no\nRemoveIPC=1\n"]), Some(true));
    }

    #[test]
    fn of_two_files_of_a_name_the_one_of_the_administrator_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("usr/lib/systemd/logind.conf", "main of the distribution");
        write("usr/lib/systemd/logind.conf.d/20-b.conf", "b of the distribution");
        write("usr/lib/systemd/logind.conf.d/30-c.conf", "c");
        write("etc/systemd/logind.conf.d/20-b.conf", "b");
        write("run/systemd/logind.conf.d/10-a.conf", "a");
        write("run/systemd/logind.conf.d/notes.txt", "no such file");
        assert_eq!(logind_files(root.path()), ["main of the distribution", "a", "b", "c"]);
        write("etc/systemd/logind.conf", "main");
        assert_eq!(logind_files(root.path())[0], "main");
    }
}
