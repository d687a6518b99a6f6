//! When a sum known but for an error of bounded size is proved to round to one double.
//!
//! The tiers of `result.rs`, `single_precision.rs`, `three_term.rs` and `interval.rs` call it.
//!
//! # Proof
//! Write `u = 2^-53`; the exact sum is `T = h + l + D`.
//!
//! 1. *A bound that was added up is itself rounded.* Let `dropped` be a sum of bounds of parts of
//!    `D`, each of which passed through at most `k` additions of numbers that are not negative,
//!    losing at most a factor `1 - u` in each (exactly nothing in the subnormal range, for sums of
//!    doubles do not underflow). So `|D| <= dropped / (1 - u)^k <= dropped (1 + 2 k u)` while
//!    `k u <= 1/2`; memory ends long before.
//! 2. *Margin.* Let `M` be the double [`margin`] computes. We need `fl(l - M) <= l - |D|` and
//!    `fl(l + M) >= l + |D|`. The rounding of `l -+ M` moves it by at most `u (|l| + M)`, so
//!    `M (1 - u) >= |D| + u |l|` is enough. `M` is
//!    `dropped (1 + 2 (k + 8) u) + (4 u |l| + 2^-1074)`, where three operations round in the normal
//!    range: the `16 u` to spare on the first term and `3 u` on the second pay for them, and
//!    2^-1074 for an underflow of `4 u |l|`. (`k u` alone would not do in place of `2 k u`, as
//!    `(1 - u)^-k > 1 + k u`.) If `dropped` is subnormal it is exact, and the product is at least
//!    `dropped`, as rounding is monotone; then either `l -+ M` is below 2^-1021, hence exact, or
//!    `|l|` is so large that its `3 u |l|` also cover the `2 u dropped` lost by the other
//!    roundings. If `dropped == 0` nothing was dropped, `D = 0`, and `M = 0` serves: then `l -+ 0`
//!    is exact.
//! 3. *Conclusion.* Rounding is monotone, and `h + (a double)` is rounded once, so
//!    `fl(h + fl(l - M)) <= fl(T) <= fl(h + fl(l + M))`. If the ends are equal they are the answer.
//!    There is no double rounding, and no tie is special: a tie inside the interval makes the ends
//!    differ, and one that is hit exactly (`M = 0`) is decided by the one rounding, to even. A NaN
//!    makes the ends differ.

use super::lanes::two_sum;

/// `M` of the proof: covers what `dropped` stands for and the rounding of `l - M` and `l + M`, when
/// each magnitude in `dropped` went through at most `additions` additions.
#[inline(always)]
pub(super) fn margin(dropped: f64, l: f64, additions: usize) -> f64 {
    let inflation = 1.0 + (additions + 8) as f64 * f64::EPSILON;
    let margin = dropped * inflation + (l.abs() * (2.0 * f64::EPSILON) + f64::from_bits(1));
    if dropped == 0.0 { 0.0 } else { margin }
}

/// Both ends of the interval in which the rounded `s + c + D` lies, `|D| <= dropped`; equal if it
/// is proved.
#[inline(always)]
pub(super) fn bounds(s: f64, c: f64, dropped: f64) -> (f64, f64) {
    let (h, l) = two_sum(s, c);
    let margin = margin(dropped, l, 0);
    (h + (l - margin), h + (l + margin))
}
