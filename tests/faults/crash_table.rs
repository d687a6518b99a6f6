//! The crash table: a worker dies of every cause there is, in the first, a middle and the last
//! block, before, within and after its stores to the row, among 1, 2 and 5 workers, unguarded and
//! guarded. Once, and the result is as if it had not; always, and the row is named, or left out.
//!
//! What a guard cannot see, and so is in no test: a stray store into the worker's own copy of the
//! block, which is its own memory as much as its heap is.
#![allow(unsafe_code, reason = "does all that a kernel must not do")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;

use ndarray::Ix2;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, Fork, Policy, Report, SharedArray, fork};

use crate::support::harmed::{first_time, matrix};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

const N_ROWS: usize = 30;
const BLOCK_ROWS: usize = 6;
/// A row of the first, of a middle and of the last block: the first, a middle and the last of it.
const VICTIMS: [usize; 3] = [0, 14, 29];
const WORKERS: [usize; 3] = [1, 2, 5];

/// How far the kernel is with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Within,
    After,
}

const STAGES: [Stage; 3] = [Stage::Before, Stage::Within, Stage::After];

/// A way to die.
struct Crash {
    name: &'static str,
    die: fn(&Traps),
    is_cause: fn(&DeathCause, &Traps) -> bool,
    /// It may have written anywhere before.
    wild: bool,
}

/// Addresses that are fatal.
struct Traps {
    /// Of the input, which is read-only in a worker.
    input: usize,
    /// Of a mapped file that has been cut.
    cut: usize,
}

fn store_to(address: usize) {
    // SAFETY: none; this is the stray store that the test is about.
    unsafe { std::ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(0x5a5a_5a5a) };
}

fn store_to_null(_: &Traps) {
    store_to(std::hint::black_box(8));
}

fn touch_what_was_cut(traps: &Traps) {
    // SAFETY: none; the page is gone.
    let _ = unsafe { std::ptr::with_exposed_provenance::<u64>(traps.cut).read_volatile() };
}

#[cfg(target_arch = "x86_64")]
fn run_no_instruction(_: &Traps) {
    // SAFETY: has no effect but the signal.
    unsafe { std::arch::asm!("ud2") };
}

#[cfg(not(target_arch = "x86_64"))]
fn run_no_instruction(_: &Traps) {
    raise(Signal::SIGILL);
}

#[cfg(target_arch = "x86_64")]
fn divide_by_zero(_: &Traps) {
    // SAFETY: has no effect but the signal.
    unsafe {
        std::arch::asm!(
            "xor edx, edx",
            "xor ecx, ecx",
            "div ecx",
            inout("eax") 1 => _,
            out("ecx") _,
            out("edx") _,
        );
    };
}

#[cfg(not(target_arch = "x86_64"))]
fn divide_by_zero(_: &Traps) {
    raise(Signal::SIGFPE);
}

#[allow(unconditional_recursion, reason = "overflows the stack")]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(depth + 1)) + depth
}

fn faulted(cause: &DeathCause, wanted: i32) -> bool {
    matches!(
        cause,
        DeathCause::MemoryFault { signal, read_only_segment: None, .. } if *signal == wanted
    )
}

/// Everything that ends a worker and is no failure that the kernel itself reports.
const CRASHES: [Crash; 11] = [
    Crash {
        name: "a store to the null page",
        die: store_to_null,
        is_cause: |cause, _| {
            *cause
                == DeathCause::MemoryFault {
                    signal: libc::SIGSEGV,
                    address: 8,
                    read_only_segment: None,
                }
        },
        wild: true,
    },
    Crash {
        name: "a store to the input",
        die: |traps| store_to(traps.input),
        is_cause: |cause, traps| {
            let (address, segment) = (traps.input, Some("a nameless segment".to_owned()));
            *cause
                == DeathCause::MemoryFault {
                    signal: libc::SIGSEGV,
                    address,
                    read_only_segment: segment,
                }
        },
        wild: true,
    },
    Crash {
        name: "a file that was cut",
        die: touch_what_was_cut,
        is_cause: |cause, _| faulted(cause, libc::SIGBUS),
        wild: true,
    },
    Crash {
        name: "no instruction",
        die: run_no_instruction,
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGILL),
        wild: true,
    },
    Crash {
        name: "a division by zero",
        die: divide_by_zero,
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGFPE),
        wild: true,
    },
    Crash {
        name: "abort",
        die: |_| std::process::abort(),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGABRT),
        wild: true,
    },
    Crash {
        name: "a stack overflow",
        die: |_| assert_ne!(deeper(0), 1),
        is_cause: |cause, _| faulted(cause, libc::SIGSEGV),
        wild: true,
    },
    Crash {
        name: "exit(0)",
        die: |_| std::process::exit(0),
        is_cause: |cause, _| *cause == DeathCause::Exited(0),
        wild: false,
    },
    Crash {
        name: "exit(3)",
        die: |_| std::process::exit(3),
        is_cause: |cause, _| *cause == DeathCause::Exited(3),
        wild: false,
    },
    Crash {
        name: "SIGKILL",
        die: |_| raise(Signal::SIGKILL),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGKILL),
        wild: false,
    },
    Crash {
        name: "SIGUSR1",
        die: |_| raise(Signal::SIGUSR1),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGUSR1),
        wild: false,
    },
];

/// Panics while it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("and again");
    }
}

fn panic_twice() {
    let _bomb = Bomb;
    panic!("a bad row");
}

/// One place in the table.
struct Case {
    crash: &'static Crash,
    victim: usize,
    stage: Stage,
    workers: usize,
    guard: bool,
}

impl Case {
    fn options(&self) -> Fork<'static> {
        fork().workers(self.workers).block_rows(BLOCK_ROWS).guard(self.guard)
    }

    /// Of the block that the victim lies in.
    fn rows(&self) -> std::ops::Range<usize> {
        let start = self.victim / BLOCK_ROWS * BLOCK_ROWS;
        start..start + BLOCK_ROWS
    }

    /// So many deaths convict: more where somebody else may have done it.
    fn attempts(&self) -> u32 {
        if self.crash.name.starts_with("SIG") { 7 } else { 3 }
    }

    fn name(&self) -> String {
        let Self { crash, victim, stage, workers, guard } = self;
        format!(
            "{} {stage:?} the stores of row {victim}, {workers} workers, guard {guard}",
            crash.name
        )
    }
}

fn every_case(run: impl Fn(&Case, &SharedArray<f64, Ix2>, &Traps)) {
    // Thousands of workers crash here, and nobody wants a file of each.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    let m = matrix(N_ROWS, 4);
    let traps = Traps { input: m.as_ptr().expose_provenance(), cut: page_that_was_cut() };
    for crash in &CRASHES {
        for victim in VICTIMS {
            for stage in STAGES {
                for workers in WORKERS {
                    for guard in [false, true] {
                        run(&Case { crash, victim, stage, workers, guard }, &m, &traps);
                    }
                }
            }
        }
    }
}

/// A page of a file that has lost it; mapped until the process ends.
fn page_that_was_cut() -> usize {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let len = NonZeroUsize::new(4096).unwrap();
    // SAFETY: a new mapping, of which there is no reference.
    let page =
        unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) }.unwrap();
    file.set_len(0).unwrap();
    page.as_ptr().expose_provenance()
}

/// Writes a row in two halves, with `harm` before, between and behind them.
fn transformed(
    options: &Fork<'_>,
    m: &SharedArray<f64, Ix2>,
    harm: impl Fn(usize, Stage),
) -> rowfork::Result<(Vec<u64>, Report)> {
    let outcome = options.transform_rows(m, 4, |row, out| {
        let index = row.index();
        harm(index, Stage::Before);
        (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
        harm(index, Stage::Within);
        (2..4).for_each(|column| out[column] = row[column] / 3.0);
        harm(index, Stage::After);
    });
    let (out, report) = outcome?.into_parts();
    Ok((out.view().iter().map(|value| value.to_bits()).collect(), report))
}

fn undisturbed(m: &SharedArray<f64, Ix2>) -> Vec<u64> {
    transformed(&fork().workers(1), m, |_, _| ()).unwrap().0
}

/// The same with a row of NaN.
fn without(row: usize, mut bits: Vec<u64>) -> Vec<u64> {
    bits[row * 4..row * 4 + 4].fill(f64::NAN.to_bits());
    bits
}

#[test]
fn a_crash_that_happens_once_changes_no_bit() {
    isolated(|| {
        every_case(|case, m, traps| {
            let (what, times) = (case.name(), SharedWord::new());
            let (bits, report) = transformed(&case.options(), m, |row, stage| {
                if (row, stage) == (case.victim, case.stage) && first_time(&times) {
                    (case.crash.die)(traps);
                }
            })
            .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bits == undisturbed(m), "{what}: other bits");
            assert_eq!(report.deaths.len(), 1, "{what}: {report}");
            assert!(
                (case.crash.is_cause)(&report.deaths[0].cause, traps),
                "{what}: {}",
                report.deaths[0].cause
            );
            assert_eq!(report.deaths[0].rows, Some(case.rows()), "{what}");
            assert!(
                report.failed_rows.is_empty() && report.missing_rows.is_empty(),
                "{what}: {report}"
            );
            // What is run again: the block; after a crash all rows, or those of the worker.
            match (case.crash.wild, case.guard) {
                (false, _) => assert_eq!(report.rerun_rows, BLOCK_ROWS, "{what}"),
                (true, false) => assert_eq!(report.rerun_rows, BLOCK_ROWS + N_ROWS, "{what}"),
                (true, true) if case.workers == 1 => {
                    assert_eq!(report.rerun_rows, case.rows().end, "{what}");
                }
                (true, true) => {
                    let rerun = report.rerun_rows;
                    assert!(rerun.is_multiple_of(BLOCK_ROWS), "{what}: {rerun}");
                    assert!((BLOCK_ROWS..=N_ROWS).contains(&rerun), "{what}: {rerun}");
                }
            }
        });
    });
}

#[test]
fn a_row_that_always_crashes_is_the_one_that_the_error_names() {
    isolated(|| {
        every_case(|case, m, traps| {
            let what = case.name();
            let outcome = transformed(&case.options(), m, |row, stage| {
                if (row, stage) == (case.victim, case.stage) {
                    (case.crash.die)(traps);
                }
            });
            match outcome.unwrap_err() {
                Error::PoisonedRows { rows, .. } => {
                    assert_eq!(
                        (rows.len(), rows[0].row, rows[0].attempts),
                        (1, case.victim, case.attempts()),
                        "{what}"
                    );
                    assert!(
                        (case.crash.is_cause)(&rows[0].cause, traps),
                        "{what}: {}",
                        rows[0].cause
                    );
                    assert!(rows[0].worker < case.workers, "{what}");
                }
                other => panic!("{what}: {other}"),
            }
        });
    });
}

#[test]
fn a_row_that_always_crashes_is_the_only_one_that_a_call_goes_on_without() {
    isolated(|| {
        every_case(|case, m, traps| {
            let what = case.name();
            let (bits, report) =
                transformed(&case.options().policy(Policy::fill(f64::NAN)), m, |row, stage| {
                    if (row, stage) == (case.victim, case.stage) {
                        (case.crash.die)(traps);
                    }
                })
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(bits == without(case.victim, undisturbed(m)), "{what}: other bits");
            assert_eq!(report.failed_rows.len(), 1, "{what}: {report}");
            let failed = &report.failed_rows[0];
            assert_eq!((failed.row, failed.attempts), (case.victim, case.attempts()), "{what}");
            assert!((case.crash.is_cause)(&failed.cause, traps), "{what}: {}", failed.cause);
            assert_eq!(report.missing_rows, [case.victim..case.victim + 1], "{what}");
            // Once among the other rows of its block, the others alone.
            let deaths = case.attempts() as usize + 1;
            assert_eq!(
                (report.deaths.len(), report.ended_early),
                (deaths, None),
                "{what}: {report}"
            );
        });
    });
}

#[test]
fn a_row_that_panics_is_the_one_that_the_error_names_or_the_call_goes_on_without() {
    isolated(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let m = matrix(N_ROWS, 4);
        let panics: [(&str, fn()); 2] =
            [("a bad row", || panic!("a bad row")), ("and again", panic_twice)];
        for (text, panics) in panics {
            for victim in VICTIMS {
                for at in STAGES {
                    for workers in WORKERS {
                        for guard in [false, true] {
                            let what = format!(
                                "{text} {at:?} stores, row {victim}, {workers} workers, guard \
                                 {guard}"
                            );
                            let options =
                                || fork().workers(workers).block_rows(BLOCK_ROWS).guard(guard);
                            let harm = |row, stage| {
                                if (row, stage) == (victim, at) {
                                    panics();
                                }
                            };
                            match transformed(&options(), &m, harm).unwrap_err() {
                                Error::KernelPanicked { row, message, location, .. } => {
                                    assert!(
                                        row == victim && message.contains(text),
                                        "{what}: {row} {message}"
                                    );
                                    assert!(location.starts_with(file!()), "{what}: {location}");
                                }
                                other => panic!("{what}: {other}"),
                            }
                            let filling = options().policy(Policy::fill(f64::NAN));
                            let (bits, report) = transformed(&filling, &m, harm).unwrap();
                            assert!(bits == without(victim, undisturbed(&m)), "{what}: other bits");
                            assert_eq!(report.failed_rows.len(), 1, "{what}: {report}");
                            let failed = &report.failed_rows[0];
                            assert_eq!((failed.row, failed.attempts), (victim, 1), "{what}");
                            assert!(
                                matches!(
                                    &failed.cause,
                                    DeathCause::Panicked { message, .. } if message.contains(text)
                                ),
                                "{what}: {}",
                                failed.cause
                            );
                            assert_eq!(report.missing_rows, [victim..victim + 1], "{what}");
                            assert!(report.deaths.is_empty(), "{what}: {report}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_stray_store_into_another_row_before_a_crash_is_in_no_result() {
    isolated(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let m = matrix(N_ROWS, 4);
        let right = undisturbed(&m);
        for workers in WORKERS {
            for hit in [0, 13, 29] {
                let mut out = SharedArray::<f64, _>::zeros(None, (N_ROWS, 4)).unwrap();
                let (times, start) = (SharedWord::new(), out.as_mut_ptr().expose_provenance());
                let options = fork().workers(workers).block_rows(BLOCK_ROWS);
                let report = options
                    .transform_rows_into(&m, 4, &mut out, |row, out| {
                        (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
                        (2..4).for_each(|column| out[column] = row[column] / 3.0);
                        if row.index() == 14 && first_time(&times) {
                            store_to(start + hit * 32 + 8);
                            std::process::abort();
                        }
                    })
                    .unwrap();
                let bits: Vec<u64> = out.view().iter().map(|value| value.to_bits()).collect();
                assert!(bits == right, "{workers} workers, a store into row {hit}: {report}");
                assert_eq!(report.rerun_rows, BLOCK_ROWS + N_ROWS);
            }
        }
    });
}

#[test]
fn a_guarded_stray_store_names_address_segment_row_and_worker() {
    isolated(|| {
        let name = isolated::unique_name("stray");
        let m = matrix(N_ROWS, 4);
        let right = undisturbed(&m);
        for (workers, hit, always) in
            [(1, 0, false), (2, 13, false), (5, 29, false), (1, 29, true), (2, 0, true)]
        {
            let mut out = SharedArray::<f64, _>::zeros(name.as_str(), (N_ROWS, 4)).unwrap();
            let (times, start) = (SharedWord::new(), out.as_mut_ptr().expose_provenance());
            let address = start + hit * 32 + 8;
            let options = fork().workers(workers).block_rows(BLOCK_ROWS).guard(true);
            let outcome = options.transform_rows_into(&m, 4, &mut out, |row, out| {
                (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
                (2..4).for_each(|column| out[column] = row[column] / 3.0);
                if row.index() == 14 && (always || first_time(&times)) {
                    store_to(address);
                }
            });
            let segment = Some(format!("segment {name:?}"));
            let expected = DeathCause::MemoryFault {
                signal: libc::SIGSEGV,
                address,
                read_only_segment: segment,
            };
            match outcome {
                Ok(report) => {
                    let bits: Vec<u64> = out.view().iter().map(|value| value.to_bits()).collect();
                    assert!(!always && bits == right, "a store into row {hit}: {report}");
                    assert_eq!(report.deaths.len(), 1, "{report}");
                    assert_eq!(
                        (&report.deaths[0].cause, &report.deaths[0].rows),
                        (&expected, &Some(12..18))
                    );
                    assert!(report.deaths[0].worker < workers);
                }
                Err(Error::PoisonedRows { rows, .. }) => {
                    assert!(always);
                    assert_eq!((rows.len(), rows[0].row, &rows[0].cause), (1, 14, &expected));
                    assert!(rows[0].worker < workers);
                    let told = rows[0].to_string();
                    let parts = [format!("{address:#x}"), name.clone(), "row 14".to_owned()];
                    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn an_unguarded_call_in_whose_every_run_something_crashes_gives_no_result() {
    isolated(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let m = matrix(N_ROWS, 4);
        for runs_with_a_crash in 1..=3 {
            // Another row in each run, so that none is to blame; what is done in such a run is
            // worthless.
            let (runs, crashes) = (SharedWord::new(), SharedWord::new());
            let outcome =
                transformed(&fork().workers(1).block_rows(BLOCK_ROWS), &m, |row, stage| {
                    let run = runs.load(Ordering::Relaxed);
                    if stage == Stage::After && row == N_ROWS - 1 {
                        runs.store(run + 1, Ordering::Relaxed);
                    }
                    let now = run < runs_with_a_crash && crashes.load(Ordering::Relaxed) == run;
                    if stage == Stage::Within && now && row as u64 == 5 + 7 * run {
                        crashes.store(run + 1, Ordering::Relaxed);
                        std::process::abort();
                    }
                });
            match outcome {
                Ok((bits, report)) => {
                    assert!(runs_with_a_crash < 3 && bits == undisturbed(&m), "{report}");
                    let rerun = runs_with_a_crash * (BLOCK_ROWS + N_ROWS) as u64;
                    let counted = (report.deaths.len() as u64, report.rerun_rows as u64);
                    assert_eq!(counted, (runs_with_a_crash, rerun), "{report}");
                }
                Err(Error::UnguardedCrash { row, cause, runs, .. }) => {
                    assert_eq!((runs_with_a_crash, row, runs), (3, Some(19), 3));
                    assert_eq!(cause, DeathCause::Signalled(libc::SIGABRT));
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::TrustAfterCrash,
            name_of(a_stray_store_into_another_row_before_a_crash_is_in_no_result),
        ),
        (
            Failpoint::ConvictWithoutRunAlone,
            name_of(a_row_that_always_crashes_is_the_only_one_that_a_call_goes_on_without),
        ),
        (
            Failpoint::WritableOutputUnderGuard,
            name_of(a_guarded_stray_store_names_address_segment_row_and_worker),
        ),
        (Failpoint::WritableSegments, name_of(a_crash_that_happens_once_changes_no_bit)),
    ]);
}
