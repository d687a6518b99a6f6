//! The last tiers of dot products, means and weighted means: everything in fixed point, on the
//! stack, rounded once. Slow (some nanoseconds per term, a microsecond per division), never wrong.
//!
//! `means.rs` calls it where no tier before could prove its answer. NaN and infinities get here,
//! too, as no other tier proves anything of them: the results are those of IEEE 754, where it gives
//! the same ones for every order of the terms, and a NaN is always the same one.
//!
//! A product of two doubles is an integer of 106 bits times a power of two not below 2^-2148; the
//! sum of 2^60 of them stays below 2^4256 of these units. That a dot product of any length fits a
//! fixed-point number of moderate size, and is then rounded once, is the idea of U. Kulisch's long
//! accumulator. A mean is a quotient of two such integers, which is divided until more bits are
//! known than a double has, and rounded with the rest. No rounding comes before that one, not for
//! subnormal results either.

use super::fallback::{BLOCK, CANONICAL_NAN, sum_if_not_finite};
use super::superaccumulator::{self, Superaccumulator, parts};
use super::wide_int::{Bins, MOST_TERMS, Magnitude, WideInt};

/// Products end in limb 131 and their sum in limb 132, so there is room for the sign. Two limbs
/// make a word of a [`Magnitude`], which has half as many.
const LIMBS: usize = 136;

/// The lower half of a product starts in a limb up to number 127, the upper half 64 bits further
/// on. Each half is below 2^64, as a bin needs it.
const BINS: usize = 130;

/// The exponent of the unit of a [`Superaccumulator`]. The unit of products has twice the exponent,
/// so their sum over a sum of weights has this unit again.
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

/// The double nearest the exact sum of `row` over the number of its elements. NaN for no elements;
/// a sum of zero gives +0.0, and one that is too small for a double a zero of its sign.
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

/// The double nearest the exact sum of `row[j] * weights[j]` over the exact sum of `weights`. Signs
/// are as for [`mean`]. A sum of weights that is zero counts as +0.0: the result is NaN if the
/// products have the sum zero, too, and else an infinity of their sign.
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
    // At least one of the two is not finite. Of a finite one only the sign matters; it can only be
    // the sum of the weights, since a weight that is not finite makes its product so.
    let quotient = dot.unwrap_or(1.0) / total.unwrap_or_else(|| sign_of_sum(weights));
    if quotient.is_nan() { CANONICAL_NAN } else { quotient }
}

/// The sum of the products if one of them is infinite or NaN, as IEEE 754 gives it for any order of
/// the terms; else `None`. An infinity times zero is NaN.
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
    sum.into_wide_int()
}

/// The exact sum of finite doubles, if it is zero, or else a number of its sign.
fn sign_of_sum(values: &[f64]) -> f64 {
    match sum(values).split() {
        (_, sum) if sum.is_zero() => 0.0,
        (negative, _) => signed(negative, 1.0),
    }
}

/// The double of that sign and magnitude. A sum of zero is not negative, so it stays +0.0; what is
/// only rounded to zero keeps its sign.
fn signed(negative: bool, magnitude: f64) -> f64 {
    if negative { -magnitude } else { magnitude }
}

/// The sum of the products of finite doubles, in units of 2^-2148, propagated.
fn sum_of_products(a: &[f64], b: &[f64]) -> WideInt<LIMBS> {
    let mut sum = WideInt::ZERO;
    // A bin may get the lower half of one product and the upper half of another: two parts for
    // each product.
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

/// Adds the product of two finite doubles. It is made in integers, so it neither overflows nor
/// underflows, and a subnormal factor is like any other.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
fn add_product(bins: &mut Bins<BINS>, a: f64, b: f64) {
    let ((a_negative, a, a_at), (b_negative, b, b_at)) = (parts(a), parts(b));
    let (negative, position) = (a_negative != b_negative, a_at + b_at);
    let product = u128::from(a) * u128::from(b);
    bins.add(negative, product as u64, position);
    bins.add(negative, (product >> 64) as u64, position + 64);
}
