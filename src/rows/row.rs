//! [`Row`]: what a kernel is called with.

use std::ops::Deref;

use ndarray::linalg::Dot;
use ndarray::{ArrayRef, ArrayView, Dimension, Ix1, LinalgScalar};

/// One row: the elements at index [`Row::index`] of axis 0, as an ndarray view (to which it dereferences) of one dimension
/// less than the array.
///
/// ```
/// use rowfork::SharedArray;
///
/// let m = SharedArray::from_shape_fn(None, (4, 3), |(i, j)| (i + j) as f64)?;
/// let norms = rowfork::fork().map_rows(&m, |row| row.dot(&row).sqrt() / (row.index() + 1) as f64)?;
/// assert_eq!(norms.view()[0], 5f64.sqrt());
/// # Ok::<(), rowfork::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Row<'a, A, D: Dimension> {
    index: usize,
    view: ArrayView<'a, A, D>,
}

impl<'a, A, D: Dimension> Row<'a, A, D> {
    pub(super) fn new(index: usize, view: ArrayView<'a, A, D>) -> Self {
        Self { index, view }
    }

    /// The row's place along axis 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The view itself, which lives as long as the array.
    #[must_use]
    pub fn into_view(self) -> ArrayView<'a, A, D> {
        self.view
    }
}

impl<'a, A, D: Dimension> Deref for Row<'a, A, D> {
    type Target = ArrayView<'a, A, D>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

/// So that `row.dot(&row)` means what it says.
impl<A: LinalgScalar> Dot<Row<'_, A, Ix1>> for ArrayRef<A, Ix1> {
    type Output = A;

    fn dot(&self, rhs: &Row<'_, A, Ix1>) -> A {
        Dot::<ArrayRef<A, Ix1>>::dot(self, rhs)
    }
}
