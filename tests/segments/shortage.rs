#![allow(unsafe_code, reason = "attaches to segments that only this test knows")]

//! Shortage and old kernels: a full `/dev/shm`, limits on memory, file size and address space, no
//! `O_TMPFILE`, no `/proc`, no `MADV_COLLAPSE`; and death at every system call of a birth. Always a
//! typed error or a segment, never a signal, nothing left.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use ndarray::Ix1;
use rowfork::failpoints::{self, Failpoint};
use rowfork::{Error, SharedArray, segment};

use crate::support::isolated::{self, name_of};
use crate::support::{
    self, Holder, Names, as_player, hold, is_root, player, run, say, shm, skip, succeeds,
    sweeps_until,
};

const MIB: usize = 1 << 20;

/// An array of `mib` MiB, header included.
fn make(name: Option<&str>, mib: usize) -> rowfork::Result<SharedArray<f64, Ix1>> {
    SharedArray::from_shape_fn(name, (mib * MIB - 4096) / 8, |i| i as f64)
}

#[test]
#[ignore = "plays a part in other tests"]
fn plays_a_role() {
    let Ok(role) = std::env::var(support::ROLE) else { return };
    failpoints::throw_by_environment();
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["tiny"] => {
            a_tiny_shm_is_never_overdrawn();
            racers_for_the_last_pages_get_them_or_an_error();
            a_sparse_file_on_a_full_shm_is_refused();
        }
        ["roomy"] => a_refused_sparse_file_stays_sparse(),
        ["attach-of-9-mib-fails"] => {
            make_sparse("sparse", 9 * MIB / 8);
            // SAFETY: nobody else is in this mount namespace.
            say(&unsafe { SharedArray::<f64, Ix1>::attach("sparse") }.unwrap_err().to_string());
        }
        ["attach-fails", name] => {
            // SAFETY: nobody else knows the name.
            say(&unsafe { SharedArray::<f64, Ix1>::attach(name) }.unwrap_err().to_string());
        }
        ["file-size-limit", name] => limited_to_one_mib(name),
        ["address-space-limit", name] => limited_to_64_mib_more(name),
        ["birth", name, mib] => {
            let m = make(Some(name), mib.parse().unwrap()).unwrap();
            assert!(shm(name).exists());
            assert_eq!(m.view().last(), Some(&((m.len() - 1) as f64)));
            assert_eq!(SharedArray::<f64, Ix1>::read_copy(name).unwrap(), m.view());
            // Which is refused to an array that lacks memory.
            assert_eq!(
                *rowfork::fork()
                    .workers(1)
                    .fold_rows(&m, 0, |n, _| *n += 1, |n, more| *n += more)
                    .unwrap(),
                m.len()
            );
            let nameless = make(None, 1).unwrap();
            assert_eq!(nameless.view()[1], 1.0);
        }
        ["memory-limit"] => {
            let refused = make(None, 64).unwrap_err();
            assert!(matches!(refused, Error::MemoryLimit { need: 0x400_0000, .. }), "{refused}");
            let mut small = make(None, 20).unwrap();
            small.view_mut().fill(1.0);
        }
        ["eats-100-mib"] => {
            let eaten = std::hint::black_box(vec![1_u8; 100 * MIB]);
            say("ready");
            hold();
            drop(eaten);
        }
        ["loses-the-race", name] => {
            loses_the_race(&make(Some(name).filter(|name| *name != "-"), 120).unwrap_err());
        }
        ["loses-the-race-to-attach", name] => {
            // SAFETY: nobody else knows the name.
            loses_the_race(&unsafe { SharedArray::<f64, Ix1>::attach(name) }.unwrap_err());
        }
        ["reserves-120-mib-by-itself"] => {
            let file = tempfile::tempfile_in("/dev/shm").unwrap();
            nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 120 << 20)
                .unwrap();
        }
        ["near-the-limit", mib] => near_the_limit(mib.parse().unwrap()),
        ["very-near-the-limit"] => very_near_the_limit(),
        ["hostile", host] => hostile_host(host),
        ["huge"] => say(&format!("huge {}", make(None, 8).unwrap().pages().unwrap().huge_bytes)),
        ["sweep"] => drop(segment::sweep().unwrap()),
        ["list", name] => {
            let names: Vec<String> = (0..20).map(|i| format!("{name}{i}")).collect();
            let _made: Vec<_> =
                names.iter().map(|name| SharedArray::<f64, _>::zeros(name, 1).unwrap()).collect();
            let listed = segment::list().unwrap();
            assert_eq!(
                listed.iter().filter(|info| info.name.starts_with(name) && info.live).count(),
                20
            );
        }
        ["birth-fails", name, mib] => {
            say(&make(Some(name), mib.parse().unwrap()).unwrap_err().to_string());
        }
        _ => panic!("unknown role {role}"),
    }
}

/// By so many bytes a file on disk is shorter than a segment: its data start at byte 128.
const SHORTER: u64 = 4096 - 128;

// ---- a full /dev/shm
// -------------------------------------------------------------------------------------------

#[test]
fn a_full_shm_is_an_error_with_numbers_never_a_signal() {
    if !is_root() {
        return skip("only root can mount a /dev/shm of its own");
    }
    succeeds(as_player(plays_a_role, with_a_shm_of("8m", &[]), "tiny"));
    succeeds(as_player(plays_a_role, with_a_shm_of("160m", &[]), "roomy"));
}

#[test]
fn what_cannot_fit_is_refused_before_anything_is_allocated() {
    if !is_root() || strace(&[], "").is_none() {
        return skip("needs root and strace");
    }
    let record = tempfile::NamedTempFile::new().unwrap();
    let tracer = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=fallocate,ftruncate",
        "-o",
        record.path().to_str().unwrap(),
    ];
    let said = succeeds(as_player(plays_a_role, with_a_shm_of("8m", &tracer), "birth-fails a 9"));
    assert!(said.contains("9437184 bytes needed, 8388608 of 8388608 available"), "{said}");
    assert_eq!(std::fs::read_to_string(record.path()).unwrap(), "");
    let tracer =
        ["strace", "-f", "-qq", "-e", "trace=fallocate", "-o", record.path().to_str().unwrap()];
    let said =
        succeeds(as_player(plays_a_role, with_a_shm_of("8m", &tracer), "attach-of-9-mib-fails"));
    assert!(said.contains("9437184 bytes needed, 8384512 of 8388608 available"), "{said}");
    assert_eq!(std::fs::read_to_string(record.path()).unwrap(), "");
}

/// This binary with a `/dev/shm` of its own, started by way of `tracer`.
fn with_a_shm_of(size: &str, tracer: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size={size},mode=1777 rowfork-test /dev/shm && exec \"$0\" \"$@\""
    );
    command.args(["--mount", "--propagation=private", "sh", "-c", &script]).args(tracer);
    command.arg(std::env::current_exe().unwrap());
    command
}

fn available() -> u64 {
    let stat = nix::sys::statvfs::statvfs("/dev/shm").unwrap();
    stat.blocks_available() * stat.fragment_size()
}

fn a_tiny_shm_is_never_overdrawn() {
    assert_eq!(available(), 8 << 20);
    for name in [None, Some("named")] {
        match make(name, 9).unwrap_err() {
            Error::ShmFull { need, available, total, .. } => {
                assert_eq!((need, available, total), (9 << 20, 8 << 20, 8 << 20));
            }
            other => panic!("{other}"),
        }
        let whole = make(name, 8).unwrap();
        assert_eq!((available(), whole.view()[MIB / 8]), (0, (MIB / 8) as f64));
        assert!(matches!(make(None, 1), Err(Error::ShmFull { available: 0, .. })));
        drop(whole);
        assert_eq!(available(), 8 << 20);
    }
    let m = make(None, 5).unwrap();
    match m.write_npy("/dev/shm/written.npy").unwrap_err() {
        Error::DiskFull { need, available, .. } => {
            assert_eq!((need, available), ((5 << 20) - SHORTER, 3 << 20));
        }
        other => panic!("{other}"),
    }
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
}

/// Every racer finds room when it looks; the reservation decides.
fn racers_for_the_last_pages_get_them_or_an_error() {
    for mib in [1, 5] {
        for _ in 0..50 {
            let barrier = std::sync::Barrier::new(12);
            let made: Vec<_> = std::thread::scope(|scope| {
                let racer = || {
                    barrier.wait();
                    make(None, mib)
                };
                let racers: Vec<_> = (0..12).map(|_| scope.spawn(racer)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            let won = made.iter().filter(|m| m.is_ok()).count();
            assert!(won <= 8 / mib, "{won} arrays of {mib} MiB in 8 MiB");
            for lost in made.iter().filter_map(|m| m.as_ref().err()) {
                assert!(matches!(lost, Error::ShmFull { total: 0x80_0000, .. }), "{lost}");
            }
            for m in made.iter().flatten() {
                assert_eq!(m.view().sum(), (m.len() * (m.len() - 1) / 2) as f64);
            }
            drop(made);
            assert_eq!(available(), 8 << 20);
        }
    }
}

/// A file as NumPy makes it: a header, and nothing yet behind it.
fn make_sparse(name: &str, len: usize) {
    let bytes = std::fs::read(support::golden("one_axis.npy")).unwrap();
    let text = String::from_utf8_lossy(&bytes[10..128]).replace("(4,)", &format!("({len},)"));
    let header = format!("{:117}\n", text.trim_end());
    let file = std::fs::File::create(shm(name)).unwrap();
    file.write_all_at(&[&bytes[..10], header.as_bytes()].concat(), 0).unwrap();
    file.set_len(128 + 8 * len as u64).unwrap();
}

/// Bytes of memory that a file has.
fn allocated(name: &str) -> u64 {
    std::fs::metadata(shm(name)).unwrap().blocks() * 512
}

/// 200 MiB, of which the first two steps of the allocation would find room.
fn a_refused_sparse_file_stays_sparse() {
    make_sparse("sparse", 200 * MIB / 8);
    let before = (available(), allocated("sparse"));
    // SAFETY: nobody else is in this mount namespace.
    let refused = unsafe { SharedArray::<f64, Ix1>::attach("sparse") }.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::ShmFull { need: 0xc80_0000, available, total: 0xa00_0000 , .. }
                if available == before.0
        ),
        "{refused}"
    );
    assert_eq!((available(), allocated("sparse")), before);
    std::fs::remove_file(shm("sparse")).unwrap();
}

#[test]
fn an_attach_that_fails_midway_takes_back_what_it_gave_alone() {
    let names = Names::new();
    let name = names.name("sparse");
    make_sparse(&name, 200 * MIB / 8);
    let file = std::fs::OpenOptions::new().write(true).open(shm(&name)).unwrap();
    file.write_all_at(&[7; 4096], 100 << 20).unwrap();
    let before = allocated(&name);
    assert_eq!(before, 8192);
    for fault in ["ENOSPC", "EIO"] {
        let inject = format!("inject=fallocate:error={fault}:when=3");
        let options = ["-e", &inject];
        if let Some(command) = strace(&options, &format!("attach-fails {name}")) {
            succeeds(command);
            assert_eq!(allocated(&name), before, "{fault}");
        }
    }
    let bytes = std::fs::read(shm(&name)).unwrap();
    assert_eq!((&bytes[..6], &bytes[100 << 20..][..4096]), (&b"\x93NUMPY"[..], &[7; 4096][..]));
    std::fs::remove_file(shm(&name)).unwrap();
}

fn a_sparse_file_on_a_full_shm_is_refused() {
    make_sparse("sparse", 500_000);
    let rest = make(None, 6).unwrap();
    // SAFETY: nobody else is in this mount namespace.
    let refused = unsafe { SharedArray::<f64, Ix1>::attach("sparse") }.unwrap_err();
    let missing = 976 * 4096; // the header's page is there
    assert!(
        matches!(
            refused,
            Error::ShmFull { need, available, .. }
                if (need, available) == (missing, (2 << 20) - 4096)
        ),
        "{refused}"
    );
    assert_eq!(SharedArray::<f64, Ix1>::read_copy("sparse").unwrap().len(), 500_000);
    drop(rest);
    // SAFETY: as above.
    let attached = unsafe { SharedArray::<f64, Ix1>::attach("sparse") }.unwrap();
    assert_eq!(attached.view().sum().to_bits(), 0);
    std::fs::remove_file(shm("sparse")).unwrap();
}

// ---- memory
// --------------------------------------------------------------------------------------------

#[test]
fn more_than_the_memory_there_is_is_an_error() {
    let refused = make(None, 1 << 30).unwrap_err(); // a PiB
    assert!(
        matches!(refused, Error::MemoryLimit { .. } | Error::FileSizeLimit { .. }),
        "{refused}"
    );
}

#[test]
fn a_sparse_file_beyond_memory_is_neither_attached_nor_copied() {
    let names = Names::new();
    let name = names.name("sparse");
    make_sparse(&name, 1 << 38); // 2 TiB
    let need = 128 + (1 << 41);
    let copied = SharedArray::<f64, Ix1>::read_copy(&name).unwrap_err();
    assert!(matches!(copied, Error::MemoryLimit { need: n, .. } if n == need - 128), "{copied}");
    // SAFETY: nobody else knows the name.
    let attached = unsafe { SharedArray::<f64, Ix1>::attach(&name) }.unwrap_err();
    assert!(
        matches!(attached, Error::MemoryLimit { need: n, .. } if n == need + 3968 - 4096),
        "{attached}"
    );
    assert_eq!(allocated(&name), 4096);
    std::fs::remove_file(shm(&name)).unwrap();
}

/// A memory control group of a test's own; its drop takes it away.
struct Group(std::path::PathBuf);

impl Group {
    /// `None`, and the reason printed, where that is not allowed.
    fn limited_to(mib: usize) -> Option<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let (v1, v2) =
            (std::path::Path::new("/sys/fs/cgroup/memory"), std::path::Path::new("/sys/fs/cgroup"));
        let (mount, limit) =
            if v1.is_dir() { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let group = Self(mount.join(format!("rft-{}-{count}", std::process::id())));
        if std::fs::create_dir(&group.0).is_err() {
            skip("may not make a control group");
            std::mem::forget(group);
            return None;
        }
        if std::fs::write(group.0.join(limit), (mib * MIB).to_string()).is_err() {
            skip("may not limit a control group's memory");
            return None;
        }
        Some(group)
    }

    /// This binary in the group, by way of `tracer`.
    fn player(&self, tracer: &[&str], role: &str) -> Command {
        let mut command = Command::new("sh");
        let script = "echo $$ > \"$1\" && shift && exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(self.0.join("cgroup.procs")).args(tracer);
        command.arg(std::env::current_exe().unwrap());
        as_player(plays_a_role, command, role)
    }

    /// Whether a process of the group asks to be killed first.
    fn has_a_victim(&self) -> bool {
        let pids = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        let score =
            |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
        pids.lines().any(|pid| score(pid).trim() == "1000")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = support::eventually(|| std::fs::remove_dir(&self.0).is_ok());
        assert!(removed || std::thread::panicking(), "{} cannot be removed", self.0.display());
    }
}

#[test]
fn a_control_groups_memory_limit_is_an_error_not_a_kill() {
    let Some(group) = Group::limited_to(48) else { return };
    succeeds(group.player(&[], "memory-limit"));
}

/// The options that delay a process's first `fallocate` by 3 s, which is when it has looked at the
/// limits.
const LATE: [&str; 7] =
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fallocate:delay_enter=3000000:when=1"];

#[test]
fn memory_taken_after_the_look_costs_a_child_and_not_the_caller() {
    if strace(&[], "").is_none() {
        return;
    }
    let names = Names::new();
    let name = names.name("a");
    let path = shm(&name).into_os_string().into_string().unwrap();
    let visibly = ["-P", "/dev/shm", "-P", &path, "-e", "inject=openat:error=EOPNOTSUPP:when=2"];
    let sparse = names.name("sparse");
    make_sparse(&sparse, 120 * MIB / 8);
    std::thread::scope(|scope| {
        scope.spawn(|| caller_and_eater("loses-the-race -", &[], "always"));
        scope.spawn(|| caller_and_eater("loses-the-race -", &[], "never"));
        scope.spawn(|| {
            caller_and_eater(&format!("loses-the-race {}", names.name("b")), &[], "always");
        });
        scope.spawn(|| caller_and_eater(&format!("loses-the-race {name}"), &visibly, "always"));
        scope.spawn(|| {
            caller_and_eater(&format!("loses-the-race-to-attach {sparse}"), &[], "always");
        });
    });
    assert_eq!(names.left(), [&*sparse]);
    assert_eq!(allocated(&sparse), 4096);
    std::fs::remove_file(shm(&sparse)).unwrap();
}

fn caller_and_eater(role: &str, options: &[&str], huge_pages: &str) {
    let Some(group) = Group::limited_to(200) else { return };
    let mut command = group.player(&[&LATE[..], options].concat(), role);
    command.env("ROWFORK_HUGE_PAGES", huge_pages);
    let mut caller = Holder::start(command);
    assert!(support::eventually(|| group.has_a_victim()), "{role}: no child reserves");
    let mut eater = Holder::start(group.player(&[], "eats-100-mib"));
    assert_eq!(eater.says(), "ready");
    let said = caller.says();
    assert!(
        said.contains("125829120 bytes of memory needed") || said.contains("125825024 bytes"),
        "{role}: {said}"
    );
    assert!(said.contains(&group.0.display().to_string()), "{role}: {said}");
    caller.let_go();
    eater.let_go();
}

/// In a group of 200 MiB of which somebody else takes 100 while this one asks for 120.
fn loses_the_race(refused: &Error) {
    match refused {
        Error::MemoryLimit { need, available, .. } => {
            assert!(available < need && *available < 100 << 20, "{refused}");
        }
        other => panic!("{other}"),
    }
    leaves_nothing();
    // What had been had is there again.
    assert_eq!(make(None, 20).unwrap().view()[1], 1.0);
    say(&refused.to_string());
    hold();
}

fn leaves_nothing() {
    let none = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    assert_eq!(none, Err(nix::Error::ECHILD), "a child, or what is left of one");
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("/dev/shm/"));
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    assert_eq!(open.filter(|path| path.starts_with("/dev/shm")).count(), 0);
}

/// What the test above is worth: the like of that reservation, made by the caller itself.
#[test]
fn a_reservation_beyond_the_limit_kills_a_caller_that_makes_it() {
    use std::os::unix::process::ExitStatusExt;
    let Some(group) = Group::limited_to(100) else { return };
    let done = run(group.player(&[], "reserves-120-mib-by-itself"));
    assert_eq!(
        done.status.signal(),
        Some(libc::SIGKILL),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
}

#[test]
fn a_child_reserves_more_than_half_of_a_groups_rest_and_no_less() {
    for (mib, forks) in [(120, 1), (40, 0)] {
        let record = tempfile::NamedTempFile::new().unwrap();
        let tracer =
            ["strace", "-f", "-qq", "-e", "trace=clone", "-o", record.path().to_str().unwrap()];
        let Some(group) = Group::limited_to(200) else { return };
        if strace(&[], "").is_none() {
            return;
        }
        succeeds(group.player(&tracer, &format!("near-the-limit {mib}")));
        let record = std::fs::read_to_string(record.path()).unwrap();
        let forked = record
            .lines()
            .filter(|line| line.contains("SIGCHLD") && line.contains("clone("))
            .count();
        assert_eq!(forked, forks, "{mib} MiB: {record}");
    }
}

#[test]
fn very_near_the_limit_there_is_an_array_or_an_error() {
    for huge_pages in ["always", "never"] {
        let Some(group) = Group::limited_to(100) else { return };
        let mut command = group.player(&[], "very-near-the-limit");
        command.env("ROWFORK_HUGE_PAGES", huge_pages);
        succeeds(command);
    }
}

fn very_near_the_limit() {
    let (mut made, mut refused) = (0, 0);
    for bytes in (84 * MIB..98 * MIB).step_by(MIB / 4).rev() {
        match SharedArray::<f64, _>::from_shape_fn(None, bytes / 8, |i| i as f64) {
            Ok(m) => {
                assert_eq!(m.view()[m.len() - 1], (m.len() - 1) as f64);
                made += 1;
            }
            Err(Error::MemoryLimit { need, available, .. }) => {
                assert!(need > available);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        leaves_nothing();
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}

#[test]
fn a_host_that_ignores_or_reaps_strangers_is_told_the_same() {
    for host in ["ignores", "reaps"] {
        let Some(group) = Group::limited_to(200) else { return };
        succeeds(group.player(&[], &format!("hostile {host}")));
    }
}

fn hostile_host(host: &str) {
    use nix::sys::signal::{SigHandler, Signal, signal};
    use nix::sys::wait::waitpid;
    if host == "ignores" {
        // SAFETY: "ignore" runs no code.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
    } else {
        std::thread::spawn(|| {
            loop {
                if waitpid(None, None).is_err() {
                    std::thread::yield_now();
                }
            }
        });
    }
    for _ in 0..3 {
        let m = make(None, 120).unwrap();
        assert_eq!(m.view().last(), Some(&((m.len() - 1) as f64)));
    }
}

/// A child has reserved it, or not: the array is what it always is.
fn near_the_limit(mib: usize) {
    let m = make(None, mib).unwrap();
    assert_eq!(m.view().iter().position(|&x| x == (m.len() - 1) as f64), Some(m.len() - 1));
    let pages = m.pages().unwrap();
    assert_eq!(pages.huge_bytes + pages.small_bytes, mib * MIB);
    let address = m.as_ptr() as usize - 4096;
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let ours = smaps.split_once(&format!("{address:x}-")).expect("mapped").1;
    let mapped = ours.lines().find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
    let mapped: usize = mapped.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert_eq!(
        mapped * 1024,
        pages.huge_bytes,
        "huge pages as the kernel maps them for this process"
    );
    drop(m);
    leaves_nothing();
}

// ---- RLIMIT_FSIZE
// --------------------------------------------------------------------------------------------

#[test]
fn a_file_size_limit_is_an_error_not_a_sigxfsz() {
    let names = Names::new();
    succeeds(player(plays_a_role, &format!("file-size-limit {}", names.name("a"))));
}

fn limited_to_one_mib(name: &str) {
    use nix::sys::resource::{Resource, setrlimit};
    let dir = tempfile::tempdir().unwrap();
    let large = make(None, 2).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, MIB as u64, MIB as u64).unwrap();
    let needs = |error| match error {
        Error::FileSizeLimit { need, limit: 0x10_0000, .. } => need,
        other => panic!("{other}"),
    };
    assert_eq!(needs(make(None, 2).unwrap_err()), 2 << 20);
    assert_eq!(needs(make(Some(name), 2).unwrap_err()), 2 << 20);
    assert_eq!(needs(large.write_npy(dir.path().join("a.npy")).unwrap_err()), (2 << 20) - SHORTER);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    make(Some(name), 1).unwrap();
    assert!(!shm(name).exists());
}

// ---- RLIMIT_AS
// --------------------------------------------------------------------------------------------

#[test]
fn an_address_space_limit_is_an_error_with_its_own_name() {
    let names = Names::new();
    succeeds(player(plays_a_role, &format!("address-space-limit {}", names.name("a"))));
}

fn limited_to_64_mib_more(name: &str) {
    use nix::sys::resource::{Resource, setrlimit};
    // Starts the threads that fill arrays: their stacks are not at issue.
    drop(make(None, 16).unwrap());
    let there = make(Some(name), 70).unwrap();
    let mapped_pages = || -> u64 {
        std::fs::read_to_string("/proc/self/statm")
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let limit = mapped_pages() * 4096 + (64 << 20);
    setrlimit(Resource::RLIMIT_AS, limit, limit).unwrap();
    let needs = |error| match error {
        Error::AddressSpaceLimit { need, available, limit: found, .. } => {
            assert!(
                found == limit && available <= 64 << 20 && available > 60 << 20,
                "{available} of {found}"
            );
            need
        }
        other => panic!("{other}"),
    };
    assert_eq!(needs(make(None, 63).unwrap_err()), 65 << 20, "with the slack that aligns it");
    assert_eq!(needs(make(Some(&format!("{name}-2")), 70).unwrap_err()), 72 << 20);
    // SAFETY: nobody else knows the name.
    assert_eq!(needs(unsafe { SharedArray::<f64, Ix1>::attach(name) }.unwrap_err()), 72 << 20);
    assert_eq!(needs(SharedArray::<f64, Ix1>::read_copy(name).unwrap_err()), (70 << 20) - 4096);
    let refused = make(None, 1 << 10).unwrap_err().to_string();
    assert!(refused.contains("ulimit -v"), "{refused}");
    let small = make(None, 20).unwrap();
    assert_eq!(small.view()[1], 1.0);
    drop(there);
}

// ---- strace: what an old or restricted kernel answers
// ------------------------------------------------------------

/// This binary under strace with something injected, or `None` and the reason printed.
fn strace(options: &[&str], role: &str) -> Option<Command> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|done| done.status.success()) {
        skip("strace is not there, or may not trace");
        return None;
    }
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(options)
        .arg(std::env::current_exe().unwrap());
    Some(as_player(plays_a_role, command, role))
}

#[test]
fn without_o_tmpfile_arrays_are_born_visibly_and_whole() {
    let names = Names::new();
    let options = ["-P", "/dev/shm", "-e", "trace=openat", "-e", "inject=openat:error=EOPNOTSUPP"];
    for mib in [1, 8] {
        let Some(command) = strace(&options, &format!("birth {} {mib}", names.name("a"))) else {
            return;
        };
        succeeds(command);
        assert!(names.left().is_empty());
    }
}

#[test]
fn without_o_tmpfile_a_birth_that_fails_takes_its_name_away() {
    let names = Names::new();
    for fault in [
        "ftruncate:error=EIO",
        "mmap:error=ENOMEM:when=1", // the one of `shared_memory`
        "mmap:error=ENOMEM:when=2", // ours
        "flock:error=ENOLCK",
        "fallocate:error=ENOSPC",
        "fallocate:error=EIO",
        "pwrite64:error=EIO",
        "fchmod:error=EPERM",
    ] {
        let name = names.name("a");
        let path = shm(&name).into_os_string().into_string().unwrap();
        let inject = format!("inject={fault}");
        // Of this path and the directory, the second to be opened is the nameless file; the first
        // is the sweep.
        let no_tmpfile = "inject=openat:error=EOPNOTSUPP:when=2";
        let options = ["-P", "/dev/shm", "-P", &path, "-e", no_tmpfile, "-e", &inject];
        let Some(command) = strace(&options, &format!("birth-fails {name} 1")) else { return };
        let said = succeeds(command);
        assert!(names.left().is_empty(), "{fault}");
        if fault.ends_with("when=1") {
            assert!(said.contains("cannot make /dev/shm/rft"), "not born visibly: {said}");
            assert!(said.contains("(os error 12)"), "the reason is lost: {said}");
        }
    }
}

#[test]
fn a_visible_birth_that_fails_leaves_what_took_its_name_alone() {
    let names = Names::new();
    let name = names.name("a");
    let path = shm(&name).into_os_string().into_string().unwrap();
    let no_tmpfile = "inject=openat:error=EOPNOTSUPP:when=2";
    // The call that fails begins and ends with a second between.
    let late = "inject=chmod,fchmodat:delay_enter=1000000:error=EIO";
    let record = tempfile::NamedTempFile::new().unwrap();
    let to = ["-o", record.path().to_str().unwrap()];
    let options = [&["-P", "/dev/shm", "-P", &path, "-e", no_tmpfile, "-e", late][..], &to];
    let options = options.concat();
    let Some(command) = strace(&options, &format!("birth-fails {name} 1")) else { return };
    let said = std::thread::scope(|scope| {
        let birth = scope.spawn(|| succeeds(command));
        // The file is made, and was looked at, when the call begins.
        assert!(support::eventually(|| {
            std::fs::read_to_string(record.path()).unwrap().contains("chmod")
        }));
        assert_eq!(shm(&name).metadata().unwrap().len(), 1 << 20);
        std::fs::remove_file(shm(&name)).unwrap();
        std::fs::write(shm(&name), vec![7; 1 << 20]).unwrap();
        birth.join().unwrap()
    });
    assert!(said.contains("cannot change the mode of"), "{said}");
    assert!(std::fs::read(shm(&name)).unwrap().iter().all(|&byte| byte == 7));
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn a_birth_that_fails_leaves_nothing() {
    let names = Names::new();
    for fault in [
        "ftruncate:error=EIO",
        "flock:error=ENOLCK",
        "fallocate:error=ENOSPC",
        "pwrite64:error=EIO",
        "fchmod:error=EPERM",
        "linkat:error=EACCES",
    ] {
        let options = ["-e", &format!("inject={fault}")];
        let Some(command) = strace(&options, &format!("birth-fails {} 1", names.name("a"))) else {
            return;
        };
        succeeds(command);
        assert!(names.left().is_empty(), "{fault}");
    }
}

/// How often a player makes a system call, by `strace`'s own record.
fn calls(options: &[&str], role: &str) -> Option<usize> {
    let record = tempfile::NamedTempFile::new().unwrap();
    let options = [options, &["-o", record.path().to_str().unwrap()]].concat();
    succeeds(strace(&options, role)?);
    let record = std::fs::read_to_string(record.path()).unwrap();
    Some(record.lines().filter(|line| line.contains('(')).count())
}

#[test]
fn a_sweep_opens_no_file_that_is_not_a_volatile_segment_of_ours() {
    let names = Names::new();
    let name = names.name("other");
    std::fs::write(shm(&name), "some other program's").unwrap();
    let path = shm(&name).into_os_string().into_string().unwrap();
    let opened = calls(&["-P", &path, "-e", "trace=openat"], "sweep");
    std::fs::remove_file(shm(&name)).unwrap();
    assert!(opened.is_none_or(|n| n == 0), "opened {opened:?} times");
}

#[test]
fn a_list_sleeps_no_longer_for_many_segments_than_for_one() {
    let names = Names::new();
    let slept = calls(&["-e", "trace=clock_nanosleep"], &format!("list {}", names.name("a")));
    assert!(slept.is_none_or(|n| n <= 2), "slept {slept:?} times");
}

#[test]
fn interrupted_system_calls_are_made_again() {
    let names = Names::new();
    let name = names.name("a");
    let path = shm(&name).into_os_string().into_string().unwrap();
    // The path keeps the program loader's own reads out of it.
    for options in [
        &["-e", "inject=fallocate:error=EINTR:when=1+3"][..],
        &[
            "-P",
            &path,
            "-e",
            "inject=pread64:error=EINTR:when=1+2",
            "-e",
            "inject=openat:error=EINTR:when=1",
        ],
    ] {
        let Some(command) = strace(options, &format!("birth {name} 8")) else { return };
        succeeds(command);
    }
}

#[test]
fn a_kill_at_any_system_call_leaves_what_a_sweep_takes() {
    let names = Names::new();
    let name = names.name("a");
    let mut had_a_name = 0;
    for call in [
        "ftruncate",
        "fallocate",
        "flock",
        "pwrite64",
        "fchmod",
        "linkat",
        "unlink",
        "munmap",
        "close",
    ] {
        for n in 1..20 {
            let inject = format!("inject={call}:signal=SIGKILL:when={n}");
            let Some(command) = strace(&["-e", &inject], &format!("birth {name} 1")) else {
                return;
            };
            let done = run(command);
            if done.status.success() {
                let said = String::from_utf8_lossy(&done.stdout);
                assert!(said.contains("1 passed"), "no part was played: {said}");
                break;
            }
            had_a_name += names.left().len();
            let swept = sweeps_until(|| names.left().is_empty());
            assert!(swept, "killed at {call} number {n}");
        }
    }
    assert!(
        had_a_name > 0,
        "no kill met the segment while it had a name: the test looks at nothing"
    );
}

#[test]
fn without_proc_arrays_are_born_visibly_and_whole() {
    if !is_root() {
        return skip("only root can hide /proc");
    }
    let names = Names::new();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs rowfork-test /proc && exec \"$0\" \"$@\"";
    command
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap());
    succeeds(as_player(plays_a_role, command, &format!("birth {} 8", names.name("a"))));
}

#[test]
fn without_madv_collapse_small_pages_will_do() {
    let mut forbidden = player(plays_a_role, "huge");
    forbidden.env("ROWFORK_HUGE_PAGES", "never");
    assert!(succeeds(forbidden).contains("> huge 0"));
    // A thread's first madvise may be MADV_DONTDUMP: only the later ones are made to fail, so a few
    // pages are huge.
    let Some(command) = strace(&["-e", "inject=madvise:error=EINVAL:when=2+"], "huge") else {
        return;
    };
    let said = succeeds(command);
    let huge = said.split_once("> huge ").unwrap().1.lines().next().unwrap();
    assert!(huge.parse::<usize>().unwrap() < 8 * MIB, "{said}");
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (Failpoint::NoFileSizeCheck, name_of(a_file_size_limit_is_an_error_not_a_sigxfsz)),
        (Failpoint::NoMemoryCheck, name_of(a_control_groups_memory_limit_is_an_error_not_a_kill)),
        (
            Failpoint::NoReservationInChild,
            name_of(memory_taken_after_the_look_costs_a_child_and_not_the_caller),
        ),
        (
            Failpoint::NoReservationInChild,
            name_of(a_child_reserves_more_than_half_of_a_groups_rest_and_no_less),
        ),
    ]);
}
