//! What a first tier knows of a number: two doubles and a margin. Whether that is enough for the
//! nearest double, of the number itself or of the quotient of two, is proved here.
//!
//! Pure arithmetic on a handful of doubles. `means.rs` uses it for all means and dot products,
//! `dot.rs` and `three_term.rs` make its numbers.

#![expect(clippy::many_single_char_names, reason = "the letters of the proof")]
#![expect(
    clippy::needless_bitwise_bool,
    reason = "a branch would keep the compiler from making vectors of it"
)]

use super::certificate::margin;
use super::lanes::two_sum;
use super::product::two_product;

/// A number known to be `h + l + d` with `|d| <= margin`. Nothing is proved of an interval with a
/// NaN in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) h: f64,
    pub(super) l: f64,
    pub(super) margin: f64,
}

/// Quotients are proved of numbers whose magnitude lies between these: no step of the proof then
/// underflows where it matters.
const LEAST: f64 = power_of_two(-480);
const MOST: f64 = power_of_two(480);

const fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits((1023 + exponent).cast_unsigned() << 52)
}

impl Interval {
    /// `s + c + d`, `|d| <= margin`, with a lower part as small as it can be: more is proved of
    /// that.
    #[inline(always)]
    pub(super) fn of_sum(s: f64, c: f64, margin: f64) -> Self {
        let (h, l) = two_sum(s, c);
        Self { h, l, margin }
    }

    /// A number of elements, if it is below 2^53 and so certainly a double.
    #[inline(always)]
    pub(super) fn of_count(n: usize) -> Option<Self> {
        (n < 1 << 53).then_some(Self { h: n as f64, l: 0.0, margin: 0.0 })
    }

    /// The double nearest the number, or `None` if the margin leaves more than one: see
    /// [`certificate`](super::certificate).
    #[inline(always)]
    pub(super) fn nearest(self) -> Option<f64> {
        unless_nan(self.nearest_or_nan())
    }

    /// [`Interval::nearest`] without a branch, for many side by side: NaN where nothing is proved.
    #[inline(always)]
    pub(super) fn nearest_or_nan(self) -> f64 {
        let m = margin(self.margin, self.l, 0);
        // False for NaN, as it must be.
        let (low, high) = (self.h + (self.l - m), self.h + (self.l + m));
        if low == high { low } else { f64::NAN }
    }

    /// The double nearest the quotient of two numbers, or `None` if it is not proved. `FUSED`: see
    /// [`two_product`].
    ///
    /// # Proof
    /// Let `T = h + l + d`, `|d| <= M` be divided by `W = g + k + e`, `|e| <= G`; `u = 2^-53`.
    /// `|h|`, `|g|` and `q = fl(h / g)` must lie in `2^-480..2^480` and `|k| + G <= 2^-40 |g|`, so
    /// `W` is not zero, and has the sign of `g`.
    ///
    /// 1. *The remainder `r = h - q g` is a double, and computed exactly.* It is a multiple of
    ///    `ulp(q) ulp(g)`, which is above 2^-1074, and at most `|g| ulp(q) / 2`, thus at most 2^52
    ///    times that. Fused, it comes out of one operation. Else `(p, f) = TwoProduct(q, g)` is
    ///    exact, as neither underflows nor overflows; `h - p` is exact because the two are within a
    ///    factor of 2 (Sterbenz); and subtracting `f` from that gives `r`, a double, exactly.
    /// 2. *What is missing from `q`.* `T / W - q = v' / W` with `v' = r + l - q k + d - q e`.
    ///    Computed are `v = fl(fl(r + l) - fl(q k))` and `y = fl(v / g)`. Let
    ///    `R = |r| + |l| + |q k|`. The three roundings in `v` lose at most
    ///    `3 u R (1 + 4 u) + 2^-1074`; that of `y` at most `u |y| + 2^-1075`, where
    ///    `|y| <= R (1 + 4 u) / |g|`; and dividing by `g` in place of `W` changes the quotient by
    ///    at most `|v' / g| (|k| + G) / |W| <= (R + M + |q| G) r_w (1 + 2^-39) / |g|`, with
    ///    `r_w = (|k| + G) / |g| <= 2^-40`.
    /// 3. *Margin.* So `|T / W - q - y| <= K'`, with
    ///    `K' = ((M + |q| G) (1 + 2^-38) + R (5 u + r_w (1 + 2^-39)) + 2^-1074) / |g| + 2^-1074`;
    ///    and rounding `y -+ K` moves it by at most `u (|y| + K)`.
    ///    `K = ((M + |q| G) (1 + 2^-20) + R (16 u + 2 r_w) + 2^-1070) / |g| + 2^-1070` has ten
    ///    roundings of its own, each by a factor of at least `1 - u` or, by underflow, of 2^-1075:
    ///    what is to spare in every term pays for them.
    /// 4. *Conclusion* as for [`Interval::nearest`]:
    ///    `fl(q + fl(y - K)) <= fl(T / W) <= fl(q + fl(y + K))`.
    ///
    /// Comparisons with NaN are false, and an infinite `K` makes the ends NaN or opposite.
    ///
    /// 5. *Ties.* A mean of doubles of like size is half-way between two doubles in one row of some
    ///    `n`, so these are decided here: if `M = G = k = 0`, and `r + l` is a double `v`, and `y`
    ///    times `g` is exactly that, then `T / W = q + y`, which is rounded once. (That it is, is
    ///    seen from an exact product: `|v| >= 2^-960`, or `v` is zero, and then so is `y`.)
    ///
    /// A certain zero over what is certainly no zero is +0.0.
    #[inline(always)]
    pub(super) fn over<const FUSED: bool>(self, divisor: Self) -> Option<f64> {
        unless_nan(self.over_or_nan::<FUSED>(divisor))
    }

    /// [`Interval::over`] without a branch, for many side by side: NaN where nothing is proved.
    #[inline(always)]
    pub(super) fn over_or_nan<const FUSED: bool>(self, divisor: Self) -> f64 {
        let Self { h, l, margin } = self;
        let Self { h: g, l: k, margin: uncertain } = divisor;
        let off = (k.abs() + uncertain) / g.abs();
        let q = h / g;
        let (p, f) = two_product::<FUSED>(q, g);
        let r = (h - p) - f;
        let qk = q * k;
        let (v, lost) = two_sum(r, l);
        let v = v - qk;
        let y = v / g;
        let (back, lost_too) = two_product::<FUSED>(y, g);
        let is_exact = (margin == 0.0)
            & ((uncertain == 0.0) & (k == 0.0))
            & ((lost == 0.0) & (back == v) & (lost_too == 0.0))
            & ((v == 0.0) | (v.abs() >= power_of_two(-960)));
        let size = (r.abs() + l.abs()) + qk.abs();
        let spread = (margin + q.abs() * uncertain) * (1.0 + 1.0 / 1_048_576.0)
            + (size * (8.0 * f64::EPSILON + 2.0 * off) + TINY);
        let spread = if is_exact { 0.0 } else { spread / g.abs() + TINY };
        let (low, high) = (q + (y - spread), q + (y + spread));
        let divisor_is_known = within(g) & (off <= NEAR);
        let is_zero = (h == 0.0) & (l == 0.0) & (margin == 0.0);
        let is_proved = within(h) & within(q) & (low == high);
        let quotient = if is_zero { 0.0 } else { low };
        if divisor_is_known & (is_zero | is_proved) { quotient } else { f64::NAN }
    }
}

#[inline(always)]
fn within(x: f64) -> bool {
    (x.abs() >= LEAST) & (x.abs() <= MOST)
}

#[inline(always)]
fn unless_nan(x: f64) -> Option<f64> {
    if x.is_nan() { None } else { Some(x) }
}

/// How far the lower part of a divisor and its margin may reach, to its upper part. (Half of what
/// the proof has, since the quotient is rounded.)
const NEAR: f64 = power_of_two(-41);

/// More than what underflows anywhere here, less than half an ulp of what is proved.
const TINY: f64 = f64::from_bits(1 << 4);

/// The double nearest `T / n` for an exact sum `T` in `h + [l - margin, l + margin]` of `n` terms,
/// or `None` if that is not proved: see [`Interval::over`]. (A divisor that is a double makes
/// `k = G = 0` there.)
#[inline(always)]
pub(super) fn mean_of<const FUSED: bool>(h: f64, l: f64, margin: f64, n: usize) -> Option<f64> {
    Interval { h, l, margin }.over::<FUSED>(Interval::of_count(n)?)
}
