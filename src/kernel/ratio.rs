//! The last tiers of dot products, means and weighted means: everything in fixed point, on the
//! stack, rounded once. Slow (some nanoseconds per term, a microsecond per division), never wrong.
//!
//! Called where a first tier could not prove its answer. Here, too, is said what becomes of NaN and
//! infinities.
//!
//! A product of two doubles is an integer of 106 bits times a power of two not below 2^-2148; the
//! sum of 2^60 of them stays below 2^4256 of these units. A mean is a quotient of two such
//! integers, which is divided until more bits are known than a double has, and rounded with the
//! rest: no rounding comes before that one, for subnormal results either.

use super::fallback::{BLOCK, CANONICAL_NAN, sum_if_not_finite};
use super::superaccumulator::{self, Superaccumulator, parts};
use super::wide_int::{Bins, MOST_TERMS, Magnitude, WideInt};

/// Products end in limb 131, their sum in limb 133, and one is left for the sign.
const LIMBS: usize = 136;

/// The lower half of a product starts in a limb up to number 127, the upper half 64 bits further
/// on.
const BINS: usize = 130;

/// The unit of a [`Superaccumulator`] is 2 to this; that of products has twice the exponent, so
/// that their sum over a sum has this unit again.
const SUM_UNIT: i32 = -1074;

/// The double nearest the exact sum of `a[j] * b[j]`, whatever is in them. Overflow on the way does
/// not matter; the result is infinite if and only if the exact one rounds to that. A sum of zero is
/// +0.0.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    if let Some(sum) = dot_if_not_finite(a, b) {
        return sum;
    }
    let (negative, magnitude) = sum_of_products(a, b).split();
    signed(negative, magnitude.rounded(2 * SUM_UNIT))
}

/// The double nearest the exact sum of `row` over their number. NaN for none; a sum of zero gives
/// +0.0, one that is only too small a zero of its sign.
pub(super) fn mean(row: &[f64]) -> f64 {
    if let Some(sum) = sum_if_not_finite(row.chunks(BLOCK).map(|block| block.iter().copied())) {
        return sum;
    }
    if row.is_empty() {
        return CANONICAL_NAN;
    }
    let (negative, sum) = sum(row).split();
    signed(negative, sum.over(&Magnitude::of_count(row.len() as u64), SUM_UNIT))
}

/// The double nearest the exact sum of `row[j] * weights[j]` over the exact sum of `weights`: signs
/// as for [`mean`]. If that sum is zero it counts as +0.0: NaN if the products have the sum zero,
/// too, else an infinity of their sign.
pub(super) fn weighted_mean(row: &[f64], weights: &[f64]) -> f64 {
    let (dot, total) = (
        dot_if_not_finite(row, weights),
        sum_if_not_finite(weights.chunks(BLOCK).map(|block| block.iter().copied())),
    );
    if dot.is_none() && total.is_none() {
        let (negative, dot) = sum_of_products(row, weights).split();
        let (negative_total, total) = sum(weights).split();
        if !total.is_zero() {
            return signed(
                negative != negative_total && !dot.is_zero(),
                dot.over(&total, SUM_UNIT),
            );
        }
        return match (dot.is_zero(), negative) {
            (true, _) => CANONICAL_NAN,
            (_, false) => f64::INFINITY,
            (_, true) => f64::NEG_INFINITY,
        };
    }
    // Of what is finite only the sign matters.
    let quotient = dot.unwrap_or(1.0) / total.unwrap_or_else(|| sign_of_sum(weights));
    if quotient.is_nan() { CANONICAL_NAN } else { quotient }
}

/// The sum of the products if one of them is infinite or NaN, as IEEE 754 gives it for any order of
/// the terms.
fn dot_if_not_finite(a: &[f64], b: &[f64]) -> Option<f64> {
    // The product of finite numbers is finite, though it may not be a double: here it counts as
    // nothing.
    let product = |(&a, &b): (&f64, &f64)| if a.is_finite() && b.is_finite() { 0.0 } else { a * b };
    sum_if_not_finite(
        a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(|(a, b)| a.iter().zip(b).map(product)),
    )
}

/// The sum of finite doubles, propagated.
fn sum(values: &[f64]) -> WideInt<{ superaccumulator::LIMBS }> {
    let mut sum = Superaccumulator::new();
    sum.add(values);
    sum.into_fixed()
}

fn sign_of_sum(values: &[f64]) -> f64 {
    match sum(values).split() {
        (_, sum) if sum.is_zero() => 0.0,
        (negative, _) => signed(negative, 1.0),
    }
}

fn signed(negative: bool, magnitude: f64) -> f64 {
    if negative { -magnitude } else { magnitude }
}

/// The sum of the products of finite doubles, in units of 2^-2148, propagated.
fn sum_of_products(a: &[f64], b: &[f64]) -> WideInt<LIMBS> {
    let mut sum = WideInt::ZERO;
    // Two parts of a product, which may be in bins of two others.
    let batch = MOST_TERMS / 2;
    for (a, b) in a.chunks(batch).zip(b.chunks(batch)) {
        let mut bins = Bins::<BINS>::ZERO;
        for (&a, &b) in a.iter().zip(b) {
            add_product(&mut bins, a, b);
        }
        sum.add(&bins);
    }
    sum
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
fn add_product(bins: &mut Bins<BINS>, a: f64, b: f64) {
    let ((a_negative, a, a_at), (b_negative, b, b_at)) = (parts(a), parts(b));
    let (negative, position) = (a_negative != b_negative, a_at + b_at);
    let product = u128::from(a) * u128::from(b);
    bins.add(negative, product as u64, position);
    bins.add(negative, (product >> 64) as u64, position + 64);
}
