//! Integers of thousands of bits on the stack: sums in fixed point, and their rounding, alone or
//! over one another.
//!
//! Used by the last tiers only (`superaccumulator.rs`, `ratio.rs`): slow, never wrong, one
//! rounding. Knows no doubles but as results. Nothing is allocated, for it runs in forked children.

/// Words of a [`Magnitude`]: what the widest accumulator, that of products, fills.
const WORDS: usize = 68;

const LOW_32: i64 = 0xffff_ffff;

/// The integer `sum(limbs[k] * 2^(32 k))`. A limb is an `i64` of which 32 bits are its own and the
/// rest room for carries, so limbs can be negated without looking at the neighbours;
/// [`WideInt::propagate`] then puts the carries where they belong.
#[derive(Clone)]
pub(super) struct WideInt<const LIMBS: usize> {
    pub(super) limbs: [i64; LIMBS],
}

impl<const LIMBS: usize> WideInt<LIMBS> {
    pub(super) const ZERO: Self = Self { limbs: [0; LIMBS] };

    /// Brings every limb but the last into `0..2^32`; the last one then carries the sign of the
    /// whole.
    pub(super) fn propagate(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let v = *limb + carry;
            *limb = v & LOW_32;
            carry = v >> 32;
        }
        self.limbs[LIMBS - 1] += carry;
    }

    /// Adds all that is in the bins; a propagated number stays one.
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

    /// Leaves the magnitude of a propagated number; says whether that changed it.
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

/// Terms are shifted by less than 32 bits in 128, and are below 2^64 before: so many of them leave
/// a bin below 2^112.
pub(super) const MOST_TERMS: usize = 1 << 14;

/// Where terms are added up on their way to a [`WideInt`]: bin `k` counts multiples of `2^(32 k)`,
/// like limb `k`. With 128 bits to a bin whole terms go in, and their carries stay there. Terms of
/// either sign have bins of their own, so that no sign is looked at, and where signs alternate one
/// store waits less often for the one before.
pub(super) struct Bins<const BINS: usize> {
    bins: [[u128; BINS]; 2],
}

impl<const BINS: usize> Bins<BINS> {
    pub(super) const ZERO: Self = Self { bins: [[0; BINS]; 2] };

    /// Adds the term `+-significand * 2^position`. No bin may get more than [`MOST_TERMS`].
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
/// bit of the first word is its leading bit, so that two of them can be divided as they are.
pub(super) struct Magnitude {
    /// The most significant first.
    words: [u64; WORDS],
    /// So many of them, from the first, may be other than zero.
    used: usize,
    /// The length in bits; 0 for zero.
    n_bits: i32,
}

impl Magnitude {
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

    #[expect(clippy::cast_possible_wrap, reason = "at most 64")]
    pub(super) fn of_count(count: u64) -> Self {
        let mut words = [0; WORDS];
        words[0] = count.checked_shl(count.leading_zeros()).unwrap_or(0);
        Self { words, used: 1, n_bits: (64 - count.leading_zeros()) as i32 }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.n_bits == 0
    }

    /// The double nearest this integer times `2^scale`.
    pub(super) fn rounded(&self, scale: i32) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let more = self.words[1..].iter().any(|&word| word != 0);
        round(self.words[0], more, self.n_bits - 64 + scale)
    }

    /// The double nearest `self / divisor * 2^scale`; the divisor is not zero.
    ///
    /// Long division, bit by bit. Both are left-aligned, so their quotient as fractions lies
    /// between 1/2 and 2, and 56 bits of it hold at least 55 from its leading one: more than a
    /// double has, and what is left is only asked whether it is zero.
    pub(super) fn over(&self, divisor: &Self, scale: i32) -> f64 {
        debug_assert!(!divisor.is_zero());
        if self.is_zero() {
            return 0.0;
        }
        let used = self.used.max(divisor.used);
        let mut rest = self.words;
        let (rest, divisor_words) = (&mut rest[..used], &divisor.words[..used]);
        // The bit above the first word: what is left is below twice the divisor, so there is no
        // other.
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

/// `a - b`, modulo one more than the largest.
fn subtract(a: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (a, &b) in a.iter_mut().zip(b).rev() {
        let (difference, below) = a.overflowing_sub(b);
        let (difference, below_too) = difference.overflowing_sub(u64::from(borrow));
        *a = difference;
        borrow = below || below_too;
    }
}

/// `2 a`, and whether a bit went out at the top.
fn double(a: &mut [u64]) -> bool {
    let mut carry = false;
    for a in a.iter_mut().rev() {
        let out = *a >> 63 == 1;
        *a = (*a << 1) | u64::from(carry);
        carry = out;
    }
    carry
}

/// The double nearest `(leading + f) * 2^weight`, ties to even, where `f` is between 0 and 1, and
/// zero unless there is `more`. Such a fraction needs at least 54 bits in `leading`.
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
    if n_dropped > 64 {
        return 0.0;
    }
    if n_dropped <= 0 {
        debug_assert!(!more);
        return assemble(leading << -n_dropped, last);
    }
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
