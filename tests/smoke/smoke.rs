//! Something of every room in a few seconds: each operation on each executor, a segment, a file, a
//! selection, a refusal, and one fault of each kind. The other modules say what holds in all cases.

use std::sync::LazyLock;

use ndarray::{Array2, Ix1, Ix2, array};
use nix::sys::signal::Signal;
use rowfork::{DeathCause, Error, Policy, Row, SharedArray, broadcast, param, tasks};

use crate::support::Names;
use crate::support::executors::{Either, Executors, Place};
use crate::support::harm::first_time;
use crate::support::isolated::isolated;
use crate::support::shared::{SharedWord, raise};

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
            let mapped =
                call.map_blocks(&m, N_COLUMNS, |rows, out| out.assign(&rows.mapv(|x| 2.0 * x)));
            assert_eq!(mapped.unwrap().view(), twice);
            let numbers = call.run_tasks(9, |index| index as u64 * 3).unwrap();
            assert_eq!(numbers.as_slice(), [0, 3, 6, 9, 12, 15, 18, 21, 24]);
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
            let columns = call.fold_rows_array(
                &m,
                &array![0.0, 0.0, 0.0, 0.0],
                |sums, row| *sums += &row,
                |sums, others| *sums += others,
            );
            assert_eq!(columns.unwrap().view(), m.view().sum_axis(ndarray::Axis(0)));
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

/// Mapped before the pools are made, so that their workers have it.
static DEATHS: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

#[test]
fn a_worker_that_is_killed_costs_a_block_and_no_bit() {
    isolated(|| {
        LazyLock::force(&DEATHS);
        let m = matrix();
        workers_of_each_kind(|call| {
            DEATHS.store(0, std::sync::atomic::Ordering::Relaxed);
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
