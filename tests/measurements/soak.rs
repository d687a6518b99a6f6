//! Ten thousand calls, every way that a call can end among them, leave the process as it was:
//! descriptors, mappings, memory, children, names. A quarter of a minute, and never more than the
//! watchdog's two:
//!
//! `cargo t-soak`

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ndarray::{Array2, Ix2};
use nix::sys::signal::Signal;
use rowfork::{Error, SharedArray, fork};

use crate::support::harm::{first_time, harmed, matrix};
use crate::support::isolated::{isolated, unique_name};
use crate::support::process_resources::ProcessResources;
use crate::support::shared::{SharedWord, raise};

const CALLS: usize = 10_000;

/// Well before the watchdog.
const LIMIT: Duration = Duration::from_secs(100);

/// The first calls are not counted: they fill caches, the allocator's and rayon's.
const WARM_UP: usize = 500;

/// Made once: of arrays that come and go the allocator keeps one or two, as it pleases.
static LARGE: LazyLock<Array2<u8>> = LazyLock::new(|| Array2::ones((3000, 1000)));

/// One call; every sort of it comes up as `round` goes on.
fn call(round: usize, m: &mut SharedArray<f64, Ix2>, expected: &[u64], name: &str) {
    let workers = 1 + round % 3;
    match round % 13 {
        0 => match harmed(m, workers, |row| assert!(row != 50)).unwrap_err() {
            Error::KernelPanicked { row: 50, .. } => {}
            other => panic!("{other:?}"),
        },
        1 => {
            let failed = fork()
                .workers(workers)
                .map_rows(&*m, |row| if row.index() == 7 { Err("no") } else { Ok(0.0) });
            assert!(matches!(failed.unwrap_err(), Error::KernelFailed { row: 7, .. }));
        }
        2 => {
            let deaths = SharedWord::new();
            let kill_once = |row| {
                if row == 33 && first_time(&deaths) {
                    raise(Signal::SIGKILL);
                }
            };
            let (sums, report) = harmed(m, workers, kill_once).unwrap();
            assert_eq!((sums.as_slice(), report.deaths.len()), (expected, 1));
        }
        3 => drop(
            harmed(m, workers, |row| {
                if row == 33 {
                    raise(Signal::SIGSEGV);
                }
            })
            .unwrap_err(),
        ),
        4 => assert!(matches!(fork().workers(0).row_sums(&*m).unwrap_err(), Error::ZeroWorkers)),
        5 => {
            // Named, published, refused under a name that is taken, and gone again.
            let _named = SharedArray::<f64, _>::zeros(name, 10).unwrap();
            let mut sums = fork().workers(workers).row_sums(&*m).unwrap();
            assert!(matches!(sums.publish(name).unwrap_err(), Error::NameInUse { .. }));
            sums.publish(&format!("{name}-sums")).unwrap();
        }
        6 => {
            let _ = fork().workers(workers).update_rows(m, |row| row[0] += 0.0).unwrap();
            let torn = fork().workers(workers).update_rows(m, |row| {
                if row.index() == 99 {
                    raise(Signal::SIGKILL);
                }
            });
            assert!(matches!(torn.unwrap_err(), Error::UpdateInterrupted { .. }));
        }
        7 => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                fork()
                    .workers(workers)
                    .progress(|_| std::panic::resume_unwind(Box::new(())))
                    .row_sums(&*m)
                    .map(drop)
            }));
            assert!(ended.is_err(), "the callback's panic");
        }
        8 => {
            let largest = fork().workers(workers).fold_rows(
                &*m,
                0.0,
                |most, row| *most = row[0].max(*most),
                |a, b| *a = b.max(*a),
            );
            assert_eq!(*largest.unwrap(), m.view()[[99, 0]]);
        }
        9 => {
            let copied = fork()
                .workers(workers)
                .transform_rows(&*m, 3, |row, out| out.assign(&row))
                .unwrap();
            assert_eq!(copied.view(), m.view());
        }
        10 => assert_eq!(
            fork().workers(workers).run_tasks(40, |task| task).unwrap().as_slice()[39],
            39
        ),
        11 => {
            // Larger than a huge page, and filled by rayon's threads.
            let large = SharedArray::copy_from(None, &*LARGE).unwrap();
            assert_eq!(fork().workers(workers).row_sums(&large).unwrap().as_slice()[2999], 1000);
        }
        _ => assert_eq!(harmed(m, workers, |_| {}).unwrap().0, expected),
    }
}

#[test]
#[ignore = "a quarter of a minute: cargo t-soak"]
fn ten_thousand_calls_leave_no_descriptor_mapping_or_memory() {
    isolated(|| {
        let began = Instant::now();
        let name = unique_name("soak");
        let mut m = matrix(100, 3);
        let expected = harmed(&m, 1, |_| {}).unwrap().0;
        for round in 0..WARM_UP {
            call(round, &mut m, &expected, &name);
        }
        let own = std::process::id();
        let before = ProcessResources::of(own);
        let (mut done, mut most) = (0, before);
        while done < CALLS && began.elapsed() < LIMIT {
            call(done, &mut m, &expected, &name);
            done += 1;
            if done % 500 == 0 {
                let now = ProcessResources::of(own);
                assert_eq!(now.descriptors, before.descriptors, "after {done} calls");
                assert!(
                    now.mappings <= before.mappings + 8,
                    "after {done} calls: {now:?}, before {before:?}"
                );
                // A kibibyte in each call would be five times as much.
                let limit_kib = before.anonymous_kib + 2048;
                assert!(
                    now.anonymous_kib <= limit_kib,
                    "after {done} calls: {now:?}, before {before:?}"
                );
                most = ProcessResources {
                    descriptors: most.descriptors.max(now.descriptors),
                    mappings: most.mappings.max(now.mappings),
                    anonymous_kib: most.anonymous_kib.max(now.anonymous_kib),
                };
            }
        }
        println!(
            "FIGURE {done} calls in {:.0?}: before {before:?}, most {most:?}",
            began.elapsed()
        );
        assert!(done >= CALLS / 2, "only {done} calls in {LIMIT:?}");
    });
}
