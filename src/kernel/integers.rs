//! Exact row sums of integers, and the number of bytes other than zero in a row.
//!
//! Called by the dispatcher. A sum is taken over 128 bits and judged at the end, so that what overflows on the way and
//! comes back is no matter. A row is cut into blocks that cannot overflow what they are summed in, by loops so plain that
//! the compiler makes vectors of them: additions of integers it may reorder. (Lanes, as for doubles, it undoes, and makes
//! gathers of them.)

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "arithmetic modulo 2^64")]

use super::summand::Overflow;

/// An integer, and how a row of them is summed.
pub(crate) trait Integer: Copy {
    /// Of 64 bits, with the sign of the terms.
    type Sum: Copy + Default + TryFrom<i128>;

    /// The sum of a row, which is shorter than 2^63.
    fn sum(row: &[Self]) -> i128;
}

/// The sum of each row of `n_columns` integers in `rows`, up to the first that does not fit.
#[inline(always)]
pub(super) fn row_sums<X: Integer>(rows: &[X], n_columns: usize, sums: &mut [X::Sum]) -> Result<(), Overflow> {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic.
        sums.fill(X::Sum::default());
        return Ok(());
    }
    for (i, (row, sum)) in rows.chunks_exact(n_columns).zip(sums).enumerate() {
        let exact = X::sum(row);
        *sum = exact.try_into().map_err(|_| Overflow { row: i, sum: exact })?;
    }
    Ok(())
}

/// Integers of 8, 16 or 32 bits, of which `$terms` are summed in a wider one that cannot overflow.
macro_rules! narrow {
    ($($type:ty, $terms:expr, in $wider:ty, then $sum:ty;)*) => {$(
        // The most negative term is the largest magnitude.
        const _: () = assert!((<$type>::MIN as i128) * $terms >= <$wider>::MIN as i128);
        const _: () = assert!((<$type>::MAX as i128) * $terms <= <$wider>::MAX as i128);

        impl Integer for $type {
            type Sum = $sum;

            #[inline(always)]
            fn sum(row: &[Self]) -> i128 {
                let block_sums = row.chunks($terms).map(|block| block.iter().map(|x| <$wider>::from(*x)).sum::<$wider>());
                block_sums.map(i128::from).sum()
            }
        }
    )*};
}

narrow! {
    i8, 1 << 24, in i32, then i64;
    u8, 1 << 24, in u32, then u64;
    i16, 1 << 16, in i32, then i64;
    u16, 1 << 16, in u32, then u64;
    i32, 1 << 31, in i64, then i64;
    u32, 1 << 31, in u64, then u64;
}

/// Integers of 64 bits: the sum modulo 2^64, and beside it the sum of the upper halves. For `n` terms these say that the
/// sum lies less than `n 2^32` above a number known exactly; while that is at most 2^64, but one sum fits both.
macro_rules! wide {
    ($($type:ty),*) => {$(
        impl Integer for $type {
            type Sum = Self;

            #[inline(always)]
            fn sum(row: &[Self]) -> i128 {
                let mut sum = 0;
                // As many upper halves fit 64 bits.
                for block in row.chunks(1 << 31) {
                    let (mut modulo, mut upper): (Self, Self) = (0, 0);
                    for x in block {
                        modulo = modulo.wrapping_add(*x);
                        upper += x >> 32;
                    }
                    let at_least = i128::from(upper) << 32;
                    sum += at_least + i128::from((modulo as u64).wrapping_sub(at_least as u64));
                }
                sum
            }
        }
    )*};
}

wide!(i64, u64);

/// The number of bytes other than zero in each row of `n_columns` bytes.
#[inline(always)]
pub(super) fn row_counts(rows: &[u8], n_columns: usize, counts: &mut [u64]) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic.
        counts.fill(0);
        return;
    }
    for (row, count) in rows.chunks_exact(n_columns).zip(counts) {
        *count =
            row.chunks(1 << 31).map(|block| u64::from(block.iter().map(|x| u32::from(*x != 0)).sum::<u32>())).sum();
    }
}
