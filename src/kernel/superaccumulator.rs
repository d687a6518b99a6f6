//! Tier three: a fixed-point number as wide as the whole range of doubles, into which any finite
//! double is added without rounding. Slow (a dozen instructions per term), never wrong, rounds
//! once.
//!
//! This is the *small superaccumulator* of R. M. Neal, "Fast exact summation using small and large
//! superaccumulators" (2015), after Kulisch. It differs in the bins, which are separate for either
//! sign and so wide that carries are handed on once in thousands of terms. It lives on the stack,
//! some three KiB: in a forked child nothing may be allocated.
//!
//! `fallback.rs` calls it for a row of doubles, `single_precision.rs` for one of floats, and
//! `ratio.rs` for the sums in means. None of them passes NaN or infinities on to it.
//!
//! # Representation
//! Every finite double is an integer multiple of 2^-1074. The sum, in that unit, is a [`WideInt`].
//! It is exact for every order of the terms and for every intermediate sum, also one far beyond
//! `f64::MAX`.

use super::wide_int::{Bins, MOST_TERMS, WideInt};

/// A double is below 2^2098 units, so the sum of 2^60 of them stays below 2^2158, inside limb 67;
/// one limb is left for the sign. (No slice has more: it has less than 2^63 bytes.)
pub(super) const LIMBS: usize = 69;
/// A position is at most 2045, in limb 63; the rest of a term stays in that bin.
const BINS: usize = 64;

/// The double nearest the exact sum of `values`, all of which must be finite; ties to even, +0.0
/// for zero, an infinity if and only if the exact sum rounds to one.
pub(super) fn sum_finite(values: &[f64]) -> f64 {
    let mut sum = Superaccumulator::new();
    sum.add(values);
    sum.round(Rounding::ToNearest)
}

/// The rounding of a sum that is no double.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To the nearest double; of two the even one.
    ToNearest,
    /// To that neighbour whose last bit is set, so that the result can be rounded once more to
    /// fewer bits: see `three_term.rs`. For sums of floats, which are far from the largest double.
    ToOdd,
}

/// A running sum in units of 2^-1074. It is propagated between calls.
pub(super) struct Superaccumulator {
    sum: WideInt<LIMBS>,
}

impl Superaccumulator {
    pub(super) const fn new() -> Self {
        Self { sum: WideInt::ZERO }
    }

    /// Adds finite doubles. NaN and infinities would be taken for numbers of that exponent.
    pub(super) fn add(&mut self, values: &[f64]) {
        for batch in values.chunks(MOST_TERMS) {
            let mut bins = Bins::<BINS>::ZERO;
            for value in batch {
                let (negative, significand, position) = parts(*value);
                bins.add(negative, significand, position);
            }
            self.sum.add(&bins);
        }
    }

    /// The sum, propagated.
    pub(super) fn into_wide_int(self) -> WideInt<LIMBS> {
        self.sum
    }

    /// The sum as a double; +0.0 for zero, whatever the signs of the zeros that were added.
    pub(super) fn round(mut self, rounding: Rounding) -> f64 {
        let negative = self.sum.take_sign();
        let magnitude = f64::from_bits(self.round_magnitude(rounding));
        if negative { -magnitude } else { magnitude }
    }

    /// The bits of the rounded double of a sum that is not negative.
    fn round_magnitude(&self, rounding: Rounding) -> u64 {
        let limb = |k: usize| self.sum.limbs[k].cast_unsigned();
        let Some(top) = self.sum.limbs.iter().rposition(|&limb| limb != 0) else {
            return 0;
        };
        if top == 0 {
            // Below 2^32 units: the bits of a subnormal *are* its number of units.
            return limb(0);
        }
        // The leading 64 bits, left-aligned, and whether anything nonzero lies below them. The top
        // limb has a bit set, so together with the next two there are 65 to 96 significant bits if
        // there are that many at all.
        let third = if top >= 2 { limb(top - 2) } else { 0 };
        let head =
            (u128::from(limb(top)) << 64) | (u128::from(limb(top - 1)) << 32) | u128::from(third);
        let below = self.sum.limbs[..top.saturating_sub(2)].iter().any(|&limb| limb != 0);
        // Number of the leading bit, counted from 2^-1074; `head` starts at limb `top - 2`, which
        // may be limb "-1".
        let leading = u64::from(head.ilog2()) + 32 * top as u64 - 64;
        if leading < 53 {
            // Below 2^53 units there is nothing to round: again the bits are the number of units.
            return (limb(1) << 32) | limb(0);
        }
        let aligned = head << head.leading_zeros();
        let window = (aligned >> 64) as u64;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of 128 bits")]
        let rest = aligned as u64;
        let significand = window >> 11;
        let half = (window >> 10) & 1 == 1;
        let sticky = window & ((1 << 10) - 1) != 0 || rest != 0 || below;
        // `significand` brings the implicit bit, which counts one into the exponent field; a carry
        // out of it by rounding up lands there by itself and makes MAX + half an ulp infinity.
        let exponent = leading - 52;
        if exponent >= 0x7fe {
            return f64::INFINITY.to_bits();
        }
        match rounding {
            Rounding::ToNearest => {
                (exponent << 52) + significand + u64::from(half && (sticky || significand & 1 == 1))
            }
            Rounding::ToOdd => (exponent << 52) + (significand | u64::from(half || sticky)),
        }
    }
}

/// A finite double as `(negative, m, k)`: `+-m * 2^(k - 1074)`, where `m < 2^53` and `k <= 2045`.
/// Subnormals and zeros have `k = 0`.
#[inline(always)]
pub(super) fn parts(x: f64) -> (bool, u64, usize) {
    let bits = x.to_bits();
    // A subnormal has the scale of exponent 1 but no implicit bit. Data may mix them with others:
    // no branch.
    let implicit = u64::from(bits & (0x7ff << 52) != 0) << 52;
    let significand = (bits & ((1 << 52) - 1)) | implicit;
    // For normal numbers `k` is one less than the exponent field. The implicit bit has the weight
    // of one in that field, which is not zero then, so no borrow gets to the sign.
    let position = ((bits - implicit) >> 52) & 0x7ff;
    (bits >> 63 == 1, significand, position as usize)
}
