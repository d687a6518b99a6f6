//! What facts mean: pure, so that every machine there may be can be made up in a test.
//!
//! *Bad* is what makes calls fail, *a note* what makes them slower or has to be known.

use std::fmt;

use rowfork::segment::Pages;

use super::facts::{Cores, Facts, HugePages, Limits, Logout, Memory, Shm, Stale};
use crate::text::bytes;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) is: String,
    pub(super) verdict: Verdict,
    /// What to do; of all that is not good.
    pub(super) advice: Option<String>,
}

/// Whether that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Note,
    Bad,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

const MIB: u64 = 1 << 20;

/// With less room than this, next to nothing fits: Docker's `/dev/shm` has 64 MB.
const LITTLE: u64 = 128 * MIB;
/// With less than this, a large matrix does not.
const AMPLE: u64 = 1024 * MIB;

/// The kernel's own default.
const MAPPINGS: u64 = 65_530;

fn good(what: &'static str, is: impl fmt::Display) -> Finding {
    Finding { what, is: is.to_string(), verdict: Verdict::Good, advice: None }
}

impl Finding {
    fn but(self, verdict: Verdict, advice: impl Into<String>) -> Self {
        Self { verdict, advice: Some(advice.into()), ..self }
    }

    /// Bad or worth a note, where there is less than one needs for anything, or for much.
    fn where_below(self, n: u64, [little, ample]: [u64; 2], advice: impl Into<String>) -> Self {
        match n {
            n if n < little => self.but(Verdict::Bad, advice),
            n if n < ample => self.but(Verdict::Note, advice),
            _ => self,
        }
    }
}

/// All of them, in the order in which they are said.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Facts { limits, .. } = facts;
    let mut found = vec![
        kernel(&facts.kernel),
        cores(facts.cores),
        shared_memory(facts.shm.as_ref()),
        memory(facts.memory.as_ref()),
        group(facts),
        huge_pages(&facts.huge_pages, version(&facts.kernel)),
        pidfds(facts.pidfds),
        logout(&facts.logout),
        mappings(facts.max_map_count),
    ];
    found.extend(limits_of_this_process(limits, facts.cores.usable as u64));
    found.push(stale(facts.stale));
    found
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    let found = good("kernel", format!("Linux {release}"));
    match version(release) {
        Some(version) if version < (5, 4) => found.but(
            Verdict::Bad,
            "rowfork is made for Linux 5.4 and later: on older ones deaths are seen late, and nobody has tried",
        ),
        Some(version) if version < (6, 1) => {
            found.but(Verdict::Note, "from Linux 6.1 on shared arrays get huge pages: placing is five times as fast")
        }
        _ => found,
    }
}

fn cores(Cores { usable, online }: Cores) -> Finding {
    let found = good("cores", format!("{usable} of {online} usable"));
    match usable {
        1 => found.but(
            Verdict::Note,
            "one worker isolates but is no faster: give more (taskset -p, docker --cpus and --cpuset-cpus, Kubernetes resources.limits.cpu, CPUQuota= of systemd)",
        ),
        usable if usable < online => {
            found.but(Verdict::Note, "affinity or a quota sets that: taskset -p, docker --cpus, CPUQuota= of systemd")
        }
        _ => found,
    }
}

fn shared_memory(shm: Result<&Shm, &String>) -> Finding {
    let what = "/dev/shm";
    match shm {
        Err(reason) => good(what, reason).but(
            Verdict::Bad,
            "as root mount one, which everybody may write to: mkdir -p /dev/shm && mount -t tmpfs -o mode=1777 tmpfs /dev/shm; one that is \
             there: mount -o remount,rw,mode=1777 /dev/shm",
        ),
        Ok(Shm { total: None, .. }) => good(what, "no limit of its own"),
        Ok(&Shm { available, total: Some(total) }) => {
            let found = good(what, format!("{}, {} free", bytes(total), bytes(available)));
            let larger = "enlarge it: docker run --shm-size=2g, Kubernetes emptyDir {medium: Memory} mounted at /dev/shm (it counts \
                          against the memory limit), or as root mount -o remount,size=2g /dev/shm";
            let emptier = "others have filled it: rowfork ls shows what is there, rowfork gc and rowfork rm remove it";
            let advice = match (available < total / 2, total / 2 < AMPLE) {
                (false, _) => larger.to_owned(),
                (true, false) => emptier.to_owned(),
                (true, true) => format!("{emptier}; or {larger}"),
            };
            found.where_below(available, [LITTLE, AMPLE], advice)
        }
    }
}

fn memory(memory: Option<&Memory>) -> Finding {
    let what = "memory";
    let Some(Memory { available, total, group }) = memory else {
        return good(what, "unknown")
            .but(Verdict::Note, "mount /proc: too large an array would be a kill, not an error");
    };
    let (place, advice) = match group {
        Some(group) => (
            format!("in control group {}", group.display()),
            "raise its limit: docker run --memory=..., Kubernetes resources.limits.memory, MemoryMax= of systemd",
        ),
        None => (
            "on this machine".to_owned(),
            "end what uses it, or add swap: shared memory counts as memory",
        ),
    };
    let is = format!("{} of {} left {place}", bytes(*available), bytes(*total));
    good(what, is).where_below(*available, [LITTLE, AMPLE], advice)
}

fn group(facts: &Facts) -> Finding {
    let what = "memory.oom.group";
    match &facts.dies_whole {
        None => good(what, "not set: a kernel that takes too much memory ends its worker alone"),
        Some(group) => {
            let is =
                "set: a kernel that takes too much memory ends every process of its control group";
            let advice = format!(
                "echo 0 > {}/memory.oom.group as root, outside of the container; systemd: OOMPolicy=continue; Kubernetes: \
                 singleProcessOOMKill: true in the kubelet's configuration",
                group.display()
            );
            good(what, is).but(Verdict::Note, advice)
        }
    }
}

fn huge_pages(
    HugePages { had, of_shared_memory, forbidden }: &HugePages,
    version: Option<(u32, u32)>,
) -> Finding {
    let what = "huge pages";
    let found = match had {
        Err(reason) => good(what, format!("not tried: {reason}")),
        Ok(Pages { huge_bytes, small_bytes: 0 }) => {
            return good(what, format!("to be had: all of {}", bytes(*huge_bytes as u64)));
        }
        Ok(Pages { huge_bytes, small_bytes }) => {
            let [huge, all] = [*huge_bytes, huge_bytes + small_bytes].map(|n| bytes(n as u64));
            good(
                what,
                format!(
                    "{huge} of {all} tried: the rest has small pages, which makes placing slow"
                ),
            )
        }
    };
    let setting = of_shared_memory.as_deref().unwrap_or("none");
    let advice = match had {
        _ if *forbidden => "unset ROWFORK_HUGE_PAGES, which forbids them".to_owned(),
        Err(_) => "see to the room first".to_owned(),
        _ if version.is_some_and(|version| version < (6, 1)) => {
            "Linux 6.1 or later gives them".to_owned()
        }
        _ if setting == "none" => {
            "this kernel was built without CONFIG_TRANSPARENT_HUGEPAGE".to_owned()
        }
        // What the kernel has split up can be joined again; all settings but this one leave that to
        // the asking.
        _ if setting.contains("[deny]") => {
            "as root: echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled (now deny)"
                .to_owned()
        }
        _ => format!(
            "memory is in pieces: echo 1 > /proc/sys/vm/compact_memory as root; if that does not help, echo advise > \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled (now: {setting})"
        ),
    };
    found.but(Verdict::Note, advice)
}

fn pidfds(there: bool) -> Finding {
    let what = "pidfds";
    if there {
        return good(what, "to be had: a death is seen at once");
    }
    good(what, "refused: a death is seen within a millisecond instead of at once").but(
        Verdict::Note,
        "allow pidfd_open and waitid in the sandbox's profile (Docker 20.10 and later do)",
    )
}

fn logout(&Logout { logind, remove_ipc, uid, lingers }: &Logout) -> Finding {
    /// Users below this are the system's, which logind leaves alone.
    const FIRST_USER: u32 = 1000;
    let what = "RemoveIPC";
    match (logind, remove_ipc, uid, lingers) {
        (false, ..) => good(what, "no logind runs: segments outlive a logout"),
        (_, Some(false), ..) => good(what, "no: segments outlive a logout"),
        (.., uid, _) if uid < FIRST_USER => {
            good(what, format!("does not reach user {uid}: segments outlive a logout"))
        }
        (.., true) => good(what, "does not reach a user who lingers: segments outlive a logout"),
        (_, set, ..) => {
            let said = if set.is_some() { "yes" } else { "not set, which mostly means yes" };
            let is = format!("{said}: at your last logout your segments go, also those to be kept");
            good(what, is).but(
                Verdict::Note,
                "RemoveIPC=no in /etc/systemd/logind.conf and systemctl restart systemd-logind, or loginctl enable-linger",
            )
        }
    }
}

fn mappings(max: Option<u64>) -> Finding {
    let what = "vm.max_map_count";
    let Some(max) = max else { return good(what, "unknown") };
    let advice = format!(
        "sysctl -w vm.max_map_count={MAPPINGS} as root: each array that a process has mapped takes one"
    );
    good(what, max).where_below(max, [1024, MAPPINGS], advice)
}

fn limits_of_this_process(limits: &Limits, cores: u64) -> Vec<Finding> {
    let said =
        |what, limit: Option<u64>, in_words: fn(u64) -> String, enough, advice: &str| match limit {
            None => good(what, "no limit"),
            Some(limit) => good(what, in_words(limit)).where_below(limit, enough, advice),
        };
    let left = |limit| format!("{} left", bytes(limit));
    let count = |limit: u64| limit.to_string();
    // A worker is a process, a thread that fills arrays counts as one, and others of the same user
    // have theirs.
    let processes = [4 * cores + 16, 16 * cores + 256];
    vec![
        said(
            "RLIMIT_FSIZE",
            limits.file_size,
            bytes,
            [LITTLE, AMPLE],
            "ulimit -f unlimited: no array can be larger",
        ),
        said(
            "RLIMIT_AS",
            limits.address_space,
            left,
            [LITTLE, AMPLE],
            "ulimit -v unlimited: arrays are mapped whole",
        ),
        said(
            "RLIMIT_NOFILE",
            limits.open_files,
            count,
            [64, 256],
            "ulimit -n 1024: each array is an open file",
        ),
        said(
            "RLIMIT_NPROC",
            limits.processes,
            count,
            processes,
            "ulimit -u 4096: each worker is a process",
        ),
    ]
}

fn stale(Stale { segments, bytes: size }: Stale) -> Finding {
    let what = "stale segments";
    if segments == 0 {
        return good(what, "none");
    }
    good(what, format!("{segments}, of {}, that killed programs have left", bytes(size)))
        .but(Verdict::Note, "rowfork gc removes them")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    /// A machine at which there is nothing to find fault with.
    fn fine() -> Facts {
        Facts {
            kernel: "6.12.1-arch1-1".to_owned(),
            cores: Cores { usable: 8, online: 8 },
            shm: Ok(Shm { available: 16 * GIB, total: Some(16 * GIB) }),
            memory: Some(Memory { available: 30 * GIB, total: 32 * GIB, group: None }),
            dies_whole: None,
            huge_pages: HugePages {
                had: Ok(Pages { huge_bytes: 8 << 20, small_bytes: 0 }),
                of_shared_memory: Some("always within_size advise [never] deny force".to_owned()),
                forbidden: false,
            },
            pidfds: true,
            logout: Logout { logind: true, remove_ipc: Some(false), uid: 1000, lingers: false },
            max_map_count: Some(65_530),
            limits: Limits {
                file_size: None,
                address_space: None,
                open_files: Some(1024),
                processes: Some(62_000),
            },
            stale: Stale { segments: 0, bytes: 0 },
        }
    }

    /// What is found at that machine once it is changed; all else stays good.
    fn changed(what: &str, change: impl Fn(&mut Facts)) -> Finding {
        let mut facts = fine();
        change(&mut facts);
        let mut found = findings(&facts);
        let at = found.iter().position(|finding| finding.what == what).unwrap();
        let of_it = found.remove(at);
        assert!(found.iter().all(|finding| finding.verdict == Verdict::Good), "{found:?}");
        assert_eq!(of_it.verdict == Verdict::Good, of_it.advice.is_none(), "{of_it:?}");
        of_it
    }

    fn is_advised(found: &Finding, verdict: Verdict, words: &[&str]) {
        assert_eq!(found.verdict, verdict, "{found:?}");
        let said = format!("{} {}", found.is, found.advice.as_ref().unwrap());
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
    }

    #[test]
    fn a_machine_without_fault_is_good_in_all() {
        let found = findings(&fine());
        assert_eq!(found.len(), 14);
        assert!(
            found
                .iter()
                .all(|finding| finding.verdict == Verdict::Good && finding.advice.is_none()),
            "{found:?}"
        );
    }

    #[test]
    fn dockers_shm_is_bad_and_a_full_one_is_full_of_something() {
        let shm = |available, total| {
            changed("/dev/shm", |facts| facts.shm = Ok(Shm { available, total: Some(total) }))
        };
        is_advised(
            &shm(64 * MIB, 64 * MIB),
            Verdict::Bad,
            &["64.00 MiB", "--shm-size=2g", "remount,size="],
        );
        is_advised(&shm(500 * MIB, 500 * MIB), Verdict::Note, &["remount,size="]);
        is_advised(&shm(100 * MIB, 16 * GIB), Verdict::Bad, &["100.00 MiB free", "rowfork gc"]);
        assert_eq!(
            changed("/dev/shm", |f| f.shm = Ok(Shm { available: u64::MAX, total: None })).verdict,
            Verdict::Good
        );
        let none =
            changed("/dev/shm", |facts| facts.shm = Err("cannot examine /dev/shm".to_owned()));
        is_advised(&none, Verdict::Bad, &["cannot examine", "mount -t tmpfs"]);
    }

    #[test]
    fn memory_is_judged_by_what_is_left_and_says_whose_limit_it_is() {
        let memory = |available, group: Option<&str>| {
            let group = group.map(Into::into);
            changed("memory", |facts| {
                facts.memory = Some(Memory { available, total: 2 * GIB, group: group.clone() });
            })
        };
        is_advised(
            &memory(10 * MIB, Some("/sys/fs/cgroup/a")),
            Verdict::Bad,
            &["group /sys/fs/cgroup/a", "--memory"],
        );
        is_advised(
            &memory(900 * MIB, None),
            Verdict::Note,
            &["900.00 MiB of 2.00 GiB left on this machine", "swap"],
        );
        assert!(memory(2 * GIB, Some("/sys/fs/cgroup/a")).is.contains("/sys/fs/cgroup/a"));
        is_advised(&changed("memory", |facts| facts.memory = None), Verdict::Note, &["/proc"]);
        let whole =
            changed("memory.oom.group", |facts| facts.dies_whole = Some("/sys/fs/cgroup/b".into()));
        is_advised(
            &whole,
            Verdict::Note,
            &["echo 0 > /sys/fs/cgroup/b/memory.oom.group", "singleProcessOOMKill"],
        );
    }

    #[test]
    fn small_pages_have_the_reason_that_there_is() {
        let small = |change: fn(&mut Facts)| {
            changed("huge pages", |facts| {
                facts.huge_pages.had = Ok(Pages { huge_bytes: 2 << 20, small_bytes: 6 << 20 });
                change(facts);
            })
        };
        is_advised(
            &small(|_| {}),
            Verdict::Note,
            &["2.00 MiB of 8.00 MiB", "compact_memory", "[never]"],
        );
        let denied = small(|facts| {
            facts.huge_pages.of_shared_memory = Some("always never [deny]".to_owned());
        });
        is_advised(&denied, Verdict::Note, &["echo never", "deny"]);
        is_advised(
            &small(|facts| facts.huge_pages.of_shared_memory = None),
            Verdict::Note,
            &["built without"],
        );
        is_advised(
            &small(|facts| facts.huge_pages.forbidden = true),
            Verdict::Note,
            &["ROWFORK_HUGE_PAGES"],
        );
        let untried = changed("huge pages", |facts| {
            facts.huge_pages.had = Err("there is no room to try".to_owned());
        });
        is_advised(&untried, Verdict::Note, &["no room", "first"]);
        let old = HugePages {
            had: Ok(Pages { huge_bytes: 0, small_bytes: 8 << 20 }),
            ..fine().huge_pages
        };
        is_advised(&huge_pages(&old, Some((5, 15))), Verdict::Note, &["Linux 6.1"]);
    }

    #[test]
    fn old_kernels_are_a_note_and_those_before_the_oldest_are_bad() {
        let kernel =
            |release: &str| changed("kernel", |facts| release.clone_into(&mut facts.kernel));
        is_advised(&kernel("5.3.18-lp152"), Verdict::Bad, &["5.3.18-lp152", "5.4"]);
        is_advised(&kernel("5.15.0-91-generic"), Verdict::Note, &["6.1"]);
        is_advised(&kernel("6.0"), Verdict::Note, &["6.1"]);
        for release in ["6.1.0", "10.2", "nobody knows"] {
            assert_eq!(kernel(release).verdict, Verdict::Good, "{release}");
        }
    }

    #[test]
    fn a_logout_takes_segments_of_ordinary_users_who_do_not_linger() {
        let logout = |logind, remove_ipc, uid, lingers| {
            changed("RemoveIPC", |facts| facts.logout = Logout { logind, remove_ipc, uid, lingers })
        };
        is_advised(
            &logout(true, None, 1000, false),
            Verdict::Note,
            &["not set", "RemoveIPC=no", "enable-linger"],
        );
        is_advised(&logout(true, Some(true), 1000, false), Verdict::Note, &["yes:"]);
        for outlive in [
            logout(false, Some(true), 1000, false),
            logout(true, Some(false), 1000, false),
            logout(true, None, 999, false),
            logout(true, None, 0, false),
            logout(true, None, 1000, true),
        ] {
            assert!(
                outlive.verdict == Verdict::Good && outlive.is.contains("outlive"),
                "{outlive:?}"
            );
        }
    }

    #[test]
    fn limits_are_said_where_they_are_low() {
        let size = changed("RLIMIT_FSIZE", |facts| facts.limits.file_size = Some(MIB));
        is_advised(&size, Verdict::Bad, &["1.00 MiB", "ulimit -f"]);
        let space = changed("RLIMIT_AS", |facts| facts.limits.address_space = Some(500 * MIB));
        is_advised(&space, Verdict::Note, &["500.00 MiB left", "ulimit -v"]);
        is_advised(
            &changed("RLIMIT_NOFILE", |f| f.limits.open_files = Some(20)),
            Verdict::Bad,
            &["20", "ulimit -n"],
        );
        is_advised(
            &changed("RLIMIT_NPROC", |f| f.limits.processes = Some(100)),
            Verdict::Note,
            &["100", "ulimit -u"],
        );
        is_advised(
            &changed("vm.max_map_count", |f| f.max_map_count = Some(4096)),
            Verdict::Note,
            &["sysctl -w"],
        );
        assert_eq!(
            changed("vm.max_map_count", |facts| facts.max_map_count = None).verdict,
            Verdict::Good
        );
    }

    #[test]
    fn what_is_less_than_it_could_be_is_a_note() {
        let cores = |usable| changed("cores", |facts| facts.cores = Cores { usable, online: 8 });
        is_advised(&cores(1), Verdict::Note, &["1 of 8", "isolates"]);
        is_advised(&cores(2), Verdict::Note, &["2 of 8", "taskset"]);
        is_advised(
            &changed("pidfds", |facts| facts.pidfds = false),
            Verdict::Note,
            &["refused", "pidfd_open"],
        );
        let stale =
            changed("stale segments", |facts| facts.stale = Stale { segments: 3, bytes: 3 * MIB });
        is_advised(&stale, Verdict::Note, &["3, of 3.00 MiB", "rowfork gc"]);
    }
}
