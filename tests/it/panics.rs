//! What comes of a kernel that panics: a typed error with the row, the message and the place,
//! whatever the host does with its own panic hook.

use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, fork};

use crate::support::harm::{first_time, harmed, matrix};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

fn panicked(outcome: rowfork::Result<(Vec<u64>, rowfork::Report)>) -> (usize, String, String) {
    match outcome.unwrap_err() {
        Error::KernelPanicked { row, message, location, .. } => (row, message, location),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_names_the_row_the_message_and_the_place() {
    isolated(|| {
        let m = matrix(100, 3);
        let (row, message, location) =
            panicked(harmed(&m, 2, |row| assert!(row != 57, "bad row {row}")));
        assert_eq!((row, &*message), (57, "bad row 57"));
        assert!(location.starts_with(file!()), "{location}");
        let (row, message, _) = panicked(harmed(&m, 2, |row| assert!(row != 99, "plain")));
        assert_eq!((row, &*message), (99, "plain"));
    });
}

#[test]
fn any_payload_of_a_panic_is_reported() {
    isolated(|| {
        let m = matrix(100, 3);
        let (row, message, _) = panicked(harmed(&m, 2, |row| {
            if row == 0 {
                panic_any(42)
            }
        }));
        assert_eq!((row, &*message), (0, "a payload that is not a string"));
        let (_, message, _) = panicked(harmed(&m, 2, |_| panic!("{}", "ü".repeat(1 << 20))));
        assert!(message.len() <= 3072 && message.len() > 3000 && message.chars().all(|c| c == 'ü'));
    });
}

#[test]
fn a_panic_while_unwinding_is_still_a_panic_with_both_messages() {
    isolated(|| {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("second");
            }
        }
        let m = matrix(100, 3);
        let (row, message, _) = panicked(harmed(&m, 2, |row| {
            let bomb = Bomb;
            assert!(row != 31, "first");
            std::mem::forget(bomb);
        }));
        assert_eq!((row, &*message), (31, "second (after an earlier panic on this row: first)"));
    });
}

#[test]
fn a_panic_is_reported_while_a_thread_is_stuck_in_a_panic_hook() {
    isolated(|| {
        static STUCK: AtomicBool = AtomicBool::new(false);
        static OVER: AtomicBool = AtomicBool::new(false);
        std::panic::set_hook(Box::new(|_| {
            STUCK.store(true, Ordering::Relaxed);
            while !OVER.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        }));
        let m = matrix(100, 3);
        harmed(&m, 2, |_| {}).unwrap(); // wraps the host's hook
        let stuck = std::thread::spawn(|| panic!("stuck"));
        while !STUCK.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let (row, message, _) = panicked(harmed(&m, 2, |row| assert!(row != 57, "bad row {row}")));
        OVER.store(true, Ordering::Relaxed);
        stuck.join().unwrap_err();
        assert_eq!((row, &*message), (57, "bad row 57"));
    });
}

#[test]
fn a_first_call_waits_for_no_thread_stuck_in_a_panic_hook() {
    isolated(|| {
        static STUCK: AtomicBool = AtomicBool::new(false);
        static OVER: AtomicBool = AtomicBool::new(false);
        std::panic::set_hook(Box::new(|_| {
            STUCK.store(true, Ordering::Relaxed);
            while !OVER.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        }));
        let stuck = std::thread::spawn(|| panic!("stuck"));
        while !STUCK.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let m = matrix(100, 3);
        for _ in 0..2 {
            assert!(harmed(&m, 2, |_| {}).unwrap().1.deaths.is_empty());
        }
        OVER.store(true, Ordering::Relaxed);
        stuck.join().unwrap_err();
    });
}

#[test]
fn a_hook_that_replaced_ours_costs_the_place_not_the_message() {
    isolated(|| {
        let m = matrix(100, 3);
        harmed(&m, 1, |_| {}).unwrap();
        std::panic::set_hook(Box::new(|_| {}));
        let (row, message, location) =
            panicked(harmed(&m, 2, |row| assert!(row != 57, "bad row {row}")));
        assert_eq!((row, &*message, &*location), (57, "bad row 57", "location unknown"));
    });
}

#[test]
fn a_caught_panic_is_not_blamed_for_what_comes_after_it() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let caught = |row: usize| {
            std::panic::catch_unwind(move || assert!(row == usize::MAX, "harmless {row}")).is_err()
        };

        let outcome = fork().workers(2).map_rows(&m, |row| {
            if row.index() == 57 && caught(57) { Err("my own words") } else { Ok(0.0) }
        });
        match outcome.unwrap_err() {
            Error::KernelFailed { row: 57, message, .. } => assert_eq!(message, "my own words"),
            other => panic!("{other:?}"),
        }

        let (row, message, _) =
            panicked(harmed(&m, 2, |row| assert!(row != 57 || !caught(row), "the real one")));
        assert_eq!(
            (row, &*message),
            (57, "the real one (after an earlier panic on this row: harmless 57)")
        );

        let (row, message, _) = panicked(harmed(&m, 2, |row| {
            if row == 57 && caught(row) {
                std::panic::resume_unwind(Box::new("resumed"));
            }
        }));
        assert_eq!((row, &*message), (57, "resumed"));

        let aborts = SharedWord::new();
        let (sums, report) = harmed(&m, 2, |row| {
            if row == 57 && caught(row) && first_time(&aborts) {
                std::process::abort()
            }
        })
        .unwrap();
        assert_eq!(sums, expected);
        assert_eq!(report.deaths[0].cause, DeathCause::Signalled(6));

        let kills = SharedWord::new();
        let (sums, report) = harmed(&m, 2, |row| {
            assert!(caught(row));
            if row == 15 && first_time(&kills) {
                raise(Signal::SIGKILL);
            }
        })
        .unwrap();
        assert_eq!(sums, expected);
        assert_eq!(report.deaths[0].cause, DeathCause::Signalled(9));
    });
}

#[test]
fn a_first_call_in_a_destructor_during_a_panic_works() {
    isolated(|| {
        struct SumsOnDrop;
        impl Drop for SumsOnDrop {
            fn drop(&mut self) {
                let m = matrix(100, 3);
                assert_eq!(harmed(&m, 2, |_| {}).unwrap().0.len(), 100);
                let (row, message, _) =
                    panicked(harmed(&m, 2, |row| assert!(row != 57, "bad row {row}")));
                assert_eq!((row, &*message), (57, "bad row 57"));
            }
        }
        let unwound = std::panic::catch_unwind(|| {
            let _sums = SumsOnDrop;
            panic!("unwinding");
        });
        assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"unwinding"));
        let m = matrix(100, 3);
        let (_, _, location) = panicked(harmed(&m, 2, |row| assert!(row != 57)));
        assert!(location.starts_with(file!()), "{location}");
    });
}

#[test]
fn a_panic_that_the_kernel_catches_is_no_failure() {
    isolated(|| {
        let m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        let caught = harmed(&m, 2, |row| {
            assert!(std::panic::catch_unwind(|| panic!("caught {row}")).is_err());
        })
        .unwrap();
        assert_eq!(caught.0, expected);
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[(
        Failpoint::BelieveMessageAfterAnyExit,
        name_of(a_caught_panic_is_not_blamed_for_what_comes_after_it),
    )]);
}
