//! Tier three: a fixed-point number as wide as the whole range of doubles, into which any finite double is added
//! without rounding. Slow (a load, two integer additions and two stores per term), never wrong, rounds once.
//!
//! This is the *small superaccumulator* of R. M. Neal, "Fast exact summation using small and large superaccumulators"
//! (2015), after Kulisch. It lives on the stack: in a forked child nothing may be allocated.
//!
//! # Representation
//! Every finite double is an integer multiple of 2^-1074. The sum, in that unit, is a [`Fixed`].

use super::fixed::Fixed;

/// The limbs up to number 64 receive terms; the sum of 2^60 doubles stays below 2^2158 units, inside limb 67.
pub(super) const LIMBS: usize = 69;

/// A term adds less than 2^53 to a limb; with what is left in it after a propagation, 2^32, this many stay below 2^63.
const TERMS_PER_PROPAGATION: usize = 512;

/// The double nearest the exact sum of `values`, all of which must be finite; ties to even, +0.0 for zero, an infinity
/// if and only if the exact sum rounds to one.
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
    /// That of its neighbours whose last bit is set, so that it can be rounded once more to fewer bits. For sums of
    /// floats, which are far from the largest double.
    ToOdd,
}

pub(super) struct Superaccumulator {
    sum: Fixed<LIMBS>,
}

impl Superaccumulator {
    pub(super) const fn new() -> Self {
        Self { sum: Fixed::ZERO }
    }

    /// Adds finite doubles.
    pub(super) fn add(&mut self, values: &[f64]) {
        for batch in values.chunks(TERMS_PER_PROPAGATION) {
            self.add_batch(batch);
            self.sum.propagate();
        }
    }

    /// Adds at most [`TERMS_PER_PROPAGATION`] finite doubles; a propagation must follow before the next batch.
    fn add_batch(&mut self, batch: &[f64]) {
        debug_assert!(batch.len() <= TERMS_PER_PROPAGATION);
        for value in batch {
            let bits = value.to_bits();
            let exponent = (bits >> 52) & 0x7ff;
            let fraction = bits & ((1 << 52) - 1);
            // A subnormal has the scale of exponent 1 but no implicit bit.
            let significand = fraction | (u64::from(exponent != 0) << 52);
            let position = exponent.max(1) - 1;
            let shift = position % 32;
            let low = ((significand << shift) & 0xffff_ffff).cast_signed();
            let high = (significand >> (32 - shift)).cast_signed();
            // All ones for a negative term: (v ^ -1) - (-1) = -v, without a branch on data that may alternate.
            let sign = bits.cast_signed() >> 63;
            let k = (position / 32) as usize;
            self.sum.limbs[k] += (low ^ sign) - sign;
            self.sum.limbs[k + 1] += (high ^ sign) - sign;
        }
    }

    /// The sum, propagated.
    pub(super) fn into_fixed(self) -> Fixed<LIMBS> {
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
        // The leading 64 bits, left-aligned, and whether anything nonzero lies below them. The top limb has a bit set,
        // so together with the next two there are 65 to 96 significant bits if there are that many at all.
        let third = if top >= 2 { limb(top - 2) } else { 0 };
        let head = (u128::from(limb(top)) << 64) | (u128::from(limb(top - 1)) << 32) | u128::from(third);
        let below = self.sum.limbs[..top.saturating_sub(2)].iter().any(|&limb| limb != 0);
        // Number of the leading bit, counted from 2^-1074; `head` starts at limb `top - 2`, which may be limb "-1".
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
        // `significand` brings the implicit bit, which counts one into the exponent field; a carry out of it by
        // rounding up lands there by itself and makes MAX + half an ulp infinity.
        let exponent = leading - 52;
        if exponent >= 0x7fe {
            return f64::INFINITY.to_bits();
        }
        match rounding {
            Rounding::ToNearest => (exponent << 52) + significand + u64::from(half && (sticky || significand & 1 == 1)),
            Rounding::ToOdd => (exponent << 52) + (significand | u64::from(half || sticky)),
        }
    }
}
