//! Kernels that overwrite the control block of their call, all of it or one word.

use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, Policy, fork};

use crate::support::harm::{first_time, harmed, matrix};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

#[test]
fn an_overwritten_control_block_is_survived_once_and_then_named() {
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
fn a_message_about_a_row_that_was_not_held_is_not_believed() {
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
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[(
        Failpoint::BelieveAnyMessage,
        name_of(a_message_about_a_row_that_was_not_held_is_not_believed),
    )]);
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
    const ROW_IN_SLOT: usize = 56;
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
