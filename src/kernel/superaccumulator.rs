//! Tier three: a fixed-point number as wide as the whole range of doubles, into which any finite
//! double is added without rounding. Slow (a dozen instructions per term), never wrong, rounds
//! once.
//!
//! This is the *small superaccumulator* of R. M. Neal, "Fast exact summation using small and large
//! superaccumulators" (2015), after Kulisch, with bins for either sign that are so wide that
//! carries are seen to once in thousands of terms. It lives on the stack: in a forked child nothing
//! may be allocated.
//!
//! # Representation
//! Every finite double is an integer multiple of 2^-1074. The sum, in that unit, is a [`WideInt`].

use super::wide_int::{Bins, MOST_TERMS, WideInt};

/// A term starts in a limb up to number 63; the sum of 2^60 doubles stays below 2^2158 units,
/// inside limb 67.
pub(super) const LIMBS: usize = 69;
const BINS: usize = 64;

/// The double nearest the exact sum of `values`, all of which must be finite; ties to even, +0.0
/// for zero, an infinity if and only if the exact sum rounds to one.
pub(super) fn sum_finite(values: &[f64]) -> f64 {
    let mut sum = Superaccumulator::new();
    sum.add(values);
    sum.round(Rounding::ToNearest)
}

/// What becomes of a sum that is no double.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// The nearest one; of two the even one.
    ToNearest,
    /// That of its neighbours whose last bit is set, so that it can be rounded once more to fewer
    /// bits. For sums of floats, which are far from the largest double.
    ToOdd,
}

pub(super) struct Superaccumulator {
    sum: WideInt<LIMBS>,
}

impl Superaccumulator {
    pub(super) const fn new() -> Self {
        Self { sum: WideInt::ZERO }
    }

    /// Adds finite doubles.
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
    pub(super) fn into_fixed(self) -> WideInt<LIMBS> {
        self.sum
    }

    /// The sum as a double.
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

/// A finite double as `(negative, m, k)`: `+-m * 2^(k - 1074)`, where `m < 2^53` and `k < 2^11`.
#[inline(always)]
pub(super) fn parts(x: f64) -> (bool, u64, usize) {
    let bits = x.to_bits();
    // A subnormal has the scale of exponent 1 but no implicit bit. Data may mix them with others:
    // no branch.
    let implicit = u64::from(bits & (0x7ff << 52) != 0) << 52;
    let significand = (bits & ((1 << 52) - 1)) | implicit;
    // The implicit bit is also one in the exponent, which has it to give, so the sign stays.
    let position = ((bits - implicit) >> 52) & 0x7ff;
    (bits >> 63 == 1, significand, position as usize)
}
