//! Claims about the sum of one row.

use proptest::prelude::*;

use super::data::{self, KINDS, Random};
use super::{check, kernels, oracle};
use crate::exact_sum;
use crate::kernel::superaccumulator;

#[test]
fn the_sum_is_the_nearest_for_every_kind_length_and_alignment() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(k as u64);
        for n in 0..=600 {
            check(name, &kind(n, &mut random));
        }
        check(name, &kind(1_000_003, &mut random));
    }
}

#[test]
fn rows_of_every_scale_are_summed_right() {
    // From the subnormals to where partial sums overflow: past both ends of what anchors are made
    // for.
    let mut random = Random::new(77);
    for k in (-1074..=1023).step_by(3) {
        for kind in [data::uniform, data::centred, data::z_scored] {
            let n = 1 + random.below(70);
            let row: Vec<f64> = kind(n, &mut random)
                .iter()
                .map(|x| x * 2f64.powi(k / 2) * 2f64.powi(k - k / 2))
                .collect();
            check("scaled", &row);
        }
    }
}

#[test]
fn rows_whose_pieces_differ_in_scale_are_summed_right() {
    // Each piece of a longer row has an anchor of its own where it needs one.
    let mut random = Random::new(78);
    for n in [4_095, 4_096, 4_097, 8_192, 12_289, 20_000] {
        for _ in 0..4 {
            let mut row = data::centred(n, &mut random);
            for piece in row.chunks_mut(1 + random.below(n)) {
                let scale = random.power(-300, 300);
                for x in piece {
                    *x *= scale;
                }
            }
            check("pieces", &row);
        }
    }
}

#[test]
fn few_terms_of_every_kind_are_summed_right() {
    // Short rows leave the awkward terms alone with each other; longer ones bury them.
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(1_000 + k as u64);
        for i in 0..2_000 {
            check(name, &kind(i % 7, &mut random));
        }
    }
}

#[test]
fn overflow_on_the_way_does_not_matter_in_any_order() {
    let terms = [1e308, 1e308, -1e308, -1e308, 1.5];
    for i in 0..terms.len() {
        for j in 0..terms.len() {
            let mut row = terms;
            row.swap(0, i);
            row.swap(1, j);
            check("swapped", &row);
            assert_eq!(exact_sum(&row).to_bits(), 1.5_f64.to_bits());
            check("less one", &row[..4]);
            check("less two", &row[..3]);
        }
    }
}

#[test]
fn overflow_begins_exactly_half_an_ulp_past_max() {
    let half_ulp = 2f64.powi(970);
    assert_eq!(exact_sum(&[f64::MAX, half_ulp]), f64::INFINITY);
    assert_eq!(exact_sum(&[f64::MAX, half_ulp, f64::from_bits(1)]), f64::INFINITY);
    assert_eq!(exact_sum(&[f64::MAX, half_ulp, -f64::from_bits(1)]), f64::MAX);
    assert_eq!(exact_sum(&[-f64::MAX, -half_ulp]), f64::NEG_INFINITY);
    assert_eq!(exact_sum(&[-f64::MAX, -half_ulp, f64::from_bits(1)]), -f64::MAX);
    assert_eq!(exact_sum(&[f64::MAX; 3]), f64::INFINITY);
}

#[test]
fn a_nudge_of_any_size_decides_a_tie() {
    let mut random = Random::new(5);
    for k in 53..=1074 {
        for sign in [1.0, -1.0] {
            let terms = data::tie(sign * 2f64.powi(-k), &mut random);
            check("tie", &terms);
            check("tie", &data::hidden(&terms, 40, 1e3, &mut random));
        }
    }
}

#[test]
fn special_values_follow_ieee_754_with_one_nan() {
    let nan = f64::from_bits(0x7ff8_0000_0000_0000).to_bits();
    let (inf, negative_nan) = (f64::INFINITY, -f64::from_bits(0x7ff8_0000_0000_1234));
    for (row, expected) in [
        (vec![], 0),
        (vec![-0.0], 0),
        (vec![-0.0; 100], 0),
        (vec![1.0, -1.0], 0),
        (vec![-f64::from_bits(1), f64::from_bits(1)], 0),
        (vec![negative_nan], nan),
        (vec![negative_nan, inf], nan),
        (vec![inf, -inf], nan),
        (vec![inf, f64::MAX, f64::MAX], inf.to_bits()),
        (vec![-inf, f64::MAX, f64::MAX, f64::MAX], (-inf).to_bits()),
    ] {
        assert_eq!(exact_sum(&row).to_bits(), expected, "{row:?}");
        check("special", &row);
    }
}

#[test]
fn tier_one_proves_ordinary_rows() {
    for kind in [data::uniform, data::centred, data::z_scored, data::prices] {
        let mut random = Random::new(9);
        for n in (1..=600).chain([5_000, 20_000]) {
            let row = kind(n, &mut random);
            for kernel in kernels() {
                assert!(kernel.tier(1, &row).is_some(), "{n} terms on {}", kernel.isa().name());
            }
        }
    }
}

#[test]
fn tier_two_proves_near_ties_and_condition_1e15() {
    let mut random = Random::new(10);
    for n in (3..=300).step_by(3) {
        let tie = data::hidden(&data::tie(2f64.powi(-100), &mut random), n, 1e-3, &mut random);
        let cancelling = data::conditioned(n, 50, &mut random);
        for kernel in kernels() {
            assert_eq!(kernel.tier(1, &tie), None, "{n} terms on {}", kernel.isa().name());
            assert!(kernel.tier(2, &tie).is_some(), "{n} terms on {}", kernel.isa().name());
            assert!(kernel.tier(2, &cancelling).is_some(), "{n} terms on {}", kernel.isa().name());
        }
    }
}

#[test]
fn what_no_three_doubles_hold_is_left_to_tier_three() {
    let row =
        [1.0, 2f64.powi(-53), 2f64.powi(-200), 2f64.powi(-400), 2f64.powi(-600), -2f64.powi(-200)];
    for kernel in kernels() {
        assert_eq!(kernel.tier(1, &row), None);
        assert_eq!(kernel.tier(2, &[1.0, 1e40, 1e80, 1e120, -1e120, -1e80, -1e40]), None);
    }
    check("five scales", &row);
}

#[test]
fn carries_of_many_equal_terms_are_propagated() {
    // All in one limb, all of one sign, the largest significand: the limb must not overflow.
    for x in [
        f64::MAX * 2f64.powi(-30),
        -f64::MAX * 2f64.powi(-30),
        f64::from_bits(0x000f_ffff_ffff_ffff),
    ] {
        let row = vec![x; 1 << 18];
        assert_eq!(superaccumulator::sum_finite(&row).to_bits(), (x * 2f64.powi(18)).to_bits());
    }
    for shift in 0..64 {
        let row = vec![(2.0 - f64::EPSILON) * 2f64.powi(shift); 5_000];
        assert_eq!(superaccumulator::sum_finite(&row).to_bits(), oracle::exact_sum(&row).to_bits());
    }
}

fn terms() -> impl Strategy<Value = Vec<f64>> {
    let finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let close = (-40..40_i32, -1.0..1.0).prop_map(|(k, x)| x * 2f64.powi(k));
    let exact = (-60..60_i32, any::<bool>())
        .prop_map(|(k, minus)| if minus { -2f64.powi(k) } else { 2f64.powi(k) });
    prop_oneof![
        prop::collection::vec(finite, 0..60),
        prop::collection::vec(close, 0..200),
        prop::collection::vec(exact, 0..60),
        prop::collection::vec(prop::num::f64::ANY, 0..20),
    ]
}

proptest! {
    #[test]
    fn any_terms_are_summed_right(row in terms()) {
        check("any", &row);
    }

    #[test]
    fn the_order_of_the_terms_does_not_matter(
        (row, shuffled) in terms().prop_flat_map(|row| (Just(row.clone()), Just(row).prop_shuffle()))
    ) {
        prop_assert_eq!(exact_sum(&row).to_bits(), exact_sum(&shuffled).to_bits());
    }

    #[test]
    fn minus_the_rounded_sum_leaves_the_rounding_error(row in terms()) {
        // The error of a rounding to nearest is at most half an ulp: less than the next double is
        // away.
        let sum = exact_sum(&row);
        prop_assume!(sum.is_finite());
        let mut rest = row;
        rest.push(-sum);
        let error = exact_sum(&rest);
        prop_assert!(error.abs() <= sum.next_up() - sum || error.abs() <= sum - sum.next_down());
    }
}
