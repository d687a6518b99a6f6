//! What goes with a call arrives in its workers as it was, also in those of a pool, which get it in
//! words: parts of arrays, parameters of any size, vectors longer than what is kept in one piece.

#![allow(clippy::many_single_char_names, reason = "inputs have letters")]
#![allow(clippy::large_stack_arrays, reason = "a long parameter is one")]
#![allow(clippy::cast_lossless, clippy::cast_possible_truncation, reason = "small numbers")]

use ndarray::{Array1, ArrayView1, ArrayViewD, Axis, Dimension, Ix2, IxDyn, Slice};
use rowfork::bytemuck::{Pod, Zeroable};
use rowfork::{Selection, SharedArray, broadcast, param, tasks};

use crate::support::executors::{self, Executors, Place};
use crate::support::isolated::isolated;
use crate::support::value::{dim_of, hash, values};

const MOST_WORKERS: usize = 5;

/// Every executor, and every number of workers.
fn each_place(check: impl Fn(&str, executors::Either<'_>)) {
    let executors = Executors::new(MOST_WORKERS);
    for place in Place::ALL {
        for workers in 1..=MOST_WORKERS {
            check(&format!("{place}, {workers} workers"), executors.at(place).workers(workers));
        }
    }
}

fn matrix(n_rows: usize, n_columns: usize) -> SharedArray<f64, Ix2> {
    SharedArray::copy_from(None, &values(dim_of::<Ix2>(&[n_rows, n_columns]))).unwrap()
}

/// The vector's elements, whose products with those of a matrix have sums that are exact in every
/// order.
fn vector(len: usize) -> Array1<f64> {
    (0..len).map(|place| (place % 13) as f64 - 4.5).collect()
}

fn dots(m: &SharedArray<f64, Ix2>, vector: &ArrayView1<'_, f64>) -> Vec<f64> {
    m.view().outer_iter().map(|row| row.dot(vector)).collect()
}

/// Parts of an array of seven axes: turned, with steps, without elements, of one place along an
/// axis.
fn parts(array: &SharedArray<f64, IxDyn>) -> Vec<Selection<'_, f64, IxDyn>> {
    let slice = |parts: &[(usize, Slice)]| {
        parts.iter().fold(Selection::from(array), |part, &(axis, slice)| {
            part.slice_axis(Axis(axis), slice).unwrap()
        })
    };
    let turned = Slice::new(0, None, -1);
    vec![
        slice(&[]),
        slice(&[(0, turned)]),
        slice(&[(0, Slice::new(1, None, 3)), (2, turned)]),
        slice(&[(0, turned), (1, turned), (3, Slice::new(0, None, -2)), (6, turned)]),
        slice(&[
            (0, turned),
            (1, turned),
            (2, turned),
            (3, turned),
            (4, turned),
            (5, turned),
            (6, turned),
        ]),
        slice(&[(0, Slice::new(0, None, -2)), (6, Slice::new(1, None, 2))]),
        slice(&[(0, Slice::new(2, Some(3), -1)), (3, Slice::new(1, Some(2), -1))]),
        slice(&[(0, Slice::new(3, Some(3), -1)), (3, turned)]),
        slice(&[(0, turned), (3, Slice::new(1, Some(1), -1))]),
        slice(&[(0, turned), (3, Slice::new(1, Some(1), 1)), (6, Slice::new(0, None, -2))]),
    ]
}

/// Three bytes: no whole word.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Odd([u8; 3]);

/// Aligned to more than a word is.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
#[repr(C, align(16))]
struct Wide([f64; 6]);

#[test]
fn parts_of_many_axes_arrive_as_rows_as_blocks_and_as_a_whole() {
    isolated(|| {
        let serial = values::<f64, _>(IxDyn(&[7, 2, 3, 4, 1, 2, 5]));
        let array = SharedArray::copy_from(None, &serial).unwrap();
        each_place(|what, call| {
            let call = call.block_rows(2);
            for (number, part) in parts(&array).into_iter().enumerate() {
                let what = format!("part {number}, {what}");
                let rows: Vec<u64> = part
                    .view()
                    .outer_iter()
                    .enumerate()
                    .map(|(index, row)| hash(index, &row))
                    .collect();
                let mapped = call.map_rows(&part, |row| hash(row.index(), &row)).unwrap();
                assert_eq!(mapped.as_slice(), rows, "rows of {what}");
                let mapped = call.map_blocks(&part, (), |block, out| {
                    for ((index, row), out) in block.row_range().zip(block.outer_iter()).zip(out) {
                        *out = hash(index, &row);
                    }
                });
                assert_eq!(mapped.unwrap().as_slice(), rows, "blocks of {what}");
                let whole = |index: usize, part: ArrayViewD<'_, f64>| {
                    part.shape()
                        .iter()
                        .fold(hash(index, &part), |hash, &len| hash.wrapping_mul(31) ^ len as u64)
                };
                let expected: Vec<u64> = (0..5).map(|index| whole(index, part.view())).collect();
                let seen = call
                    .map_rows((tasks(5), broadcast(part)), move |(index, part)| whole(index, part))
                    .unwrap();
                assert_eq!(seen.as_slice(), expected, "the whole of {what}");
            }
        });
    });
}

#[test]
fn vectors_of_any_length_arrive() {
    isolated(|| {
        let m = matrix(3, 100_000);
        let v = vector(100_000);
        let (dots, weight) = (dots(&m, &v.view()), v.sum());
        let backwards: Vec<f64> = m
            .view()
            .outer_iter()
            .map(|row| row.iter().rev().zip(&v).map(|(x, y)| x * y).sum())
            .collect();
        each_place(|what, call| {
            assert_eq!(call.row_dot(&m, &v).unwrap().as_slice(), dots, "{what}");
            let turned = call.row_dot(m.columns(Slice::new(0, None, -1)).unwrap(), &v).unwrap();
            assert_eq!(turned.as_slice(), backwards, "turned round, {what}");
            let means = call.row_weighted_means(&m, &v).unwrap();
            let expected: Vec<f64> = dots.iter().map(|dot| dot / weight).collect();
            assert_eq!(means.as_slice(), expected, "weighted, {what}");
            let short = m.columns(..3).unwrap();
            let expected: Vec<f64> = m
                .view()
                .outer_iter()
                .map(|row| -4.5 * row[0] - 3.5 * row[1] - 2.5 * row[2])
                .collect();
            assert_eq!(
                call.row_dot(short, v.slice(ndarray::s![..3])).unwrap().as_slice(),
                expected,
                "after, {what}"
            );
        });
    });
}

#[test]
fn vectors_at_the_limit_of_the_board_and_beyond_it_arrive() {
    isolated(|| {
        let m = matrix(2, 4200);
        let v = vector(4200);
        let executors = Executors::new(2);
        for len in (1..40).chain(3980..4200) {
            let (part, v) = (m.columns(..len).unwrap(), v.slice(ndarray::s![..len]));
            let expected: Vec<f64> = part.view().outer_iter().map(|row| row.dot(&v)).collect();
            let found = executors.at(Place::Pool).row_dot(part, v).unwrap();
            assert_eq!(found.as_slice(), expected, "{len} elements");
            assert!(!found.report().inline);
        }
    });
}

#[test]
fn accumulators_of_any_length_begin_as_the_one_that_was_given() {
    isolated(|| {
        // All below zero: one that began as zeros would show.
        let below = |n_rows| {
            SharedArray::from_shape_fn(None, (n_rows, 100_000), |(i, j)| {
                -1.0 - ((i * 7 + j * 3) % 1001) as f64
            })
            .unwrap()
        };
        let least: Array1<f64> = (0..100_000).map(|place| -2000.0 - place as f64).collect();
        let executors = Executors::new(MOST_WORKERS);
        for n_rows in [0, 1, 3, 70] {
            let m = below(n_rows);
            let expected = m.view().outer_iter().fold(least.clone(), |most, row| {
                ndarray::Zip::from(&most).and(&row).map_collect(|a: &f64, b| a.max(*b))
            });
            for (place, workers) in
                [(Place::Fork, 2), (Place::Pool, 1), (Place::Pool, 2), (Place::Pool, 5)]
            {
                let most = executors.at(place).workers(workers).fold_rows_array(
                    &m,
                    &least,
                    |most, row| most.zip_mut_with(&row, |a, b| *a = a.max(*b)),
                    |most, others| most.zip_mut_with(others, |a, b| *a = a.max(*b)),
                );
                assert!(
                    most.unwrap().view() == expected,
                    "{n_rows} rows, {place}, {workers} workers"
                );
            }
        }
    });
}

#[test]
fn parameters_of_any_size_and_alignment_arrive() {
    isolated(|| {
        let m = matrix(130, 3);
        let sums: Vec<f64> = m.view().outer_iter().map(|row| row.sum()).collect();
        let mut long = [0.0_f64; 5000];
        long.iter_mut().enumerate().for_each(|(place, x)| *x = place as f64);
        each_place(|what, call| {
            let input = (
                &m,
                param(Odd([1, 2, 253])),
                param(Wide([0.5, 1.0, -2.0, 4.0, 1e300, -0.0])),
                param(7_u8),
            );
            let found = call.map_rows(input, |(row, odd, wide, seven)| {
                let as_given = (odd, wide)
                    == (Odd([1, 2, 253]), Wide([0.5, 1.0, -2.0, 4.0, 1e300, -0.0]))
                    && seven == 7;
                let lies_well =
                    (&raw const wide).addr().is_multiple_of(16) && wide.0[5].is_sign_negative();
                if as_given && lies_well { row.sum() } else { f64::NAN }
            });
            assert_eq!(found.unwrap().as_slice(), sums, "{what}");
            let found = call.map_rows(
                (param([0.0_f64; 0]), &m, param(u128::MAX - 5)),
                |(none, row, large)| {
                    if none.is_empty() && large == u128::MAX - 5 { row.sum() } else { f64::NAN }
                },
            );
            assert_eq!(found.unwrap().as_slice(), sums, "none and large, {what}");
            let found = call.map_rows((&m, param(long)), |(row, long)| {
                let as_given = long.iter().enumerate().all(|(place, &x)| x == place as f64);
                if as_given { row.sum() } else { f64::NAN }
            });
            assert_eq!(found.unwrap().as_slice(), sums, "a long one, {what}");
        });
    });
}

#[test]
fn eight_others_beside_the_rows_arrive_each_in_its_place() {
    isolated(|| {
        let m = matrix(300, 4);
        let (a, b, c) = (matrix(4, 2), matrix(1, 9), matrix(5, 5));
        let d = SharedArray::from_shape_fn(None, 6, |place| place as u8).unwrap();
        let e = SharedArray::copy_from(None, &ndarray::arr0(17_i64)).unwrap();
        let turned = c.rows(Slice::new(0, None, -2)).unwrap();
        let score =
            |sum: f64, others: [f64; 8]| others.iter().fold(sum, |score, x| score / 4.0 + x);
        let others = [
            a.view()[[3, 1]],
            b.view()[[0, 8]],
            c.view()[[4, 1]],
            5.0,
            17.0,
            0.25,
            -8.0,
            c.view()[[0, 0]],
        ];
        let expected: Vec<f64> =
            m.view().outer_iter().map(|row| score(row.sum(), others)).collect();
        each_place(|what, call| {
            let input = (
                broadcast(&a),
                broadcast(&b),
                broadcast(turned),
                broadcast(&d),
                &m,
                broadcast(&e),
                param(0.25),
                param(-8_i16),
                broadcast(&c),
            );
            let found =
                call.map_rows(input, move |(a, b, turned, d, row, e, quarter, eight, c)| {
                    let d = f64::from(d[5]);
                    let others = [
                        a[[3, 1]],
                        b[[0, 8]],
                        turned[[0, 1]],
                        d,
                        e[()] as f64,
                        quarter,
                        f64::from(eight),
                        c[[0, 0]],
                    ];
                    score(row.sum(), others)
                });
            assert_eq!(found.unwrap().as_slice(), expected, "{what}");
        });
    });
}

#[test]
fn inputs_without_rows_or_columns_arrive() {
    isolated(|| {
        let (no_rows, no_columns) = (matrix(0, 3), matrix(70, 0));
        let shape_of = |shape: &[usize]| shape.iter().fold(1, |seen, &len| seen * 100 + len);
        each_place(|what, call| {
            let found =
                call.map_rows((&no_rows, broadcast(&no_columns), param(1)), |_| 0.5).unwrap();
            assert_eq!(found.len(), 0, "{what}");
            let input = (
                &no_columns,
                broadcast(&no_rows),
                broadcast(no_columns.rows(Slice::new(3, Some(3), -1)).unwrap()),
            );
            let found = call.map_rows(input, move |(row, a, b)| {
                row.len() + shape_of(a.raw_dim().slice()) * 10_000 + shape_of(b.raw_dim().slice())
            });
            assert!(found.unwrap().as_slice().iter().all(|&n| n == 100_030_000 + 10_000), "{what}");
            assert!(
                call.row_sums(&no_columns).unwrap().as_slice().iter().all(|&sum| sum == 0.0),
                "{what}"
            );
            assert_eq!(call.row_dot(&no_rows, &vector(3)).unwrap().len(), 0, "{what}");
            assert_eq!(
                call.row_dot(&no_columns, &vector(0)).unwrap().as_slice(),
                [0.0; 70],
                "{what}"
            );
            assert!(
                call.row_means(&no_columns).unwrap().as_slice().iter().all(|mean| mean.is_nan()),
                "{what}"
            );
        });
    });
}
