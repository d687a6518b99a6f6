//! The operations on rows against rayon over the same segment, with kernels that are bound by
//! memory: the hardest case for processes. Prints, asserts no times:
//! `cargo measure figures_operations` on a quiet machine.

use std::cell::RefCell;

use ndarray::parallel::prelude::*;
use ndarray::{Array1, ArrayViewMut1, Axis, Ix1, Ix2, Zip};
use rowfork::{Row, SharedArray, fork};

use crate::support::timing::{COLUMNS, Pages, abba, mib, small_or_huge};

fn zeros_like(m: &SharedArray<f64, Ix2>) -> SharedArray<f64, Ix2> {
    SharedArray::zeros(None, (m.n_rows(), COLUMNS)).expect("room in /dev/shm")
}

fn title(m: &SharedArray<f64, Ix2>) {
    println!("{} MiB of {COLUMNS} columns, {:?}", m.len() >> 17, m.pages().unwrap());
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn transform_rows_against_rayon() {
    for huge in [true, false] {
        let (_pages, m) = small_or_huge(huge, mib());
        title(&m);
        // Both write to the same memory: where it lies, in the machine below a virtual one, is
        // worth more than the rest.
        let output = RefCell::new(zeros_like(&m));
        let by_fork = || {
            let twice = |row: Row<'_, f64, Ix1>, out: &mut ArrayViewMut1<'_, f64>| {
                Zip::from(out).and(&row).for_each(|out, &x| *out = 2.0 * x + 1.0);
            };
            fork().transform_rows_into(&m, COLUMNS, &mut output.borrow_mut(), twice).unwrap();
        };
        let by_rayon = || {
            Zip::from(output.borrow_mut().view_mut().rows_mut()).and(m.view().rows()).par_for_each(
                |out, row| {
                    Zip::from(out).and(row).for_each(|out, &x| *out = 2.0 * x + 1.0);
                },
            );
        };
        by_rayon();
        let expected = output.borrow().to_owned();
        output.borrow_mut().view_mut().fill(0.0);
        by_fork();
        assert_eq!(output.borrow().view(), expected);
        drop(expected);
        abba("transform_rows, rate of that of rayon", &mut &by_rayon, &mut &by_fork);
    }
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn update_rows_against_rayon() {
    for huge in [true, false] {
        let (_pages, m) = small_or_huge(huge, mib());
        let array = RefCell::new(m);
        title(&array.borrow());
        let by_fork = || {
            fork()
                .update_rows(&mut array.borrow_mut(), |row| row.mapv_inplace(|x| 0.5 * x + 1.0))
                .unwrap();
        };
        let by_rayon = || {
            let mut array = array.borrow_mut();
            array
                .view_mut()
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .for_each(|mut row| row.mapv_inplace(|x| 0.5 * x + 1.0));
        };
        let expected = array.borrow().view().mapv(|x| 0.5 * (0.5 * x + 1.0) + 1.0);
        by_fork();
        by_rayon();
        assert_eq!(array.borrow().view(), expected);
        drop(expected);
        abba("update_rows, rate of that of rayon", &mut &by_rayon, &mut &by_fork);
    }
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn fold_rows_against_rayon() {
    for huge in [true, false] {
        let (_pages, m) = small_or_huge(huge, mib());
        title(&m);
        let mut forked = SharedArray::<f64, Ix1>::zeros(None, COLUMNS).unwrap();
        let mut threaded = Array1::zeros(COLUMNS);
        let mut by_fork = || {
            let zeros = Array1::zeros(COLUMNS);
            fork()
                .fold_rows_array_into(
                    &m,
                    &zeros,
                    &mut forked,
                    |sums, row| *sums += &row,
                    |sums, other| *sums += other,
                )
                .unwrap();
        };
        let mut by_rayon = || {
            threaded = m
                .view()
                .axis_iter(Axis(0))
                .into_par_iter()
                .fold(|| Array1::zeros(COLUMNS), |sums, row| sums + row)
                .reduce(|| Array1::zeros(COLUMNS), |sums, others| sums + others);
        };
        by_fork();
        by_rayon();
        abba("column sums by fold_rows_array, of rayon", &mut by_rayon, &mut by_fork);
        assert!(
            forked
                .view()
                .iter()
                .zip(&threaded)
                .all(|(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * b.abs().max(1e6))
        );
    }
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn rows_of_eight_columns_against_rayon() {
    let _pages = Pages::are_huge(true);
    let n_rows = mib() << 14;
    let m = SharedArray::from_shape_fn(None, (n_rows, 8), |(i, j)| (i * 8 + j) as f64)
        .expect("room in /dev/shm");
    let (mut forked, mut threaded) =
        (SharedArray::<f64, Ix1>::zeros(None, n_rows).unwrap(), vec![0.0; n_rows]);
    let mut by_fork = || drop(fork().map_rows_into(&m, &mut forked, |row| row.dot(&row)).unwrap());
    let mut by_rayon = || {
        m.view()
            .axis_iter(Axis(0))
            .into_par_iter()
            .zip(&mut threaded)
            .for_each(|(row, out)| *out = row.dot(&row));
    };
    by_fork();
    by_rayon();
    abba("map_rows on 8 columns, rate of that of rayon", &mut by_rayon, &mut by_fork);
    assert_eq!(forked.as_slice(), threaded);
}
