//! Integers of thousands of bits on the stack: sums in fixed point, and the rounding of such a sum
//! or of a quotient of two.
//!
//! Used by the last tiers only (`superaccumulator.rs`, `ratio.rs`): slow, never wrong, one
//! rounding. Doubles occur as results alone: the callers take terms apart into sign, significand
//! and position, and choose the unit. Nothing is allocated, for it runs in forked children.
//!
//! A number passes through three forms:
//!
//! | form | what | bits in a place |
//! |---|---|---|
//! | [`Bins`] | where terms are added, for at most [`MOST_TERMS`] of them | 128, for 32 of value |
//! | [`WideInt`] | the running sum; signed | 64, for 32 of value |
//! | [`Magnitude`] | what is divided and rounded; not negative | 64 |
//!
//! A fixed-point number over the whole range of the terms is U. Kulisch's long accumulator. The
//! first two forms are redundant: a place holds more bits than its weight needs, so an addition
//! need not hand a carry on. The small superaccumulator in R. M. Neal, "Fast exact summation using
//! small and large superaccumulators" (2015), puts carries off in the same way.

/// Words of a [`Magnitude`]: half as many as the limbs of the widest accumulator, that of products
/// in `ratio.rs`, which has 136.
const WORDS: usize = 68;

/// The bits of a limb that are its own.
const LOW_32: i64 = 0xffff_ffff;

/// The integer `sum(limbs[k] * 2^(32 k))`. A limb is an `i64`: 32 bits are its own, and the rest is
/// room for carries. So limbs can be negated without a look at their neighbours, and
/// [`WideInt::propagate`] then puts the carries where they belong.
///
/// The caller chooses `LIMBS` so that no sum reaches the last limb, which is left for the sign.
#[derive(Clone)]
pub(super) struct WideInt<const LIMBS: usize> {
    /// The least significant first.
    pub(super) limbs: [i64; LIMBS],
}

impl<const LIMBS: usize> WideInt<LIMBS> {
    pub(super) const ZERO: Self = Self { limbs: [0; LIMBS] };

    /// Brings every limb but the last into `0..2^32`, which makes the number *propagated*; the last
    /// one then carries the sign of the whole. A shift of a negative number rounds down, so a
    /// negative limb borrows from the next one.
    pub(super) fn propagate(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let v = *limb + carry;
            *limb = v & LOW_32;
            carry = v >> 32;
        }
        self.limbs[LIMBS - 1] += carry;
    }

    /// Adds all that is in the bins; a propagated number stays one. A bin is below 2^109, and a
    /// carry is not much more than a bin over 2^32, so nothing overflows 128 bits.
    #[expect(clippy::cast_possible_truncation, reason = "32 bits, and at last a sign")]
    pub(super) fn add<const BINS: usize>(&mut self, bins: &Bins<BINS>) {
        const { assert!(BINS < LIMBS) };
        let mut carry = 0;
        for (k, limb) in self.limbs[..LIMBS - 1].iter_mut().enumerate() {
            carry += i128::from(*limb);
            if let (Some(positive), Some(negative)) =
                (bins.positive().get(k), bins.negative().get(k))
            {
                carry += positive.cast_signed() - negative.cast_signed();
            }
            *limb = (carry & i128::from(LOW_32)) as i64;
            carry >>= 32;
        }
        self.limbs[LIMBS - 1] += carry as i64;
    }

    /// Replaces a propagated number by its magnitude, which is propagated, too. Returns whether it
    /// was negative; zero is not.
    pub(super) fn take_sign(&mut self) -> bool {
        let negative = self.limbs[LIMBS - 1] < 0;
        if negative {
            for limb in &mut self.limbs {
                *limb = -*limb;
            }
            self.propagate();
        }
        negative
    }

    /// Whether a propagated number is negative, and its magnitude.
    pub(super) fn split(mut self) -> (bool, Magnitude) {
        let negative = self.take_sign();
        (negative, Magnitude::of_limbs(&self.limbs))
    }
}

/// The most terms that a bin may get. A term is below 2^64 and is shifted by less than 32 bits, so
/// that many leave a bin below 2^109, far from 2^128. To empty the bins takes a step for each limb,
/// some hundred: next to nothing beside so many terms.
pub(super) const MOST_TERMS: usize = 1 << 14;

/// Where terms are added up on their way to a [`WideInt`]: bin `k` counts multiples of `2^(32 k)`,
/// like limb `k`. With 128 bits to a bin whole terms go in, and their carries stay there. Terms of
/// either sign have bins of their own. So there is no branch on a sign, which would be mispredicted
/// where signs are random; and where they alternate, one store waits less often for the one before.
pub(super) struct Bins<const BINS: usize> {
    /// Those of positive terms, then those of negative ones, as magnitudes.
    bins: [[u128; BINS]; 2],
}

impl<const BINS: usize> Bins<BINS> {
    pub(super) const ZERO: Self = Self { bins: [[0; BINS]; 2] };

    /// Adds the term `+-significand * 2^position`. No bin may get more than [`MOST_TERMS`] of them.
    /// A significand of zero, of either sign, adds nothing.
    ///
    /// # Panics
    /// If `position` is beyond the last bin.
    #[inline(always)]
    pub(super) fn add(&mut self, negative: bool, significand: u64, position: usize) {
        self.bins[usize::from(negative)][position / 32] +=
            u128::from(significand) << (position % 32);
    }

    fn positive(&self) -> &[u128; BINS] {
        &self.bins[0]
    }

    fn negative(&self) -> &[u128; BINS] {
        &self.bins[1]
    }
}

/// An integer that is not negative, of any size up to some 4000 bits, **left-aligned**: the first
/// bit of the first word is its leading bit. So rounding needs the first word, and of the others
/// only whether they are zero; and two of them can be divided as they are.
pub(super) struct Magnitude {
    /// The most significant first.
    words: [u64; WORDS],
    /// The number of words, from the first, that may be other than zero: a division goes through
    /// these alone.
    used: usize,
    /// The length in bits; 0 for zero.
    n_bits: i32,
}

impl Magnitude {
    /// The magnitude with these limbs, the least significant first, each in `0..2^32`: pairs of
    /// them become words, shifted to the left until the leading bit is the first.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "lengths of a few thousand bits"
    )]
    fn of_limbs(limbs: &[i64]) -> Self {
        const { assert!(2 * WORDS < 1 << 16) };
        debug_assert!(
            limbs.len() <= 2 * WORDS && limbs.iter().all(|limb| (0..=LOW_32).contains(limb))
        );
        let mut words = [0; WORDS];
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else {
            return Self { words, used: 0, n_bits: 0 };
        };
        let shift = limbs[top].leading_zeros() - 32;
        // The limb `below` places under the topmost; there are zeros under the lowest.
        let limb = |below: usize| top.checked_sub(below).map_or(0, |k| limbs[k].cast_unsigned());
        let used = top / 2 + 1;
        for (i, word) in words[..used].iter_mut().enumerate() {
            let (first, second, third) = (limb(2 * i), limb(2 * i + 1), limb(2 * i + 2));
            // What is shifted out of `first` is in the word before, as its `third`.
            *word = (((first << 32) | second) << shift) | (third >> (32 - shift));
        }
        Self { words, used, n_bits: 32 * (top as i32 + 1) - shift as i32 }
    }

    /// A number of terms, the divisor of a mean.
    #[expect(clippy::cast_possible_wrap, reason = "at most 64")]
    pub(super) fn of_count(count: u64) -> Self {
        let mut words = [0; WORDS];
        // To shift zero by its 64 leading zeros is refused, and leaves zero.
        words[0] = count.checked_shl(count.leading_zeros()).unwrap_or(0);
        Self { words, used: 1, n_bits: (64 - count.leading_zeros()) as i32 }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.n_bits == 0
    }

    /// The double nearest this integer times `2^scale`; +0.0 for zero.
    pub(super) fn rounded(&self, scale: i32) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let more = self.words[1..].iter().any(|&word| word != 0);
        round(self.words[0], more, self.n_bits - 64 + scale)
    }

    /// The double nearest `self / divisor * 2^scale`; the divisor is not zero.
    ///
    /// This is long division (Knuth, "The Art of Computer Programming", volume 2, section 4.3.1)
    /// with digits of one bit. Both numbers are left-aligned, so their quotient as fractions lies
    /// between 1/2 and 2, and 56 bits of it, the first for the units, hold at least 55 from its
    /// leading one. That is more than the 53 of a double and the one that decides; of what is left
    /// it only matters whether it is zero.
    pub(super) fn over(&self, divisor: &Self, scale: i32) -> f64 {
        debug_assert!(!divisor.is_zero());
        if self.is_zero() {
            return 0.0;
        }
        let used = self.used.max(divisor.used);
        let mut rest = self.words;
        let (rest, divisor_words) = (&mut rest[..used], &divisor.words[..used]);
        // The bit above the first word of `rest`. What is left is below the divisor after each
        // subtraction, and is then doubled, so one more bit is enough.
        let mut above = false;
        let mut quotient = 0;
        for _ in 0..56 {
            let fits = above || *rest >= *divisor_words;
            if fits {
                subtract(rest, divisor_words);
            }
            quotient = (quotient << 1) | u64::from(fits);
            above = double(rest);
        }
        let more = above || rest.iter().any(|&word| word != 0);
        round(quotient, more, self.n_bits - divisor.n_bits - 55 + scale)
    }
}

/// `a -= b`, for words with the most significant first. Where `a` is less than `b`, the bit `above`
/// it is set and pays for the borrow.
fn subtract(a: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (a, &b) in a.iter_mut().zip(b).rev() {
        let (difference, below) = a.overflowing_sub(b);
        let (difference, below_too) = difference.overflowing_sub(u64::from(borrow));
        *a = difference;
        borrow = below || below_too;
    }
}

/// Doubles `a`, and returns whether a bit went out at the top.
fn double(a: &mut [u64]) -> bool {
    let mut carry = false;
    for a in a.iter_mut().rev() {
        let out = *a >> 63 == 1;
        *a = (*a << 1) | u64::from(carry);
        carry = out;
    }
    carry
}

/// The double nearest `(leading + f) * 2^weight`, ties to even, where `0 <= f < 1`, and `f` is zero
/// unless there is `more`. If there is, `leading` must have at least 54 bits, so that the bit that
/// decides is among them. `leading` is not zero.
///
/// This is the only rounding of the results of `ratio.rs`. It happens at the last bit that the
/// result has, which for a subnormal is that of 2^-1074, so no result is rounded twice.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "exponents and numbers of bits, all small"
)]
fn round(leading: u64, more: bool, weight: i32) -> f64 {
    let exponent = leading.ilog2() as i32 + weight;
    if exponent > 1023 {
        return f64::INFINITY;
    }
    // The weight of the last bit that the double has, and how many bits are below it.
    let last = (exponent - 52).max(-1074);
    let n_dropped = last - weight;
    // Then the number is less than half of the least subnormal: for normal numbers at most eleven
    // bits are dropped.
    if n_dropped > 64 {
        return 0.0;
    }
    if n_dropped <= 0 {
        debug_assert!(!more);
        return assemble(leading << -n_dropped, last);
    }
    // All 64 bits may be dropped, and then none is kept.
    let kept = leading.checked_shr(n_dropped as u32).unwrap_or(0);
    let half = 1_u64 << (n_dropped - 1);
    let up = leading & half != 0 && (more || leading & (half - 1) != 0 || kept & 1 == 1);
    assemble(kept + u64::from(up), last)
}

/// `significand * 2^last`: below 2^53 (2^52 for subnormals), or just that, by a carry.
#[expect(clippy::cast_sign_loss, reason = "`last` is at least -1074")]
fn assemble(significand: u64, last: i32) -> f64 {
    // The leading bit counts one into the exponent field, as does a carry; a subnormal has none.
    // MAX and a carry make infinity.
    f64::from_bits((((last + 1074) as u64) << 52) + significand)
}
