//! [`Overflow`]: what the sum of a row of integers comes to where its type does not hold it.

/// A row whose integer sum does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// Its index within the sums asked for.
    pub(crate) row: usize,
    pub(crate) sum: i128,
}
