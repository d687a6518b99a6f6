//! Exact row sums of single-precision floats: the `f32` nearest the exact sum, rounded once.
//!
//! Called by the dispatcher. Most rows end in the plain sum below, which costs a third of the compensated one, as it must
//! to keep up with memory that brings twice as many terms; the others go to [`refine`].
//!
//! # Algorithm
//! Per lane, the terms are added as doubles, which have 29 bits to spare; beside the sum `s` are kept the largest `|s|`
//! on the way and the smallest magnitude of a term other than zero. That gives a bound `M` of the error, which is zero
//! for most data. Pieces of a longer row are added up as in tier one of the doubles, their bounds going into `dropped`.
//!
//! # Proof of the bound
//! Write `u = 2^-53`, `k` for the terms of a lane, `L` for the lanes, `m` for the sum over the lanes of their largest
//! `|s|`, `T` for the exact sum of the piece. A double holds any `f32`, and these sums cannot overflow.
//!
//! 1. *Every partial sum is at most `m`*, up to the roundings of `m` and of the lanes' combination: in a lane by
//!    definition, and where lanes are combined, because each brings no more than its own largest.
//! 2. *Without rounding.* With `g` the unit in the last place of the smallest term, all terms are multiples of `g`. If the
//!    exact result of an addition of such multiples is at most `2^53 g` it is a double, and the addition exact. Is it
//!    more, so is the rounded one, for rounding is monotone. So if no rounded result reaches `2^53 g`, by induction none
//!    was rounded: `T = s`, `M = 0`. Asking for `m < 2^52 g` leaves a factor 2 for the roundings of step 1.
//! 3. *Else* every addition errs by at most `u` times its result, there are `k` a lane and `L - 1` to combine, so
//!    `|T - s| <= (k + L) u m`, up to factors `1 + u`. `M = (k + 2 L) 2 u m`, more than twice that, pays for them and for
//!    the rounding, at most `u (m + M)`, of `s - M` and `s + M`: `fl(s - M) <= T <= fl(s + M)`.
//! 4. *Conclusion.* Rounding to `f32` is monotone: if both ends give the same, so does `T`. An infinity or a NaN among the
//!    terms makes `s` or `M` such, and an end NaN, which equals nothing.
//! 5. *Zero is positive.* `s` starts from +0.0 and never is -0.0. For an end to round to -0.0 and the other to zero, `M`
//!    would have to be less than 2^-149, which no `M` is that is not zero: `m` was at least `2^52 g`, and `g` is at least
//!    2^-149. Nor is, of compensated sums, what was dropped: all errors are multiples of `g`.
//!
//! # Proof of the last rounding
//! Where the sum is known as `h + l`, two doubles, to round it to a double first would be wrong if that fell on the
//! middle between two `f32`. So it is rounded **to odd** (if inexact, to the neighbour whose last bit is set): every
//! `f32`, every such middle, even among subnormals, and the threshold of overflow, `2^128 - 2^103`, is a double whose
//! last bit is *not* set, as all have 25 bits or fewer and are far above the smallest double. So the rounded `h + l` is
//! one of these only if the exact one is the same, and is on the same side of all others, no double lying in between.
//!
//! The answer being the correctly rounded one, it does not depend on the number of lanes or on how rows are cut.

#![expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]

use super::compensated::{self, Compensated, margin};
use super::lanes::{Lanes, last_terms, two_sum};
use super::refine::sum_if_not_finite;
use super::superaccumulator::{Rounding, Superaccumulator};
use super::three_term::add_to_odd;

/// The plain sum of some terms in every lane, and what bounds its error.
#[derive(Clone, Copy)]
struct Plain<const L: usize> {
    s: Lanes<L>,
    /// The largest `|s|` so far; infinite or too small if a term is not finite.
    largest: Lanes<L>,
    /// The bits of the smallest term other than zero, without sign, less one: so that zero, wrapping, is the largest.
    smallest: [u32; L],
}

impl<const L: usize> Plain<L> {
    const ZERO: Self = Self { s: Lanes::ZERO, largest: Lanes::ZERO, smallest: [u32::MAX; L] };

    #[inline(always)]
    fn push(&mut self, x: [f32; L]) {
        for (smallest, x) in self.smallest.iter_mut().zip(&x) {
            *smallest = (*smallest).min((x.to_bits() & 0x7fff_ffff).wrapping_sub(1));
        }
        let mut wide = [0.0; L];
        for (wide, x) in wide.iter_mut().zip(&x) {
            *wide = f64::from(*x);
        }
        self.s = self.s + Lanes(wide);
        self.largest = self.largest.max(self.s.abs());
    }

    /// The sum of both, lane by lane: step 1 of the proof.
    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let mut smallest = self.smallest;
        for (a, b) in smallest.iter_mut().zip(&other.smallest) {
            *a = (*a).min(*b);
        }
        Self { s: self.s + other.s, largest: self.largest + other.largest, smallest }
    }

    #[inline(always)]
    fn rotated(self, by: usize) -> Self {
        let mut smallest = self.smallest;
        for (i, a) in smallest.iter_mut().enumerate() {
            *a = self.smallest[(i + by) % L];
        }
        Self { s: self.s.rotated(by), largest: self.largest.rotated(by), smallest }
    }

    /// Every lane holds the sum of all lanes.
    #[inline(always)]
    fn combined(self) -> Self {
        let mut all = self;
        let mut by = L / 2;
        while by > 0 {
            all = all.merge(all.rotated(by));
            by /= 2;
        }
        all
    }

    /// `M` of the proof for lane `i`, of `terms` terms before lanes were combined.
    #[inline(always)]
    fn error_bound(&self, i: usize, terms: usize) -> f64 {
        let exponent = (self.smallest[i].wrapping_add(1) >> 23).max(1);
        // 2^52 units in the last place: 2^(exponent - 150 + 52), built from its bits.
        let exact_below = f64::from_bits(u64::from(exponent + (1023 - 98)) << 52);
        let largest = self.largest.0[i];
        let rounded = (terms + 2 * L) as f64 * f64::EPSILON * largest;
        if largest < exact_below { 0.0 } else { rounded }
    }
}

/// All terms of a piece, term `j` in lane `j % L`.
#[inline(always)]
fn accumulate<const L: usize>(piece: &[f32]) -> Plain<L> {
    let mut lanes = Plain::<L>::ZERO;
    let (chunks, tail) = piece.as_chunks::<L>();
    for chunk in chunks {
        lanes.push(*chunk);
    }
    if !tail.is_empty() {
        lanes.push(last_terms(piece, tail));
    }
    lanes
}

/// Both ends of the interval in which the rounded sum lies; equal if it is proved: step 4 of the proof.
#[inline(always)]
fn bounds(s: f64, bound: f64) -> (f32, f32) {
    ((s - bound) as f32, (s + bound) as f32)
}

/// The `f32` nearest `s + c` and what `dropped` stands for, if that is proved: as in tier one of the doubles, the ends
/// rounded to odd.
#[inline(always)]
fn nearest_compensated(total: &Compensated<1>, additions: usize) -> Option<f32> {
    let (h, l) = two_sum(total.s.0[0], total.c.0[0]);
    let margin = margin(total.dropped.0[0], l, additions);
    let (low, high) = (add_to_odd(h, l - margin) as f32, add_to_odd(h, l + margin) as f32);
    (low == high).then_some(low)
}

/// A longer row is summed in pieces of this length: in each, fewer bits are needed for the sum to be exact, and its
/// error is bounded better, than over the whole.
const PIECE: usize = 4096;

/// The correctly rounded sum of one row, or `None` if the plain sums cannot prove it.
#[inline(always)]
pub(super) fn sum_row<const L: usize>(row: &[f32]) -> Option<f32> {
    if row.len() <= PIECE {
        let all = accumulate::<L>(row).combined();
        let (low, high) = bounds(all.s.0[0], all.error_bound(0, row.len() / L + 1));
        return (low == high).then_some(low);
    }
    let mut total = Compensated::<1>::ZERO;
    for piece in row.chunks(PIECE) {
        let all = accumulate::<L>(piece).combined();
        total.push(Lanes([all.s.0[0]]));
        total.dropped = total.dropped + Lanes([all.error_bound(0, PIECE / L)]);
    }
    nearest_compensated(&total, 2 * row.len().div_ceil(PIECE))
}

/// Rows up to this long are summed one per lane.
const SHORT: usize = 64;

/// The correctly rounded sum of each row of `n_columns` floats in `rows`; `refine` sums a row that plain sums cannot.
///
/// As for doubles, `N` rows at a time, so that lanes are combined and sums proved side by side; `L` must be `2 * N`.
#[inline(always)]
pub(super) fn row_sums<const L: usize, const N: usize>(
    rows: &[f32],
    n_columns: usize,
    sums: &mut [f32],
    refine: impl Fn(&[f32]) -> f32,
) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic; the sum of nothing is +0.0.
        sums.fill(0.0);
        return;
    }
    // What is longer than a piece takes so long that nothing is won by several at a time.
    let n_grouped = if n_columns <= PIECE { sums.len() / N * N } else { 0 };
    let (grouped_rows, other_rows) = rows.split_at(n_grouped * n_columns);
    let (grouped_sums, other_sums) = sums.split_at_mut(n_grouped);
    let (groups, _) = grouped_sums.as_chunks_mut::<N>();
    let group_len = N * n_columns;
    if n_columns <= SHORT {
        for (group, sums) in grouped_rows.chunks_exact(group_len).zip(groups) {
            let total = row_per_lane::<N>(group, n_columns);
            *sums = proved_or_refined(&total, n_columns, group, n_columns, &refine);
        }
    } else {
        for (group, sums) in grouped_rows.chunks_exact(group_len).zip(groups) {
            let total = row_after_row::<L, N>(group, n_columns);
            *sums = proved_or_refined(&total, n_columns / L + 1, group, n_columns, &refine);
        }
    }
    for (row, sum) in other_rows.chunks_exact(n_columns).zip(other_sums) {
        *sum = sum_row::<L>(row).unwrap_or_else(|| refine(row));
    }
}

/// The sum of row `i` of `N` in lane `i`, for short rows: column after column, so that there is nothing to combine.
#[inline(always)]
fn row_per_lane<const N: usize>(group: &[f32], n_columns: usize) -> Plain<N> {
    let group = &group[..N * n_columns];
    let mut total = Plain::<N>::ZERO;
    for j in 0..n_columns {
        let mut column = [0.0; N];
        for (i, a) in column.iter_mut().enumerate() {
            *a = group[i * n_columns + j];
        }
        total.push(column);
    }
    total
}

/// The sum of row `i` of `N` in lane `i`, for longer rows: row after row, each with lanes of its own, of which the upper
/// half is merged into the lower; then lane `j` of all rows at once is merged into the total.
#[inline(always)]
fn row_after_row<const L: usize, const N: usize>(group: &[f32], n_columns: usize) -> Plain<N> {
    const { assert!(L == 2 * N) };
    let (mut s, mut largest, mut smallest) = ([[0.0; N]; N], [[0.0; N]; N], [[0; N]; N]);
    for (i, row) in group.chunks_exact(n_columns).enumerate().take(N) {
        let lanes = accumulate::<L>(row);
        for j in 0..N {
            s[i][j] = lanes.s.0[j] + lanes.s.0[j + N];
            largest[i][j] = lanes.largest.0[j] + lanes.largest.0[j + N];
            smallest[i][j] = lanes.smallest[j].min(lanes.smallest[j + N]);
        }
    }
    let mut total = Plain::ZERO;
    for j in 0..N {
        total = total.merge(Plain {
            s: Lanes(column(&s, j)),
            largest: Lanes(column(&largest, j)),
            smallest: column(&smallest, j),
        });
    }
    total
}

#[inline(always)]
fn column<T: Copy, const N: usize>(rows: &[[T; N]; N], j: usize) -> [T; N] {
    let mut column = [rows[0][j]; N];
    for (a, row) in column.iter_mut().zip(rows) {
        *a = row[j];
    }
    column
}

/// The sums of the rows of a group, `total` holding that of row `i` in lane `i`, of `terms` terms a lane.
#[inline(always)]
fn proved_or_refined<const N: usize>(
    total: &Plain<N>,
    terms: usize,
    group: &[f32],
    n_columns: usize,
    refine: &impl Fn(&[f32]) -> f32,
) -> [f32; N] {
    let mut low = [0.0; N];
    let mut high = [0.0; N];
    for i in 0..N {
        (low[i], high[i]) = bounds(total.s.0[i], total.error_bound(i, terms));
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

/// The sum of any row, whatever is in it, by the compensated sum of the doubles or in fixed point.
#[inline(always)]
pub(super) fn refine<const N: usize>(row: &[f32]) -> f32 {
    #[cfg(test)]
    super::tests::REFINED.set(super::tests::REFINED.get() + 1);
    // Not `all`, which stops early: that would be one term at a time.
    let all_finite = row.iter().fold(true, |all_finite, x| all_finite & x.is_finite());
    if all_finite {
        return sum_compensated::<N>(row).unwrap_or_else(|| sum_finite(row));
    }
    match sum_if_not_finite(row.iter().map(|x| f64::from(*x))) {
        Some(infinity) if infinity.is_infinite() => infinity as f32,
        // Which NaN a conversion gives is not promised.
        _ => CANONICAL_NAN,
    }
}

/// Positive, quiet, no payload.
const CANONICAL_NAN: f32 = f32::from_bits(0x7fc0_0000);

/// As many floats as are made doubles at a time, for the kernels that know no others.
const BATCH: usize = 512;

/// The terms as doubles.
#[inline(always)]
fn widened<'a>(batch: &[f32], buffer: &'a mut [f64; BATCH]) -> &'a [f64] {
    for (wide, x) in buffer.iter_mut().zip(batch) {
        *wide = f64::from(*x);
    }
    &buffer[..batch.len()]
}

/// The correctly rounded sum, or `None` if two doubles do not prove it.
#[inline(always)]
pub(super) fn sum_compensated<const N: usize>(row: &[f32]) -> Option<f32> {
    let mut buffer = [0.0; BATCH];
    let mut lanes = Compensated::<N>::ZERO;
    for batch in row.chunks(BATCH) {
        lanes = lanes.merge(compensated::accumulate::<N>(widened(batch, &mut buffer)));
    }
    let all = lanes.combined();
    let total = Compensated { s: Lanes([all.s.0[0]]), c: Lanes([all.c.0[0]]), dropped: Lanes([all.dropped.0[0]]) };
    // A term goes through the additions of its batch and then through one merge for each batch.
    let additions = BATCH / N + 3 * row.len().div_ceil(BATCH) + compensated::MERGE_ADDITIONS;
    nearest_compensated(&total, additions)
}

/// The correctly rounded sum; all terms must be finite.
pub(super) fn sum_finite(row: &[f32]) -> f32 {
    let mut buffer = [0.0; BATCH];
    let mut sum = Superaccumulator::new();
    for batch in row.chunks(BATCH) {
        sum.add(widened(batch, &mut buffer));
    }
    sum.round(Rounding::ToOdd) as f32
}
