//! Fork mode through its public face: what a call gives, what it refuses, and what it says of
//! itself.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ndarray::{Array, Array1, Array2, Axis, Ix1, Ix2};
use rowfork::failpoints::Failpoint;
use rowfork::{DeathCause, EarlyEnd, Error, Policy, SharedArray, fork};

use crate::support::isolated::{self, isolated, name_of, unique_name};
use crate::support::shared::SharedWord;

/// Values whose plain sums depend on the order.
fn awkward(shape: (usize, usize)) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, shape, |(i, j)| {
        let wide = if (i + j) % 3 == 0 { 1e16 } else { 1.0 };
        ((i * 31 + j * 17) % 1000) as f64 * wide - 500.0
    })
    .unwrap()
}

fn bits(array: &SharedArray<f64, Ix1>) -> Vec<u64> {
    array.view().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn sums_have_the_same_bits_for_all_workers_and_block_sizes() {
    isolated(|| {
        let m = awkward((300, 257));
        let serial: Vec<u64> = m
            .view()
            .rows()
            .into_iter()
            .map(|row| rowfork::exact_sum(row.as_slice().unwrap()).to_bits())
            .collect();
        for workers in 1..=16 {
            assert_eq!(
                bits(&fork().workers(workers).row_sums(&m).unwrap()),
                serial,
                "{workers} workers"
            );
        }
        for block_rows in [1, 2, 3, 7, 64, 299, 300, 301, usize::MAX] {
            let sums = fork().workers(3).block_rows(block_rows).row_sums(&m).unwrap();
            assert_eq!(bits(&sums), serial, "{block_rows} rows a block");
        }
    });
}

#[test]
fn every_shape_is_summed_to_its_last_row() {
    isolated(|| {
        for n_rows in [0, 1, 2, 3, 5, 63, 64, 65, 100, 1000] {
            for n_columns in [0, 1, 2, 3, 7, 8, 9, 31, 100] {
                let m = awkward((n_rows, n_columns));
                let sums = fork().workers(4).row_sums(&m).unwrap();
                let expected: Vec<f64> = m
                    .view()
                    .rows()
                    .into_iter()
                    .map(|row| rowfork::exact_sum(row.as_slice().unwrap()))
                    .collect();
                assert_eq!(sums.view().to_vec(), expected, "{n_rows} x {n_columns}");
                assert_eq!(sums.report().rows, n_rows);
            }
        }
    });
}

#[test]
fn no_rows_fork_no_workers() {
    isolated(|| {
        let m = awkward((0, 5));
        let sums = fork().row_sums(&m).unwrap();
        assert!(sums.is_empty() && sums.report().workers.is_empty());
    });
}

#[test]
fn a_kernel_sees_its_row_its_index_and_its_captures() {
    isolated(|| {
        let m = SharedArray::from_shape_fn(None, (500, 3), |(i, j)| (i * 3 + j) as f64).unwrap();
        let table = Rc::new(vec![2.0; 500]); // not Send, not Sync: a fork does not care
        let kernel_table = Rc::clone(&table);
        let mapped = fork().workers(2).map_rows(&m, move |row| {
            assert_eq!(row.len(), 3);
            row.dot(&row) * kernel_table[row.index()]
        });
        let expected: Array1<f64> =
            m.view().rows().into_iter().map(|row| row.dot(&row) * 2.0).collect();
        assert_eq!(mapped.unwrap().view(), expected);
    });
}

#[test]
fn rows_of_a_vector_are_scalars() {
    isolated(|| {
        let v = SharedArray::copy_from(None, &Array::linspace(0.0, 9.0, 10)).unwrap();
        let doubled = fork().workers(3).map_rows(&v, |row| row.into_scalar() * 2.0).unwrap();
        assert_eq!(doubled.view(), Array::linspace(0.0, 18.0, 10));
    });
}

#[test]
fn an_output_is_reused_in_place() {
    isolated(|| {
        let m = awkward((100, 10));
        let mut out = SharedArray::<f64, _>::zeros(None, 100).unwrap();
        let address = out.view().as_ptr();
        fork().workers(2).row_sums_into(&m, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&fork().workers(2).row_sums(&m).unwrap()));
        fork().workers(2).map_rows_into(&m, &mut out, |row| row.index() as f64).unwrap();
        assert_eq!(out.view()[99], 99.0);
        assert_eq!(out.view().as_ptr(), address);
    });
}

#[test]
fn a_result_can_be_published_and_seen_by_name() {
    isolated(|| {
        let m = awkward((10, 2));
        let mut sums = fork().workers(2).row_sums(&m).unwrap();
        let name = unique_name("sums");
        sums.publish(&name).unwrap();
        assert_eq!(SharedArray::<f64, Ix1>::read_copy(&name).unwrap(), sums.view());
    });
}

#[test]
fn six_slow_rows_go_to_both_workers() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (6, 1)).unwrap();
        let out = fork().workers(2).map_rows(&m, |row| {
            std::thread::sleep(Duration::from_millis(200));
            row.index() as f64
        });
        let out = out.unwrap();
        assert_eq!(out.view(), Array1::from_iter((0..6).map(f64::from)));
        let shares: Vec<usize> = out.report().workers.iter().map(|worker| worker.rows).collect();
        assert!(shares.len() == 2 && shares.iter().all(|&rows| rows >= 1), "{shares:?}");
    });
}

#[test]
fn an_error_names_the_lowest_failing_row_whatever_the_schedule() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (2000, 1)).unwrap();
        for round in 0..20 {
            let outcome =
                fork().workers(1 + round % 5).block_rows(1 + round * 7).map_rows(&m, |row| {
                    if row.index() >= 1111 {
                        Err(format!("no data for day {}", row.index()))
                    } else {
                        Ok(1.0)
                    }
                });
            match outcome.unwrap_err() {
                Error::KernelFailed { row: 1111, message, .. } => {
                    assert_eq!(message, "no data for day 1111");
                }
                other => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_captured_mutex_over_an_array_is_an_error_not_a_lost_update() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (100, 4)).unwrap();
        let name = unique_name("totals");
        let mut totals = SharedArray::<f64, _>::zeros(name.as_str(), 4).unwrap();
        let outcome = {
            let totals = Mutex::new(totals.view_mut());
            fork().workers(2).block_rows(10).map_rows(&m, |row| {
                if row.index() >= 42 {
                    totals.lock().unwrap()[0] += 1.0;
                }
                0.0
            })
        };
        match outcome.unwrap_err() {
            Error::PoisonedRows { rows, .. } => match &rows[0].cause {
                DeathCause::MemoryFault {
                    signal: 11, read_only_segment: Some(segment), ..
                } => {
                    assert!((42..100).contains(&rows[0].row), "{rows:?}");
                    assert!(segment.contains(&name), "{segment}");
                }
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
        assert_eq!(totals.view().sum(), 0.0);
    });
}

#[test]
fn the_input_cannot_be_written_by_a_kernel() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (10, 1)).unwrap();
        let address = m.view().as_ptr().addr();
        let outcome = fork().workers(1).map_rows(&m, |row| {
            let stray = row.as_ptr().cast_mut();
            #[allow(unsafe_code, reason = "the stray store that the test is about")]
            // SAFETY: not safe at all; the page is read-only in a worker, and the worker dies of
            // it.
            unsafe {
                stray.write_volatile(1.0);
            }
            0.0
        });
        match outcome.unwrap_err() {
            Error::PoisonedRows { rows, .. } => {
                assert_eq!((rows[0].row, rows[0].attempts), (0, 3));
                assert!(
                    matches!(
                        rows[0].cause,
                        DeathCause::MemoryFault { address: at, .. } if at == address
                    ),
                    "{rows:?}"
                );
            }
            other => panic!("{other}"),
        }
        assert_eq!(m.view().sum(), 0.0);
    });
}

#[test]
fn what_a_kernel_changes_outside_the_output_stays_in_its_worker() {
    isolated(|| {
        let m = awkward((50, 2));
        let seen = Cell::new(0);
        fork()
            .workers(2)
            .map_rows(&m, |_| {
                seen.set(seen.get() + 1);
                0.0
            })
            .unwrap();
        assert_eq!(seen.get(), 0);
    });
}

#[test]
fn a_call_within_a_kernel_is_refused_by_name() {
    isolated(|| {
        let m = awkward((3, 2));
        let outcome = fork().workers(1).map_rows(&m, |_| match fork().row_sums(&m) {
            Err(error @ Error::InsideWorker) => Err::<f64, _>(error.to_string()),
            other => panic!("{other:?}"),
        });
        assert!(outcome.unwrap_err().to_string().contains("from inside a kernel"));
    });
}

#[test]
fn a_kernel_may_make_and_drop_arrays_of_its_own() {
    isolated(|| {
        let m = awkward((20, 2));
        let name = unique_name("scratch");
        let sums = fork().workers(2).map_rows(&m, |row| {
            let scratch = SharedArray::from_shape_fn(None, 1000, |i| i as f64).unwrap();
            scratch.view()[row.index()]
        });
        assert_eq!(sums.unwrap().view()[19], 19.0);
        assert!(!isolated::own_names().contains(&name));
    });
}

#[test]
fn options_that_make_no_sense_are_refused_with_their_numbers() {
    isolated(|| {
        let m = awkward((3, 2));
        assert!(matches!(fork().workers(0).row_sums(&m).unwrap_err(), Error::ZeroWorkers));
        assert!(matches!(fork().block_rows(0).row_sums(&m).unwrap_err(), Error::ZeroBlockRows));
        let endless = SharedArray::<f64, _>::zeros(None, (1 << 40, 0)).unwrap();
        let refused = fork().workers(0).row_sums(&endless).unwrap_err();
        assert!(matches!(refused, Error::ZeroWorkers), "options come before the output: {refused}");
        match fork().workers(1 << 20).row_sums(&m).unwrap_err() {
            Error::TooManyWorkers { asked: 1_048_576, max: 65_536, .. } => {}
            other => panic!("{other}"),
        }
        let mut short = SharedArray::<f64, _>::zeros(None, 2).unwrap();
        match fork().row_sums_into(&m, &mut short).unwrap_err() {
            Error::WrongShape { what: "output", expected, found, .. } => {
                assert_eq!((expected, found), (vec![3], vec![2]));
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn progress_rises_to_the_end_and_is_not_a_flood() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (40, 1)).unwrap();
        let seen = RefCell::new(Vec::new());
        let out = fork()
            .workers(2)
            .progress(|progress| seen.borrow_mut().push(*progress))
            .map_rows(&m, |_| {
                std::thread::sleep(Duration::from_millis(20));
                0.0
            });
        let elapsed = out.unwrap().report().elapsed;
        let seen = seen.into_inner();
        assert!(
            seen.len() >= 2 && seen.len() as u128 <= elapsed.as_millis() / 100 + 2,
            "{} in {elapsed:?}",
            seen.len()
        );
        assert!(seen.windows(2).all(
            |pair| pair[0].rows_done <= pair[1].rows_done && pair[0].elapsed <= pair[1].elapsed
        ));
        let last = seen.last().unwrap();
        assert_eq!((last.rows_done, last.rows_total), (40, 40));
        assert_eq!(last.remaining(), Some(Duration::ZERO));
        assert!(seen[0].rows_done > 0 && seen[0].rows_done < 40, "{:?}", seen[0]);
    });
}

#[test]
fn progress_is_seen_within_a_block() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (30, 1)).unwrap();
        let seen = RefCell::new(Vec::new());
        let watched = fork()
            .workers(1)
            .block_rows(30)
            .progress(|progress| seen.borrow_mut().push(progress.rows_done));
        watched
            .map_rows(&m, |_| {
                std::thread::sleep(Duration::from_millis(10));
                0.0
            })
            .unwrap();
        assert!(seen.borrow().iter().any(|&rows| rows > 0 && rows < 30), "{seen:?}");
    });
}

#[test]
fn a_panic_in_the_progress_callback_leaves_no_worker() {
    isolated(|| {
        let m = SharedArray::<f64, _>::zeros(None, (1000, 1)).unwrap();
        let caught = std::panic::catch_unwind(|| {
            fork().workers(2).progress(|_| panic!("enough")).map_rows(&m, |_| {
                std::thread::sleep(Duration::from_millis(10));
                0.0
            })
        });
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"enough"));
        assert!(isolated::children().is_empty());
    });
}

#[test]
fn the_report_adds_up() {
    isolated(|| {
        let m = awkward((1000, 50));
        let sums = fork().workers(2).measure_memory(true).row_sums(&m).unwrap();
        let report = sums.report();
        assert_eq!(report.workers.iter().map(|worker| worker.rows).sum::<usize>(), 1000);
        assert_eq!(report.workers.iter().map(|worker| worker.blocks).sum::<usize>(), report.blocks);
        assert_eq!((report.bytes_read, report.bytes_written), (1000 * 50 * 8, 1000 * 8));
        assert_eq!((report.deaths.len(), report.rerun_rows), (0, 0));
        let times = report.block_times.unwrap();
        assert!(
            times.shortest <= times.mean
                && times.mean <= times.longest
                && times.longest <= report.elapsed
        );
        assert!((0.0..=1.0).contains(&report.efficiency()));
        assert!(report.workers.iter().all(|worker| worker.private_bytes.unwrap() > 0));
        assert!(report.to_string().contains("1000 rows"), "{report}");
    });
}

#[test]
fn a_report_of_a_call_ended_early_counts_finished_rows_alone() {
    isolated(|| {
        let m = awkward((1000, 50));
        for slow_from in [0, 500] {
            let limited = fork()
                .workers(2)
                .block_rows(10)
                .policy(Policy::fill(0.0))
                .deadline(Duration::from_millis(300));
            let sums = limited
                .map_rows(&m, |row| {
                    if row.index() >= slow_from {
                        std::thread::sleep(Duration::from_secs(60));
                    }
                    row.sum()
                })
                .unwrap();
            let report = sums.report();
            assert_eq!(report.ended_early, Some(EarlyEnd::Deadline));
            let finished = 1000 - sums.missing_rows().iter().map(Range::len).sum::<usize>();
            assert!(finished <= slow_from);
            let bytes = (finished * 51 * 8) as f64;
            let expected = bytes / report.elapsed.as_secs_f64() / 1e9;
            assert!(
                (report.gigabytes_per_second() - expected).abs() <= 1e-12 * expected,
                "{report}"
            );
            assert_eq!(report.to_string().contains("GB/s"), finished > 0, "{report}");
            assert!(!report.to_string().contains("efficiency"), "{report}");
        }
    });
}

#[test]
fn a_worker_has_less_than_a_mebibyte_of_its_own() {
    isolated(|| {
        let m = awkward((20_000, 128));
        let sums = fork().workers(2).measure_memory(true).row_sums(&m).unwrap();
        for worker in &sums.report().workers {
            assert!(worker.private_bytes.unwrap() < 1 << 20, "{worker:?}");
        }
    });
}

#[test]
fn workers_run_under_the_default_floating_point_mode() {
    isolated(|| {
        let m = SharedArray::copy_from(None, &Array2::from_elem((4, 2), f64::MIN_POSITIVE / 4.0))
            .unwrap();
        let expected = f64::MIN_POSITIVE / 2.0;
        let sums = with_subnormals_flushed(|| fork().workers(2).row_sums(&m).unwrap());
        assert!(
            sums.view().iter().all(|sum| sum.to_bits() == expected.to_bits()),
            "{:?}",
            sums.view()
        );
        let mapped = with_subnormals_flushed(|| {
            fork().workers(2).map_rows(&m, |row| row[0] + row[1]).unwrap()
        });
        assert!(
            mapped.view().iter().all(|sum| sum.to_bits() == expected.to_bits()),
            "{:?}",
            mapped.view()
        );
    });
}

#[test]
fn a_worker_is_killed_before_its_parent_when_memory_runs_out() {
    isolated(|| {
        let m = awkward((4, 1));
        let scores = fork().workers(2).map_rows(&m, |_| {
            std::fs::read_to_string("/proc/self/oom_score_adj")
                .unwrap()
                .trim()
                .parse::<f64>()
                .unwrap()
        });
        assert!(scores.unwrap().view().iter().all(|&score| score == 1000.0));
    });
}

#[test]
fn default_workers_are_the_cores_this_process_may_use() {
    isolated(|| {
        let m = awkward((1000, 2));
        let mut one_core = nix::sched::CpuSet::new();
        one_core.set(0).unwrap();
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &one_core).unwrap();
        assert_eq!(fork().row_sums(&m).unwrap().report().workers.len(), 1);
    });
}

#[test]
fn calls_from_many_threads_do_not_disturb_each_other() {
    isolated(|| {
        let m = awkward((500, 20));
        let expected = bits(&fork().workers(1).row_sums(&m).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let other = SharedArray::<f64, _>::zeros(None, (10, 10)).unwrap();
                        assert_eq!(bits(&fork().workers(2).row_sums(&m).unwrap()), expected);
                        drop(other);
                    }
                });
            }
        });
    });
}

#[test]
fn rows_are_run_once_when_nobody_dies() {
    isolated(|| {
        let runs = SharedWord::new();
        let m = SharedArray::<f64, _>::zeros(None, (997, 1)).unwrap();
        fork()
            .workers(3)
            .map_rows(&m, |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                0.0
            })
            .unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 997);
    });
}

#[test]
fn a_row_is_a_view_along_axis_0() {
    isolated(|| {
        let m = awkward((9, 4));
        let last = fork().workers(1).map_rows(&m, |row| row.into_view()[3]).unwrap();
        assert_eq!(last.view(), m.view().index_axis(Axis(1), 3));
    });
}

/// Runs `f` with flush-to-zero and denormals-are-zero set in this thread, as some hosts do.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "sets MXCSR")]
fn with_subnormals_flushed<T>(f: impl FnOnce() -> T) -> T {
    let set = |value: u32| {
        // SAFETY: loads MXCSR from memory; the bits set are FTZ and DAZ or the default.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
    };
    set(0x9fc0);
    let result = f();
    set(0x1f80);
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn with_subnormals_flushed<T>(f: impl FnOnce() -> T) -> T {
    f()
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (
            Failpoint::WritableSegments,
            name_of(a_captured_mutex_over_an_array_is_an_error_not_a_lost_update),
        ),
        (Failpoint::WritableSegments, name_of(the_input_cannot_be_written_by_a_kernel)),
        (Failpoint::KeepFpuMode, name_of(workers_run_under_the_default_floating_point_mode)),
        (Failpoint::NoOomScore, name_of(a_worker_is_killed_before_its_parent_when_memory_runs_out)),
    ]);
}
