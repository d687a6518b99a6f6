//! [`Overflow`]: the error of a row of integers whose sum its type does not hold. The worker leaves
//! it in its slot, and the caller makes `Error::SumOverflow` of that.

/// A row whose integer sum does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// Its index within the rows of this call, from 0.
    pub(crate) row: usize,
    /// The exact sum, for the message.
    pub(crate) sum: i128,
}
