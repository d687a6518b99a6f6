//! Tier one: a compensated sum that proves its own answer to be the correctly rounded one, at the speed of memory.
//!
//! Called by the dispatcher for single rows and for blocks of rows. A row it cannot vouch for goes to the closure
//! `refine`, which always knows. It looks for no NaN and no infinity: they come out as "not proved" by themselves.
//!
//! # Algorithm
//! Per lane, for each term `x`: `TwoSum` into `s`; `TwoSum` of its error into `c` (Ogita, Rump, Oishi, "Accurate sum
//! and dot product", 2005; Kahan, Neumaier and Klein before them with other steps); and `dropped` collects the
//! magnitudes of what `c` in its turn drops: 13 additions. No constant depends on the condition of the sum; the error
//! bound is *measured*, not assumed, and centred rows pass as well as positive ones.
//!
//! # Proof of the certificate
//! Write `u = 2^-53`, `T` for the exact sum.
//!
//! 1. *Invariant.* `TwoSum` is exact, so for each lane (sum of its terms) `= s + c + D` with `|D| <=` the exact sum of
//!    the magnitudes `|d|` that were dropped. [`Compensated::merge`] adds two lanes' `s` by `TwoSum`, their `c` and the
//!    error of the former by two more, and puts what *these* drop into `dropped` too. So the invariant holds for the
//!    lanes combined: `T = s + c + D`, and with `(h, l) = TwoSum(s, c)`: `T = h + l + D` exactly.
//! 2. *`dropped` is itself rounded.* Each `|d|` passes through at most `k` additions of numbers that are not negative,
//!    each losing at most a factor `1 - u` (exactly nothing in the subnormal range, for sums of doubles do not
//!    underflow). So `|D| <= dropped / (1 - u)^k <= dropped (1 + 2 k u)` while `k u <= 1/2`; memory ends long before.
//! 3. *Margin.* Let `M` be the double [`margin`] computes. We need `fl(l - M) <= l - |D|` and `fl(l + M) >= l + |D|`.
//!    The rounding of `l -+ M` moves it by at most `u (|l| + M)`, so `M (1 - u) >= |D| + u |l|` is enough. `M` is
//!    `dropped (1 + 2 (k + 8) u) + (4 u |l| + 2^-1074)`, with five roundings; the `16 u` to spare on the first term and
//!    `3 u` on the second pay for them, and 2^-1074 for `4 u |l|` underflowing. In the subnormal range the additions
//!    and `l -+ M` are exact, and the first product is at least `dropped`, as rounding is monotone.
//!    If `dropped == 0` nothing was dropped, `D = 0`, and `M = 0` serves: then `l -+ 0` is exact.
//! 4. *Conclusion.* Rounding is monotone, and `h + (a double)` is rounded once, so
//!    `fl(h + fl(l - M)) <= fl(T) <= fl(h + fl(l + M))`. If the ends are equal they are the answer. There is no double
//!    rounding, and no tie is special: a tie inside the interval makes the ends differ, and one that is hit exactly
//!    (`M = 0`) is decided by the one rounding, to even.
//! 5. *Overflow, NaN, infinity.* Then some `TwoSum` error is NaN or infinite (see there), and the next one makes it NaN
//!    for good: `c`, then `dropped`, are never finite again, so an end is NaN or the ends are opposite infinities. (Both
//!    ends `+inf` by the last addition alone is a proof like any other: `T` rounds to infinity.)
//! 6. *Signed zeros.* `s` and `c` start from +0.0 and are never -0.0, nor is `h + ...` of a zero sum: x - x is +0.0.
//!
//! The answer being the correctly rounded one, it does not depend on the number of lanes or on how rows are grouped.

#![expect(clippy::many_single_char_names, reason = "the letters of the papers and of the proof")]

use super::lanes::{Lanes, two_sum};

/// Running sum, its first-order error and the magnitudes of what that drops, in every lane.
#[derive(Clone, Copy)]
struct Compensated<const N: usize> {
    s: Lanes<N>,
    c: Lanes<N>,
    dropped: Lanes<N>,
}

impl<const N: usize> Compensated<N> {
    const ZERO: Self = Self { s: Lanes::ZERO, c: Lanes::ZERO, dropped: Lanes::ZERO };

    #[inline(always)]
    fn push(&mut self, x: Lanes<N>) {
        let (s, e) = two_sum(self.s, x);
        let (c, d) = two_sum(self.c, e);
        *self = Self { s, c, dropped: self.dropped + d.abs() };
    }

    /// The sum of both, lane by lane: step 1 of the proof. Adds three additions to the `k` of step 2.
    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let (s, e) = two_sum(self.s, other.s);
        let (c, d1) = two_sum(self.c, other.c);
        let (c, d2) = two_sum(c, e);
        Self { s, c, dropped: (self.dropped + other.dropped) + (d1.abs() + d2.abs()) }
    }

    #[inline(always)]
    fn rotated(self, by: usize) -> Self {
        Self { s: self.s.rotated(by), c: self.c.rotated(by), dropped: self.dropped.rotated(by) }
    }

    /// Every lane holds the sum of all lanes. As many operations as on halved vectors, and no narrow code.
    #[inline(always)]
    fn combined(self) -> Self {
        let mut all = self;
        let mut by = N / 2;
        while by > 0 {
            all = all.merge(all.rotated(by));
            by /= 2;
        }
        all
    }
}

/// More than the additions of merging 64 lanes, three for each halving: see `k` in step 2 of the proof.
const MERGE_ADDITIONS: usize = 32;

/// `M` of step 3 of the proof: covers what `dropped` stands for and the rounding of `l - M` and `l + M`, when each
/// magnitude in `dropped` went through at most `additions` additions.
#[inline(always)]
pub(super) fn margin(dropped: f64, l: f64, additions: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "fewer additions than doubles in memory, below 2^52")]
    let inflation = 1.0 + (additions + 8) as f64 * f64::EPSILON;
    let margin = dropped * inflation + (l.abs() * (2.0 * f64::EPSILON) + f64::from_bits(1));
    if dropped == 0.0 { 0.0 } else { margin }
}

/// Both ends of the interval in which the rounded sum lies; equal if it is proved.
#[inline(always)]
fn bounds(s: f64, c: f64, dropped: f64, additions: usize) -> (f64, f64) {
    let (h, l) = two_sum(s, c);
    let margin = margin(dropped, l, additions);
    (h + (l - margin), h + (l + margin))
}

/// The correctly rounded sum of one row, or `None` if this tier cannot prove it.
#[inline(always)]
pub(super) fn sum_row<const N: usize>(row: &[f64]) -> Option<f64> {
    let mut lanes = Compensated::<N>::ZERO;
    let (chunks, tail) = row.as_chunks::<N>();
    for chunk in chunks {
        lanes.push(Lanes(*chunk));
    }
    if !tail.is_empty() {
        // Zeros change nothing. Where the row allows it they are blended into its last N terms, for a copy of variable
        // length costs more than the additions.
        let mut last = [0.0; N];
        if let Some(end) = row.last_chunk::<N>() {
            for (i, a) in last.iter_mut().enumerate() {
                *a = if i + tail.len() >= N { end[i] } else { 0.0 };
            }
        } else {
            for (a, x) in last.iter_mut().zip(tail) {
                *a = *x;
            }
        }
        lanes.push(Lanes(last));
    }
    let total = lanes.combined();
    let additions = chunks.len() + 1 + MERGE_ADDITIONS;
    let (low, high) = bounds(total.s.0[0], total.c.0[0], total.dropped.0[0], additions);
    (low == high).then_some(low)
}

/// The correctly rounded sum of each row of `n_columns` doubles in `rows`; `refine` sums a row this tier cannot.
///
/// Rows of at most `SHORT` columns are summed `N` at a time, one row per lane. It costs a gather per vector, and makes
/// `N` streams of memory of one, but spares combining the lanes, which for short rows costs more than their terms.
#[inline(always)]
pub(super) fn row_sums<const N: usize, const SHORT: usize>(
    rows: &[f64],
    n_columns: usize,
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic; the sum of nothing is +0.0.
        out.fill(0.0);
        return;
    }
    let n_grouped = if n_columns <= SHORT { out.len() / N * N } else { 0 };
    let (grouped, out) = out.split_at_mut(n_grouped);
    let (groups, rows) = rows.split_at(n_grouped * n_columns);
    for (group, sums) in groups.chunks_exact(N * n_columns).zip(grouped.as_chunks_mut::<N>().0) {
        sum_group(group, n_columns, sums, &refine);
    }
    for (row, sum) in rows.chunks_exact(n_columns).zip(out) {
        *sum = match sum_row::<N>(row) {
            Some(proved) => proved,
            None => refine(row),
        };
    }
}

/// `N` rows at once, row `i` in lane `i`.
#[inline(always)]
fn sum_group<const N: usize>(group: &[f64], n_columns: usize, sums: &mut [f64; N], refine: &impl Fn(&[f64]) -> f64) {
    let group = &group[..N * n_columns];
    let mut lanes = Compensated::<N>::ZERO;
    for j in 0..n_columns {
        let mut x = [0.0; N];
        for (i, a) in x.iter_mut().enumerate() {
            *a = group[i * n_columns + j];
        }
        lanes.push(Lanes(x));
    }
    let mut proved = true;
    let mut low = [0.0; N];
    let mut high = [0.0; N];
    for i in 0..N {
        (low[i], high[i]) = bounds(lanes.s.0[i], lanes.c.0[i], lanes.dropped.0[i], n_columns);
    }
    for i in 0..N {
        proved &= low[i] == high[i];
    }
    *sums = low;
    if !proved {
        for (i, row) in group.chunks_exact(n_columns).enumerate() {
            // The comparison is false for NaN, as it must be.
            let proved = low[i] == high[i];
            if !proved {
                sums[i] = refine(row);
            }
        }
    }
}
