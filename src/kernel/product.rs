//! The exact product of two doubles, as two doubles.
//!
//! Used by `dot.rs` for each term, and by the quotients of `interval.rs` for the remainder.

use super::lanes::Lanes;

/// Veltkamp's constant for 53 bits: splits a double into halves of 26 bits and a sign.
const SPLITTER: f64 = 134_217_729.0;

/// `(p, e)` with `p = fl(a b)` and `p + e = a b`, exactly while `|p| >= 2^-968`; below that the
/// difference is less than 2^-1004 (and zero where a factor is). If anything overflows `e` is
/// infinite or NaN, never a finite number that is wrong.
///
/// `FUSED`: by one fused multiplication and addition, which is only quick, and only inlined, where
/// the processor has it; else after Veltkamp and Dekker (1971), in 17 operations. Both are exact,
/// so no bit of a result depends on it.
///
/// # Proof
/// That `e` is exact, Dekker's included, is proved in S. Boldo, "Pitfalls of a full floating-point
/// proof" (2006), for 2^-969 <= `|a b|` where nothing overflows. Below 2^-968 all that is computed
/// lies below 2^-960, or is rounded only in the subnormal range, so none of six roundings loses
/// more than 2^-1013. Where a step overflows (a factor above 2^996, a product near `f64::MAX`) some
/// term of `e` is infinite, and stays so, or becomes NaN: `infinity - (infinity - a)` is, and so is
/// what is added to that.
#[inline(always)]
pub(super) fn two_product<const FUSED: bool>(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    if FUSED {
        return (p, a.mul_add(b, -p));
    }
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    (p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low)
}

/// Veltkamp's: `a` as the sum of two doubles of at most 26 bits; NaN where the multiplication
/// overflows.
#[inline(always)]
fn split(a: f64) -> (f64, f64) {
    let scaled = SPLITTER * a;
    let high = scaled - (scaled - a);
    (high, a - high)
}

/// [`two_product`] in every lane.
#[inline(always)]
pub(super) fn two_products<const FUSED: bool, const N: usize>(
    a: Lanes<N>,
    b: Lanes<N>,
) -> (Lanes<N>, Lanes<N>) {
    let (mut products, mut errors) = ([0.0; N], [0.0; N]);
    for i in 0..N {
        (products[i], errors[i]) = two_product::<FUSED>(a.0[i], b.0[i]);
    }
    (Lanes(products), Lanes(errors))
}
