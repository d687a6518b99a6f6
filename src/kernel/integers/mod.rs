//! Exact row sums of integers, and the number of bytes other than zero in a row.
//!
//! Called by the dispatcher. A sum is judged at the end, over 128 bits where it might not fit, so
//! that what overflows on the way and comes back is no matter.
//!
//! | rows of | are summed |
//! |---|---|
//! | bytes | in groups of sixteen, by the one instruction that sums bytes: `bytes.rs` |
//! | wider terms, short | in groups of some lanes, the last filled up with zeros: `groups.rs` |
//! | wider terms, long | in blocks that cannot overflow, by plain loops of which the compiler makes vectors |
//!
//! Those loops are the fastest once they run; in a short row most of the time would go to their
//! beginnings and ends.

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
    /// Of 64 bits, with the sign of the terms.
    type Sum: Copy + Default + TryFrom<i128>;

    /// The sum of each row, up to the first that does not fit. There are columns, and less than
    /// 2^56 (addresses are fewer). `N` lanes of 64 bits fill a vector or two; `M` is twice as many.
    fn sum_rows<const N: usize, const M: usize>(
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self::Sum],
    ) -> Result<(), Overflow>;
}

/// The sum of each row of `n_columns` integers in `rows`, up to the first that does not fit.
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

/// The number of bytes other than zero in each row of `n_columns` bytes.
#[inline(always)]
pub(super) fn row_counts(rows: &[u8], n_columns: usize, counts: &mut [u64]) {
    if n_columns == 0 {
        counts.fill(0);
        return;
    }
    // Each such byte as one.
    let done =
        each_in_groups(rows, n_columns, counts, |full, last| Ok(bytes::sum::<0, 1>(full, last)));
    debug_assert_eq!(done, Ok(()));
}

/// The sum of each row by `sum`.
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
        // To flip the sign bit is to add 128, to the zeros that fill up the last group, too.
        let added = 128 * n_columns.next_multiple_of(bytes::GROUP) as u64;
        each_in_groups(bytemuck::cast_slice(rows), n_columns, sums, |full, last| {
            Ok(bytes::sum::<0x80, { u8::MAX }>(full, last).wrapping_sub(added).cast_signed())
        })
    }
}

/// Integers of 16 or 32 bits, of which `$terms` are summed in a wider one that cannot overflow; in
/// short rows, `$lanes` at once.
macro_rules! narrow {
    ($($type:ty, $terms:expr, in $wider:ty, $lanes:tt at once, then $sum:ty;)*) => {$(
        // The most negative term is the largest magnitude.
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

/// Integers of 64 bits: the sum modulo 2^64, and beside it the sum of the upper halves. For `n`
/// terms these say that the sum lies less than `n 2^32` above a number known exactly; while that is
/// at most 2^64, but one sum fits both.
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
                let exact = |modulo: Self, upper: Self| {
                    let at_least = i128::from(upper) << 32;
                    at_least + i128::from((modulo as u64).wrapping_sub(at_least as u64))
                };
                if n_columns >= 4 * N {
                    return each_long(rows, n_columns, sums, |row| {
                        // As many upper halves fit 64 bits.
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
