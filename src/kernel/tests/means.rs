//! Claims about means, dot products and weighted means: every tier, every instruction set, one
//! oracle.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::data::{self, KINDS, Random};
use super::{bits, kernels, oracle, refined_by};
use crate::exact_dot;
use crate::exact_mean;
use crate::exact_weighted_mean;
use crate::kernel::interval::{Interval, mean_of};
use crate::kernel::product::two_product;
use crate::kernel::ratio;

#[track_caller]
fn agree(what: &str, n: usize, found: f64, expected: f64, by: &str) {
    assert_eq!(
        found.to_bits(),
        expected.to_bits(),
        "{what}, {n} terms, {by}: {found:e}, not {expected:e}"
    );
}

/// All three questions about a row and its partner, to every kernel at every alignment and to the
/// last tier.
#[track_caller]
fn check(what: &str, row: &[f64], partner: &[f64]) {
    let n = row.len();
    let (mean, dot) = (oracle::exact_mean(row), oracle::exact_dot(row, partner));
    let weighted = oracle::exact_weighted_mean(row, partner);
    agree(what, n, ratio::mean(row), mean, "the last tier's mean");
    agree(what, n, ratio::dot(row, partner), dot, "the last tier's dot product");
    agree(what, n, ratio::weighted_mean(row, partner), weighted, "the last tier's weighted mean");
    let (mut shifted, mut partner_shifted) = (vec![0.0; n + 8], vec![0.0; n + 8]);
    for alignment in 0..8 {
        let row_here = &mut shifted[alignment..][..n];
        row_here.copy_from_slice(row);
        let partner_here = &mut partner_shifted[7 - alignment..][..n];
        partner_here.copy_from_slice(partner);
        for kernel in kernels() {
            let name = kernel.isa().name();
            let mut out = [-7.0];
            kernel.row_means(row_here, n, &mut out);
            agree(what, n, out[0], mean, &format!("mean on {name}"));
            kernel.row_dots(row_here, partner_here, &mut out);
            agree(what, n, out[0], dot, &format!("dot product on {name}"));
            kernel.row_weighted_means(row_here, kernel.weigh(partner_here), &mut out);
            agree(what, n, out[0], weighted, &format!("weighted mean on {name}"));
        }
    }
}

/// Weights, or what else a row may be multiplied with.
fn partners(n: usize, random: &mut Random) -> [Vec<f64>; 3] {
    let (_, kind) = KINDS[random.below(KINDS.len())];
    let simple = (0..n).map(|_| [0.0, 1.0, 1.0, 2.0, -1.0][random.below(5)]).collect();
    [kind(n, random), data::uniform(n, random), simple]
}

#[test]
fn every_kind_length_and_alignment_gives_the_nearest_double() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(200 + k as u64);
        for n in (0..=130).chain([255, 256, 257, 1_000]) {
            let row = kind(n, &mut random);
            for partner in partners(n, &mut random) {
                check(name, &row, &partner);
            }
        }
        let row = kind(20_000, &mut random);
        for partner in partners(20_000, &mut random) {
            check(name, &row, &partner);
        }
    }
}

#[test]
fn few_terms_of_every_kind_give_the_nearest_double() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(300 + k as u64);
        for i in 0..300 {
            let row = kind(i % 7, &mut random);
            for partner in partners(i % 7, &mut random) {
                check(name, &row, &partner);
            }
        }
    }
}

#[test]
fn every_shape_of_block_gives_the_result_of_each_row() {
    for n_columns in [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 66, 100, 128, 257] {
        let mut random = Random::new(n_columns as u64);
        let partner = data::z_scored(n_columns, &mut random);
        let (mut rows, mut expected) = (Vec::new(), [const { Vec::new() }; 3]);
        for _ in 0..40 {
            let (_, kind) = KINDS[random.below(KINDS.len())];
            let row = kind(n_columns, &mut random);
            expected[0].push(oracle::exact_mean(&row));
            expected[1].push(oracle::exact_dot(&row, &partner));
            expected[2].push(oracle::exact_weighted_mean(&row, &partner));
            rows.extend(row);
        }
        for kernel in kernels() {
            for n_rows in 0..=40 {
                let these = &rows[..n_rows * n_columns];
                let mut out = vec![-7.0; n_rows + 2];
                for (question, expected) in expected.iter().enumerate() {
                    let results = &mut out[1..=n_rows];
                    match question {
                        0 => kernel.row_means(these, n_columns, results),
                        1 => kernel.row_dots(these, &partner, results),
                        _ => kernel.row_weighted_means(these, kernel.weigh(&partner), results),
                    }
                    let name = kernel.isa().name();
                    assert_eq!(
                        bits(results),
                        bits(&expected[..n_rows]),
                        "{question}: {n_rows} x {n_columns} on {name}"
                    );
                    assert_eq!((out[0], out[n_rows + 1]), (-7.0, -7.0), "{n_rows} x {n_columns}");
                }
            }
        }
    }
}

/// A row of `n` finite doubles whose sum is `(2 x + 1) n` halves of the last place of a double `x`:
/// a mean half-way between two. A nudge is added to it.
fn half_way_mean(n: usize, nudge: f64, random: &mut Random) -> Vec<f64> {
    let scale = random.power(-800, 800);
    let sign = random.sign();
    let odd = 2 * ((1 << 52) | (random.bits() >> 12)) + 1;
    let mut total = BigInt::from(odd) * n;
    let mut row = Vec::new();
    // Greedily: the leading 53 bits of what is left, as a double of the row.
    while row.len() + 1 < n && total.bits() > 0 {
        let shift = total.bits().saturating_sub(53);
        let head = &total >> shift;
        total -= &head << shift;
        let head = u64::try_from(&head).expect("53 bits") as f64;
        row.push(sign * head * 2f64.powi(i32::try_from(shift).expect("small")) * scale);
    }
    assert_eq!(total, BigInt::ZERO);
    row.push(sign * nudge * scale);
    data::hidden(&row, n.max(row.len()), scale, random)
}

#[test]
fn a_mean_half_way_goes_to_the_even_double_and_a_nudge_decides() {
    let mut random = Random::new(400);
    for n in (3..=130).chain([1_000, 1_024]) {
        for nudge in [0.0, 1.0, -1.0, 2f64.powi(-100), -2f64.powi(-100), 2f64.powi(-200)] {
            let row = half_way_mean(n, nudge, &mut random);
            check("half way", &row, &vec![1.0; n]);
            // The same as a weighted mean: the weights 3 leave it, as does a weight of zero.
            check("half way, weights 3", &row, &vec![3.0; n]);
            let mut longer = row.clone();
            longer.push(1e300);
            let mut weights = vec![-0.75; n];
            weights.push(0.0);
            check("half way, negative weights", &longer, &weights);
        }
    }
}

#[test]
fn subnormal_results_are_rounded_once() {
    let least = f64::from_bits(1);
    let third = |k: i32| vec![f64::from(k) * least, 0.0, 0.0];
    let ones = [1.0; 3];
    for k in 0..40 {
        check("thirds of the least", &third(k), &ones);
        check(
            "negative thirds of the least",
            &third(k).iter().map(|x| -x).collect::<Vec<_>>(),
            &ones,
        );
        // Products far below the least double, which count all the same.
        let tiny = vec![2f64.powi(-600); 1 << 5];
        check("tiny products", &tiny, &tiny.iter().map(|x| x * 2f64.powi(k)).collect::<Vec<_>>());
    }
    assert_eq!(exact_mean(&[least, 0.0]).to_bits(), 0, "a tie, to even");
    assert_eq!(exact_mean(&[least, 0.0, least, least]).to_bits(), 1);
    assert_eq!(exact_mean(&[-least, 0.0, 0.0]).to_bits(), (-0.0_f64).to_bits(), "of its sign");
    // Below the normal range a result has fewer bits, so a second rounding would show.
    let mut random = Random::new(401);
    for _ in 0..2_000 {
        let n = 1 + random.below(9);
        let row: Vec<f64> = (0..n).map(|_| random.any_finite() * random.power(-40, 0)).collect();
        let scale: Vec<f64> = row.iter().map(|x| 2f64.powi(-500) / x.abs().max(1e-300)).collect();
        check("any", &row, &scale);
        let scale: Vec<f64> =
            row.iter().map(|x| random.unit() * 2f64.powi(-1060) / x.abs().max(1e-10)).collect();
        check("about the subnormals", &row, &scale);
    }
}

#[test]
fn overflow_on_the_way_does_not_matter() {
    let max = f64::MAX;
    assert_eq!(exact_mean(&[max; 7]), max);
    assert_eq!(exact_mean(&[max, max, -1.0, 1.0]), max / 2.0);
    assert_eq!(exact_dot(&[max, 0.5, max], &[max, 3.0, -max]), 1.5);
    assert_eq!(exact_dot(&[max, max], &[1.0, 1.0]), f64::INFINITY);
    assert_eq!(exact_dot(&[max, 2f64.powi(970)], &[1.0, 1.0]), f64::INFINITY);
    assert_eq!(
        exact_dot(&[max, 2f64.powi(970), 2f64.powi(-800)], &[1.0, 1.0, -2f64.powi(-800)]),
        max
    );
    assert_eq!(exact_weighted_mean(&[max; 3], &[max; 3]), max);
    assert_eq!(exact_weighted_mean(&[max; 3], &[f64::from_bits(1); 3]), max);
    assert_eq!(exact_weighted_mean(&[max, max], &[1.0, -0.5]), max);
    let mut random = Random::new(402);
    for n in 1..=60 {
        let row: Vec<f64> = (0..n).map(|_| random.any_finite()).collect();
        check("any finite", &row, &vec![max; n]);
        check("any finite", &row, &row);
    }
}

#[test]
fn special_values_follow_ieee_754_with_one_nan() {
    let (inf, nan) = (f64::INFINITY, f64::from_bits(0x7ff8_0000_0000_0000));
    let is = |found: f64, expected: f64| {
        assert_eq!(found.to_bits(), expected.to_bits(), "{found:e}, not {expected:e}");
    };
    is(exact_mean(&[]), nan);
    is(exact_mean(&[-0.0; 5]), 0.0);
    is(exact_mean(&[1.0, inf]), inf);
    is(exact_mean(&[inf, -inf]), nan);
    is(exact_mean(&[-nan]), nan);
    is(exact_dot(&[], &[]), 0.0);
    is(exact_dot(&[-1.0], &[0.0]), 0.0);
    is(exact_dot(&[inf], &[0.0]), nan);
    is(exact_dot(&[inf, 1.0], &[-2.0, 1.0]), -inf);
    is(exact_dot(&[inf, inf], &[1.0, -1.0]), nan);
    is(exact_dot(&[f64::MAX, -inf], &[f64::MAX, 1.0]), -inf);
    is(exact_weighted_mean(&[], &[]), nan);
    is(exact_weighted_mean(&[1.0, 2.0], &[1.0, -1.0]), -inf);
    is(exact_weighted_mean(&[2.0, 2.0], &[1.0, -1.0]), nan);
    is(exact_weighted_mean(&[1.0, -1.0], &[-1.0, -1.0]), 0.0);
    is(exact_weighted_mean(&[inf, 1.0], &[1.0, -1.0]), inf);
    is(exact_weighted_mean(&[inf, 1.0], &[1.0, -2.0]), -inf);
    is(exact_weighted_mean(&[inf, 1.0], &[0.0, 1.0]), nan);
    is(exact_weighted_mean(&[1.0, 1.0], &[inf, 1.0]), nan);
    let values = [inf, -inf, -nan, 0.0, -0.0, 1.0, -2.5];
    for a in values {
        for b in values {
            for c in values {
                check("special", &[a, b], &[c, 1.0]);
                check("special", &[a, b, c], &[b, -1.0, c]);
            }
        }
    }
}

#[test]
fn rows_of_zeros_and_orthogonal_integers_need_no_last_tier() {
    let signs: Vec<f64> = (0..100).map(|j| if j % 2 == 0 { 1.0 } else { -1.0 }).collect();
    for kernel in kernels() {
        let mut out = [-7.0; 20];
        for (rows, partner) in [(vec![0.0; 2_000], &signs), (vec![3.0; 2_000], &signs)] {
            assert_eq!(refined_by(|| kernel.row_dots(&rows, partner, &mut out)), 0);
            assert_eq!(bits(&out), [0; 20]);
        }
        assert_eq!(refined_by(|| kernel.row_means(&[0.0; 2_000], 100, &mut out)), 0);
        assert_eq!(bits(&out), [0; 20]);
        assert_eq!(
            refined_by(|| kernel.row_weighted_means(
                &[0.0; 2_000],
                kernel.weigh(&[0.5; 100]),
                &mut out
            )),
            0
        );
        assert_eq!(bits(&out), [0; 20]);
    }
}

#[test]
fn ordinary_rows_never_leave_the_first_tier() {
    let counts =
        |n: usize, random: &mut Random| (0..n).map(|_| random.below(1_000) as f64).collect();
    let kinds: [data::Kind; 5] =
        [data::uniform, data::centred, data::z_scored, data::prices, counts];
    for kind in kinds {
        for n_columns in [1, 2, 3, 7, 8, 50, 64, 65, 128, 500, 1_024, 100_000] {
            let mut random = Random::new(n_columns as u64);
            let n_rows = (100_000 / n_columns.max(100)).max(2);
            let rows: Vec<f64> = (0..n_rows).flat_map(|_| kind(n_columns, &mut random)).collect();
            let weights = data::uniform(n_columns, &mut random);
            let factors = data::z_scored(n_columns, &mut random);
            for kernel in kernels() {
                let mut out = vec![0.0; n_rows];
                let what = format!("{n_rows} x {n_columns} on {}", kernel.isa().name());
                assert_eq!(
                    refined_by(|| kernel.row_means(&rows, n_columns, &mut out)),
                    0,
                    "means, {what}"
                );
                assert_eq!(
                    refined_by(|| kernel.row_dots(&rows, &factors, &mut out)),
                    0,
                    "dot products, {what}"
                );
                let weighted =
                    || kernel.row_weighted_means(&rows, kernel.weigh(&weights), &mut out);
                assert_eq!(refined_by(weighted), 0, "weighted means, {what}");
            }
        }
    }
}

#[test]
fn the_count_of_refined_rows_sees_them() {
    // Else the tests above could not fail.
    let tie = [1.0, 2f64.powi(-53), 2f64.powi(-200)];
    for kernel in kernels() {
        let mut out = [0.0; 20];
        assert_eq!(refined_by(|| kernel.row_dots(&tie.repeat(20), &[1.0; 3], &mut out)), 20);
        assert_eq!(refined_by(|| kernel.row_means(&tie.repeat(20), 3, &mut out)), 0);
        let tie = [1.0, 2f64.powi(-53), 2f64.powi(-200), 0.0];
        assert_eq!(refined_by(|| kernel.row_means(&tie.repeat(20), 4, &mut out)), 20);
        let mixed = [1.0, -2.0, 3.0, 0.5];
        assert_eq!(
            refined_by(|| kernel.row_weighted_means(
                &tie.repeat(20),
                kernel.weigh(&mixed),
                &mut out
            )),
            0
        );
    }
}

#[test]
fn a_product_and_its_error_are_exact_or_off_by_little_enough() {
    let mut random = Random::new(403);
    let in_units = |x: f64| oracle::units(x) << 1074;
    let allowed: BigInt = BigInt::from(1) << (2148 - 1004);
    let check = |a: f64, b: f64| {
        for (p, e) in [two_product::<false>(a, b), two_product::<true>(a, b)] {
            if !p.is_finite() || !e.is_finite() {
                assert!(
                    p.abs() > 2f64.powi(1000)
                        || a.abs() > 2f64.powi(990)
                        || b.abs() > 2f64.powi(990)
                );
                assert!(!e.is_finite(), "no finite number that is wrong");
                continue;
            }
            let missing: BigInt = oracle::units(a) * oracle::units(b) - in_units(p) - in_units(e);
            let exact = p.abs() >= 2f64.powi(-968) || a == 0.0 || b == 0.0;
            assert!(
                BigInt::from(missing.magnitude().clone())
                    <= if exact { BigInt::ZERO } else { allowed.clone() },
                "{a:e} * {b:e}"
            );
        }
    };
    for _ in 0..200_000 {
        check(random.any_finite(), random.any_finite());
        let (a, b) = (random.sign() * (1.0 + random.unit()), random.sign() * (1.0 + random.unit()));
        check(a * random.power(-490, -470), b * random.power(-510, -470));
        check(a * random.power(-1074, -900), b * random.power(-70, 70));
        check(a * random.power(990, 1024), b * random.power(-100, 100));
    }
}

/// The mean certificate against rationals, for pairs and margins of any kind.
#[expect(clippy::many_single_char_names, reason = "the letters of the proof")]
#[test]
fn what_the_interval_proves_holds_for_both_its_ends() {
    let mut random = Random::new(404);
    let mut proved = 0;
    for _ in 0..100_000 {
        let h = random.sign() * (1.0 + random.unit()) * random.power(-40, 40);
        let l =
            [0.0, 1.0, h.abs() * 2f64.powi(-53)][random.below(3)] * random.unit() * random.sign();
        let margin = [0.0, l.abs(), h.abs()][random.below(3)] * random.power(-60, 0);
        let n_bits = random.below(40);
        let n = 1 + random.below(1 << n_bits);
        let ends =
            [-1, 1].map(|end| oracle::units(h) + oracle::units(l) + oracle::units(margin) * end);
        for found in [mean_of::<false>(h, l, margin, n), mean_of::<true>(h, l, margin, n)]
            .into_iter()
            .flatten()
        {
            proved += 1;
            for end in &ends {
                let expected = oracle::nearest_ratio(end, &BigInt::from(n));
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "({h:e} + {l:e} +- {margin:e}) / {n}"
                );
            }
        }
        let (g, k) = (
            random.sign() * (1.0 + random.unit()) * random.power(-40, 40),
            random.unit() * random.sign(),
        );
        let k = k * [0.0, 1e-12, 2f64.powi(-53)][random.below(3)] * g.abs();
        let off = [0.0, 1e-15, 1e-20, 1e-30][random.below(4)] * g.abs();
        let divisor = Interval { h: g, l: k, margin: off };
        let dividend = Interval { h, l, margin };
        for found in
            [dividend.over::<false>(divisor), dividend.over::<true>(divisor)].into_iter().flatten()
        {
            proved += 1;
            for end in &ends {
                for sign in [-1, 1] {
                    let divisor = oracle::units(g) + oracle::units(k) + oracle::units(off) * sign;
                    let expected = oracle::nearest_ratio(&(end << 1074), &divisor);
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "({h:e} + {l:e} +- {margin:e}) / ({g:e} + {k:e} +- {off:e})"
                    );
                }
            }
        }
        if let Some(found) = dividend.nearest() {
            for end in &ends {
                assert_eq!(found.to_bits(), oracle::nearest_ratio(end, &BigInt::from(1)).to_bits());
            }
        }
    }
    assert!(proved > 50_000, "only {proved}");
}

#[test]
fn nothing_is_proved_of_what_is_not_known() {
    for unknown in [f64::NAN, f64::INFINITY] {
        let one = Interval { h: 1.0, l: 0.0, margin: 0.0 };
        for bad in [
            Interval { h: unknown, ..one },
            Interval { l: unknown, ..one },
            Interval { margin: unknown, ..one },
        ] {
            assert_eq!(bad.over::<true>(one), None);
            assert_eq!(one.over::<true>(bad), None);
            assert_eq!(bad.over::<false>(one), None);
            assert_eq!(one.over::<false>(bad), None);
        }
        assert_eq!(Interval { margin: unknown, ..one }.nearest(), None);
    }
    let zero = Interval { h: 0.0, l: 0.0, margin: 0.0 };
    assert_eq!(zero.over::<true>(zero), None);
    assert_eq!(zero.over::<true>(Interval { h: 1.0, l: 0.0, margin: 1.0 }), None);
    assert_eq!(mean_of::<true>(0.0, 0.0, 0.0, 3).map(f64::to_bits), Some(0));
    assert_eq!(mean_of::<true>(0.0, 0.0, f64::from_bits(1), 3), None);
    assert_eq!(mean_of::<true>(0.0, 0.0, 0.0, 0), None);
}

#[test]
#[should_panic(expected = "one length")]
fn a_dot_product_of_two_lengths_is_refused() {
    let _ = exact_dot(&[1.0; 3], &[1.0; 4]);
}

#[test]
#[should_panic(expected = "a weight for every value")]
fn a_weight_too_many_is_refused() {
    let _ = exact_weighted_mean(&[1.0; 3], &[1.0; 4]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_callers_control_word_changes_no_bit() {
    use crate::sys::fpu;
    let row = [
        f64::from_bits(3),
        f64::MIN_POSITIVE,
        -f64::from_bits(1),
        1e-310,
        -f64::MIN_POSITIVE,
        1.0,
        2f64.powi(-54),
    ];
    let partner = [1.0, 1e-3, 0.1, 2f64.powi(-500), 3.0, 2f64.powi(-1060), 1.0];
    for word in [0x8040, 0x2000 | 0x8040, 0x4000, 0x6000].map(|bits| 0x1f80 | bits) {
        for times in [1, 9, 40] {
            let (row, partner) = (row.repeat(times), partner.repeat(times));
            let n = row.len();
            let rows = row.repeat(9);
            let expected = [
                oracle::exact_mean(&row),
                oracle::exact_dot(&row, &partner),
                oracle::exact_weighted_mean(&row, &partner),
                crate::fast_sum(&row),
            ];
            for kernel in kernels() {
                let mut out = [[0.0; 9]; 4];
                let ((), after) = fpu::under(word, || {
                    kernel.row_means(&rows, n, &mut out[0]);
                    kernel.row_dots(&rows, &partner, &mut out[1]);
                    kernel.row_weighted_means(&rows, kernel.weigh(&partner), &mut out[2]);
                    kernel.row_plain_sums(&rows, n, &mut out[3]);
                });
                for (found, expected) in out.iter().zip(expected) {
                    assert_eq!(
                        bits(found),
                        [expected.to_bits(); 9],
                        "{word:#x} on {}",
                        kernel.isa().name()
                    );
                }
                assert_eq!(after & !0x3f, word, "the caller's word comes back");
            }
        }
    }
}

fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
    let finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    let close = (-40..40_i32, -1.0..1.0).prop_map(|(k, x)| x * 2f64.powi(k));
    let exact = (-60..60_i32, any::<bool>())
        .prop_map(|(k, minus)| if minus { -2f64.powi(k) } else { 2f64.powi(k) });
    prop_oneof![
        prop::collection::vec((finite, finite), 0..60),
        prop::collection::vec((close.clone(), close), 0..100),
        prop::collection::vec((exact.clone(), exact), 0..60),
        prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..20),
    ]
}

proptest! {
    #[test]
    fn any_pairs_give_the_nearest_doubles(pairs in pairs()) {
        let (row, partner): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        check("any", &row, &partner);
    }

    #[test]
    fn a_mean_and_its_weighted_mean_with_equal_weights_are_the_same(
        pairs in pairs(), weight in prop::num::f64::NORMAL
    ) {
        let row: Vec<f64> = pairs.into_iter().map(|pair| pair.0).collect();
        prop_assume!(!row.is_empty());
        let weights = vec![weight; row.len()];
        let (mean, weighted) = (exact_mean(&row), exact_weighted_mean(&row, &weights));
        prop_assert_eq!(mean.to_bits(), weighted.to_bits());
    }
}
