//! What kernels are called with: [`Row`], [`RowMut`] and [`Block`].
//!
//! They wrap ndarray's views and add the place of the row. Most of this file gives back to the
//! wrappers what ndarray's operators do for views. Workers make one per row, so they hold no more
//! than a view and an index.

use std::ops::{
    Add, AddAssign, Deref, DerefMut, Div, DivAssign, Mul, MulAssign, Neg, Range, Sub, SubAssign,
};

use ndarray::linalg::Dot;
use ndarray::{
    Array, Array1, ArrayBase, ArrayRef, ArrayView, ArrayViewMut, Data, DataMut, Dimension,
    IntoNdProducer, Ix0, Ix1, Ix2, LinalgScalar,
};

/// One row: the elements at index [`Row::index`] of axis 0, as an ndarray view (to which it
/// dereferences) of one dimension less than the array.
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
/// let base = ndarray::Array1::from_elem(3, 1.0);
/// let scaled = rowfork::fork().map_rows((&m, &v), |(row, factor)| ((&row - &base) * factor.value()).sum())?;
/// assert_eq!(scaled[2], 2.0 * 6.0);
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

/// So that `row.dot(&row)` means what it says.
impl<A: LinalgScalar> Dot<Row<'_, A, Ix1>> for ArrayRef<A, Ix1> {
    type Output = A;

    fn dot(&self, rhs: &Row<'_, A, Ix1>) -> A {
        Dot::<ArrayRef<A, Ix1>>::dot(self, rhs)
    }
}

/// So that `matrix.dot(&row)` does, too.
impl<A: LinalgScalar> Dot<Row<'_, A, Ix1>> for ArrayRef<A, Ix2> {
    type Output = Array1<A>;

    fn dot(&self, rhs: &Row<'_, A, Ix1>) -> Array1<A> {
        Dot::<ArrayRef<A, Ix1>>::dot(self, rhs)
    }
}

/// One row to change in place: the elements at index [`RowMut::index`] of axis 0, as a mutable
/// ndarray view, to which it dereferences. What [`update_rows`](crate::Executor::update_rows) calls
/// its kernel with.
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

/// Several rows on end: those of [`Block::row_range`], as an ndarray view (to which it
/// dereferences) of as many dimensions as the array. What
/// [`map_blocks`](crate::Executor::map_blocks) calls its kernel with.
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
    pub fn row_range(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The view itself, which lives as long as the array.
    #[must_use]
    pub fn into_view(self) -> ArrayView<'a, A, D> {
        self.view
    }
}

/// What a view of ndarray's can do by reference, and what is lost when it is wrapped: iteration,
/// `Zip`, and the operators `&row * 2.0`, `&row - &other`, `&row - &array`, `&array - &row`,
/// `*sums += &row`, with ndarray's broadcasting.
macro_rules! like_a_view {
    ($wrapper:ident) => {
        impl<'a, A, D: Dimension> Deref for $wrapper<'a, A, D> {
            type Target = ArrayView<'a, A, D>;

            fn deref(&self) -> &Self::Target {
                &self.view
            }
        }

        impl<'a, A, D: Dimension> IntoIterator for $wrapper<'a, A, D> {
            type Item = &'a A;
            type IntoIter = <ArrayView<'a, A, D> as IntoIterator>::IntoIter;

            fn into_iter(self) -> Self::IntoIter {
                self.view.into_iter()
            }
        }

        impl<'r, A, D: Dimension> IntoIterator for &'r $wrapper<'_, A, D> {
            type Item = &'r A;
            type IntoIter = <&'r ArrayRef<A, D> as IntoIterator>::IntoIter;

            fn into_iter(self) -> Self::IntoIter {
                self.view.iter()
            }
        }

        impl<'r, A, D: Dimension> IntoNdProducer for &'r $wrapper<'_, A, D> {
            type Item = &'r A;
            type Dim = D;
            type Output = ArrayView<'r, A, D>;

            fn into_producer(self) -> Self::Output {
                self.view.view()
            }
        }

        impl<A: Clone + Neg<Output = A>, D: Dimension> Neg for &$wrapper<'_, A, D> {
            type Output = Array<A, D>;

            fn neg(self) -> Array<A, D> {
                self.view.map(|x| -x.clone())
            }
        }

        like_a_view!(@operators $wrapper:
            Add add AddAssign add_assign, Sub sub SubAssign sub_assign,
            Mul mul MulAssign mul_assign, Div div DivAssign div_assign
        );
    };
    (@operators $wrapper:ident: $($operator:ident $method:ident $assign:ident $assign_method:ident),+) => {$(
        impl<'r, 'a, A, D: Dimension, T> $operator<T> for &'r $wrapper<'a, A, D>
        where
            &'r ArrayView<'a, A, D>: $operator<T>,
        {
            type Output = <&'r ArrayView<'a, A, D> as $operator<T>>::Output;

            fn $method(self, other: T) -> Self::Output {
                (&self.view).$method(other)
            }
        }

        impl<'r, 'b, A, S: Data<Elem = A>, D: Dimension, B, E: Dimension> $operator<&'r $wrapper<'b, B, E>>
            for &'r ArrayBase<S, D>
        where
            Self: $operator<&'r ArrayView<'b, B, E>>,
        {
            type Output = <Self as $operator<&'r ArrayView<'b, B, E>>>::Output;

            fn $method(self, other: &'r $wrapper<'b, B, E>) -> Self::Output {
                $operator::<&ArrayView<'b, B, E>>::$method(self, &other.view)
            }
        }

        impl<'b, A, S: DataMut<Elem = A>, D: Dimension, E: Dimension> $assign<&$wrapper<'b, A, E>> for ArrayBase<S, D>
        where
            A: Clone + $assign<A>,
        {
            fn $assign_method(&mut self, other: &$wrapper<'b, A, E>) {
                $assign::<&ArrayView<'b, A, E>>::$assign_method(self, &other.view);
            }
        }
    )+};
}

like_a_view!(Row);
like_a_view!(Block);

/// `*row += 1.0`, `*row -= &array`, `*row /= &other`.
macro_rules! assign_operators {
    ($($assign:ident $method:ident),+) => {$(
        impl<'a, A, D: Dimension, T> $assign<T> for RowMut<'a, A, D>
        where
            ArrayViewMut<'a, A, D>: $assign<T>,
        {
            fn $method(&mut self, other: T) {
                self.view.$method(other);
            }
        }
    )+};
}

assign_operators!(AddAssign add_assign, SubAssign sub_assign, MulAssign mul_assign, DivAssign div_assign);

/// `2 * &row`, as ndarray has it for its arrays.
macro_rules! scalar_operators {
    ($wrapper:ident: $($scalar:ident)+) => {$(
        scalar_operators!(@each $wrapper $scalar: Add add, Sub sub, Mul mul, Div div);
    )+};
    (@each $wrapper:ident $scalar:ident: $($operator:ident $method:ident),+) => {$(
        impl<D: Dimension> $operator<&$wrapper<'_, $scalar, D>> for $scalar {
            type Output = Array<$scalar, D>;

            fn $method(self, view: &$wrapper<'_, $scalar, D>) -> Array<$scalar, D> {
                self.$method(&view.view)
            }
        }
    )+};
}

scalar_operators!(Row: f64 f32 i8 i16 i32 i64 u8 u16 u32 u64);
scalar_operators!(Block: f64 f32 i8 i16 i32 i64 u8 u16 u32 u64);

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Axis, Zip, array};

    use super::{Block, Row, RowMut};

    #[test]
    fn a_row_does_what_a_view_does() {
        let (m, other) = (array![[1.0, 2.0], [3.0, 4.0]], array![10.0, 20.0]);
        let row = Row::new(1, m.index_axis(Axis(0), 1));
        assert_eq!(
            (&row + 1.0, &row * &other, &other - &row),
            (array![4.0, 5.0], array![30.0, 80.0], array![7.0, 16.0])
        );
        assert_eq!(
            (&row - &row, -&row, 2.0 * &row),
            (array![0.0, 0.0], array![-3.0, -4.0], array![6.0, 8.0])
        );
        assert_eq!(
            (&row + &other.view(), &row / other.clone()),
            (array![13.0, 24.0], array![0.3, 0.2])
        );
        assert_eq!(
            (m.dot(&row), row.dot(&row), row.dot(&other)),
            (array![11.0, 25.0], 25.0, 110.0)
        );
        let mut sums = Array1::zeros(2);
        let mut view = sums.view_mut();
        view += &row;
        view -= &row;
        Zip::from(&mut sums).and(&row).for_each(|sum, x| *sum += x);
        assert_eq!(
            (sums, (&row).into_iter().sum::<f64>(), row.into_iter().count()),
            (array![3.0, 4.0], 7.0, 2)
        );
    }

    #[test]
    fn a_row_to_change_takes_arrays_rows_and_numbers() {
        let (mut m, other) = (array![[1.0, 2.0], [3.0, 4.0]], array![[10.0, 20.0]]);
        let mut row = RowMut::new(0, m.index_axis_mut(Axis(0), 0));
        row += 1.0;
        row *= &Row::new(0, other.index_axis(Axis(0), 0));
        row -= &array![1.0, 1.0];
        row /= &other.row(0);
        for x in &mut row {
            *x += 0.5;
        }
        assert_eq!(
            ((&row).into_iter().count(), row.index(), row.to_vec()),
            (2, 0, vec![2.4, 3.45])
        );
    }

    #[test]
    fn a_block_does_what_a_view_does() {
        let m = array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
        let block = Block::new(7..10, m.view());
        assert_eq!(block.rows().into_iter().count(), 3, "ndarray's rows, not their numbers");
        assert_eq!(
            (&block - &array![1.0, 2.0], block.row_range()),
            (array![[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]], 7..10)
        );
        let mut sums = ndarray::Array2::zeros((3, 2));
        sums += &block;
        assert_eq!((sums, 2.0 * &block), (m.clone(), 2.0 * &m));
        let bytes = array![[1_u8, 2], [3, 4]];
        assert_eq!(
            (2 * &Row::new(0, bytes.row(0)), &Block::new(0..2, bytes.view()) / 2),
            (array![2, 4], &bytes / 2)
        );
    }
}
