//! Callers that run out of descriptors or processes, and what many calls keep of them: nothing.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rowfork::{Error, SharedArray, fork};

use crate::support::harm::{first_time, harmed, matrix};
use crate::support::isolated::{children, descriptors, isolated};
use crate::support::shared::{SharedWord, raise};

#[test]
fn many_calls_leave_no_descriptor_and_no_mapping() {
    isolated(|| {
        let m = matrix(100, 3);
        let n_mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        harmed(&m, 2, |_| {}).unwrap();
        let (fds, maps) = (descriptors(), n_mappings());
        for round in 0..500 {
            let outcome = harmed(&m, 2, |row| assert!(round % 5 != 0 || row != 50));
            assert_eq!(outcome.is_err(), round % 5 == 0);
        }
        assert_eq!(descriptors(), fds);
        assert!(n_mappings() <= maps + 4, "{maps} mappings before, {} after", n_mappings());
    });
}

#[test]
fn running_out_of_descriptors_is_a_typed_error() {
    isolated(|| {
        let m = matrix(100, 3);
        let mut out = SharedArray::<f64, _>::zeros(None, 100).unwrap();
        let next_fd = u64::try_from(std::fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
        let (soft, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let mut sums_with = |n_descriptors| {
            setrlimit(Resource::RLIMIT_NOFILE, next_fd + n_descriptors, hard).unwrap();
            let outcome = fork().workers(2).map_rows_into(&m, &mut out, |row| row.sum());
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            assert!(children().is_empty());
            outcome
        };
        match sums_with(0).unwrap_err() {
            Error::Os { cause: source, .. } => {
                assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
            }
            other => panic!("{other:?}"),
        }
        let report = sums_with(1).unwrap();
        assert_eq!(
            report.workers.iter().filter(|worker| worker.rows > 0).count(),
            1,
            "one worker is enough"
        );
        sums_with(100).unwrap();
    });
}

#[test]
fn a_process_limit_costs_workers_and_is_an_error_only_at_none() {
    isolated(|| {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: only root can become a user who has no other process");
            return;
        }
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        become_a_lonely_user();
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count() as u64;
        for allowed in [0, 1, 2, 3] {
            setrlimit(Resource::RLIMIT_NPROC, threads + allowed, threads + 3).unwrap();
            for kills in [false, true] {
                let deaths = SharedWord::new();
                let outcome = harmed(&m, 4, |row| {
                    // Long enough for all four to be forked before the first is through.
                    std::thread::sleep(Duration::from_micros(200));
                    if kills && row == 55 && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                });
                match outcome {
                    Ok((sums, report)) => {
                        assert_eq!(sums, expected);
                        assert_eq!(report.deaths.len(), usize::from(kills), "{report}");
                        let at_work =
                            report.workers.iter().filter(|worker| worker.rows > 0).count() as u64;
                        assert!(
                            (1..=allowed).contains(&at_work),
                            "{at_work} at work, {allowed} allowed"
                        );
                    }
                    Err(Error::ForkFailed(source)) => {
                        assert_eq!((allowed, source.raw_os_error()), (0, Some(libc::EAGAIN)));
                    }
                    Err(other) => panic!("{other:?}"),
                }
                assert!(children().is_empty());
            }
        }
    });
}

/// Gives root's rights up, limits do not hold for them, for those of a user who has no other
/// process.
fn become_a_lonely_user() {
    let user = nix::unistd::Uid::from_raw(1_000_000_000 + std::process::id());
    nix::unistd::setresuid(user, user, user).unwrap();
    // Or what /proc says of this process would be root's.
    nix::sys::prctl::set_dumpable(true).unwrap();
}
