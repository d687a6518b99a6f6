//! What kernels are called with: [`Row`], [`RowMut`] and [`Block`].

use std::ops::{Add, AddAssign, Deref, DerefMut, Div, DivAssign, Mul, MulAssign, Range, Sub, SubAssign};

use ndarray::linalg::Dot;
use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Dimension, IntoNdProducer, Ix0, Ix1, LinalgScalar};

/// One row: the elements at index [`Row::index`] of axis 0, as an ndarray view (to which it dereferences) of one dimension
/// less than the array.
///
/// ```
/// use rowfork::SharedArray;
///
/// let m = SharedArray::from_shape_fn(None, (4, 3), |(i, j)| (i + j) as f64)?;
/// let norms = rowfork::fork().map_rows(&m, |row| row.dot(&row).sqrt() / (row.index() + 1) as f64)?;
/// assert_eq!(norms[0], 5f64.sqrt());
///
/// // ndarray's operators work on a row by reference; a row of a vector is one element, its `value()`.
/// let v = SharedArray::from_shape_fn(None, 4, |i| i as f64)?;
/// let scaled = rowfork::fork().map_rows((&m, &v), |(row, factor)| (&row * factor.value()).sum())?;
/// assert_eq!(scaled[2], 2.0 * 9.0);
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

impl<A: Copy> Row<'_, A, Ix0> {
    /// The one element of a row of a vector.
    #[must_use]
    pub fn value(&self) -> A {
        self.view[()]
    }
}

impl<'a, A, D: Dimension> Deref for Row<'a, A, D> {
    type Target = ArrayView<'a, A, D>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<'a, A, D: Dimension> IntoIterator for Row<'a, A, D> {
    type Item = &'a A;
    type IntoIter = <ArrayView<'a, A, D> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.view.into_iter()
    }
}

impl<'r, A, D: Dimension> IntoIterator for &'r Row<'_, A, D> {
    type Item = &'r A;
    type IntoIter = <&'r ArrayRef<A, D> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.view.iter()
    }
}

/// For `Zip` and `azip!`.
impl<'r, A, D: Dimension> IntoNdProducer for &'r Row<'_, A, D> {
    type Item = &'r A;
    type Dim = D;
    type Output = ArrayView<'r, A, D>;

    fn into_producer(self) -> Self::Output {
        self.view.view()
    }
}

/// So that `row.dot(&row)` means what it says.
impl<A: LinalgScalar> Dot<Row<'_, A, Ix1>> for ArrayRef<A, Ix1> {
    type Output = A;

    fn dot(&self, rhs: &Row<'_, A, Ix1>) -> A {
        Dot::<ArrayRef<A, Ix1>>::dot(self, rhs)
    }
}

/// `&row * 2.0`, `&row - &other`, `*sums += &row`, `*row /= 2.0`: ndarray's operators, broadcasting included.
macro_rules! operators {
    ($($operator:ident $method:ident $assign:ident $assign_method:ident),+) => {$(
        impl<'r, A, D: Dimension, T> $operator<T> for &'r Row<'_, A, D>
        where
            &'r ArrayRef<A, D>: $operator<T>,
        {
            type Output = <&'r ArrayRef<A, D> as $operator<T>>::Output;

            fn $method(self, other: T) -> Self::Output {
                let row: &ArrayRef<A, D> = &self.view;
                row.$method(other)
            }
        }

        impl<'r, A, D: Dimension, B, E: Dimension> $operator<&'r Row<'_, B, E>> for &'r ArrayRef<A, D>
        where
            Self: $operator<&'r ArrayRef<B, E>>,
        {
            type Output = <Self as $operator<&'r ArrayRef<B, E>>>::Output;

            fn $method(self, row: &'r Row<'_, B, E>) -> Self::Output {
                let row: &ArrayRef<B, E> = &row.view;
                $operator::<&ArrayRef<B, E>>::$method(self, row)
            }
        }

        impl<A, D, E> $assign<&Row<'_, A, E>> for ArrayRef<A, D>
        where
            A: Clone + $assign<A>,
            D: Dimension,
            E: Dimension,
        {
            fn $assign_method(&mut self, row: &Row<'_, A, E>) {
                let row: &ArrayRef<A, E> = &row.view;
                $assign::<&ArrayRef<A, E>>::$assign_method(self, row);
            }
        }

        impl<A, D: Dimension, T> $assign<T> for RowMut<'_, A, D>
        where
            ArrayRef<A, D>: $assign<T>,
        {
            fn $assign_method(&mut self, other: T) {
                let row: &mut ArrayRef<A, D> = &mut self.view;
                row.$assign_method(other);
            }
        }
    )+};
}

operators!(
    Add add AddAssign add_assign,
    Sub sub SubAssign sub_assign,
    Mul mul MulAssign mul_assign,
    Div div DivAssign div_assign
);

/// One row to change in place: the elements at index [`RowMut::index`] of axis 0, as a mutable ndarray view, to which it
/// dereferences. What [`update_rows`](crate::Fork::update_rows) calls its kernel with.
#[derive(Debug)]
pub struct RowMut<'a, A, D: Dimension> {
    index: usize,
    view: ArrayViewMut<'a, A, D>,
}

impl<'a, A, D: Dimension> RowMut<'a, A, D> {
    pub(super) fn new(index: usize, view: ArrayViewMut<'a, A, D>) -> Self {
        Self { index, view }
    }

    /// The row's place along axis 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }
}

impl<'a, A, D: Dimension> Deref for RowMut<'a, A, D> {
    type Target = ArrayViewMut<'a, A, D>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<A, D: Dimension> DerefMut for RowMut<'_, A, D> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.view
    }
}

impl<'r, A, D: Dimension> IntoIterator for &'r RowMut<'_, A, D> {
    type Item = &'r A;
    type IntoIter = <&'r ArrayRef<A, D> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.view.iter()
    }
}

impl<'r, A, D: Dimension> IntoIterator for &'r mut RowMut<'_, A, D> {
    type Item = &'r mut A;
    type IntoIter = <&'r mut ArrayRef<A, D> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.view.iter_mut()
    }
}

/// For `Zip` and `azip!`.
impl<'r, A, D: Dimension> IntoNdProducer for &'r mut RowMut<'_, A, D> {
    type Item = &'r mut A;
    type Dim = D;
    type Output = ArrayViewMut<'r, A, D>;

    fn into_producer(self) -> Self::Output {
        self.view.view_mut()
    }
}

/// Several rows on end: those of [`Block::rows`], as an ndarray view (to which it dereferences) of as many dimensions as
/// the array. What [`map_blocks`](crate::Fork::map_blocks) calls its kernel with.
#[derive(Debug, Clone)]
pub struct Block<'a, A, D: Dimension> {
    rows: Range<usize>,
    view: ArrayView<'a, A, D>,
}

impl<'a, A, D: Dimension> Block<'a, A, D> {
    pub(super) fn new(rows: Range<usize>, view: ArrayView<'a, A, D>) -> Self {
        Self { rows, view }
    }

    /// The place of its rows along axis 0, half-open.
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The view itself, which lives as long as the array.
    #[must_use]
    pub fn into_view(self) -> ArrayView<'a, A, D> {
        self.view
    }
}

impl<'a, A, D: Dimension> Deref for Block<'a, A, D> {
    type Target = ArrayView<'a, A, D>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}
