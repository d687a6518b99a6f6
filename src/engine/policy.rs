//! [`Policy`]: what becomes of rows that cannot be had.

use crate::array::FillValue;

/// What a call does about rows that it cannot have: poisoned ones (they kill, panic, fail or hang
/// every worker that runs them), and those that were not run when the deadline was over or the call
/// was cancelled.
///
/// ```
/// use rowfork::{Policy, SharedArray};
///
/// let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
/// let means = rowfork::fork().policy(Policy::fill(f64::NAN)).map_rows(&m, |row| {
///     if row.index() == 7 { std::process::abort() } // some C function does not like row 7
///     row.sum() / 3.0
/// })?;
/// assert!(means[7].is_nan() && means[8] == 9.0);
/// assert_eq!(means.missing_rows(), [7..8]);
/// println!("{}", means.report().failed_rows[0]);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The call ends with an error that names them. The default.
    #[default]
    Fail,
    /// They hold this value, and the report names them; a fold leaves them out. All others are what
    /// they would be without.
    Fill(FillValue),
}

impl Policy {
    /// Missing rows hold `value` in every element: a float, an integer or a `bool`. The output's
    /// type must have that very value, or the call is refused with
    /// [`UnfitFill`](crate::Error::UnfitFill): `-1` fits `f64` and `i8`, NaN fits floats alone.
    #[must_use]
    pub fn fill(value: impl Into<FillValue>) -> Self {
        Self::Fill(value.into())
    }
}
