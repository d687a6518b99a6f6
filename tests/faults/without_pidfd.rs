//! Calls where the kernel, or the sandbox around it, has no pidfds to give: slower, and no less
//! right. The refusals are real: a seccomp filter that answers as old kernels and old profiles do.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rowfork::{DeathCause, Error, fork};

use crate::support::harm::{KILLED, NO_HARM, SPINS, bits, count_anew, first_time, harmed, matrix};
use crate::support::isolated::{self, isolated};
use crate::support::pooled::{
    end, end_zygote_of, kill_until_it_forks_no_more, pool_of, until, workers_of,
};
use crate::support::shared::{self, SharedWord, raise};
use crate::transformed;

/// What a place without pidfds refuses, and with which errno: all calls of that number, or those
/// whose first argument is the given one.
type Refusal = (libc::c_long, Option<u32>, i32);

const P_PIDFD: u32 = 3;

/// Every way that we know of in which pidfds are not to be had, or not all of what belongs to them.
const REFUSALS: [(&str, &[Refusal]); 7] = [
    ("Linux before 5.3, gVisor", &[(libc::SYS_pidfd_open, None, libc::ENOSYS)]),
    ("an old seccomp profile", &[(libc::SYS_pidfd_open, None, libc::EPERM)]),
    ("another", &[(libc::SYS_pidfd_open, None, libc::EACCES)]),
    ("a third", &[(libc::SYS_pidfd_open, None, libc::EINVAL)]),
    ("Linux 5.3: none to wait for", &[(libc::SYS_waitid, Some(P_PIDFD), libc::EINVAL)]),
    ("none to signal by", &[(libc::SYS_pidfd_send_signal, None, libc::EPERM)]),
    ("no ioctl of theirs", &[(libc::SYS_ioctl, None, libc::ENOTTY)]),
];

/// Has the kernel refuse these calls of this thread, and of all that comes of it, from now on.
/// False (with the reason printed) where filters cannot be installed.
#[must_use]
fn refuse(refusals: &[Refusal]) -> bool {
    // Offsets in `seccomp_data`: the number of the call, and the low half of its first argument.
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf,
        k,
    };
    let mut program = Vec::new();
    for &(number, argument, errno) in refusals {
        program.push(step(LOAD, 0, NUMBER));
        program.push(step(
            IF_EQUAL,
            if argument.is_some() { 3 } else { 1 },
            u32::try_from(number).unwrap(),
        ));
        if let Some(argument) = argument {
            program.push(step(LOAD, 0, FIRST_ARGUMENT));
            program.push(step(IF_EQUAL, 1, argument));
        }
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()));
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs().unwrap();
    #[allow(unsafe_code, reason = "installs a filter")]
    // SAFETY: the program outlives the call, which copies it.
    let answer =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if answer != 0 {
        println!("SKIPPED: no seccomp filter here: {}", std::io::Error::last_os_error());
        return false;
    }
    for &(number, argument, errno) in refusals {
        #[allow(unsafe_code, reason = "makes the call that is refused")]
        // SAFETY: refused; and no such call does anything with a null pointer for the rest.
        let answer = unsafe { libc::syscall(number, argument.unwrap_or(0), 0, 0, 0, 0) };
        assert_eq!(
            (answer, std::io::Error::last_os_error().raw_os_error()),
            (-1, Some(errno)),
            "not refused"
        );
    }
    true
}

/// In a thread of its own for every way, since a filter is for ever.
fn wherever_pidfds_are_refused(claim: impl Fn(&str) + Sync) {
    for (place, refusals) in REFUSALS {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if refuse(refusals) {
                    claim(place);
                }
            });
        });
    }
}

#[test]
fn every_row_is_done_and_exact() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        wherever_pidfds_are_refused(|place| {
            for workers in [1, 2, 5] {
                let (sums, report) = harmed(&m, workers, |_| {}).unwrap();
                assert_eq!(sums, expected, "{place}");
                assert!(report.deaths.is_empty(), "{place}: {report}");
            }
        });
    });
}

#[test]
fn a_worker_killed_at_any_row_costs_its_block_and_no_bit() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        wherever_pidfds_are_refused(|place| {
            for victim in [0, 55, 99] {
                for workers in [1, 2, 5] {
                    let deaths = SharedWord::new();
                    let kill_once = |row| {
                        if row == victim && first_time(&deaths) {
                            raise(Signal::SIGKILL);
                        }
                    };
                    let (sums, report) = harmed(&m, workers, kill_once).unwrap();
                    assert_eq!(
                        sums, expected,
                        "{place}, {workers} workers, killed at row {victim}"
                    );
                    assert_eq!((report.deaths.len(), report.rerun_rows), (1, 10), "{place}");
                    assert_eq!(report.deaths[0].cause, DeathCause::Signalled(9), "{place}");
                }
            }
        });
    });
}

#[test]
fn endless_workers_are_killed_when_the_call_fails() {
    isolated(|| {
        let m = matrix(10, 1);
        wherever_pidfds_are_refused(|place| {
            let outcome = fork().workers(3).block_rows(1).map_rows(&m, |row| {
                if row.index() == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                    return Err("no");
                }
                std::thread::sleep(Duration::from_secs(1000));
                Ok(0.0)
            });
            assert!(matches!(outcome.unwrap_err(), Error::KernelFailed { row: 0, .. }), "{place}");
            assert!(isolated::children().is_empty(), "{place}");
        });
    });
}

#[test]
fn a_pool_survives_its_workers_and_says_when_it_is_broken() {
    isolated(|| {
        let m = matrix(100, 4);
        let right = bits(&transformed!(fork().workers(1), &m, NO_HARM).unwrap());
        wherever_pidfds_are_refused(|place| {
            let pool = pool_of(2).build().unwrap();
            let zygote = pool.stats().zygote_pid;
            for victim in [0, 55, 99] {
                count_anew();
                let out =
                    transformed!(pool.call().block_rows(10), &m, [KILLED, victim, 1, 1]).unwrap();
                // Those who were killed while idle are told, too.
                let deaths =
                    out.report().deaths.iter().filter(|death| death.rows.is_some()).count();
                assert!(bits(&out) == right && deaths == 1, "{place}: {}", out.report());
                workers_of(zygote).into_iter().for_each(end);
                until(Duration::from_secs(10), place, || workers_of(zygote).len() == 2);
            }
            count_anew();
            let began = Instant::now();
            let late = transformed!(
                pool.call().deadline(Duration::from_millis(100)),
                &m,
                [SPINS, 5, 0, 1]
            );
            assert!(matches!(late.map(drop), Err(Error::DeadlineExceeded { .. })), "{place}");
            end_zygote_of(&pool);
            let broken = transformed!(pool, &m, NO_HARM).map(drop);
            assert!(matches!(broken, Err(Error::PoolBroken { .. })), "{place}: {broken:?}");
            drop(pool);
            let pool = pool_of(2).build().unwrap();
            assert!(bits(&transformed!(pool, &m, NO_HARM).unwrap()) == right, "{place}");
            assert!(began.elapsed() < Duration::from_secs(2), "{place}: {:?}", began.elapsed());
        });
    });
}

#[test]
fn a_pool_that_gives_up_ends_its_workers_at_once() {
    isolated(|| {
        let m = matrix(100, 4);
        wherever_pidfds_are_refused(|place| {
            let pool = pool_of(2).build().unwrap();
            let zygote = pool.stats().zygote_pid;
            // One is spared, and lives when the pool gives up.
            let spared = *workers_of(zygote).first().unwrap();
            kill_until_it_forks_no_more(zygote, Some(spared));
            let began = Instant::now();
            let broken = transformed!(pool, &m, NO_HARM).map(drop);
            assert!(matches!(broken, Err(Error::PoolBroken { .. })), "{place}: {broken:?}");
            assert!(!isolated::is_running(spared), "{place}");
            drop(pool);
            assert!(began.elapsed() < Duration::from_secs(1), "{place}: {:?}", began.elapsed());
        });
    });
}

#[test]
fn a_host_that_ignores_sigchld_gets_its_results() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        shared::ignore_sigchld();
        if !refuse(&[(libc::SYS_pidfd_open, None, libc::ENOSYS)]) {
            return;
        }
        for round in 0..50 {
            let deaths = SharedWord::new();
            let (sums, report) = harmed(&m, 2, |row| {
                if row == 20 && first_time(&deaths) {
                    raise(Signal::SIGKILL);
                }
            })
            .unwrap();
            assert_eq!(sums, expected, "round {round}");
            assert_eq!(report.deaths.len(), 1, "{report}");
            assert_eq!(report.deaths[0].cause, DeathCause::Unknown);
        }
    });
}

#[test]
fn a_wait_refused_for_the_number_alone_is_an_error_and_no_hang() {
    isolated(|| {
        let m = matrix(100, 3);
        if !refuse(&[
            (libc::SYS_pidfd_open, None, libc::ENOSYS),
            (libc::SYS_waitid, None, libc::EPERM),
        ]) {
            return;
        }
        match harmed(&m, 2, |_| {}).unwrap_err() {
            Error::Os { cause: source, .. } => assert_eq!(source.raw_os_error(), Some(libc::EPERM)),
            other => panic!("{other:?}"),
        }
    });
}
