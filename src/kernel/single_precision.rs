//! Exact row sums of single-precision floats: the `f32` nearest the exact sum, rounded once.
//!
//! Called by the dispatcher. A float is a double with 29 bits to spare, so one running term does
//! where sums of doubles need two. It is exact for most data, and where it is not, its error hardly
//! ever matters to a float. Two running terms are tier two, fixed point is tier three.
//!
//! # Proof of the rounding
//! A sum known exactly as one double is rounded by the conversion to `f32`, once. With a bound `F`
//! of what is missing, the ends `fl(s - M) <= T <= fl(s + M)` hold (see
//! [`certificate`](super::certificate)), rounding is monotone, and if both ends give the same
//! float, so does `T`.
//!
//! Where the sum is known as `h + t`, two doubles, to round it to a double first would be wrong if
//! that fell on the middle between two floats. So it is rounded **to odd** (if inexact, to the
//! neighbour whose last bit is set): every `f32`, every such middle, even among subnormals, and the
//! threshold of overflow, `2^128 - 2^103`, is a double whose last bit is *not* set, as all have 25
//! bits or fewer and are far above the smallest double. So the rounded `h + t` is one of these only
//! if the exact one is the same, and is on the same side of all others, no double lying in between.
//!
//! The rounding to odd is that of S. Boldo and G. Melquiond, "Emulation of FMA and correctly
//! rounded sums: proved algorithms using rounding to odd" (2008).
//!
//! *Zero is positive.* All sums are multiples of 2^-149, and where anything is missing it is
//! bounded by more than that (else the unit of the running term were less than 2^-149, and nothing
//! missing): no end is -0.0 while the sum is zero.

#![expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]

use super::anchored::{Anchor, sum_row};
use super::certificate::margin;
use super::fallback::{BLOCK, sum_if_not_finite};
use super::result::{Rounded, SumResult, Term};
use super::superaccumulator::{Rounding, Superaccumulator};
use super::three_term::ThreeTerm;
use super::vector::Vector;

impl Term for f32 {
    /// 2^11. In sixteen lanes the unit of the running term is then 2^40 below the largest term,
    /// which has its own last bit at 2^23: terms down to 2^17 below it are added exactly.
    const PIECE: usize = 2048;
    const SHORT: usize = 24;

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn load<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[f32; N]) -> V {
        V::load_f32(proof, terms)
    }

    #[inline(always)]
    fn load_short<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[f32]) -> V {
        V::load_short_f32(proof, terms)
    }

    #[inline(always)]
    fn stream<V: Vector<N>, const N: usize>(proof: V::Proof, values: [f32; N], to: &mut [f32; N]) {
        V::stream_f32(proof, values, to);
    }
}

impl SumResult<f32> for Rounded {
    /// One term is the sum, and the conversion rounds it to nearest, ties to even, to infinity past
    /// the largest float. So every lane has an answer.
    #[inline(always)]
    fn of_exact<V: Vector<N>, const N: usize, const T: usize>(
        self,
        terms: [V; T],
    ) -> Option<[f32; N]> {
        const { assert!(T == 1, "rounded by the conversion alone") };
        let (mut rounded, sums) = ([0.0; N], terms[0].to_array());
        for (rounded, sum) in rounded.iter_mut().zip(&sums) {
            *rounded = *sum as f32;
        }
        Some(rounded)
    }

    /// With one term the ends of the interval are doubles on either side of the sum, and the
    /// conversion of each to a float is the one rounding that matters.
    #[inline(always)]
    fn of_terms<const T: usize>(self, terms: [f64; T], dropped: f64) -> Option<f32> {
        if T > 1 {
            return self.of_total(ThreeTerm::new(terms, dropped), 0);
        }
        let margin = margin(dropped, terms[0], 0);
        let (low, high) = ((terms[0] - margin) as f32, (terms[0] + margin) as f32);
        (low == high).then_some(low)
    }

    /// Here the ends of the interval are sums of two doubles, so they are rounded to odd first.
    #[inline(always)]
    fn of_total(self, total: ThreeTerm, additions: usize) -> Option<f32> {
        let (low, high) = total.bounds_to_odd(additions);
        let (low, high) = (low as f32, high as f32);
        (low == high).then_some(low)
    }
}

/// The correctly rounded sum of any row, whatever is in it, for rows that one running term does not
/// prove; `anchor`, if there is one, is for this row. The order is as in `fallback.rs`.
#[inline(always)]
pub(super) fn refine<V: Vector<N>, const N: usize>(
    proof: V::Proof,
    row: &[f32],
    anchor: Option<Anchor>,
) -> f32 {
    #[cfg(test)]
    super::tests::count_refined(1);
    if let Some(sum) = sum_row::<f32, V, N, 2>(proof, row, Rounded, &mut { anchor }) {
        return sum;
    }
    match sum_if_not_finite(row.chunks(BLOCK).map(|block| block.iter().map(|x| f64::from(*x)))) {
        None => sum_finite(row),
        Some(infinity) if infinity.is_infinite() => infinity as f32,
        // The NaN is not converted: which one that gives is not promised.
        Some(_) => CANONICAL_NAN,
    }
}

/// The one NaN of sums of floats: positive, quiet, no payload.
const CANONICAL_NAN: f32 = f32::from_bits(0x7fc0_0000);

/// The number of floats that become doubles at a time, in a buffer of 4 KiB on the stack: fixed
/// point knows doubles alone.
const BATCH: usize = 512;

/// The terms of a batch as doubles, in the front of the buffer.
#[inline(always)]
fn widened<'a>(batch: &[f32], buffer: &'a mut [f64; BATCH]) -> &'a [f64] {
    for (wide, x) in buffer.iter_mut().zip(batch) {
        *wide = f64::from(*x);
    }
    &buffer[..batch.len()]
}

/// The correctly rounded sum by fixed point; all terms must be finite. The sum is far below
/// `f64::MAX`, so rounding to odd does not overflow.
pub(super) fn sum_finite(row: &[f32]) -> f32 {
    let mut buffer = [0.0; BATCH];
    let mut sum = Superaccumulator::new();
    for batch in row.chunks(BATCH) {
        sum.add(widened(batch, &mut buffer));
    }
    sum.round(Rounding::ToOdd) as f32
}
