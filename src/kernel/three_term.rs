//! Tier two: three running terms in place of two, for the rows the first tier could not vouch for: near-ties, and sums
//! so cancelled (condition 10^15 to 10^30) that what the second term drops is visible.
//!
//! Called for single rows, rarely. As in tier one the answer is either proved or withheld.
//!
//! # Proof of the certificate
//! With `s`, `c`, `b` as running terms and `F` the sum of the magnitudes of what `b` drops, the exact sum is
//! `T = s + c + b + D`, `|D| <= F` up to the rounding inside `F`, which [`margin`] covers. Lanes are combined by
//! feeding their terms to one more accumulator of the same kind: its losses are in `F` as well. Passes of `TwoSum` then
//! turn `s + c + b` into `h + t + r`, exactly, so that
//! `h + (t + y_lo) <= T <= h + (t + y_hi)` with doubles `y_lo <= r - F` and `y_hi >= r + F`.
//!
//! A plain `fl(t + y)` would lose `y` where it matters, next to a tie. So it is rounded **to odd** (if inexact, to the
//! neighbour whose last bit is set): `w = RO(t + y)`, and `fl(h + w)` equals the rounding of the exact `h + t + y`
//! provided that `|w| <= |h| / 16` (after Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
//! For suppose a midpoint `m` between two doubles separated `h + w` from `h + t + y`, or met `h + w`, and `w` is inexact.
//! All of this is near `h`, within a quarter, so `q = m - h` is a multiple of `ulp(h)/4` and at most `|h|/8`, thus itself
//! a double (were `ulp(h)/4` below 2^-1074, then `t + y` would be subnormal, hence exact). No double lies strictly
//! between `t + y` and its rounding, so `q = w`. But the last bit of `w` is set, so `ulp(w) >= ulp(h)/4`, so
//! `|w| >= |h|/8`: a contradiction.
//!
//! Rounding to odd and to nearest are both monotone, so if both ends give the same double, `T` rounds to it.
//! Any overflow or NaN makes some comparison below false.

#![expect(clippy::many_single_char_names, reason = "the letters of the proof above")]

use super::compensated::margin;
use super::lanes::{Lanes, two_sum};

/// Three running terms per lane, and the sum of the magnitudes of what the last of them dropped.
#[derive(Clone, Copy)]
struct ThreeTerm<const N: usize> {
    s: Lanes<N>,
    c: Lanes<N>,
    b: Lanes<N>,
    dropped: Lanes<N>,
}

impl<const N: usize> ThreeTerm<N> {
    const ZERO: Self = Self { s: Lanes::ZERO, c: Lanes::ZERO, b: Lanes::ZERO, dropped: Lanes::ZERO };

    #[inline(always)]
    fn push(&mut self, x: Lanes<N>) {
        let (s, e) = two_sum(self.s, x);
        let (c, e) = two_sum(self.c, e);
        let (b, e) = two_sum(self.b, e);
        *self = Self { s, c, b, dropped: self.dropped + e.abs() };
    }
}

/// The correctly rounded sum of `row`, or `None` if three terms do not prove it.
#[inline(always)]
pub(super) fn sum_row<const N: usize>(row: &[f64]) -> Option<f64> {
    let mut lanes = ThreeTerm::<N>::ZERO;
    let (chunks, tail) = row.as_chunks::<N>();
    for chunk in chunks {
        lanes.push(Lanes(*chunk));
    }
    let mut total = ThreeTerm::<1>::ZERO;
    for i in 0..N {
        for term in [lanes.s, lanes.c, lanes.b] {
            total.push(Lanes([term.0[i]]));
        }
        total.dropped = total.dropped + Lanes([lanes.dropped.0[i]]);
    }
    for x in tail {
        total.push(Lanes([*x]));
    }
    // No |e| goes through more additions than these: its lane's, then those of the final accumulator.
    let additions = chunks.len() + 4 * N + tail.len();
    certify(total, additions)
}

fn certify(total: ThreeTerm<1>, additions: usize) -> Option<f64> {
    let ([s], [c], [b], [dropped]) = (total.s.0, total.c.0, total.b.0, total.dropped.0);
    let (h, t) = two_sum(s, c);
    let (t, r) = two_sum(t, b);
    let (h, t) = two_sum(h, t);
    let (t, r) = two_sum(t, r);
    let (h, t) = two_sum(h, t);
    let (t, r) = two_sum(t, r);
    if dropped == 0.0 && r == 0.0 {
        // Two doubles hold the sum: one rounding. The sum of -0.0 and -0.0 cannot occur, as `s` never is -0.0.
        let sum = h + t;
        return (!sum.is_nan()).then_some(sum);
    }
    let margin = margin(dropped, r, additions);
    let low = add_to_odd(t, r - margin);
    let high = add_to_odd(t, r + margin);
    let room = h.abs() / 16.0;
    let sum = h + low;
    (low.abs() <= room && high.abs() <= room && sum.to_bits() == (h + high).to_bits()).then_some(sum)
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
