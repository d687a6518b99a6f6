//! The way down for a row that the first tier could not prove: tier two, then what is not finite, then tier three.
//!
//! Reached for a row in a thousand or fewer of ordinary data, but for every row with a NaN in it.

use super::anchored::{self, Anchor};
use super::goal::Rounded;
use super::superaccumulator;
use super::vector::Vector;

/// The sum of any row, whatever is in it; `anchor` is one for this row.
#[inline(always)]
pub(super) fn sum_row<V: Vector<N>, const N: usize>(proof: V::Proof, row: &[f64], anchor: Option<Anchor>) -> f64 {
    #[cfg(test)]
    super::tests::count_refined(1);
    if let Some(sum) = anchored::sum_row::<f64, V, N, 3>(proof, row, Rounded, &mut { anchor }) {
        return sum;
    }
    sum_if_not_finite(row.iter().copied()).unwrap_or_else(|| superaccumulator::sum_finite(row))
}

/// The sum of a row with a NaN or an infinity in it, as IEEE 754 gives it for any order of the terms; else `None`.
///
/// Always the same NaN: which of several NaN an addition hands on depends on the instruction and the operand order.
///
/// Both looks go to the end whatever they find: so the compiler makes vectors of them, and many terms take the time of one.
#[inline(always)]
pub(super) fn sum_if_not_finite(row: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let mut any = false;
    for value in row.clone() {
        any |= !value.is_finite();
    }
    if !any {
        return None;
    }
    let (mut plus, mut minus, mut nan) = (false, false, false);
    for value in row {
        plus |= value == f64::INFINITY;
        minus |= value == f64::NEG_INFINITY;
        nan |= value.is_nan();
    }
    match (plus, minus, nan) {
        (true, false, false) => Some(f64::INFINITY),
        (false, true, false) => Some(f64::NEG_INFINITY),
        _ => Some(CANONICAL_NAN),
    }
}

/// Positive, quiet, no payload. (`f64::NAN` is that too, in practice, but is not promised to be.)
pub(super) const CANONICAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);
