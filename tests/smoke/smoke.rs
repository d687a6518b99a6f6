//! Something of every subject in a few seconds: each operation on each executor, a segment, a file, a
//! selection, a refusal, and one fault of each kind. The other modules say what holds in all cases.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ndarray::{Array1, Array2, Ix1, Ix2};
use nix::sys::signal::Signal;
use rowfork::{CancelToken, DeathCause, Error, Policy, Row, SharedArray, broadcast, param, tasks};

use crate::support::Names;
use crate::support::executors::{Either, Executors, Place};
use crate::support::harm::{NO_HARM, SPINS, STORES_TO_INPUT, WHERE, count_anew, first_time};
use crate::support::isolated::isolated;
use crate::support::pooled::{end_zygote_of, pool_of, until};
use crate::support::shared::{SharedWord, raise};
use crate::transformed;

const N_ROWS: usize = 30;
const N_COLUMNS: usize = 4;

fn matrix() -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), |(i, j)| (i * 7 + j) as f64).unwrap()
}

/// A number for each row, by a plain loop.
fn each_row(number: impl Fn(usize, &[f64]) -> f64) -> Vec<f64> {
    let m = matrix();
    let rows = m.as_slice().chunks(N_COLUMNS).enumerate();
    rows.map(|(index, row)| number(index, row)).collect()
}

fn sums() -> Vec<f64> {
    each_row(|_, row| row.iter().sum())
}

/// By workers forked for the call, by those of a pool, and in the calling thread where that is
/// possible.
fn each_place(check: impl Fn(Either<'_>)) {
    let executors = Executors::new(2);
    for place in Place::ALL {
        check(executors.at(place).workers(2).block_rows(7));
    }
}

/// By workers alone, of both kinds.
fn workers_of_each_kind(check: impl Fn(Either<'_>)) {
    let executors = Executors::new(2);
    for place in [Place::Fork, Place::Pool] {
        check(executors.at(place).workers(2).block_rows(7));
    }
}

#[test]
fn rows_and_blocks_are_mapped() {
    isolated(|| {
        let m = matrix();
        let twice = m.view().mapv(|x| 2.0 * x);
        each_place(|call| {
            let mapped = call.map_rows(&m, |row| row.sum()).unwrap();
            assert_eq!(mapped.as_slice(), sums());
            let mut out = SharedArray::zeros(None, N_ROWS).unwrap();
            call.map_rows_into(&m, &mut out, |row| row.sum()).unwrap();
            assert_eq!(out.as_slice(), sums());
            let transformed =
                call.transform_rows(&m, N_COLUMNS, |row, out| out.assign(&row.mapv(|x| 2.0 * x)));
            assert_eq!(transformed.unwrap().view(), twice);
            let mut out = SharedArray::zeros(None, (N_ROWS, N_COLUMNS)).unwrap();
            call.transform_rows_into(&m, N_COLUMNS, &mut out, |row, out| {
                out.assign(&row.mapv(|x| 2.0 * x));
            })
            .unwrap();
            assert_eq!(out.view(), twice);
            let mapped =
                call.map_blocks(&m, N_COLUMNS, |rows, out| out.assign(&rows.mapv(|x| 2.0 * x)));
            assert_eq!(mapped.unwrap().view(), twice);
            out.view_mut().fill(0.0);
            call.map_blocks_into(&m, N_COLUMNS, &mut out, |rows, out| {
                out.assign(&rows.mapv(|x| 2.0 * x));
            })
            .unwrap();
            assert_eq!(out.view(), twice);
        });
    });
}

#[test]
fn tasks_are_run() {
    isolated(|| {
        each_place(|call| {
            let numbers = call.run_tasks(9, |index| index as u64 * 3).unwrap();
            assert_eq!(numbers.as_slice(), [0, 3, 6, 9, 12, 15, 18, 21, 24]);
            let mut out = SharedArray::zeros(None, 9).unwrap();
            call.run_tasks_into(&mut out, |index| index as u64 * 3).unwrap();
            assert_eq!(out.as_slice(), numbers.as_slice());
        });
    });
}

#[test]
fn rows_are_updated_in_place() {
    isolated(|| {
        let m = matrix();
        each_place(|call| {
            let mut own = matrix();
            call.update_rows(&mut own, |row| *row += 1.0).unwrap();
            assert_eq!(own.view(), &m.view() + 1.0);
            call.update_rows_with(&mut own, &m, |row, before| **row -= &*before).unwrap();
            assert_eq!(own.view(), Array2::<f64>::ones((N_ROWS, N_COLUMNS)));
        });
    });
}

#[test]
fn rows_are_folded() {
    isolated(|| {
        let m = matrix();
        let total: f64 = sums().iter().sum();
        each_place(|call| {
            let folded =
                call.fold_rows(&m, 0.0, |sum, row| *sum += row.sum(), |sum, other| *sum += other);
            assert_eq!(*folded.unwrap(), total);
            let mut folded = 0.0;
            let (add_row, add) = (
                |sum: &mut f64, row: Row<'_, f64, Ix1>| *sum += row.sum(),
                |sum: &mut f64, other: &f64| *sum += other,
            );
            call.fold_rows_into(&m, 0.0, &mut folded, add_row, add).unwrap();
            assert_eq!(folded, total);
        });
    });
}

#[test]
fn rows_are_folded_to_arrays() {
    isolated(|| {
        let m = matrix();
        let (zeros, expected) = (Array1::zeros(N_COLUMNS), m.view().sum_axis(ndarray::Axis(0)));
        each_place(|call| {
            let columns = call.fold_rows_array(
                &m,
                &zeros,
                |sums, row| *sums += &row,
                |sums, others| *sums += others,
            );
            assert_eq!(columns.unwrap().view(), expected);
            let mut out = SharedArray::zeros(None, N_COLUMNS).unwrap();
            call.fold_rows_array_into(
                &m,
                &zeros,
                &mut out,
                |sums, row| *sums += &row,
                |sums, others| *sums += others,
            )
            .unwrap();
            assert_eq!(out.view(), expected);
        });
    });
}

#[test]
fn built_in_sums_means_and_dots_are_those_of_a_plain_loop() {
    isolated(|| {
        let m = matrix();
        let weights = [0.5, 1.5, 2.5, 3.5];
        let dots = each_row(|_, row| row.iter().zip(&weights).map(|(x, weight)| x * weight).sum());
        let weighted: Vec<f64> = dots.iter().map(|dot| dot / 8.0).collect();
        let means: Vec<f64> = sums().iter().map(|sum| sum / 4.0).collect();
        each_place(|call| {
            assert_eq!(call.row_sums(&m).unwrap().as_slice(), sums());
            assert_eq!(call.row_sums_fast(&m).unwrap().as_slice(), sums());
            assert_eq!(call.row_means(&m).unwrap().as_slice(), means);
            assert_eq!(call.row_dot(&m, &weights).unwrap().as_slice(), dots);
            assert_eq!(call.row_weighted_means(&m, &weights).unwrap().as_slice(), weighted);
            let mut out = SharedArray::zeros(None, N_ROWS).unwrap();
            call.row_sums_into(&m, &mut out).unwrap();
            assert_eq!(out.as_slice(), sums());
            call.row_means_into(&m, &mut out).unwrap();
            assert_eq!(out.as_slice(), means);
            call.row_sums_fast_into(&m, &mut out).unwrap();
            assert_eq!(out.as_slice(), sums());
            call.row_dot_into(&m, &weights, &mut out).unwrap();
            assert_eq!(out.as_slice(), dots);
            call.row_weighted_means_into(&m, &weights, &mut out).unwrap();
            assert_eq!(out.as_slice(), weighted);
        });
    });
}

#[test]
fn inputs_are_selected_and_go_side_by_side() {
    isolated(|| {
        let m = matrix();
        each_place(|call| {
            let part = m.rows(5..20).unwrap().columns(1..3).unwrap();
            let part_sums = m.view().slice(ndarray::s![5..20, 1..3]).sum_axis(ndarray::Axis(1));
            assert_eq!(call.row_sums(part).unwrap().view(), part_sums);
            let inputs = (&m, tasks(N_ROWS), param(0.25), broadcast(&m));
            let mapped = call.map_rows(inputs, |(row, index, quarter, all)| {
                row.sum() + index as f64 + quarter + all[[2, 3]]
            });
            let expected = each_row(|index, row| row.iter().sum::<f64>() + index as f64 + 17.25);
            assert_eq!(mapped.unwrap().as_slice(), expected);
        });
    });
}

#[test]
fn a_named_segment_is_attached_and_gone_with_its_maker() {
    isolated(|| {
        let names = Names::new();
        let name = names.name("smoke");
        let made = SharedArray::<f64, _>::copy_from(&name, &matrix().view()).unwrap();
        #[allow(unsafe_code, reason = "attaches to a segment that only this test knows")]
        // SAFETY: nobody else knows the name, and nobody writes.
        let attached = unsafe { SharedArray::<f64, Ix2>::attach(&name) }.unwrap();
        assert_eq!(rowfork::fork().row_sums(&attached).unwrap().as_slice(), sums());
        drop((attached, made));
        assert!(names.left().is_empty());
    });
}

#[test]
fn a_file_is_written_read_and_mapped() {
    isolated(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.npy");
        matrix().write_npy(&path).unwrap();
        let read = SharedArray::<f64, Ix2>::from_npy_file(None, &path).unwrap();
        assert_eq!(read.view(), matrix().view());
        #[allow(unsafe_code, reason = "maps a file that only this test knows")]
        // SAFETY: nobody writes to the file.
        let mapped = unsafe { SharedArray::<f64, Ix2>::map_npy_file(&path) }.unwrap();
        each_place(|call| assert_eq!(call.row_sums(&mapped).unwrap().as_slice(), sums()));
    });
}

#[test]
fn an_output_of_another_length_is_refused() {
    isolated(|| {
        let m = matrix();
        each_place(|call| {
            let mut out = SharedArray::zeros(None, N_ROWS - 1).unwrap();
            let refused = call.row_sums_into(&m, &mut out).unwrap_err();
            assert!(matches!(refused, Error::WrongShape { .. }), "{refused}");
        });
    });
}

#[test]
fn a_sum_of_integers_that_does_not_fit_is_an_error() {
    isolated(|| {
        let one_too_many = |(i, j)| if i == 11 { [i64::MAX, 1, 0, 0][j] } else { 1 };
        let m = SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), one_too_many).unwrap();
        each_place(|call| match call.row_sums(&m).unwrap_err() {
            Error::SumOverflow { row: 11, sum, .. } => assert_eq!(sum, 1 << 63),
            other => panic!("{other}"),
        });
    });
}

/// Mapped before the pools are made, so that their workers have it.
static DEATHS: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

#[test]
fn a_worker_that_is_killed_costs_a_block_and_no_bit() {
    isolated(|| {
        LazyLock::force(&DEATHS);
        let m = matrix();
        workers_of_each_kind(|call| {
            DEATHS.store(0, Ordering::Relaxed);
            let mapped = call.map_rows(&m, |row| {
                if row.index() == 11 && first_time(&DEATHS) {
                    raise(Signal::SIGKILL);
                }
                row.sum()
            });
            let mapped = mapped.unwrap();
            assert_eq!(mapped.as_slice(), sums());
            assert_eq!(mapped.report().deaths.len(), 1);
            assert_eq!(mapped.report().deaths[0].cause, DeathCause::Signalled(libc::SIGKILL));
        });
    });
}

#[test]
fn a_panic_names_its_row() {
    isolated(|| {
        let m = matrix();
        workers_of_each_kind(|call| {
            let kernel = |row: Row<'_, f64, Ix1>| {
                assert!(row.index() != 11, "bad row {}", row.index());
                row.sum()
            };
            match call.map_rows(&m, kernel).unwrap_err() {
                Error::KernelPanicked { row: 11, message, .. } => assert_eq!(message, "bad row 11"),
                other => panic!("{other}"),
            }
        });
    });
}

#[test]
fn a_call_goes_on_without_a_row_that_always_kills() {
    isolated(|| {
        let m = matrix();
        let expected = each_row(|index, row| if index == 11 { -1.0 } else { row.iter().sum() });
        workers_of_each_kind(|call| {
            let kernel = |row: Row<'_, f64, Ix1>| {
                if row.index() == 11 {
                    std::process::abort();
                }
                row.sum()
            };
            let mapped = call.policy(Policy::fill(-1.0)).map_rows(&m, kernel).unwrap();
            assert_eq!(mapped.as_slice(), expected);
            let poisoned = &mapped.report().failed_rows;
            assert_eq!(poisoned.iter().map(|failed| failed.row).collect::<Vec<_>>(), [11]);
        });
    });
}

#[test]
fn an_error_of_a_kernel_names_its_row() {
    isolated(|| {
        let m = matrix();
        workers_of_each_kind(|call| {
            let kernel = |row: Row<'_, f64, Ix1>| {
                if row.index() == 11 { Err("no such row") } else { Ok(row.sum()) }
            };
            match call.map_rows(&m, kernel).unwrap_err() {
                Error::KernelFailed { row: 11, message, .. } => assert_eq!(message, "no such row"),
                other => panic!("{other}"),
            }
        });
    });
}

/// The row with this number never ends, as often as it is tried.
const ENDLESS: [u64; 4] = [SPINS, 11, 0, u64::MAX];

#[test]
fn a_row_that_never_ends_is_found() {
    isolated(|| {
        count_anew();
        let m = matrix();
        workers_of_each_kind(|call| {
            let limit = Duration::from_millis(100);
            let call = call.stall_limit(limit).policy(Policy::fill(-1.0));
            let done = transformed!(call, &m, ENDLESS).unwrap();
            let failed = &done.report().failed_rows;
            assert_eq!(failed.iter().map(|failed| failed.row).collect::<Vec<_>>(), [11]);
            assert!(matches!(failed[0].cause, DeathCause::Stalled { .. }), "{}", failed[0]);
        });
    });
}

#[test]
fn a_deadline_ends_a_call() {
    isolated(|| {
        count_anew();
        let m = matrix();
        workers_of_each_kind(|call| {
            let limit = Duration::from_millis(100);
            match transformed!(call.deadline(limit), &m, ENDLESS).unwrap_err() {
                Error::DeadlineExceeded { limit: told, rows_total: N_ROWS, .. } => {
                    assert_eq!(told, limit);
                }
                other => panic!("{other}"),
            }
        });
    });
}

#[test]
fn a_call_is_cancelled_while_a_row_runs() {
    isolated(|| {
        count_anew();
        let m = matrix();
        workers_of_each_kind(|call| {
            WHERE.store(0, Ordering::Release);
            let token = CancelToken::new().unwrap();
            let call = call.cancel_token(&token);
            let cancelled = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let runs = || WHERE.load(Ordering::Acquire) != 0;
                    until(Duration::from_secs(20), "the row runs", runs);
                    token.cancel();
                });
                transformed!(call, &m, ENDLESS).unwrap_err()
            });
            assert!(
                matches!(cancelled, Error::Cancelled { rows_total: N_ROWS, .. }),
                "{cancelled}"
            );
        });
    });
}

#[test]
fn a_store_to_an_input_costs_a_block_and_no_bit() {
    isolated(|| {
        count_anew();
        let m = matrix();
        workers_of_each_kind(|call| {
            count_anew();
            let call = call.guard(true);
            let right = transformed!(call, &m, NO_HARM).unwrap();
            let done = transformed!(call, &m, [STORES_TO_INPUT, 11, 0, 1]).unwrap();
            assert_eq!(done.view(), right.view());
            assert_eq!(m.view(), matrix().view());
            let [death] = &done.report().deaths[..] else { panic!("{}", done.report()) };
            let fault = |cause: &DeathCause| matches!(cause, DeathCause::MemoryFault { .. });
            assert!(fault(&death.cause), "{}", done.report());
        });
    });
}

#[test]
fn a_stray_store_to_a_guarded_output_is_in_no_result() {
    isolated(|| {
        let m = matrix();
        let mut out = SharedArray::<f64, _>::zeros(None, N_ROWS).unwrap();
        let (stores, row_20) = (SharedWord::new(), out.as_mut_ptr().expose_provenance() + 20 * 8);
        let call = rowfork::fork().workers(2).block_rows(7).guard(true);
        let report = call.map_rows_into(&m, &mut out, |row| {
            if row.index() == 11 && first_time(&stores) {
                #[allow(unsafe_code, reason = "does what a kernel must not do")]
                // SAFETY: none; the page is read-only here.
                unsafe {
                    std::ptr::with_exposed_provenance_mut::<f64>(row_20).write_volatile(-1.0);
                }
            }
            row.sum()
        });
        let report = report.unwrap();
        assert_eq!(out.as_slice(), sums());
        let [death] = &report.deaths[..] else { panic!("{report}") };
        match &death.cause {
            DeathCause::MemoryFault { address, read_only_segment: Some(_), .. } => {
                assert_eq!(*address, row_20);
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_pool_without_its_zygote_says_so_and_the_next_one_works() {
    isolated(|| {
        let m = matrix();
        let pool = pool_of(2).build().unwrap();
        assert_eq!(pool.map_rows(&m, |row| row.sum()).unwrap().as_slice(), sums());
        end_zygote_of(&pool);
        let broken = pool.map_rows(&m, |row| row.sum()).unwrap_err();
        assert!(matches!(broken, Error::PoolBroken { .. }), "{broken}");
        let pool = pool_of(2).build().unwrap();
        assert_eq!(pool.map_rows(&m, |row| row.sum()).unwrap().as_slice(), sums());
    });
}
