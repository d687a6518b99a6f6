//! The last tiers of dot products, means and weighted means: everything in fixed point, on the stack, rounded once. Slow
//! (some ten nanoseconds per term, a microsecond per division), never wrong.
//!
//! Called where a first tier could not prove its answer. Here, too, is said what becomes of NaN and infinities.
//!
//! A product of two doubles is an integer of 106 bits times a power of two not below 2^-2148; the sum of 2^60 of them stays
//! below 2^4256 of these units. A mean is a quotient of two such integers, which is divided until more bits are known than a
//! double has, and rounded with the rest: no rounding comes before that one, for subnormal results either.

use super::fixed::{Fixed, Magnitude};
use super::refine::{CANONICAL_NAN, sum_if_not_finite};
use super::superaccumulator::{self, Superaccumulator};

/// Products end in limb 131, their sum in limb 133, and one is left for the sign.
const LIMBS: usize = 136;

/// A product adds less than 2^33 to a limb, so with what a propagation leaves these stay far below 2^63.
const PRODUCTS_PER_PROPAGATION: usize = 4096;

/// The unit of a [`Superaccumulator`] is 2 to this; that of products has twice the exponent, so that their sum over a sum
/// has this unit again.
const SUM_UNIT: i32 = -1074;

/// The double nearest the exact sum of `a[j] * b[j]`, whatever is in them. Overflow on the way does not matter; the result
/// is infinite if and only if the exact one rounds to that. A sum of zero is +0.0.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    if let Some(sum) = dot_if_not_finite(a, b) {
        return sum;
    }
    let (negative, magnitude) = sum_of_products(a, b).split();
    signed(negative, magnitude.rounded(2 * SUM_UNIT))
}

/// The double nearest the exact sum of `row` over their number. NaN for none; a sum of zero gives +0.0, one that is only too
/// small a zero of its sign.
pub(super) fn mean(row: &[f64]) -> f64 {
    if let Some(sum) = sum_if_not_finite(row.iter().copied()) {
        return sum;
    }
    if row.is_empty() {
        return CANONICAL_NAN;
    }
    let (negative, sum) = sum(row).split();
    signed(negative, sum.over(&Magnitude::of_count(row.len() as u64), SUM_UNIT))
}

/// The double nearest the exact sum of `row[j] * weights[j]` over the exact sum of `weights`: signs as for [`mean`]. If that
/// sum is zero it counts as +0.0: NaN if the products have the sum zero, too, else an infinity of their sign.
pub(super) fn weighted_mean(row: &[f64], weights: &[f64]) -> f64 {
    let (dot, total) = (dot_if_not_finite(row, weights), sum_if_not_finite(weights.iter().copied()));
    if dot.is_none() && total.is_none() {
        let (negative, dot) = sum_of_products(row, weights).split();
        let (negative_total, total) = sum(weights).split();
        if !total.is_zero() {
            return signed(negative != negative_total && !dot.is_zero(), dot.over(&total, SUM_UNIT));
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

/// The sum of the products if one of them is infinite or NaN, as IEEE 754 gives it for any order of the terms.
fn dot_if_not_finite(a: &[f64], b: &[f64]) -> Option<f64> {
    // The product of finite numbers is finite, though it may not be a double: here it counts as nothing.
    let product = |(&a, &b): (&f64, &f64)| if a.is_finite() && b.is_finite() { 0.0 } else { a * b };
    sum_if_not_finite(a.iter().zip(b).map(product))
}

/// The sum of finite doubles, propagated.
fn sum(values: &[f64]) -> Fixed<{ superaccumulator::LIMBS }> {
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
fn sum_of_products(a: &[f64], b: &[f64]) -> Fixed<LIMBS> {
    let mut sum = Fixed::ZERO;
    for (a, b) in a.chunks(PRODUCTS_PER_PROPAGATION).zip(b.chunks(PRODUCTS_PER_PROPAGATION)) {
        for (&a, &b) in a.iter().zip(b) {
            add_product(&mut sum, a, b);
        }
        sum.propagate();
    }
    sum
}

fn add_product(sum: &mut Fixed<LIMBS>, a: f64, b: f64) {
    let ((a, a_at), (b, b_at)) = (parts(a), parts(b));
    let negative = (a < 0) != (b < 0);
    let product = u128::from(a.unsigned_abs()) * u128::from(b.unsigned_abs());
    let (k, shift) = ((a_at + b_at) / 32, (a_at + b_at) % 32);
    let mut add = |k: usize, part: u128| {
        for (limb, shift) in sum.limbs[k..k + 3].iter_mut().zip([0, 32, 64]) {
            let digit = ((part >> shift) & 0xffff_ffff) as i64;
            *limb += if negative { -digit } else { digit };
        }
    };
    // Half of it at a time, which is below 2^95 when it is shifted.
    add(k, (product & u128::from(u64::MAX)) << shift);
    add(k + 2, (product >> 64) << shift);
}

/// A finite double as `(m, k)`: `m * 2^(k - 1074)`.
#[expect(clippy::cast_possible_truncation, reason = "an exponent of 11 bits")]
fn parts(x: f64) -> (i64, usize) {
    let bits = x.to_bits();
    let exponent = (bits >> 52) & 0x7ff;
    // A subnormal has the scale of exponent 1 but no implicit bit.
    let significand = ((bits & ((1 << 52) - 1)) | (u64::from(exponent != 0) << 52)).cast_signed();
    let signed = if x.is_sign_negative() { -significand } else { significand };
    (signed, (exponent.max(1) - 1) as usize)
}
