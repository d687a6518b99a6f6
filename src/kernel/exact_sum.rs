//! The element types whose rows have exact sums, for callers that are generic over them.
//!
//! The row sums in `src/rows/sums.rs` call it. `dispatch.rs` chooses algorithm and instructions for
//! each type; here is no arithmetic.

use super::dispatch::Kernels;
use super::overflow::Overflow;

/// An element type whose rows have exact sums.
pub(crate) trait ExactSum: Copy + Send + Sync + 'static {
    /// For floats their own type, the sum being rounded once; for integers 64 bits with the sign of
    /// the terms.
    type Sum: Copy + Send + Sync + 'static;

    /// The sum of each row: `rows` holds `sums.len()` rows of `n_columns` elements, one after the
    /// other. Allocates nothing, takes no lock, and does not depend on the caller's rounding mode,
    /// FTZ or DAZ.
    ///
    /// # Errors
    /// The first row whose sum does not fit; those before it are summed, and those after it are
    /// left alone. Only integers of 64 bits come to that in practice: those of 32 bits need a row
    /// of more than 2^32 elements. Floats never do, as a sum beyond the largest float is infinite.
    ///
    /// # Panics
    /// If `rows` is not of that length.
    fn row_sums(
        kernel: Kernels,
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self::Sum],
    ) -> Result<(), Overflow>;
}

/// [`Kernels::row_sums`], which cannot fail.
impl ExactSum for f64 {
    type Sum = Self;

    fn row_sums(
        kernel: Kernels,
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self],
    ) -> Result<(), Overflow> {
        kernel.row_sums(rows, n_columns, sums);
        Ok(())
    }
}

/// The sum is rounded to `f32` directly, not by way of an `f64`, which might round twice.
impl ExactSum for f32 {
    type Sum = Self;

    fn row_sums(
        kernel: Kernels,
        rows: &[Self],
        n_columns: usize,
        sums: &mut [Self],
    ) -> Result<(), Overflow> {
        kernel.row_sums_f32(rows, n_columns, sums);
        Ok(())
    }
}

/// The types of the terms, behind the type of their sums.
macro_rules! integers {
    ($($sum:ty: $($type:ty)*;)*) => {$($(
        impl ExactSum for $type {
            type Sum = $sum;

            fn row_sums(kernel: Kernels, rows: &[Self], n_columns: usize, sums: &mut [$sum]) -> Result<(), Overflow> {
                kernel.integer_row_sums(rows, n_columns, sums)
            }
        }
    )*)*};
}

integers! {
    i64: i8 i16 i32 i64;
    u64: u8 u16 u32 u64;
}
