//! The scalar end of the anchored sums where two running terms are not enough: three terms that
//! hold the sum of a row or of its pieces, and their rounding. As elsewhere the answer is either
//! proved or withheld.
//!
//! `anchored.rs` makes such a sum for every row that is summed alone, from the running terms of all
//! its pieces; `result.rs`, `means.rs` and `single_precision.rs` make one for a row of a group in
//! tier two, and ask for the rounding that they need.
//!
//! # Proof of the certificate
//! What is pushed goes by `TwoSum` into `s`, its error into `c`, and that of the latter into `b`
//! (Klein, "A generalized Kahan-Babuska-summation-algorithm", 2006); `F` is the sum of the
//! magnitudes of what `b` drops and of what was missing before. So the exact sum is
//! `T = s + c + b + D`, `|D| <= F` up to the rounding inside `F`, which [`margin`] covers. Passes
//! of `TwoSum` then turn `s + c + b` into `h + t + r`, exactly, so that
//! `h + (t + y_lo) <= T <= h + (t + y_hi)` with doubles `y_lo <= r - F` and `y_hi >= r + F`.
//!
//! A plain `fl(t + y)` would lose `y` where it matters, next to a tie. So it is rounded **to odd**
//! (if inexact, to the neighbour whose last bit is set): `w = RO(t + y)`, and `fl(h + w)` equals
//! the rounding of the exact `h + t + y` provided that `|w| <= |h| / 16` (after Boldo and
//! Melquiond, "Emulation of FMA and correctly rounded sums", 2008). For suppose a midpoint `m`
//! between two doubles separated `h + w` from `h + t + y`, or met `h + w`, and `w` is inexact. All
//! of this is near `h`, within a quarter, so `q = m - h` is a multiple of `ulp(h)/4` and at most
//! `|h|/8`, thus itself a double (were `ulp(h)/4` below 2^-1074, then `t + y` would be subnormal,
//! hence exact). No double lies strictly between `t + y` and its rounding, so `q = w`. But the last
//! bit of `w` is set, so `ulp(w) >= ulp(h)/4`, so `|w| >= |h|/8`: a contradiction.
//!
//! Rounding to odd and to nearest are both monotone, so if both ends give the same double, `T`
//! rounds to it. Any overflow or NaN makes some comparison below false.

#![expect(clippy::many_single_char_names, reason = "the letters of the proof above")]

use super::certificate::margin;
use super::interval::Interval;
use super::lanes::two_sum;

/// A sum in three terms, and a bound of what these lack: the letters are those of the proof.
#[derive(Clone, Copy)]
pub(super) struct ThreeTerm {
    s: f64,
    c: f64,
    b: f64,
    /// `F`: a sum of magnitudes, rounded at each addition, so it may be a little less than what it
    /// stands for. The numbers of additions below make up for that.
    pub(super) dropped: f64,
}

impl ThreeTerm {
    /// The sum of some terms, which may lack as much as `dropped`.
    #[inline(always)]
    pub(super) fn new<const T: usize>(terms: [f64; T], dropped: f64) -> Self {
        let mut sum = Self { s: 0.0, c: 0.0, b: 0.0, dropped };
        for term in terms {
            sum.push(term);
        }
        sum
    }

    /// Adds a term. What the third term cannot take is counted as dropped.
    #[inline(always)]
    pub(super) fn push(&mut self, x: f64) {
        let (s, e) = two_sum(self.s, x);
        let (c, e) = two_sum(self.c, e);
        let (b, e) = two_sum(self.b, e);
        *self = Self { s, c, b, dropped: self.dropped + e.abs() };
    }

    /// Three terms with the same sum, exactly, and as good as in order of magnitude. No proof needs
    /// that order: without it fewer answers would be proved.
    #[inline(always)]
    fn normalized(self) -> (f64, f64, f64) {
        let (h, t) = two_sum(self.s, self.c);
        let (t, r) = two_sum(t, self.b);
        let (h, t) = two_sum(h, t);
        let (t, r) = two_sum(t, r);
        let (h, t) = two_sum(h, t);
        let (t, r) = two_sum(t, r);
        (h, t, r)
    }

    /// What is known of the sum, for the quotient in a mean; `additions` is as for
    /// [`ThreeTerm::nearest`]. The third term counts as missing.
    #[inline(always)]
    pub(super) fn interval(self, additions: usize) -> Interval {
        let (h, t, r) = self.normalized();
        let missing = self.dropped + r.abs();
        // A true bound, where `dropped` alone is a rounded one: see `certificate`.
        let margin = missing * (1.0 + (additions + 4) as f64 * f64::EPSILON);
        Interval { h, l: t, margin }
    }

    /// Both ends of the interval in which the sum lies, rounded to odd, for sums that will be
    /// rounded to fewer bits; `additions` is as for [`ThreeTerm::nearest`].
    #[inline(always)]
    pub(super) fn bounds_to_odd(self, additions: usize) -> (f64, f64) {
        let (h, t, r) = self.normalized();
        // The third term goes to what is missing: that costs one more addition.
        let margin = margin(self.dropped + r.abs(), t, additions + 1);
        (add_to_odd(h, t - margin), add_to_odd(h, t + margin))
    }

    /// The double nearest the sum, or `None` if three terms do not prove it. No magnitude in
    /// `dropped` may have gone through more than `additions` additions.
    #[inline(always)]
    pub(super) fn nearest(self, additions: usize) -> Option<f64> {
        let (h, t, r) = self.normalized();
        if self.dropped == 0.0 && r == 0.0 {
            // Two doubles hold the sum: one rounding. The sum of -0.0 and -0.0 cannot occur, as `s`
            // never is -0.0.
            let sum = h + t;
            return (!sum.is_nan()).then_some(sum);
        }
        let margin = margin(self.dropped, r, additions);
        let low = add_to_odd(t, r - margin);
        let high = add_to_odd(t, r + margin);
        let room = h.abs() / 16.0;
        let sum = h + low;
        (low.abs() <= room && high.abs() <= room && sum.to_bits() == (h + high).to_bits())
            .then_some(sum)
    }
}

/// `a + b` rounded to odd: exact if it can be, else the neighbour with the last bit set.
pub(super) fn add_to_odd(a: f64, b: f64) -> f64 {
    let (w, e) = two_sum(a, b);
    if e == 0.0 || w.to_bits() & 1 == 1 {
        w
    } else if e > 0.0 {
        w.next_up()
    } else {
        w.next_down()
    }
}
