//! The way down for a row that the first tier could not prove: tier two, then a look for NaN and
//! infinities, then tier three.
//!
//! The `refine` functions of `dispatch.rs` call it. A row in a thousand or fewer of ordinary data
//! gets here, but every row with a NaN in it does. Tier two comes first because most rows that get
//! here are finite and end with it: it needs no look for what is not finite, as `anchored.rs` says.

use super::anchored::{self, Anchor};
use super::result::Rounded;
use super::superaccumulator;
use super::vector::Vector;

/// The correctly rounded sum of any row, whatever is in it; `anchor`, if there is one, is for this
/// row.
#[inline(always)]
pub(super) fn sum_row<V: Vector<N>, const N: usize>(
    proof: V::Proof,
    row: &[f64],
    anchor: Option<Anchor>,
) -> f64 {
    #[cfg(test)]
    super::tests::count_refined(1);
    if let Some(sum) = anchored::sum_row::<f64, V, N, 3>(proof, row, Rounded, &mut { anchor }) {
        return sum;
    }
    sum_if_not_finite(row.chunks(BLOCK).map(|block| block.iter().copied()))
        .unwrap_or_else(|| superaccumulator::sum_finite(row))
}

/// The sum of a row with a NaN or an infinity in it, as IEEE 754 gives it for any order of the
/// terms; else `None`. The row comes in blocks of [`BLOCK`] terms.
///
/// | in the row | sum |
/// |---|---|
/// | a NaN, or infinities of both signs | [`CANONICAL_NAN`] |
/// | infinities of one sign | that infinity |
/// | finite terms only, or none | `None` |
///
/// A finite sum that overflows is no case of these: tier three rounds it. There is but one NaN,
/// because it depends on the instruction and on the order of the operands which of several NaN an
/// addition hands on.
///
/// The loop goes through a block to its end whatever it finds, so the compiler makes vectors of it.
#[inline(always)]
pub(super) fn sum_if_not_finite(
    blocks: impl Iterator<Item = impl Iterator<Item = f64>>,
) -> Option<f64> {
    let (mut plus, mut minus, mut nan) = (false, false, false);
    for block in blocks {
        for value in block {
            plus |= value == f64::INFINITY;
            minus |= value == f64::NEG_INFINITY;
            nan |= value.is_nan();
        }
        if nan || (plus && minus) {
            return Some(CANONICAL_NAN);
        }
    }
    match (plus, minus) {
        (true, _) => Some(f64::INFINITY),
        (_, true) => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The terms of a block. A row is not looked at beyond the block with its first NaN; and a block is
/// long enough that the checks between blocks hardly count.
pub(super) const BLOCK: usize = 256;

/// Positive, quiet, no payload. (`f64::NAN` is that too, in practice, but is not promised to be.)
pub(super) const CANONICAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);
