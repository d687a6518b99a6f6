//! Claims about rows of floats.

use proptest::prelude::*;

use super::data::Random;
use super::data_f32::{self, KINDS, hidden, middle, power};
use super::{check_f32, kernels, oracle, refined_by};
use crate::kernel::{ExactSum, Kernels};

fn sum(row: &[f32]) -> f32 {
    let mut sums = [-7.0];
    f32::row_sums(Kernels::get(), row, row.len(), &mut sums).expect("floats do not overflow");
    sums[0]
}

#[test]
fn the_sum_is_the_nearest_for_every_kind_length_and_alignment() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(k as u64);
        for n in (0..=130).chain([255, 256, 257, 1_000, 4_095, 4_096, 4_097, 8_192, 8_200]) {
            check_f32(name, &kind(n, &mut random));
        }
        check_f32(name, &kind(100_000, &mut random));
    }
}

#[test]
fn few_terms_of_every_kind_are_summed_right() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(1_000 + k as u64);
        for i in 0..1_000 {
            check_f32(name, &kind(i % 7, &mut random));
        }
    }
}

#[test]
fn every_shape_of_block_gives_the_sum_of_each_row() {
    for n_columns in (0..=70).chain([127, 128, 129, 130, 1_000]) {
        let mut random = Random::new(n_columns as u64);
        let (mut rows, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let (_, kind) = KINDS[random.below(KINDS.len())];
            let row = kind(n_columns, &mut random);
            expected.push(oracle::exact_sum_f32(&row).to_bits());
            rows.extend(row);
        }
        for kernel in kernels() {
            for n_rows in 0..=40 {
                // A sentinel on either side of the output, and in it.
                let mut out = vec![-7.0; n_rows + 2];
                kernel.row_sums_f32(&rows[..n_rows * n_columns], n_columns, &mut out[1..=n_rows]);
                let bits: Vec<_> = out[1..=n_rows].iter().map(|sum| sum.to_bits()).collect();
                assert_eq!(
                    bits,
                    expected[..n_rows],
                    "{n_rows} x {n_columns} on {}",
                    kernel.isa().name()
                );
                assert_eq!((out[0], out[n_rows + 1]), (-7.0, -7.0), "{n_rows} x {n_columns}");
            }
        }
    }
}

#[test]
fn a_middle_goes_to_the_even_float_and_any_nudge_decides_it() {
    let mut random = Random::new(5);
    for x in [1.0, 1.0 + f32::EPSILON, -1.5, 3.0e7, 1e30, -1e-30, f32::MIN_POSITIVE * 4.0] {
        let [x, half] = middle(x);
        check_f32("middle", &[x, half]);
        check_f32("middle", &hidden(&[x, half], 100, x.abs(), &mut random));
        for k in -149..=126 {
            let nudge = power(k);
            for nudge in [nudge, -nudge] {
                check_f32("nudged middle", &[x, half, nudge]);
            }
            check_f32("nudged middle", &hidden(&[x, half, nudge], 40, x.abs(), &mut random));
        }
    }
    // Not even in a double's last bit, which therefore is a middle: a second rounding would go to
    // even.
    assert_eq!(sum(&[1.0, power(-24)]), 1.0);
    assert_eq!(sum(&[1.0, power(-24), power(-149)]), 1.0 + f32::EPSILON);
    assert_eq!(sum(&[1.0 + f32::EPSILON, power(-24), -power(-149)]), 1.0 + f32::EPSILON);
    assert_eq!(sum(&[1.0 + f32::EPSILON, power(-24)]), 1.0 + 2.0 * f32::EPSILON);
}

#[test]
fn a_nudge_decides_a_middle_in_long_rows() {
    let mut random = Random::new(6);
    for nudge in [0.0, power(-60), -power(-60), power(-149), -power(-149)] {
        for x in [1.0, 1.0 + f32::EPSILON] {
            let [x, half] = middle(x);
            for size in [0.0, 1.0, 1e20] {
                check_f32("long", &hidden(&[x, half, nudge], 20_001, size, &mut random));
            }
        }
    }
}

#[test]
fn overflow_begins_exactly_half_an_ulp_past_max() {
    let (half, tiny) = (power(103), f32::from_bits(1));
    assert_eq!(sum(&[f32::MAX, half]), f32::INFINITY);
    assert_eq!(sum(&[f32::MAX, half, tiny]), f32::INFINITY);
    assert_eq!(sum(&[f32::MAX, half, -tiny]), f32::MAX);
    assert_eq!(sum(&[-f32::MAX, -half]), f32::NEG_INFINITY);
    assert_eq!(sum(&[-f32::MAX, -half, tiny]), -f32::MAX);
    assert_eq!(sum(&[f32::MAX; 3]), f32::INFINITY);
    assert_eq!(sum(&[f32::MAX, f32::MAX, -f32::MAX]), f32::MAX);
    assert_eq!(sum(&[f32::MAX, f32::MAX, -f32::MAX].repeat(5_000)), f32::INFINITY);
}

#[test]
fn subnormal_sums_are_exact() {
    // There is nothing to round: floats are multiples of the smallest one.
    assert_eq!(sum(&[f32::from_bits(1); 3]).to_bits(), 3);
    assert_eq!(sum(&[1e30, f32::from_bits(5), -1e30]).to_bits(), 5);
    assert_eq!(sum(&[f32::MIN_POSITIVE, -f32::from_bits(1)]).to_bits(), 0x007f_ffff);
}

#[test]
fn special_values_follow_ieee_754_with_one_nan() {
    let nan = 0x7fc0_0000;
    let (inf, negative_nan) = (f32::INFINITY, -f32::from_bits(0x7fc0_1234));
    for (row, expected) in [
        (vec![], 0),
        (vec![-0.0], 0),
        (vec![-0.0; 100], 0),
        (vec![1.0, -1.0], 0),
        (vec![1e30, 1e-30, -1e30, -1e-30], 0),
        (vec![negative_nan], nan),
        (vec![f32::from_bits(0x7f80_0001)], nan),
        (vec![negative_nan, inf], nan),
        (vec![inf, -inf], nan),
        (vec![inf, f32::MAX, f32::MAX], inf.to_bits()),
        (vec![-inf, f32::MAX, f32::MAX, f32::MAX], (-inf).to_bits()),
    ] {
        for repeats in [1, 50, 5_000] {
            assert_eq!(sum(&row.repeat(repeats)).to_bits(), expected, "{repeats} times {row:?}");
        }
        check_f32("special", &row);
    }
}

#[test]
fn ordinary_blocks_hardly_ever_leave_tier_one() {
    let kinds: [(&str, data_f32::Kind); 4] = [
        ("uniform", data_f32::uniform),
        ("centred", data_f32::centred),
        ("z-scored", data_f32::z_scored),
        ("prices", data_f32::prices),
    ];
    for (name, kind) in kinds {
        for n_columns in [1, 2, 3, 8, 50, 128, 500, 1_024, 10_000] {
            let mut random = Random::new(n_columns as u64);
            let n_rows = 200_000 / n_columns.max(100);
            let rows: Vec<f32> = (0..n_rows).flat_map(|_| kind(n_columns, &mut random)).collect();
            for kernel in kernels() {
                let mut out = vec![0.0; n_rows];
                let refined = refined_by(|| kernel.row_sums_f32(&rows, n_columns, &mut out));
                assert!(
                    refined <= 2 + n_rows / 100,
                    "{refined} {name}, {n_rows} x {n_columns} on {}",
                    kernel.isa().name()
                );
            }
        }
    }
}

#[test]
fn of_wide_rows_and_of_whole_numbers_few_leave_tier_one() {
    for (name, kind) in
        [("wide", data_f32::wide as data_f32::Kind), ("integers", data_f32::integers)]
    {
        for n_columns in [3, 50, 128, 500, 1_024, 10_000] {
            let mut random = Random::new(n_columns as u64);
            let n_rows = 400_000 / n_columns.max(100);
            let rows: Vec<f32> = (0..n_rows).flat_map(|_| kind(n_columns, &mut random)).collect();
            for kernel in kernels() {
                let mut out = vec![0.0; n_rows];
                let refined = refined_by(|| kernel.row_sums_f32(&rows, n_columns, &mut out));
                assert!(
                    refined <= 1 + n_rows / 3,
                    "{refined} {name}, {n_rows} x {n_columns} on {}",
                    kernel.isa().name()
                );
            }
        }
    }
}

#[test]
fn tier_two_proves_what_lies_in_the_middle() {
    let mut random = Random::new(7);
    for n in 5..=300 {
        let [x, half] = middle(1.0 + f32::EPSILON);
        let row = hidden(&[x, half, power(-70)], n, 1e3, &mut random);
        for kernel in kernels() {
            assert_eq!(kernel.tier_f32(1, &row), None, "{n} terms on {}", kernel.isa().name());
            assert!(kernel.tier_f32(2, &row).is_some(), "{n} terms on {}", kernel.isa().name());
        }
    }
    // And what no two doubles hold is left to fixed point.
    let row = [1.0, power(-24), power(-149), power(60), -power(60), power(120), -power(120)];
    for kernel in kernels() {
        assert_eq!(kernel.tier_f32(2, &row), None, "on {}", kernel.isa().name());
    }
    check_f32("three scales", &row);
}

#[test]
#[should_panic(expected = "rows x columns")]
fn a_block_of_the_wrong_length_is_refused() {
    Kernels::get().row_sums_f32(&[1.0; 7], 2, &mut [0.0; 4]);
}

fn terms() -> impl Strategy<Value = Vec<f32>> {
    let finite = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    let close = (-40..40_i32, -1.0..1.0_f32).prop_map(|(k, x)| x * power(k));
    let exact = (-60..60_i32, any::<bool>())
        .prop_map(|(k, minus)| if minus { -power(k) } else { power(k) });
    prop_oneof![
        prop::collection::vec(finite, 0..60),
        prop::collection::vec(close, 0..200),
        prop::collection::vec(exact, 0..60),
        prop::collection::vec(prop::num::f32::ANY, 0..20),
    ]
}

proptest! {
    #[test]
    fn any_floats_are_summed_right(row in terms()) {
        check_f32("any", &row);
    }

    #[test]
    fn the_order_of_the_floats_does_not_matter(
        (row, shuffled) in terms().prop_flat_map(|row| (Just(row.clone()), Just(row).prop_shuffle()))
    ) {
        prop_assert_eq!(sum(&row).to_bits(), sum(&shuffled).to_bits());
    }

    /// The middle between a sum and its neighbour, made by adding what is missing to the exact sum.
    #[test]
    fn a_row_completed_to_a_middle_is_rounded_right(row in prop::collection::vec(-1.0e3..1.0e3_f32, 1..60), k in -149..0_i32) {
        let [x, half] = middle(sum(&row));
        prop_assume!(x != 0.0);
        let mut row = row.clone();
        // What the exact sum exceeds its nearest float by, in floats; four hold it.
        for _ in 0..4 {
            let mut rest = row.clone();
            rest.push(-x);
            row.push(-sum(&rest));
        }
        row.push(half);
        check_f32("completed", &row);
        row.push(power(k));
        check_f32("completed and nudged up", &row);
        row.extend([-power(k), -power(k)]);
        check_f32("completed and nudged down", &row);
    }
}
