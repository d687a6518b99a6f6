//! Exact row sums of integers, and the number of bytes other than zero in a row.
//!
//! Called by the dispatcher. A sum is judged at the end, over 128 bits where it might not fit. So a
//! partial sum that overflows on the way, and comes back, does no harm.
//!
//! | rows of | are summed |
//! |---|---|
//! | bytes | in groups of sixteen, by the one instruction that sums bytes: `bytes.rs` |
//! | wider terms, short | in groups of some lanes, the last filled up with zeros: `groups.rs` |
//! | wider terms, long | in blocks that cannot overflow, by loops that become vectors |
//!
//! Those loops are the fastest once they run, but in a short row most of the time would go to their
//! beginnings and ends.
//!
//! # Bounds
//! Let `n` be the number of terms of a block, or of a short row.
//!
//! | terms | accumulator | bound |
//! |---|---|---|
//! | bytes | 64 bits, for each half of sixteen | `n 2^8 <= 2^64`: a row has less than 2^56 bytes |
//! | 16 bits | 32 bits | `n <= 2^16` |
//! | 32 bits | 64 bits | `n <= 2^31` |
//! | 64 bits | 64 bits modulo 2^64, and 64 bits of upper halves | `n <= 2^31` |
//!
//! Sums of blocks are added up in 128 bits. A row has less than 2^63 terms, so these do not
//! overflow, even with terms of 64 bits.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "arithmetic modulo 2^64"
)]

mod bytes;
mod groups;

use super::overflow::Overflow;
use groups::{each_in_groups, swapped};

/// An integer, and how rows of them are summed.
pub(crate) trait Integer: Copy {
    /// The type of the sum: 64 bits, signed if the terms are.
    type Sum: Copy + Default + TryFrom<i128>;

    /// The sum of each row, up to the first that does not fit. `n_columns` is at least 1 and less
    /// than 2^56, as there are fewer addresses. `N` lanes of 64 bits fill a vector or two; `M` is
    /// twice `N`, for terms of 32 bits.
    fn sum_rows<const N: usize, const M: usize>(
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self::Sum],
    ) -> Result<(), Overflow>;
}

/// The sum of each row of `n_columns` integers in `rows`, up to the first that does not fit; 0 if
/// there are no columns.
#[inline(always)]
pub(super) fn row_sums<X: Integer, const N: usize, const M: usize>(
    rows: &[X],
    n_columns: usize,
    sums: &mut [X::Sum],
) -> Result<(), Overflow> {
    if n_columns == 0 {
        sums.fill(X::Sum::default());
        return Ok(());
    }
    X::sum_rows::<N, M>(rows, n_columns, sums)
}

/// The number of bytes other than zero in each row of `n_columns` bytes: for rows of `Bool`, how
/// many are true.
#[inline(always)]
pub(super) fn row_counts(rows: &[u8], n_columns: usize, counts: &mut [u64]) {
    if n_columns == 0 {
        counts.fill(0);
        return;
    }
    // Each byte counts as `min(byte, 1)`.
    let done =
        each_in_groups(rows, n_columns, counts, |full, last| Ok(bytes::sum::<0, 1>(full, last)));
    debug_assert_eq!(done, Ok(()));
}

/// Stores the sum of each row as `sum` gives it, up to the first that does not fit.
#[inline(always)]
fn each_long<X, S: TryFrom<i128>>(
    rows: &[X],
    n_columns: usize,
    sums: &mut [S],
    sum: impl Fn(&[X]) -> i128,
) -> Result<(), Overflow> {
    for (i, (row, out)) in rows.chunks_exact(n_columns).zip(sums).enumerate() {
        let exact = sum(row);
        *out = exact.try_into().map_err(|_| Overflow { row: i, sum: exact })?;
    }
    Ok(())
}

impl Integer for u8 {
    type Sum = u64;

    #[inline(always)]
    fn sum_rows<const N: usize, const M: usize>(
        rows: &[u8],
        n_columns: usize,
        sums: &mut [u64],
    ) -> Result<(), Overflow> {
        each_in_groups(rows, n_columns, sums, |full, last| {
            Ok(bytes::sum::<0, { u8::MAX }>(full, last))
        })
    }
}

impl Integer for i8 {
    type Sum = i64;

    #[inline(always)]
    fn sum_rows<const N: usize, const M: usize>(
        rows: &[i8],
        n_columns: usize,
        sums: &mut [i64],
    ) -> Result<(), Overflow> {
        // To flip the sign bit is to add 128, which makes the term a `u8`. That is done to the
        // zeros that fill up the last group, too. The difference of the sums fits 64 bits, so it
        // is right modulo 2^64.
        let added = 128 * n_columns.next_multiple_of(bytes::GROUP) as u64;
        each_in_groups(bytemuck::cast_slice(rows), n_columns, sums, |full, last| {
            Ok(bytes::sum::<0x80, { u8::MAX }>(full, last).wrapping_sub(added).cast_signed())
        })
    }
}

/// Integers of 16 or 32 bits. Blocks of `$terms` of them are summed in a type that cannot overflow
/// then; short rows, of less than 256 bytes, are such a block, and are summed in `$lanes` lanes.
macro_rules! narrow {
    ($($type:ty, $terms:expr, in $wider:ty, $lanes:tt at once, then $sum:ty;)*) => {$(
        // A block of nothing but the least or the largest term fits, and so does every other.
        const _: () = assert!((<$type>::MIN as i128) * $terms >= <$wider>::MIN as i128);
        const _: () = assert!((<$type>::MAX as i128) * $terms <= <$wider>::MAX as i128);

        impl Integer for $type {
            type Sum = $sum;

            #[inline(always)]
            fn sum_rows<const N: usize, const M: usize>(
                rows: &[Self],
                n_columns: usize,
                sums: &mut [$sum],
            ) -> Result<(), Overflow> {
                if n_columns >= 256 / size_of::<Self>() {
                    return each_long(rows, n_columns, sums, |row| {
                        let blocks = row.chunks($terms);
                        blocks.map(|block| i128::from(block.iter().map(|x| <$wider>::from(*x)).sum::<$wider>())).sum()
                    });
                }
                each_in_groups::<_, $lanes, _>(rows, n_columns, sums, |full, last| {
                    let mut lanes = last.map(<$wider>::from);
                    for group in full {
                        // For the compiler's sake: the sum of all lanes stays the same.
                        lanes = swapped(lanes);
                        for (sum, x) in lanes.iter_mut().zip(group) {
                            *sum += <$wider>::from(*x);
                        }
                    }
                    Ok(lanes.iter().sum::<$wider>().into())
                })
            }
        }
    )*};
}

narrow! {
    i16, 1 << 16, in i32, 16 at once, then i64;
    u16, 1 << 16, in u32, 16 at once, then u64;
    i32, 1 << 31, in i64, M at once, then i64;
    u32, 1 << 31, in u64, M at once, then u64;
}

/// Integers of 64 bits: the sum modulo 2^64, and beside it the sum of the upper halves, which are
/// rounded down. Let that be `U`, for `n` terms. A lower half is in `0..2^32`, so the sum lies in
/// `U 2^32 .. U 2^32 + n 2^32`. While `n <= 2^32`, that interval is no longer than 2^64, so only
/// one number in it has the remainder modulo 2^64. Two additions a term replace one of 128 bits,
/// for which there are no vectors.
macro_rules! wide {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            type Sum = Self;

            #[inline(always)]
            fn sum_rows<const N: usize, const M: usize>(
                rows: &[Self],
                n_columns: usize,
                sums: &mut [Self],
            ) -> Result<(), Overflow> {
                // The one sum with this remainder that is less than 2^64 above `at_least`.
                let exact = |modulo: Self, upper: Self| {
                    let at_least = i128::from(upper) << 32;
                    at_least + i128::from((modulo as u64).wrapping_sub(at_least as u64))
                };
                if n_columns >= 4 * N {
                    return each_long(rows, n_columns, sums, |row| {
                        // The sum of 2^31 upper halves fits 64 bits, with or without a sign.
                        let blocks = row.chunks(1 << 31);
                        blocks.map(|block| {
                            let (mut modulo, mut upper): (Self, Self) = (0, 0);
                            for x in block {
                                modulo = modulo.wrapping_add(*x);
                                upper += x >> 32;
                            }
                            exact(modulo, upper)
                        }).sum()
                    });
                }
                each_in_groups::<_, N, _>(rows, n_columns, sums, |full, last| {
                    let (mut modulo, mut upper) = (last, last.map(|x| x >> 32));
                    for group in full {
                        (modulo, upper) = (swapped(modulo), swapped(upper));
                        for ((modulo, upper), x) in modulo.iter_mut().zip(&mut upper).zip(group) {
                            *modulo = modulo.wrapping_add(*x);
                            *upper += x >> 32;
                        }
                    }
                    let exact = exact(modulo.iter().fold(0, |sum, x| sum.wrapping_add(*x)), upper.iter().sum());
                    exact.try_into().map_err(|_| exact)
                })
            }
        }
    )*};
}

wide!(i64, u64);
