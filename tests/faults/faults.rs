//! What happens to a call when its workers, or its caller, come to harm. Every fault is injected
//! for real.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rowfork::failpoints::{self, Failpoint};
use rowfork::{DeathCause, Error, Policy, SharedArray, fork};

use crate::support::harmed::{self, first_time, harmed, matrix};
use crate::support::isolated::{self, children, descriptors, is_running, isolated, name_of};
use crate::support::shared::{SharedWord, ignore_sigchld, raise};

#[test]
fn a_worker_has_the_default_signals_but_for_those_of_the_terminal() {
    isolated(|| {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        #[allow(unsafe_code, reason = "installs a handler")]
        // SAFETY: the handler does nothing.
        unsafe {
            sigaction(Signal::SIGUSR1, &handler).unwrap();
        }
        let m = matrix(10, 1);
        let survived = harmed(&m, 2, |_| {
            for signal in
                [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE]
            {
                raise(signal);
            }
        });
        assert!(survived.unwrap().1.deaths.is_empty());
        let deaths = SharedWord::new();
        let (_, report) = harmed(&m, 2, |row| {
            if row == 3 && first_time(&deaths) {
                raise(Signal::SIGUSR1);
            }
        })
        .unwrap();
        assert_eq!(report.deaths[0].cause, DeathCause::Signalled(libc::SIGUSR1));
        let blocked = fork().workers(1).map_rows(&m, |_| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() as f64
        });
        assert_eq!(blocked.unwrap().view()[0], 0.0);
    });
}

#[test]
fn a_block_that_came_back_is_run_before_all_others() {
    isolated(|| {
        let m = matrix(100, 3);
        let (deaths, done) = (SharedWord::new(), SharedWord::new());
        let outcome = fork().workers(1).block_rows(1).map_rows(&m, |row| {
            if row.index() == 0 {
                if first_time(&deaths) {
                    raise(Signal::SIGKILL);
                }
                done.store(1, Ordering::Relaxed);
            }
            if done.load(Ordering::Relaxed) == 1 {
                Ok(0.0)
            } else {
                Err("row 0 is still to be done")
            }
        });
        outcome.unwrap();
    });
}

#[test]
fn a_worker_killed_at_any_row_costs_its_block_and_no_bit() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        for workers in [1, 2, 5] {
            for victim in [0, 9, 10, 55, 90, 99] {
                let deaths = SharedWord::new();
                let kill_once = |row| {
                    if row == victim && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                };
                let (sums, report) = harmed(&m, workers, kill_once).unwrap();
                assert_eq!(sums, expected, "{workers} workers, killed at row {victim}");
                assert_eq!((report.deaths.len(), report.rerun_rows), (1, 10));
                assert_eq!(report.deaths[0].cause, DeathCause::Signalled(9));
                assert!(report.deaths[0].rows.as_ref().unwrap().contains(&victim));
            }
        }
    });
}

#[test]
fn a_worker_that_leaves_by_exit_has_not_finished() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        for code in [0, 3] {
            let exits = SharedWord::new();
            let exit_once = |row| {
                if row == 44 && first_time(&exits) {
                    std::process::exit(code)
                }
            };
            let (sums, report) = harmed(&m, 2, exit_once).unwrap();
            assert_eq!(sums, expected);
            assert_eq!(report.deaths[0].cause, DeathCause::Exited(code));
        }
    });
}

#[test]
fn a_row_that_always_kills_is_named_after_three_deaths_or_seven_that_may_come_from_outside() {
    isolated(|| {
        let m = matrix(100, 3);
        let causes: [(fn(), DeathCause); 4] = [
            (|| raise(Signal::SIGKILL), DeathCause::Signalled(9)),
            (|| std::process::abort(), DeathCause::Signalled(6)),
            (|| std::process::exit(0), DeathCause::Exited(0)),
            (|| raise(Signal::SIGSEGV), DeathCause::Signalled(11)),
        ];
        for (harm, expected) in causes {
            for workers in [1, 2, 5] {
                match harmed(&m, workers, |row| {
                    if row == 73 {
                        harm();
                    }
                })
                .unwrap_err()
                {
                    Error::PoisonedRows { rows, .. } => {
                        assert_eq!(
                            (rows.len(), rows[0].row, rows[0].attempts),
                            (1, 73, if expected == DeathCause::Signalled(9) { 7 } else { 3 })
                        );
                        assert_eq!(rows[0].cause, expected);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

#[test]
fn a_stack_overflow_is_a_memory_fault_of_its_row() {
    isolated(|| {
        #[allow(unconditional_recursion, reason = "overflows the stack")]
        fn deeper(depth: u64) -> u64 {
            std::hint::black_box(deeper(depth + 1)) + depth
        }
        let m = matrix(100, 3);
        let outcome = harmed(&m, 2, |row| {
            if row == 12 {
                std::hint::black_box(deeper(0));
            }
        });
        match outcome.unwrap_err() {
            Error::PoisonedRows { rows, .. } if rows[0].row == 12 => {
                assert!(
                    matches!(
                        rows[0].cause,
                        DeathCause::MemoryFault { signal: 11, read_only_segment: None, .. }
                    ),
                    "{rows:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_array_that_somebody_truncates_during_a_call_is_named() {
    isolated(|| {
        let name = isolated::unique_name("cut");
        let m =
            SharedArray::from_shape_fn(name.as_str(), (100, 512), |(i, j)| (i + j) as f64).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let outcome = harmed(&m, 2, |row| {
            if row == 40 {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            }
        });
        match outcome.unwrap_err() {
            Error::Truncated { expected, actual, .. } => {
                assert_eq!((expected, actual), (4096 + 100 * 512 * 8, 8192));
            }
            other => panic!("{other:?}"),
        }
        match fork().row_sums(&m).unwrap_err() {
            Error::Truncated { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_output_that_somebody_truncates_during_a_call_is_named_not_handed_out() {
    isolated(|| {
        let name = isolated::unique_name("cut-output");
        let m = matrix(100, 3);
        let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 100).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let outcome = fork().workers(1).map_rows_into(&m, &mut out, |row| {
            if row.index() == 99 {
                // What is cut off is done by then, and nobody touches it any more.
                std::fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(4096 + 99 * 8)
                    .unwrap();
            }
            0.0
        });
        assert!(matches!(outcome.unwrap_err(), Error::Truncated { .. }));
    });
}

#[test]
fn memory_that_somebody_takes_out_of_an_array_during_a_call_is_missed() {
    isolated(|| {
        let punch: fn(&std::fs::File, u64) = |file, len| {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(file, flags, 4096, 10 * 8 * i64::try_from(len / 800).unwrap()).unwrap();
        };
        let cut_and_extend: fn(&std::fs::File, u64) = |file, len| {
            file.set_len(4096).unwrap();
            file.set_len(4096 + len).unwrap();
        };
        // Small pages, and several huge ones.
        for n_columns in [512, 1 << 14] {
            for (harm, take) in [("punched", punch), ("cut and extended", cut_and_extend)] {
                let name = isolated::unique_name("holes");
                let m = SharedArray::from_shape_fn(name.as_str(), (100, n_columns), |(i, j)| {
                    (i + j) as f64
                })
                .unwrap();
                let path = std::path::Path::new("/dev/shm").join(&name);
                // The last row: what is taken is done by then, and nobody gives it memory by
                // looking at it.
                let outcome = fork().workers(1).map_rows(&m, |row| {
                    let sum = row.sum();
                    if row.index() == 99 {
                        take(
                            &std::fs::File::options().write(true).open(&path).unwrap(),
                            m.len() as u64 * 8,
                        );
                    }
                    sum
                });
                for refused in [outcome.unwrap_err(), fork().row_sums(&m).unwrap_err()] {
                    match refused {
                        Error::HolesPunched { path: named, expected, actual, .. } => {
                            assert_eq!(
                                (named, expected),
                                (path.clone(), 4096 + m.len() as u64 * 8)
                            );
                            assert!(actual < expected, "{harm}: {actual} of {expected}");
                        }
                        other => panic!("{harm}: {other:?}"),
                    }
                }
            }
        }
    });
}

#[test]
fn an_output_that_somebody_cuts_during_a_fold_is_named_although_the_caller_writes_to_it() {
    isolated(|| {
        let name = isolated::unique_name("cut-fold");
        let path = std::path::Path::new("/dev/shm").join(&name);
        let identity = ndarray::Array1::<f64>::ones(10_000);
        for n_rows in [1, 65] {
            let m = matrix(n_rows, 3);
            let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 10_000).unwrap();
            let cut = |_: &mut ndarray::ArrayViewMut1<'_, f64>,
                       _: rowfork::Row<'_, f64, ndarray::Ix1>| {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            };
            let outcome =
                fork().workers(1).fold_rows_array_into(&m, &identity, &mut out, cut, |_, _| ());
            assert!(
                matches!(outcome.unwrap_err(), Error::Truncated { actual: 8192, .. }),
                "{n_rows} rows"
            );
        }
    });
}

#[test]
fn a_file_that_takes_an_arrays_name_is_neither_read_nor_removed() {
    isolated(|| {
        for lasting in [false, true] {
            let (name, output) =
                (isolated::unique_name("taken"), isolated::unique_name("taken-output"));
            let mut m =
                SharedArray::from_shape_fn(name.as_str(), (100, 512), |(i, j)| (i * j) as f64)
                    .unwrap();
            let mut sums = SharedArray::<f64, _>::zeros(output.as_str(), 100).unwrap();
            let (m_bits, expected) = (m.to_owned(), harmed(&m, 1, |_| {}).unwrap().0);
            if lasting {
                m.persist().unwrap();
            }
            let (deaths, stranger) = (SharedWord::new(), vec![0x5a; 4096 + 100 * 512 * 8]);
            let path = |name: &str| std::path::Path::new("/dev/shm").join(name);
            // A worker forked after the names lead elsewhere works on what it inherited.
            fork()
                .workers(2)
                .block_rows(10)
                .map_rows_into(&m, &mut sums, |row| {
                    if row.index() == 30 && first_time(&deaths) {
                        for name in [&name, &output] {
                            std::fs::remove_file(path(name)).unwrap();
                            std::fs::write(path(name), &stranger).unwrap();
                        }
                        raise(Signal::SIGKILL);
                    }
                    row.sum()
                })
                .unwrap();
            assert_eq!((m.view(), harmed::bits(&sums)), (m_bits.view(), expected));
            let identity = |name: &str| {
                let meta = std::fs::metadata(path(name)).unwrap();
                (meta.ino(), meta.mode(), meta.mtime_nsec())
            };
            let before = [&name, &output].map(|name| identity(name));
            drop((m, sums));
            rowfork::segment::sweep().unwrap();
            assert!(rowfork::segment::remove(&name).is_err(), "not a segment");
            assert_eq!([&name, &output].map(|name| identity(name)), before);
            for name in [&name, &output] {
                assert_eq!(std::fs::read(path(name)).unwrap(), stranger);
                std::fs::remove_file(path(name)).unwrap();
            }
        }
    });
}

#[test]
fn killing_random_workers_through_200_calls_changes_no_bit() {
    isolated(|| {
        let m = matrix(2000, 500);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let over = AtomicBool::new(false);
        let (mut deaths, mut kills) = (0, 0);
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| kill_children_until(&over));
            // Or a failure below would wait for the killer for ever.
            let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
            for round in 0..200 {
                let (sums, report) = harmed(&m, 1 + round % 5, |_| {
                    // Some 5 us a row, so that a call lasts long enough to be hit.
                    std::hint::black_box((0..5000).fold(0.0, |sum, i| sum + f64::from(i)));
                })
                .unwrap();
                assert!(sums == expected, "round {round}: {report}");
                deaths += report.deaths.len();
            }
            over.store(true, Ordering::Relaxed);
            kills = killer.join().unwrap();
        });
        println!("FIGURE {kills} kills sent, {deaths} deaths seen within 200 calls");
        assert!(deaths >= 20, "only {deaths} deaths: the test did not disturb");
    });
}

#[test]
fn scribbling_over_the_control_block_is_survived_once_and_then_named() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let times = SharedWord::new();
        let (sums, report) = harmed(&m, 2, |row| {
            if row == 50 && first_time(&times) {
                scribble_over_the_control_block();
            }
        })
        .unwrap();
        assert_eq!(sums, expected);
        assert!(report.rerun_rows >= 100);
        assert!(
            report.workers.iter().all(|worker| worker.rows <= 100 && worker.busy <= report.elapsed),
            "{report:?}"
        );
        assert!(!report.to_string().is_empty());
        match harmed(&m, 2, |row| {
            if row == 50 {
                scribble_over_the_control_block();
            }
        })
        .unwrap_err()
        {
            Error::ControlCorrupted { .. } => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn one_stray_word_in_the_control_block_changes_no_bit() {
    isolated(|| {
        const HEADER_WORDS: usize = 8;
        let m = matrix(1000, 3);
        let sum = |harm: &dyn Fn(usize)| {
            let folded = fork().workers(2).fold_rows(
                &m,
                0.0f64,
                |sum, row| {
                    harm(row.index());
                    *sum += row.sum();
                },
                |sum, other| *sum += other,
            );
            folded.map(|sum| (sum.to_bits(), sum.missing_rows().len()))
        };
        let expected = sum(&|_| {}).unwrap();
        for word in 0..HEADER_WORDS {
            for value in [1, 5, 1 << 40] {
                for dies in [false, true] {
                    let times = SharedWord::new();
                    let outcome = sum(&|row| {
                        if row == 420 && first_time(&times) {
                            overwrite_a_word(word, value);
                            if dies {
                                raise(Signal::SIGKILL);
                            }
                        }
                    });
                    match outcome {
                        Ok(folded) => {
                            assert_eq!(folded, expected, "word {word} is {value}, dies {dies}");
                        }
                        Err(Error::WorkersKeepDying { .. } | Error::ControlCorrupted { .. }) => {}
                        Err(other) => panic!("word {word} is {value}, dies {dies}: {other}"),
                    }
                }
            }
        }
    });
}

#[test]
fn a_row_that_a_stray_store_has_workers_pass_over_is_missed() {
    isolated(|| {
        const N_SKIPPED: usize = 3;
        let m = matrix(1000, 3);
        let times = SharedWord::new();
        let count = |harm: bool| {
            let count = fork()
                .workers(1)
                .fold_rows(
                    &m,
                    0u64,
                    |count, row| {
                        if harm && row.index() == 420 && first_time(&times) {
                            overwrite_a_word(PIECES_WITH_ONE_WORKER + 2 * MAX_PIECES, 999);
                            overwrite_a_word(N_SKIPPED, 1);
                        }
                        *count += 1;
                    },
                    |count, other| *count += other,
                )
                .unwrap();
            (*count, count.report().rerun_rows)
        };
        assert_eq!(count(false), (1000, 0));
        assert_eq!(count(true), (1000, 1000), "run again");
    });
}

#[test]
fn a_stray_word_in_the_table_of_pieces_changes_no_bit() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let end_of_piece = |piece: usize| PIECES_WITH_ONE_WORKER + 2 * piece + 1;
        for piece in 0..3 {
            for value in [0, 42, 45, 47, 10_000] {
                let times = SharedWord::new();
                let (sums, report) = harmed(&m, 1, |row| match row {
                    44 if first_time(&times) => raise(Signal::SIGKILL),
                    90 if times.fetch_add(1, Ordering::Relaxed) == 3 => {
                        overwrite_a_word(end_of_piece(piece), value);
                    }
                    44 => {
                        times.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                })
                .unwrap();
                assert_eq!(sums, expected, "piece {piece} ends at {value}: {report}");
                assert!(report.missing_rows.is_empty(), "{report}");
            }
        }
    });
}

#[test]
fn signals_that_interrupt_the_calling_thread_have_no_effect() {
    isolated(|| {
        let m = matrix(200, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let interrupted = interrupt_this_thread_every_millisecond(|| {
            for round in 0..50 {
                let deaths = SharedWord::new();
                let (sums, _) = harmed(&m, 1 + round % 3, |row| {
                    std::thread::sleep(Duration::from_micros(50));
                    if row == 100 && first_time(&deaths) {
                        raise(Signal::SIGKILL);
                    }
                })
                .unwrap();
                assert_eq!(sums, expected);
            }
        });
        assert!(interrupted >= 100, "only {interrupted} signals came");
    });
}

#[test]
fn a_host_that_ignores_sigchld_gets_its_results() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        ignore_sigchld();
        let deaths = SharedWord::new();
        let (sums, report) = harmed(&m, 2, |row| {
            if row == 20 && first_time(&deaths) {
                raise(Signal::SIGKILL);
            }
        })
        .unwrap();
        assert_eq!(sums, expected);
        assert_eq!(report.deaths.len(), 1, "{report}");
        // Nobody can wait for it; what its pidfd says is decided by the kernel alone.
        let cause =
            if linux_is_at_least(6, 15) { DeathCause::Signalled(9) } else { DeathCause::Unknown };
        assert_eq!(report.deaths[0].cause, cause);
        assert!(harmed(&m, 4, |_| {}).unwrap().1.deaths.is_empty(), "nobody died");
    });
}

#[test]
fn a_signal_to_the_whole_group_runs_no_handler_of_the_hosts_in_a_worker() {
    isolated(|| {
        static HOME: AtomicUsize = AtomicUsize::new(0);
        static STRANGERS: std::sync::OnceLock<SharedWord> = std::sync::OnceLock::new();
        extern "C" fn note(_: libc::c_int) {
            if nix::unistd::getpid().as_raw().cast_unsigned() as usize
                != HOME.load(Ordering::Relaxed)
            {
                STRANGERS.get().map(|word| word.fetch_add(1, Ordering::Relaxed));
            }
        }
        HOME.store(std::process::id() as usize, Ordering::Relaxed);
        let strangers = STRANGERS.get_or_init(SharedWord::new);
        let m = matrix(10, 3);
        // A terminal that is being resized: whoever has no handler of its own does not notice.
        let handler =
            SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        #[allow(unsafe_code, reason = "installs a handler")]
        // SAFETY: the handler compares two numbers and adds to an atomic.
        unsafe {
            sigaction(Signal::SIGWINCH, &handler).unwrap();
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    nix::sys::signal::killpg(nix::unistd::getpgrp(), Signal::SIGWINCH).unwrap();
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
            for _ in 0..200 {
                assert!(harmed(&m, 2, |_| {}).unwrap().1.deaths.is_empty());
            }
        });
        assert_eq!(
            strangers.load(Ordering::Relaxed),
            0,
            "handled by a worker, with what it has of the host"
        );
    });
}

#[test]
fn a_message_about_a_row_that_its_worker_did_not_hold_is_not_believed() {
    isolated(|| {
        let m = matrix(100, 3);
        let values =
            fork().workers(1).block_rows(10).policy(Policy::fill(-1.0)).map_rows(&m, |row| {
                if row.index() == 14 {
                    note_another_row_in_the_slot(14, 99);
                    panic!("about no other row");
                }
                row.index() as f64
            });
        let values = values.unwrap();
        // Found by halving, since what the slot says of the row is worth nothing.
        let report = values.report();
        assert_eq!((report.failed_rows.len(), report.failed_rows[0].row), (1, 14), "{report}");
        assert_eq!(report.failed_rows[0].cause, DeathCause::Exited(101), "{report}");
        assert!(report.deaths.len() > 3, "{report}");
        assert!(
            report.deaths.iter().all(|death| death.cause == DeathCause::Exited(101)),
            "{report}"
        );
        assert_eq!((values.view()[14], values.view()[99]), (-1.0, 99.0));
    });
}

#[test]
fn a_guarded_crash_costs_no_row_of_the_process_before_in_its_slot() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let (kills, crashes) = (SharedWord::new(), SharedWord::new());
        let sums = fork()
            .workers(1)
            .block_rows(10)
            .guard(true)
            .map_rows(&m, |row| {
                if row.index() == 55 && first_time(&kills) {
                    raise(Signal::SIGKILL);
                }
                if row.index() == 75 && first_time(&crashes) {
                    std::process::abort()
                }
                row.sum()
            })
            .unwrap();
        assert_eq!(harmed::bits(&sums), expected);
        // Rows 50..60 for the kill. For the crash its block, and what this process had done: row
        // 55, and rows 60..70.
        assert_eq!(
            (sums.report().deaths.len(), sums.report().rerun_rows),
            (2, 10 + 10 + 11),
            "{}",
            sums.report()
        );
    });
}

#[test]
fn a_row_whose_workers_are_killed_is_not_convicted_among_others() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let (here, there) =
            (SharedWord::new(), [SharedWord::new(), SharedWord::new(), SharedWord::new()]);
        let (sums, report) = harmed(&m, 1, |row| {
            let bystander =
                [5, 25, 35].iter().position(|&other| other == row).map(|index| &there[index]);
            if bystander.is_some_and(first_time)
                || row == 64 && here.fetch_add(1, Ordering::Relaxed) < 5
            {
                raise(Signal::SIGKILL);
            }
        })
        .unwrap();
        assert_eq!((sums, report.deaths.len()), (expected, 8), "{report}");
    });
}

#[test]
fn a_worker_whose_caller_dies_in_the_middle_of_a_long_row_ends() {
    isolated(|| {
        assert_no_worker_outlives_a_caller(Duration::from_millis(300), "sleeps");
    });
}

#[test]
fn a_worker_whose_caller_dies_before_it_is_tied_to_it_ends() {
    isolated(|| {
        assert_no_worker_outlives_a_caller(Duration::ZERO, "late");
    });
}

#[test]
fn a_host_that_ignores_sigchld_learns_what_happened_every_time() {
    isolated(|| {
        if !linux_is_at_least(6, 15) {
            println!("SKIPPED: the kernel keeps no status for pidfds (Linux 6.15)");
            return;
        }
        let m = matrix(20, 3);
        ignore_sigchld();
        for round in 0..200 {
            let deaths = SharedWord::new();
            let exit_once = |row| {
                if row == round % 20 && first_time(&deaths) {
                    std::process::exit(7)
                }
            };
            let (_, report) = harmed(&m, 2, exit_once).unwrap();
            assert_eq!(report.deaths[0].cause, DeathCause::Exited(7), "round {round}");
        }
    });
}

#[test]
fn a_stranger_that_got_the_pid_of_a_dead_worker_is_not_signalled() {
    isolated(|| {
        let Some(decoy) = decoy_with_a_dead_workers_pid() else { return };
        assert!(is_running(decoy), "the decoy was killed");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(decoy), Signal::SIGKILL).unwrap();
        while is_running(decoy) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

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
fn a_limit_on_processes_costs_workers_and_is_an_error_only_where_none_is_left() {
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

#[test]
fn a_caller_killed_at_any_instant_leaves_no_worker_and_no_volatile_name() {
    isolated(|| {
        let tag = format!("{VICTIM}={}", std::process::id());
        let mut random = Random(std::process::id().into());
        for round in 0..100 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args([
                    name_of(victim_of_a_sigkill),
                    "--exact",
                    "--ignored",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env(VICTIM, std::process::id().to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
            victim.kill().unwrap();
            victim.wait().unwrap();
            let deadline = Instant::now() + Duration::from_secs(1);
            while !running_with(&tag).is_empty() {
                assert!(
                    Instant::now() < deadline,
                    "round {round}: still there after 1 s: {:?}",
                    running_with(&tag)
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        rowfork::segment::sweep().unwrap();
        let left: Vec<_> = std::fs::read_dir("/dev/shm")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.starts_with(&format!("rowfork-victim-{}-", std::process::id())))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::KeepSignalHandlers,
            name_of(a_worker_has_the_default_signals_but_for_those_of_the_terminal),
        ),
        (
            Failpoint::SignalsDuringFork,
            name_of(a_signal_to_the_whole_group_runs_no_handler_of_the_hosts_in_a_worker),
        ),
        (
            Failpoint::NoLengthCheck,
            name_of(an_array_that_somebody_truncates_during_a_call_is_named),
        ),
        (
            Failpoint::NoLengthCheck,
            name_of(memory_that_somebody_takes_out_of_an_array_during_a_call_is_missed),
        ),
        (
            Failpoint::CompareNamesNotInodes,
            name_of(a_file_that_takes_an_arrays_name_is_neither_read_nor_removed),
        ),
        (
            Failpoint::BelieveAnyMessage,
            name_of(a_message_about_a_row_that_its_worker_did_not_hold_is_not_believed),
        ),
        (
            Failpoint::OneGenerationPerSlot,
            name_of(a_guarded_crash_costs_no_row_of_the_process_before_in_its_slot),
        ),
        (
            Failpoint::BlameRowForOutsideKills,
            name_of(a_row_whose_workers_are_killed_is_not_convicted_among_others),
        ),
        (
            Failpoint::WorkersOutliveCaller,
            name_of(a_worker_whose_caller_dies_in_the_middle_of_a_long_row_ends),
        ),
        (
            Failpoint::NoParentCheck,
            name_of(a_worker_whose_caller_dies_before_it_is_tied_to_it_ends),
        ),
    ]);
}

/// A caller whose kernel takes a minute is killed so long after its worker was forked.
fn assert_no_worker_outlives_a_caller(after: Duration, how: &str) {
    let tag = format!("{VICTIM}={}", std::process::id());
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            name_of(victim_of_a_sigkill),
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VICTIM, std::process::id().to_string())
        .env(SLOW, how)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let within = |limit, condition: &dyn Fn(usize) -> bool| {
        let deadline = Instant::now() + limit;
        while !condition(running_with(&tag).len()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        condition(running_with(&tag).len())
    };
    let forked = within(Duration::from_secs(5), &|processes| processes > 1);
    std::thread::sleep(after);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(forked, "no worker was forked");
    let gone = within(Duration::from_secs(4), &|processes| processes == 0);
    let orphans = running_with(&tag);
    for &orphan in &orphans {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), Signal::SIGKILL);
    }
    rowfork::segment::sweep().unwrap();
    assert!(gone, "orphans: {orphans:?}");
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Not a test: the program that the test above kills.
#[test]
#[ignore = "runs for ever; a part of another test"]
fn victim_of_a_sigkill() {
    let Ok(tag) = std::env::var(VICTIM) else { return };
    failpoints::throw_by_environment();
    if let Ok(how) = std::env::var(SLOW) {
        if how == "late" {
            failpoints::throw(Failpoint::LateParentDeathSignal);
        }
        let m = SharedArray::<f64, _>::zeros(None, (1, 1)).unwrap();
        let minute = |_: rowfork::Row<'_, f64, ndarray::Ix1>| {
            std::thread::sleep(Duration::from_secs(60));
            0.0
        };
        fork().map_rows(&m, minute).unwrap();
    }
    for round in 0.. {
        let name = format!("rowfork-victim-{tag}-{}-{round}", std::process::id());
        let m = SharedArray::from_shape_fn(name.as_str(), (3000, 100), |(i, j)| (i + j) as f64)
            .unwrap();
        let mut sums = fork().workers(3).row_sums(&m).unwrap();
        sums.publish(&format!("{name}-sums")).unwrap();
        fork().workers(2).map_rows(&m, |row| row.sum().sqrt()).unwrap();
    }
}

/// In the environment of a victim and its workers: the process that killed it.
const VICTIM: &str = "ROWFORK_TEST_VICTIM_OF";

/// Likewise: its kernel takes a minute; and, if `late`, its workers take a second before they tie
/// themselves to it.
const SLOW: &str = "ROWFORK_TEST_SLOW";

/// Processes that run with this entry in their environment.
fn running_with(variable: &str) -> Vec<i32> {
    let has_it = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == variable.as_bytes())
    };
    let processes = isolated::processes().into_iter().map(|process| process.pid);
    processes.filter(|&pid| has_it(pid) && is_running(pid)).collect()
}

/// Kills a random child of this process every 1 to 4 ms; returns how many.
fn kill_children_until(over: &AtomicBool) -> usize {
    let mut random = Random(1);
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_micros(1000 + random.below(3000)));
        let workers: Vec<i32> = children_of_all_threads();
        if workers.is_empty() {
            continue;
        }
        let victim = workers[usize::try_from(random.below(workers.len() as u64)).unwrap()];
        kills += usize::from(kill_own_child(victim));
    }
    kills
}

fn children_of_all_threads() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let lists =
        threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .collect()
}

/// Kills by pidfd, after a look that the number is still that of our child.
fn kill_own_child(pid: i32) -> bool {
    let Some(number) = rustix::process::Pid::from_raw(pid) else { return false };
    let Ok(fd) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) else {
        return false;
    };
    children_of_all_threads().contains(&pid)
        && rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL).is_ok()
}

/// Makes a process whose pid was a worker's during the same call, which ends with its other workers
/// being killed. `None` (with the reason printed) where pids cannot be steered.
fn decoy_with_a_dead_workers_pid() -> Option<i32> {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    if std::fs::OpenOptions::new().write(true).open(LAST_PID).is_err() {
        println!("SKIPPED pid reuse: {LAST_PID} cannot be written (needs root)");
        return None;
    }
    ignore_sigchld(); // so that a dead worker's pid is free at once
    let m = matrix(2, 1);
    let (dead, taken) = (SharedWord::new(), SharedWord::new());
    std::thread::scope(|scope| {
        let decoy = scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline {
                let pid = i32::try_from(dead.load(Ordering::Acquire)).unwrap();
                if pid == 0 || std::path::Path::new(&format!("/proc/{pid}")).exists() {
                    continue;
                }
                std::fs::write(LAST_PID, (pid - 1).to_string()).ok();
                #[allow(
                    clippy::zombie_processes,
                    reason = "SIGCHLD is ignored: there is nothing to wait for"
                )]
                let child = Command::new("sleep").arg("60").spawn().unwrap();
                if child.id().cast_signed() == pid {
                    taken.store(1, Ordering::Release);
                    return Some(pid);
                }
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(child.id().cast_signed()),
                    Signal::SIGKILL,
                )
                .ok();
            }
            taken.store(2, Ordering::Release);
            None
        });
        let outcome = fork().workers(2).map_rows(&m, |row| {
            if row.index() == 0 {
                if dead
                    .compare_exchange(
                        0,
                        u64::from(std::process::id()),
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    )
                    .is_ok()
                {
                    raise(Signal::SIGKILL);
                }
                while taken.load(Ordering::Acquire) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Err("over: the supervisor now kills what is left of its workers");
            }
            std::thread::sleep(Duration::from_secs(30));
            Ok(0.0)
        });
        assert!(matches!(outcome.unwrap_err(), Error::KernelFailed { row: 0, .. }));
        decoy.join().unwrap().or_else(|| {
            println!("SKIPPED pid reuse: the pid was never free");
            None
        })
    })
}

/// Gives root's rights up, limits do not hold for them, for those of a user who has no other
/// process.
fn become_a_lonely_user() {
    let user = nix::unistd::Uid::from_raw(1_000_000_000 + std::process::id());
    nix::unistd::setresuid(user, user, user).unwrap();
    // Or what /proc says of this process would be root's.
    nix::sys::prctl::set_dumpable(true).unwrap();
}

fn linux_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}

/// Runs `work` while a signal, whose handler does not ask for interrupted calls to be restarted,
/// comes to this very thread every millisecond. Returns how many came.
fn interrupt_this_thread_every_millisecond(work: impl FnOnce()) -> usize {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    let handler = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    #[allow(unsafe_code, reason = "installs a handler")]
    // SAFETY: the handler adds to an atomic.
    unsafe {
        sigaction(Signal::SIGUSR1, &handler).unwrap();
    }
    let target = nix::sys::pthread::pthread_self();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                nix::sys::pthread::pthread_kill(target, Signal::SIGUSR1).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        work();
    });
    HANDLED.load(Ordering::Relaxed)
}

/// Where the table of pieces begins in the control block of a call with one worker, in words: after
/// a page for the header and one for the slot. After it come the rows to be passed over.
const PIECES_WITH_ONE_WORKER: usize = 1024;
const MAX_PIECES: usize = 8192;

/// In a worker: stores to one word of the control block.
#[allow(unsafe_code, reason = "the stray store that the test is about")]
fn overwrite_a_word(word: usize, value: u64) {
    for range in control_blocks() {
        let at = range.start + 8 * word;
        // SAFETY: mapped and writable as /proc says.
        unsafe { std::ptr::with_exposed_provenance_mut::<u64>(at).write_volatile(value) };
    }
}

/// In a worker: overwrites the control block of this call, slots and all, as a stray `memcpy`
/// might.
fn scribble_over_the_control_block() {
    for range in control_blocks() {
        for address in range.step_by(8) {
            #[allow(unsafe_code, reason = "the stray store that the test is about")]
            // SAFETY: mapped and writable as /proc says.
            unsafe {
                std::ptr::with_exposed_provenance_mut::<u64>(address)
                    .write_volatile(f64::to_bits(0.1));
            }
        }
    }
}

/// In the one worker of a call: overwrites the row that its slot says it is at.
#[allow(unsafe_code, reason = "the stray store that the test is about")]
fn note_another_row_in_the_slot(row: u64, other: u64) {
    const ROW_IN_SLOT: usize = 40;
    let mut found = 0;
    for range in control_blocks() {
        for page in range.step_by(4096) {
            let noted = std::ptr::with_exposed_provenance_mut::<u64>(page + ROW_IN_SLOT);
            // SAFETY: mapped and readable as /proc says.
            if unsafe { noted.read_volatile() } == row {
                // SAFETY: likewise, and writable.
                unsafe { noted.write_volatile(other) };
                found += 1;
            }
        }
    }
    if found != 1 {
        std::process::exit(77); // the slot has another layout: seen in the cause of death
    }
}

/// The control block and the tests' shared words are the anonymous shared mappings; the words are
/// single pages.
fn control_blocks() -> Vec<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines =
        maps.lines().filter(|line| line.contains("rw-s") && line.ends_with("/dev/zero (deleted)"));
    let ranges = lines.map(|line| {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()
    });
    ranges.filter(|range| range.len() > 4096).collect()
}

/// xorshift64*: enough to be unpredictable in time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}
