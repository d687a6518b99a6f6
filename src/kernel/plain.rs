//! The plain sum: one rounded addition per element. It is for callers who want speed and know
//! their data; exact sums are elsewhere. The order of the additions is fixed, so the bits are the
//! same for every instruction set, though not for another order of the elements.
//!
//! The dispatcher calls it for `fast_sum` and for the operation of plain row sums. The order is
//! part of what these promise in public: to change it is to change results.
//!
//! # The order
//! Sixteen lanes begin with +0.0. Sixteen elements at a time are added to them, element `i` of
//! these to lane `i`. Of the elements that are left, eight, if there are as many, are added to
//! lanes 0 to 7, then four to lanes 0 to 3, two to lanes 0 and 1, and one to lane 0. Then lane
//! `i + 8` is added to lane `i` for all `i < 8`, lane `i + 4` to lane `i` for `i < 4`, and so on
//! until one lane is left. A sum that is NaN is always the same NaN.
//!
//! The sum of no elements, and of any number of -0.0, is +0.0. A partial sum may overflow, and the
//! sum is then infinite or NaN.

use super::fallback::CANONICAL_NAN;
use super::lanes::Lanes;

/// The number of lanes. Four chains of 256 bits hide the latency of an addition. As part of the
/// order, it is the same for every instruction set.
const LANES: usize = 16;

/// The plain sum of one row. With fewer than sixteen elements most lanes stay zero, and adding them
/// changes nothing.
#[inline(always)]
pub(super) fn sum_row(row: &[f64]) -> f64 {
    let mut lanes = Lanes::<LANES>::ZERO;
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        lanes = lanes + Lanes(*chunk);
    }
    let Lanes(mut lanes) = lanes;
    let tail = add_left::<8>(&mut lanes, tail);
    let tail = add_left::<4>(&mut lanes, tail);
    let tail = add_left::<2>(&mut lanes, tail);
    add_left::<1>(&mut lanes, tail);
    let lanes = halved::<8>(&lanes);
    let lanes = halved::<4>(&lanes);
    let lanes = halved::<2>(&lanes);
    let sum = lanes[0] + lanes[1];
    if sum.is_nan() { CANONICAL_NAN } else { sum }
}

/// Adds the next `HOW_MANY` elements, if there are as many, to the first lanes. Returns the others.
#[inline(always)]
fn add_left<'r, const HOW_MANY: usize>(lanes: &mut [f64; LANES], left: &'r [f64]) -> &'r [f64] {
    let Some((now, left)) = left.split_first_chunk::<HOW_MANY>() else {
        return left;
    };
    for (lane, x) in lanes.iter_mut().zip(now) {
        *lane += x;
    }
    left
}

/// The sums of lanes `HALF` apart: lane `i` and lane `i + HALF`.
#[inline(always)]
fn halved<const HALF: usize>(lanes: &[f64]) -> [f64; HALF] {
    let mut sums = [0.0; HALF];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = lanes[i] + lanes[i + HALF];
    }
    sums
}

/// The plain sum of each row of `n_columns` doubles, +0.0 if there are no columns.
#[inline(always)]
pub(super) fn row_sums(rows: &[f64], n_columns: usize, out: &mut [f64]) {
    if n_columns == 0 {
        out.fill(0.0);
        return;
    }
    for (row, sum) in rows.chunks_exact(n_columns).zip(out) {
        *sum = sum_row(row);
    }
}
