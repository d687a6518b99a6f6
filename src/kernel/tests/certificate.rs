//! Claims about the bound of what is dropped: rows in which as much is dropped as can be, next to
//! where the rounding turns.
//!
//! With a bound half as large, these fail, and no others.

use super::data::Random;
use super::{check, check_f32, kernels, oracle};

fn power(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

/// The logarithm, rounded up.
fn log(n: usize) -> i32 {
    n.next_power_of_two().ilog2().cast_signed()
}

/// A row of `n` terms near `2^scale` in which `T` running terms drop half a unit of the last of
/// them at all small terms, `bits` being what the result has of them. One term brings the total to
/// `j` of these from a middle.
fn tight(n: usize, scale: i32, running_terms: i32, bits: i32, random: &mut Random) -> Vec<f64> {
    let lanes = [2, 4, 8, 16][random.below(4)];
    let per_lane = log(n.div_ceil(lanes));
    // `k` of an anchor for such a row, less the unit of its last running term, and a bit.
    let below = (running_terms - 1) * (51 - log(n)) + 53 - (1 + per_lane + 3 + 1);
    let jitter = i32::try_from(random.below(5)).expect("small") - 2;
    let unit = power(scale - below + [0, jitter][random.below(2)]);
    let small =
        random.sign() * unit * [1.0, 1.0, 0.5, 1.5, 0.75, 1.0 + power(-10)][random.below(6)];
    let mut row = vec![small; n];
    row[0] = (1.0 + (random.unit() * power(bits - 1)).floor() * power(1 - bits)) * power(scale);
    let others = n as f64 - 2.0;
    let some =
        [0.0, others, (others * random.unit()).floor(), (others / 2.0).floor()][random.below(4)];
    row[1] = random.sign() * power(scale - bits) - some * small;
    random.shuffle(&mut row);
    row
}

#[test]
fn a_row_that_drops_as_much_as_can_be_is_rounded_right() {
    let mut random = Random::new(91);
    for round in 0..60_000 {
        let n = [3, 4, 5, 8, 9, 16, 17, 33, 63, 64, 65, 100, 128][random.below(13)];
        let scale = [0, -300, 400][round % 3];
        let row = tight(n, scale, 2 + i32::try_from(round % 2).expect("0 or 1"), 53, &mut random);
        let expected = oracle::exact_sum(&row);
        for kernel in kernels() {
            let mut sums = [-7.0; 9];
            kernel.row_sums(&row.repeat(9), n, &mut sums);
            assert!(
                sums.iter().all(|sum| sum.to_bits() == expected.to_bits()),
                "{sums:?}, not {expected:e}: {row:?}"
            );
            for tier in [1, 2] {
                let sum = kernel.tier(tier, &row).unwrap_or(expected);
                assert_eq!(
                    sum.to_bits(),
                    expected.to_bits(),
                    "tier {tier} on {}: {row:?}",
                    kernel.isa().name()
                );
            }
        }
    }
}

#[test]
fn long_rows_that_drop_as_much_as_can_be_are_rounded_right() {
    let mut random = Random::new(92);
    for n in [129, 500, 1_024, 4_096, 4_097, 9_000] {
        for running_terms in [2, 3] {
            for _ in 0..12 {
                check("tight", &tight(n, 0, running_terms, 53, &mut random));
            }
        }
    }
}

#[test]
fn a_row_of_floats_that_drops_the_most_is_rounded_right() {
    let mut random = Random::new(93);
    for _ in 0..12_000 {
        let n = [3, 4, 8, 9, 17, 24, 25, 64, 100, 300][random.below(10)];
        let running_terms = 1 + i32::try_from(random.below(2)).expect("0 or 1");
        let row: Vec<f32> = tight(n, 40, running_terms, 24, &mut random)
            .iter()
            .map(|x| super::data::single(*x))
            .collect();
        let expected = oracle::exact_sum_f32(&row);
        for kernel in kernels() {
            let mut sums = [-7.0; 9];
            kernel.row_sums_f32(&row.repeat(9), n, &mut sums);
            assert!(
                sums.iter().all(|sum| sum.to_bits() == expected.to_bits()),
                "{sums:?}, not {expected:e}: {row:?}"
            );
        }
    }
    for n in [2_048, 2_049, 5_000] {
        let row: Vec<f32> =
            tight(n, 40, 1, 24, &mut random).iter().map(|x| super::data::single(*x)).collect();
        check_f32("tight", &row);
    }
}
