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
//!    `dropped (1 + 2 (k + 8) u) + (4 u |l| + 2^-1074)`, where three operations round in the normal range: the `16 u` to
//!    spare on the first term and `3 u` on the second pay for them, and 2^-1074 for an underflow of `4 u |l|`. (`k u`
//!    alone would not do in place of `2 k u`, as `(1 - u)^-k > 1 + k u`.) If `dropped` is subnormal it is exact, and the
//!    product is at least `dropped`, as rounding is monotone; then either `l -+ M` is below 2^-1021, hence exact, or
//!    `|l|` is so large that its `3 u |l|` also cover the `2 u dropped` lost by the other roundings.
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

use super::lanes::{Lanes, last_terms, two_sum};
use crate::sys::prefetch::prefetch;

/// Running sum, its first-order error and the magnitudes of what that drops, in every lane.
#[derive(Clone, Copy)]
pub(super) struct Compensated<const N: usize> {
    pub(super) s: Lanes<N>,
    pub(super) c: Lanes<N>,
    pub(super) dropped: Lanes<N>,
}

impl<const N: usize> Compensated<N> {
    pub(super) const ZERO: Self = Self { s: Lanes::ZERO, c: Lanes::ZERO, dropped: Lanes::ZERO };

    #[inline(always)]
    pub(super) fn push(&mut self, x: Lanes<N>) {
        let (s, e) = two_sum(self.s, x);
        let (c, d) = two_sum(self.c, e);
        *self = Self { s, c, dropped: self.dropped + d.abs() };
    }

    /// The sum of both, lane by lane: step 1 of the proof. Adds three additions to the `k` of step 2.
    #[inline(always)]
    pub(super) fn merge(self, other: Self) -> Self {
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
    pub(super) fn combined(self) -> Self {
        let mut all = self;
        let mut by = N / 2;
        while by > 0 {
            all = all.merge(all.rotated(by));
            by /= 2;
        }
        all
    }
}

/// No fewer than the additions of merging lanes, three at a time: 8 of them one by one, or up to 1024 by halving. See
/// `k` in step 2 of the proof.
pub(super) const MERGE_ADDITIONS: usize = 32;

/// `M` of step 3 of the proof: covers what `dropped` stands for and the rounding of `l - M` and `l + M`, when each
/// magnitude in `dropped` went through at most `additions` additions.
#[inline(always)]
pub(super) fn margin(dropped: f64, l: f64, additions: usize) -> f64 {
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

/// All terms of one row, term `j` in lane `j % N`.
#[inline(always)]
pub(super) fn accumulate<const N: usize>(row: &[f64]) -> Compensated<N> {
    let mut lanes = Compensated::<N>::ZERO;
    let (chunks, tail) = row.as_chunks::<N>();
    for chunk in chunks {
        lanes.push(Lanes(*chunk));
    }
    if !tail.is_empty() {
        // The zeros that come with them change nothing.
        lanes.push(Lanes(last_terms(row, tail)));
    }
    lanes
}

/// The correctly rounded sum of one row, or `None` if this tier cannot prove it.
#[inline(always)]
pub(super) fn sum_row<const N: usize>(row: &[f64]) -> Option<f64> {
    let total = accumulate::<N>(row).combined();
    let additions = row.len() / N + 1 + MERGE_ADDITIONS;
    let (low, high) = bounds(total.s.0[0], total.c.0[0], total.dropped.0[0], additions);
    (low == high).then_some(low)
}

/// Rows up to this long are summed one per lane. Measured on Zen 5 (AVX-512, GB/s, 128 columns): 36 against 29 from the
/// second-level cache, the same from memory; with more columns the interleaved streams get in each other's way.
const SHORT: usize = 128;

/// How far ahead memory is asked for, in doubles: 4 KiB, for its latency at full speed and some more.
const AHEAD: usize = 512;

/// The correctly rounded sum of each row of `n_columns` doubles in `rows`; `refine` sums a row this tier cannot.
///
/// `N` rows at a time, so that their lanes are combined, and their sums proved, side by side. For rows of some hundred
/// columns that would otherwise cost as much as the terms.
#[inline(always)]
pub(super) fn row_sums<const N: usize>(
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
    let (groups, others) = out.as_chunks_mut::<N>();
    let (grouped_rows, other_rows) = rows.split_at(groups.len() * N * n_columns);
    let group_len = N * n_columns;
    if n_columns <= SHORT {
        for (group, sums) in grouped_rows.chunks_exact(group_len).zip(groups) {
            *sums = proved_or_refined(&row_per_lane(group, n_columns), group, n_columns, &refine);
        }
    } else {
        for (group, sums) in grouped_rows.chunks_exact(group_len).zip(groups) {
            *sums = proved_or_refined(&row_after_row(group, n_columns), group, n_columns, &refine);
        }
    }
    for (row, sum) in other_rows.chunks_exact(n_columns).zip(others) {
        *sum = match sum_row::<N>(row) {
            Some(proved) => proved,
            None => refine(row),
        };
    }
}

/// The sum of row `i` of `N` in lane `i`, for short rows: column after column, so that there is nothing to combine.
#[inline(always)]
fn row_per_lane<const N: usize>(group: &[f64], n_columns: usize) -> Compensated<N> {
    let group = &group[..N * n_columns];
    let mut total = Compensated::<N>::ZERO;
    for j in 0..n_columns {
        let mut column = [0.0; N];
        for (i, a) in column.iter_mut().enumerate() {
            *a = group[i * n_columns + j];
        }
        total.push(Lanes(column));
        // The columns of a group are `N` interleaved streams, which at some strides (24 columns) run at a third of the
        // speed of memory. Asking for what lies ahead in order, `N` doubles per column read, mends that.
        prefetch(group.as_ptr().wrapping_add(j * N + AHEAD));
    }
    total
}

/// The sum of row `i` of `N` in lane `i`, for longer rows: memory is read in order, which it rewards; then lane `j` of
/// all rows at once is merged into the total.
#[inline(always)]
fn row_after_row<const N: usize>(group: &[f64], n_columns: usize) -> Compensated<N> {
    const { assert!(3 * N < MERGE_ADDITIONS) };
    // Apart, not as an array of `Compensated`: of 24 doubles in a row the compiler makes vectors of half the length.
    let (mut s, mut c, mut dropped) = ([[0.0; N]; N], [[0.0; N]; N], [[0.0; N]; N]);
    for (i, row) in group.chunks_exact(n_columns).enumerate().take(N) {
        let lanes = accumulate::<N>(row);
        (s[i], c[i], dropped[i]) = (lanes.s.0, lanes.c.0, lanes.dropped.0);
    }
    let mut total = Compensated::ZERO;
    for j in 0..N {
        let column = |rows: &[[f64; N]; N]| {
            let mut column = [0.0; N];
            for (i, a) in column.iter_mut().enumerate() {
                *a = rows[i][j];
            }
            Lanes(column)
        };
        total = total.merge(Compensated { s: column(&s), c: column(&c), dropped: column(&dropped) });
    }
    total
}

/// The sums of the rows of a group, `total` holding that of row `i` in lane `i`.
#[inline(always)]
fn proved_or_refined<const N: usize>(
    total: &Compensated<N>,
    group: &[f64],
    n_columns: usize,
    refine: &impl Fn(&[f64]) -> f64,
) -> [f64; N] {
    let mut low = [0.0; N];
    let mut high = [0.0; N];
    for i in 0..N {
        (low[i], high[i]) = bounds(total.s.0[i], total.c.0[i], total.dropped.0[i], n_columns + MERGE_ADDITIONS);
    }
    let mut all_proved = true;
    for i in 0..N {
        all_proved &= low[i] == high[i];
    }
    let mut sums = low;
    if !all_proved {
        for (i, row) in group.chunks_exact(n_columns).enumerate() {
            // The comparison is false for NaN, as it must be.
            let proved = low[i] == high[i];
            if !proved {
                sums[i] = refine(row);
            }
        }
    }
    sums
}
