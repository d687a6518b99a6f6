//! Parts of a shared array without a copy: what a start, an end and a stride along each axis can
//! express.

use std::fmt;

use ndarray::{ArrayView, Axis, Dimension, Ix2, Slice};

use super::{Element, SharedArray};
use crate::error::{Error, Result};
use crate::segment::Segment;

/// Some rows, some columns, or both, of a shared array: a strided view that operations take
/// wherever they take the array.
///
/// Made by [`SharedArray::rows`], [`SharedArray::columns`] and [`SharedArray::slice_axis`], and by
/// the methods of the same names here; `Copy`, like the view that it is. Row indices that kernels
/// and reports name count within the selection.
///
/// ```
/// use ndarray::{Slice, array};
/// use rowfork::SharedArray;
///
/// let m = SharedArray::from_shape_fn(None, (100, 8), |(i, j)| (i * 8 + j) as f64)?;
/// let part = m.rows(10..20)?.columns(Slice::new(1, None, 3))?; // columns 1, 4, 7 of rows 10 to 19
/// assert_eq!(part.shape(), [10, 3]);
/// let sums = rowfork::fork().row_sums(part)?;
/// assert_eq!(sums.view()[0], 81.0 + 84.0 + 87.0);
///
/// match m.columns(6..9) {
///     Err(rowfork::Error::SelectionOutOfRange { index: 8, len: 8, .. }) => {}
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), rowfork::Error>(())
/// ```
pub struct Selection<'a, A, D: Dimension = Ix2> {
    view: ArrayView<'a, A, D>,
    segment: &'a Segment,
}

impl<'a, A: Element, D: Dimension> Selection<'a, A, D> {
    /// The elements, as an ndarray view that lives as long as the array.
    #[must_use]
    pub fn view(&self) -> ArrayView<'a, A, D> {
        self.view.clone()
    }

    /// Axis lengths, in elements.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    /// The length of axis 0; 1 without axes.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Some of the rows: a range (negative ends count from the last), or a [`Slice`] with a step.
    ///
    /// # Errors
    /// As [`slice_axis`](Self::slice_axis).
    pub fn rows(self, rows: impl Into<Slice>) -> Result<Self> {
        self.slice_axis(Axis(0), rows)
    }

    /// A part of any axis; axis 0 are the rows. A negative step turns the order round.
    ///
    /// # Errors
    /// [`SelectionOutOfRange`](Error::SelectionOutOfRange) for an index beyond the end, with the
    /// index and the length, and for an axis that there is not.
    ///
    /// # Panics
    /// For a step of 0, as [`Slice::new`] does.
    pub fn slice_axis(mut self, axis: Axis, part: impl Into<Slice>) -> Result<Self> {
        let part = part.into();
        let n_axes = self.view.ndim();
        let len = *self.shape().get(axis.0).ok_or(Error::SelectionOutOfRange {
            what: "axis",
            index: axis.0.try_into().unwrap_or(isize::MAX),
            len: n_axes,
        })?;
        let what = match axis.0 {
            0 => "row",
            1 if n_axes == 2 => "column",
            _ => "index",
        };
        check_range(what, part, len)?;
        self.view.slice_axis_inplace(axis, part);
        Ok(self)
    }

    /// The segment that it is a part of.
    pub(crate) fn segment(&self) -> &'a Segment {
        self.segment
    }
}

impl<A: Element> Selection<'_, A, Ix2> {
    /// Some of the columns of a matrix: a range (negative ends count from the last), or a [`Slice`]
    /// with a step.
    ///
    /// # Errors
    /// As [`slice_axis`](Self::slice_axis).
    pub fn columns(self, columns: impl Into<Slice>) -> Result<Self> {
        self.slice_axis(Axis(1), columns)
    }
}

/// A range that ends before it begins is empty, as in Python; what lies outside of the axis is
/// refused, as in ndarray.
fn check_range(what: &'static str, part: Slice, len: usize) -> Result<()> {
    // A segment is smaller than the address space, so its axis lengths fit; those of no elements
    // are cut.
    let n = isize::try_from(len).unwrap_or(isize::MAX);
    let out_of_range = |index| Err(Error::SelectionOutOfRange { what, index, len });
    let from_front = |index: isize| if index < 0 { index.saturating_add(n) } else { index };
    let (start, end) = (from_front(part.start), part.end.map_or(n, from_front));
    if start < 0 || start > n {
        return out_of_range(part.start);
    }
    match part.end {
        Some(end_given) if end < 0 => out_of_range(end_given),
        // The last index that is asked for, not the one after it.
        Some(end_given) if end > n => out_of_range(end_given - 1),
        _ => Ok(()),
    }
}

impl<'a, A: Element, D: Dimension> From<&'a SharedArray<A, D>> for Selection<'a, A, D> {
    fn from(array: &'a SharedArray<A, D>) -> Self {
        Self { view: array.view(), segment: array.segment() }
    }
}

impl<'a, A: Element, D: Dimension> From<&Selection<'a, A, D>> for Selection<'a, A, D> {
    fn from(selection: &Selection<'a, A, D>) -> Self {
        selection.clone()
    }
}

impl<A: Element, D: Dimension> SharedArray<A, D> {
    /// Some of the rows, without a copy: a range (negative ends count from the last), or a
    /// [`Slice`] with a step. See [`Selection`].
    ///
    /// # Errors
    /// As [`Selection::slice_axis`].
    pub fn rows(&self, rows: impl Into<Slice>) -> Result<Selection<'_, A, D>> {
        Selection::from(self).rows(rows)
    }

    /// A part of any axis, without a copy. See [`Selection`].
    ///
    /// # Errors
    /// As [`Selection::slice_axis`].
    ///
    /// # Panics
    /// As [`Selection::slice_axis`].
    pub fn slice_axis(&self, axis: Axis, part: impl Into<Slice>) -> Result<Selection<'_, A, D>> {
        Selection::from(self).slice_axis(axis, part)
    }
}

impl<A: Element> SharedArray<A, Ix2> {
    /// Some of the columns, without a copy: a range (negative ends count from the last), or a
    /// [`Slice`] with a step. See [`Selection`]. Columns that no stride expresses (1, 2 and 5) want
    /// a copy: `SharedArray::copy_from(None, &m.view().select(Axis(1), &[1, 2, 5]))`.
    ///
    /// # Errors
    /// As [`Selection::slice_axis`].
    pub fn columns(&self, columns: impl Into<Slice>) -> Result<Selection<'_, A, Ix2>> {
        Selection::from(self).columns(columns)
    }
}

impl<A, D: Dimension + Copy> Copy for Selection<'_, A, D> {}

impl<A, D: Dimension> Clone for Selection<'_, A, D> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), segment: self.segment }
    }
}

impl<A, D: Dimension> fmt::Debug for Selection<'_, A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("of", &self.segment.name())
            .field("shape", &self.view.shape())
            .field("strides", &self.view.strides())
            .finish()
    }
}
