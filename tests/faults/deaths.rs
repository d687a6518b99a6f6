//! Workers die in a call, of themselves and by other hands: their blocks are run again, and no bit
//! changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, fork};

use crate::support::disturbance::{Disturbance, disturbed_from_outside};
use crate::support::harm::{self, first_time, harmed, matrix};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

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
fn a_guarded_crash_costs_no_row_of_the_slots_process_before() {
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
        assert_eq!(harm::bits(&sums), expected);
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
fn a_row_whose_workers_are_killed_is_not_poisoned_among_others() {
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
fn killing_random_workers_through_200_calls_changes_no_bit() {
    isolated(|| {
        let m = matrix(2000, 500);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let harm = Disturbance {
            pause: (Duration::from_millis(1), Duration::from_millis(4)),
            stop_one_in: 0,
        };
        let (deaths, sent) = disturbed_from_outside(harm, 1, || {
            let mut deaths = 0;
            for round in 0..200 {
                let (sums, report) = harmed(&m, 1 + round % 5, |_| {
                    // Some 5 us a row, so that a call lasts long enough to be hit.
                    std::hint::black_box((0..5000).fold(0.0, |sum, i| sum + f64::from(i)));
                })
                .unwrap();
                assert!(sums == expected, "round {round}: {report}");
                deaths += report.deaths.len();
            }
            deaths
        });
        println!("FIGURE {} kills sent, {deaths} deaths seen within 200 calls", sent.kills);
        assert!(deaths >= 20, "only {deaths} deaths: the test did not disturb");
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::OneGenerationPerSlot,
            name_of(a_guarded_crash_costs_no_row_of_the_slots_process_before),
        ),
        (
            Failpoint::BlameRowForOutsideKills,
            name_of(a_row_whose_workers_are_killed_is_not_poisoned_among_others),
        ),
    ]);
}
