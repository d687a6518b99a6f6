//! `row_means`, `row_dot`, `row_weighted_means` and `row_sums_fast` of arrays: for every number of
//! workers, block size and way of reading a row the bits of the free functions, which the unit
//! tests hold against integers of any size; those bits here against plain sums of integers, which
//! are exact. And for workers that are killed, and calls that end early.

use std::ops::Range;
use std::time::Duration;

use ndarray::{Array1, Array2, Axis, Ix1, Ix2, Slice, array};
use rowfork::{
    DeathCause, EarlyEnd, Error, Fork, Output, Policy, Selection, SharedArray, exact_dot,
    exact_mean, exact_weighted_mean, fast_sum, fork,
};

use crate::support::disturbance::{Disturbance, disturbed_from_outside};
use crate::support::isolated::isolated;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * 2f64.powi(-53) - 0.25
    }

    /// Mostly ordinary, now and then anything at all.
    fn element(&mut self) -> f64 {
        if self.next().is_multiple_of(997) { f64::from_bits(self.next()) } else { self.unit() }
    }
}

fn matrix(n_rows: usize, n_columns: usize, seed: u64) -> Array2<f64> {
    let mut random = Random(seed);
    Array2::from_shape_simple_fn((n_rows, n_columns), || random.element())
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    values.into_iter().map(|x| x.to_bits()).collect()
}

/// The four operations on `rows` as they lie in `m` give the bits of the free functions.
fn agree(rows: &Array2<f64>, vector: &Array1<f64>, results: &[Vec<u64>; 4], what: &str) {
    let v = vector.as_slice().unwrap();
    let each = |f: &dyn Fn(&[f64]) -> f64| {
        rows.outer_iter().map(|row| f(&row.to_vec()).to_bits()).collect::<Vec<_>>()
    };
    let expected = [
        each(&exact_mean),
        each(&|row| exact_dot(row, v)),
        each(&|row| exact_weighted_mean(row, v)),
        each(&fast_sum),
    ];
    for ((found, expected), operation) in
        results.iter().zip(&expected).zip(["mean", "dot", "weighted", "fast"])
    {
        assert_eq!(found, expected, "{operation}, {what}");
    }
}

macro_rules! all_four {
    ($fork:expr, $input:expr, $vector:expr) => {
        [
            bits($fork.row_means($input).unwrap().as_slice()),
            bits($fork.row_dot($input, $vector).unwrap().as_slice()),
            bits($fork.row_weighted_means($input, $vector).unwrap().as_slice()),
            bits($fork.row_sums_fast($input).unwrap().as_slice()),
        ]
    };
}

/// One of the four with a vector, if it takes one.
type Operation = fn(
    &Fork<'_>,
    Selection<'_, f64, Ix2>,
    &Array1<f64>,
) -> rowfork::Result<Output<SharedArray<f64, Ix1>>>;

const OPERATIONS: [(&str, Operation); 4] = [
    ("row_means", |fork, input, _| fork.row_means(input)),
    ("row_dot", |fork, input, vector| fork.row_dot(input, vector)),
    ("row_weighted_means", |fork, input, vector| fork.row_weighted_means(input, vector)),
    ("row_sums_fast", |fork, input, _| fork.row_sums_fast(input)),
];

/// A vector, and a matrix that takes longer than starting two workers does.
fn large() -> (SharedArray<f64, Ix2>, Array1<f64>) {
    let mut random = Random(5);
    let vector = Array1::from_shape_simple_fn(100, || random.unit());
    (SharedArray::copy_from(None, &matrix(40_000, 100, 6)).unwrap(), vector)
}

#[test]
fn killed_workers_change_no_bit() {
    isolated(|| {
        let (m, vector) = large();
        let halves = (
            m.columns(Slice::new(0, None, 2)).unwrap(),
            Array1::from_iter(vector.iter().step_by(2).copied()),
        );
        let harm = Disturbance {
            pause: (Duration::from_millis(1), Duration::from_millis(4)),
            stop_one_in: 0,
        };
        for (name, operation) in OPERATIONS {
            for (input, vector) in [(m.rows(..).unwrap(), &vector), (halves.0, &halves.1)] {
                let expected =
                    bits(operation(&fork().workers(1), input, vector).unwrap().as_slice());
                let (kills, _) = disturbed_from_outside(harm, 9, || {
                    let mut kills = 0;
                    for _ in 0..500 {
                        let results =
                            operation(&fork().workers(2).block_rows(500), input, vector).unwrap();
                        assert!(
                            bits(results.as_slice()) == expected,
                            "{name}: {}",
                            results.report()
                        );
                        let killed = |cause: &DeathCause| *cause == DeathCause::Signalled(9);
                        kills += results
                            .report()
                            .deaths
                            .iter()
                            .filter(|death| killed(&death.cause))
                            .count();
                        if kills >= 5 {
                            break;
                        }
                    }
                    kills
                });
                assert!(kills >= 5, "{name}: {kills} workers killed in 500 calls");
            }
        }
    });
}

#[test]
fn under_guard_a_deadline_leaves_rows_that_are_whole_or_filled() {
    isolated(|| {
        let (m, vector) = large();
        for (name, operation) in OPERATIONS {
            let input = m.rows(..).unwrap();
            let expected = bits(operation(&fork(), input, &vector).unwrap().as_slice());
            let guarded = || fork().workers(2).guard(true).policy(Policy::fill(-7.5));
            let whole =
                operation(&guarded().deadline(Duration::from_secs(60)), input, &vector).unwrap();
            assert!(
                bits(whole.as_slice()) == expected && whole.missing_rows().is_empty(),
                "{name}"
            );

            // Until one has ended early, should this thread not get to look at the clock.
            let ended_early = (0..100).any(|round| {
                let limit = Duration::from_micros(1 + 200 * (round % 10));
                let part = operation(&guarded().deadline(limit), input, &vector).unwrap();
                let mut wanted = expected.clone();
                for Range { start, end } in part.missing_rows().iter().cloned() {
                    wanted[start..end].fill((-7.5_f64).to_bits());
                }
                assert!(bits(part.as_slice()) == wanted, "{name}: {}", part.report());
                assert_eq!(
                    part.missing_rows().is_empty(),
                    part.report().ended_early.is_none(),
                    "{name}"
                );
                round >= 9 && part.report().ended_early == Some(EarlyEnd::Deadline)
            });
            assert!(ended_early, "{name}");
        }
    });
}

#[test]
fn any_worker_count_and_block_size_gives_the_bits_of_one_row() {
    isolated(|| {
        for (n_rows, n_columns) in
            [(0, 5), (1, 1), (7, 0), (3, 2), (500, 8), (70, 100), (65, 1000), (3, 50_000)]
        {
            let rows = matrix(n_rows, n_columns, 1);
            let vector = matrix(1, n_columns, 2).row(0).to_owned();
            let m = SharedArray::copy_from(None, &rows).unwrap();
            for workers in [1, 2, 5] {
                let what = format!("{n_rows} x {n_columns}, {workers} workers");
                agree(&rows, &vector, &all_four!(fork().workers(workers), &m, &vector), &what);
                agree(
                    &rows,
                    &vector,
                    &all_four!(fork().workers(workers).block_rows(3), &m, &vector),
                    &what,
                );
            }
        }
    });
}

#[test]
fn parts_of_arrays_are_read_as_they_are_seen() {
    isolated(|| {
        let rows = matrix(60, 90, 3);
        let vector = matrix(1, 30, 4).row(0).to_owned();
        let m = SharedArray::copy_from(None, &rows).unwrap();
        for (rows_of, columns_of) in [
            (Slice::new(0, None, 1), Slice::new(0, Some(30), 1)),
            (Slice::new(0, None, 1), Slice::new(0, None, 3)),
            (Slice::new(0, None, -1), Slice::new(7, Some(37), 1)),
            (Slice::new(5, None, 4), Slice::new(0, None, -3)),
        ] {
            let part = m.rows(rows_of).unwrap().columns(columns_of).unwrap();
            let copy = rows.slice_axis(Axis(0), rows_of).slice_axis(Axis(1), columns_of).to_owned();
            let what = format!("{rows_of:?} {columns_of:?}");
            for workers in [1, 2, 5] {
                agree(&copy, &vector, &all_four!(fork().workers(workers), part, &vector), &what);
            }
        }
    });
}

#[test]
fn all_axes_but_the_first_are_one_row() {
    isolated(|| {
        let rows = matrix(20, 24, 5);
        let vector = matrix(1, 24, 6).row(0).to_owned();
        let images = rows.to_shape((20, 2, 3, 4)).unwrap().to_owned();
        let m = SharedArray::copy_from(None, &images).unwrap();
        agree(&rows, &vector, &all_four!(fork().workers(2), &m, &vector), "four axes");
        let turned = m.slice_axis(Axis(2), Slice::new(0, None, -1)).unwrap();
        let copy = images.slice_axis(Axis(2), Slice::new(0, None, -1)).to_owned();
        let copy = copy.to_shape((20, 24)).unwrap().to_owned();
        agree(
            &copy,
            &vector,
            &all_four!(fork().workers(2), turned, &vector),
            "an axis turned round",
        );
    });
}

#[test]
fn a_vector_may_be_a_slice_a_vec_shared_or_of_any_stride() {
    isolated(|| {
        let rows = matrix(50, 10, 7);
        let m = SharedArray::copy_from(None, &rows).unwrap();
        let long = matrix(1, 30, 8).row(0).to_owned();
        let strided = long.slice(ndarray::s![..;-3]);
        let vector = strided.to_vec();
        let shared = SharedArray::copy_from(None, &strided).unwrap();
        let expected = bits(fork().row_dot(&m, &vector).unwrap().as_slice());
        assert_eq!(bits(fork().row_dot(&m, strided).unwrap().as_slice()), expected);
        assert_eq!(bits(fork().row_dot(&m, vector.as_slice()).unwrap().as_slice()), expected);
        assert_eq!(bits(fork().row_dot(&m, shared.view()).unwrap().as_slice()), expected);
        let expected = bits(fork().row_weighted_means(&m, &vector).unwrap().as_slice());
        assert_eq!(bits(fork().row_weighted_means(&m, strided).unwrap().as_slice()), expected);
        // A row of the very array.
        let view = m.view();
        let square = fork().row_dot(&m, view.row(3)).unwrap();
        assert_eq!(
            square.as_slice()[3].to_bits(),
            exact_dot(&rows.row(3).to_vec(), &rows.row(3).to_vec()).to_bits()
        );
    });
}

#[test]
fn small_integers_are_what_integers_give() {
    isolated(|| {
        let m = SharedArray::from_shape_fn(None, (300, 40), |(i, j)| ((i * 7 + j * 3) % 64) as f64)
            .unwrap();
        let weights: Vec<f64> = (0..40).map(|j| f64::from(j % 8)).collect();
        let [means, dots, weighted, fast] = all_four!(fork().workers(2), &m, &weights);
        for i in 0..300_u32 {
            let row = (0..40).map(|j| (i * 7 + j * 3) % 64);
            let sum: u32 = row.clone().sum();
            let dot: u32 = row.zip(0..40).map(|(x, j)| x * (j % 8)).sum();
            let total: u32 = (0..40).map(|j| j % 8).sum();
            let row = i as usize;
            assert_eq!(fast[row], f64::from(sum).to_bits());
            assert_eq!(dots[row], f64::from(dot).to_bits());
            assert_eq!(means[row], (f64::from(sum) / 40.0).to_bits());
            assert_eq!(weighted[row], (f64::from(dot) / f64::from(total)).to_bits());
        }
    });
}

#[test]
fn rows_that_cancel_or_overflow_on_the_way_are_exact() {
    isolated(|| {
        let max = f64::MAX;
        let m = SharedArray::copy_from(
            None,
            &array![[1e300, 1.0, -1e300], [max, max, max], [0.1, 0.1, 0.1]],
        )
        .unwrap();
        assert_eq!(fork().row_means(&m).unwrap().as_slice(), [1.0 / 3.0, max, 0.1]);
        assert_eq!(
            fork().row_weighted_means(&m, &[2.0; 3]).unwrap().as_slice(),
            [1.0 / 3.0, max, 0.1]
        );
        assert_eq!(fork().row_dot(&m, &[max, 3.0, max]).unwrap().as_slice()[0], 3.0);
        let no_weight = fork().row_weighted_means(&m, &[1.0, -1.0, 0.0]).unwrap();
        assert_eq!(no_weight.as_slice()[0], f64::INFINITY);
        assert!(no_weight.as_slice()[1].is_nan());
    });
}

#[test]
fn outputs_that_are_there_are_filled() {
    isolated(|| {
        let rows = matrix(200, 9, 9);
        let vector = matrix(1, 9, 10).row(0).to_owned();
        let m = SharedArray::copy_from(None, &rows).unwrap();
        let mut outs = [(); 4].map(|()| SharedArray::<f64, _>::zeros(None, 200).unwrap());
        for _ in 0..2 {
            let [means, dots, weighted, fast] = &mut outs;
            let options = fork().workers(2);
            assert_eq!(options.row_means_into(&m, means).unwrap().rows, 200);
            options.row_dot_into(&m, &vector, dots).unwrap();
            options.row_weighted_means_into(&m, &vector, weighted).unwrap();
            options.row_sums_fast_into(&m, fast).unwrap();
            agree(&rows, &vector, &outs.each_ref().map(|out| bits(out.as_slice())), "into");
        }
    });
}

#[test]
fn vectors_and_outputs_of_another_length_are_refused_by_name() {
    isolated(|| {
        let m = SharedArray::<f64, Ix2>::zeros(None, (5, 3)).unwrap();
        let mut out = SharedArray::<f64, _>::zeros(None, 5).unwrap();
        let mut short = SharedArray::<f64, _>::zeros(None, 4).unwrap();
        let refused = |outcome: Result<(), Error>| match outcome.unwrap_err() {
            Error::WrongShape { what, expected, found, .. } => (what, expected, found),
            other => panic!("{other}"),
        };
        let vector = ("vector", vec![3], vec![4]);
        assert_eq!(refused(fork().row_dot(&m, &[1.0; 4]).map(drop)), vector);
        assert_eq!(refused(fork().row_dot_into(&m, &[1.0; 4], &mut out).map(drop)), vector);
        let weights = ("array of weights", vec![3], vec![2]);
        assert_eq!(refused(fork().row_weighted_means(&m, &[1.0; 2]).map(drop)), weights);
        assert_eq!(
            refused(fork().row_weighted_means_into(&m, &[1.0; 2], &mut out).map(drop)),
            weights
        );
        let output = ("output", vec![5], vec![4]);
        assert_eq!(refused(fork().row_means_into(&m, &mut short).map(drop)), output);
        assert_eq!(refused(fork().row_dot_into(&m, &[1.0; 3], &mut short).map(drop)), output);
        assert_eq!(
            refused(fork().row_weighted_means_into(&m, &[1.0; 3], &mut short).map(drop)),
            output
        );
        assert_eq!(refused(fork().row_sums_fast_into(&m, &mut short).map(drop)), output);
    });
}

#[test]
fn options_that_cannot_be_are_refused_and_a_policy_is_taken() {
    isolated(|| {
        let m = SharedArray::<f64, Ix2>::zeros(None, (5, 3)).unwrap();
        assert!(matches!(fork().workers(0).row_means(&m).unwrap_err(), Error::ZeroWorkers));
        assert!(matches!(
            fork().workers(0).row_dot(&m, &[1.0; 3]).unwrap_err(),
            Error::ZeroWorkers
        ));
        let means = fork().policy(Policy::fill(-1.0)).row_means(&m).unwrap();
        assert_eq!(means.as_slice(), [0.0; 5]);
        assert!(means.missing_rows().is_empty());
    });
}

#[test]
fn rows_of_no_elements_have_no_mean_and_the_sum_zero() {
    isolated(|| {
        let m = SharedArray::<f64, Ix2>::zeros(None, (4, 0)).unwrap();
        let nan = f64::from_bits(0x7ff8_0000_0000_0000).to_bits();
        assert_eq!(
            all_four!(fork(), &m, &[0.0; 0]),
            [vec![nan; 4], vec![0; 4], vec![nan; 4], vec![0; 4]]
        );
    });
}
