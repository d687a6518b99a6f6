//! [`Policy`]: what becomes of rows that fail or are not run.
//!
//! The supervisor asks whether a call may go on without such rows, and `rows/run.rs` fills them.

use crate::array::FillValue;

/// What a call does about rows without a value: poisoned rows (they kill, panic, fail or hang every
/// worker that runs them), and rows that were not run when the deadline was over or the call was
/// cancelled.
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
    /// These rows hold this value, and the report names them; a fold leaves them out. All other
    /// rows are unaffected.
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
