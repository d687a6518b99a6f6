//! Stores into rows that are another worker's, or that are done: in no result, and under guard a
//! fault that the error names.
//!
//! What a guard cannot see, and so is in no test: a stray store into the worker's own copy of the
//! block, which is its own memory as much as its heap is.

use std::sync::atomic::Ordering;

use ndarray::Ix2;
use nix::sys::resource::{Resource, setrlimit};
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, Error, Fork, Report, SharedArray, fork};

use crate::support::harm::{NO_HARM, bits, first_time, matrix, store_to};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::SharedWord;
use crate::transformed;

const N_ROWS: usize = 30;
const BLOCK_ROWS: usize = 6;
const WORKERS: [usize; 3] = [1, 2, 5];

fn undisturbed(m: &SharedArray<f64, Ix2>) -> Vec<u64> {
    bits(&transformed!(fork().workers(1), m, NO_HARM).unwrap())
}

/// The same rows, written in two halves by a kernel that does `harm` between and behind them.
fn transformed_with(
    options: &Fork<'_>,
    m: &SharedArray<f64, Ix2>,
    harm: impl Fn(usize, u64),
) -> rowfork::Result<(Vec<u64>, Report)> {
    let outcome = options.transform_rows(m, 4, |row, out| {
        (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
        harm(row.index(), 1);
        (2..4).for_each(|column| out[column] = row[column] / 3.0);
        harm(row.index(), 2);
    });
    let (out, report) = outcome?.into_parts();
    Ok((bits(&out), report))
}

#[test]
fn a_stray_store_before_a_crash_is_in_no_result() {
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
                assert!(bits(&out) == right, "{workers} workers, a store into row {hit}: {report}");
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
                    assert!(!always && bits(&out) == right, "a store into row {hit}: {report}");
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
fn an_unguarded_call_that_crashes_in_every_run_gives_no_result() {
    isolated(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let m = matrix(N_ROWS, 4);
        for runs_with_a_crash in 1..=3 {
            // Another row in each run, so that none is to blame; what is done in such a run is
            // worthless.
            let (runs, crashes) = (SharedWord::new(), SharedWord::new());
            let outcome =
                transformed_with(&fork().workers(1).block_rows(BLOCK_ROWS), &m, |row, stage| {
                    let run = runs.load(Ordering::Relaxed);
                    if stage == 2 && row == N_ROWS - 1 {
                        runs.store(run + 1, Ordering::Relaxed);
                    }
                    let now = run < runs_with_a_crash && crashes.load(Ordering::Relaxed) == run;
                    if stage == 1 && now && row as u64 == 5 + 7 * run {
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
        (Failpoint::TrustAfterCrash, name_of(a_stray_store_before_a_crash_is_in_no_result)),
        (
            Failpoint::WritableOutputUnderGuard,
            name_of(a_guarded_stray_store_names_address_segment_row_and_worker),
        ),
    ]);
}
