//! An array that is read where its file lies. A type of its own: whoever has one has no way to
//! write to it.

use std::fmt;
use std::ops::Deref;

use ndarray::{Dimension, Ix2};

use super::{Selection, SharedArray};
use crate::array::Element;

/// A `.npy` file, mapped read-only by [`SharedArray::map_npy_file`]. It dereferences to a
/// [`SharedArray`], and is an input wherever that is one; it never is an output.
pub struct MappedArray<A, D = Ix2>(SharedArray<A, D>);

impl<A, D> MappedArray<A, D> {
    /// Only for a segment that is mapped to be read: nothing hands out what could be written
    /// through.
    pub(super) fn new(array: SharedArray<A, D>) -> Self {
        Self(array)
    }
}

impl<A, D> Deref for MappedArray<A, D> {
    type Target = SharedArray<A, D>;

    fn deref(&self) -> &SharedArray<A, D> {
        &self.0
    }
}

impl<'a, A: Element, D: Dimension> From<&'a MappedArray<A, D>> for Selection<'a, A, D> {
    fn from(mapped: &'a MappedArray<A, D>) -> Self {
        Self::from(&**mapped)
    }
}

impl<A, D: Dimension> fmt::Debug for MappedArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MappedArray").field(&self.0).finish()
    }
}
