//! The element types whose rows have exact sums, for callers that are generic over them.
//!
//! Called by the engine. Which algorithm and which instructions a type gets is the business of
//! `dispatch.rs`.

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
    /// The first row whose sum does not fit; those before it are summed, those after it left alone.
    /// Only integers of 64 bits come to that, but for rows of 2^31 elements.
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
