//! [`Rows`]: what operations take their rows from. One array, a part of one, or several side by side.

use std::ops::Range;

use ndarray::{ArrayView, Axis, Dimension, RemoveAxis, Slice};

pub(super) use self::sealed::RowCheck;
use super::{Block, Row};
use crate::array::{Element, Selection, SharedArray};
use crate::error::Result;
use crate::report::{Output, Warning};
use crate::segment::{Pages, Segment};

/// The input of an operation: `&array` (or the `&output` of another call), a [`Selection`] of one, or a tuple of two to
/// four of these whose rows are taken together, as in `(&prices, volumes.columns(..3)?)`. They may differ in everything
/// but the number of rows.
///
/// Sealed.
///
/// ```
/// use rowfork::SharedArray;
///
/// let prices = SharedArray::from_shape_fn(None, (100, 5), |(i, j)| (i + j) as f64)?;
/// let counts = SharedArray::from_shape_fn(None, (100, 5), |(_, j)| j as u32)?;
/// let worth = rowfork::fork().map_rows((&prices, &counts), |(prices, counts)| {
///     prices.iter().zip(counts).map(|(price, &count)| price * f64::from(count)).sum::<f64>()
/// })?;
/// assert_eq!(worth.view()[0], 30.0);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no rows for rowfork to work on",
    label = "not an input",
    note = "an input is `&array` or the `&output` of a call (of one dimension or more), a `Selection`, or a tuple of two to \
            four of these"
)]
pub trait Rows: sealed::Source {
    /// What a kernel gets of one row: a [`Row`], or a tuple of them.
    type Row;

    /// What a kernel gets of a block of rows: a [`Block`], or a tuple of them.
    type Block;

    /// The number of rows.
    fn n_rows(&self) -> usize;

    /// The rows of a range, one by one.
    ///
    /// # Panics
    /// If there are not so many.
    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Self::Row>;

    /// The rows of a range, together.
    ///
    /// # Panics
    /// If there are not so many.
    fn block(&self, rows: Range<usize>) -> Self::Block;
}

pub(super) mod sealed {
    use crate::error::{Error, Result};
    use crate::report::Warning;
    use crate::segment::Pages;

    /// Looks at the parts of an input one after the other, tuples in tuples included.
    #[derive(Debug, Default)]
    pub struct RowCheck {
        n_parts: usize,
        n_rows: usize,
    }

    impl RowCheck {
        /// The next part, of this shape.
        pub(in crate::rows) fn part(&mut self, shape: &[usize]) -> Result<()> {
            let input = self.n_parts;
            let &found = shape.first().ok_or(Error::NoRows { input })?;
            if input == 0 {
                self.n_rows = found;
            }
            self.n_parts += 1;
            let expected = self.n_rows;
            if found == expected { Ok(()) } else { Err(Error::UnequalRows { input, expected, found }) }
        }
    }

    /// What the engine asks of an input.
    pub trait Source {
        /// That every part has rows at all, and as many as those before.
        fn check_rows(&self, check: &mut RowCheck) -> Result<()>;

        /// `Truncated` and the like if somebody has cut a segment since.
        fn check_lengths(&self) -> Result<()>;

        /// What may be said of the names of its segments.
        fn warn(&self, warnings: &mut Vec<Warning>);

        /// Bytes of the elements of one row.
        fn row_bytes(&self) -> usize;

        /// The pages that it lies in, if that is known.
        fn pages(&self) -> Option<Pages>;
    }
}

impl<A: Element, D: RemoveAxis> sealed::Source for Selection<'_, A, D> {
    fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
        check.part(self.shape())
    }

    fn check_lengths(&self) -> Result<()> {
        self.segment().check_length()
    }

    fn warn(&self, warnings: &mut Vec<Warning>) {
        warn_of_name(self.segment(), warnings);
    }

    fn row_bytes(&self) -> usize {
        self.shape().iter().skip(1).product::<usize>() * size_of::<A>()
    }

    fn pages(&self) -> Option<Pages> {
        self.segment().pages()
    }
}

impl<'a, A: Element, D: RemoveAxis> Rows for Selection<'a, A, D> {
    type Row = Row<'a, A, D::Smaller>;
    type Block = Block<'a, A, D>;

    fn n_rows(&self) -> usize {
        Selection::n_rows(self)
    }

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Row<'a, A, D::Smaller>> {
        rows_of(self.view(), rows)
    }

    fn block(&self, rows: Range<usize>) -> Block<'a, A, D> {
        block_of(self.view(), rows)
    }
}

/// Inputs by reference, which are selections.
macro_rules! by_reference {
    ($($array:ty),+) => {$(
        impl<A: Element, D: RemoveAxis> sealed::Source for &$array {
            fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
                check.part(self.shape())
            }

            fn check_lengths(&self) -> Result<()> {
                self.segment().check_length()
            }

            fn warn(&self, warnings: &mut Vec<Warning>) {
                warn_of_name(self.segment(), warnings);
            }

            fn row_bytes(&self) -> usize {
                Selection::from(*self).row_bytes()
            }

            fn pages(&self) -> Option<Pages> {
                self.segment().pages()
            }
        }

        impl<'a, A: Element, D: RemoveAxis> Rows for &'a $array {
            type Row = Row<'a, A, D::Smaller>;
            type Block = Block<'a, A, D>;

            fn n_rows(&self) -> usize {
                (**self).n_rows()
            }

            fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Row<'a, A, D::Smaller>> {
                rows_of(Selection::from(*self).view(), rows)
            }

            fn block(&self, rows: Range<usize>) -> Block<'a, A, D> {
                block_of(Selection::from(*self).view(), rows)
            }
        }
    )+};
}

by_reference!(SharedArray<A, D>, Output<SharedArray<A, D>>, Selection<'_, A, D>);

impl<'a, A: Element, D: Dimension> From<&'a Output<SharedArray<A, D>>> for Selection<'a, A, D> {
    fn from(output: &'a Output<SharedArray<A, D>>) -> Self {
        Self::from(&**output)
    }
}

/// Notes that the name of a segment does not lead to it any more, once.
pub(super) fn warn_of_name(segment: &Segment, warnings: &mut Vec<Warning>) {
    let gone = segment.name().filter(|_| segment.name_is_gone());
    let warning = gone.map(|name| Warning::NameGone { name: name.to_owned() });
    warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
}

fn rows_of<A, D: RemoveAxis>(
    view: ArrayView<'_, A, D>,
    rows: Range<usize>,
) -> impl Iterator<Item = Row<'_, A, D::Smaller>> {
    rows.map(move |index| Row::new(index, view.clone().index_axis_move(Axis(0), index)))
}

fn block_of<A, D: RemoveAxis>(mut view: ArrayView<'_, A, D>, rows: Range<usize>) -> Block<'_, A, D> {
    // A range beyond `isize::MAX` would count from the end.
    assert!(rows.end <= view.len_of(Axis(0)), "rows {rows:?} of {}", view.len_of(Axis(0)));
    view.slice_axis_inplace(Axis(0), Slice::from(rows.clone()));
    Block::new(rows, view)
}

macro_rules! side_by_side {
    (@zip $a:expr, $b:expr) => { $a.zip($b) };
    (@zip $a:expr, $b:expr, $c:expr) => { $a.zip($b).zip($c).map(|((a, b), c)| (a, b, c)) };
    (@zip $a:expr, $b:expr, $c:expr, $d:expr) => { $a.zip($b).zip($c.zip($d)).map(|((a, b), (c, d))| (a, b, c, d)) };
    ($first:ident $first_at:tt $(, $other:ident $at:tt)+) => {
        impl<$first: Rows, $($other: Rows),+> sealed::Source for ($first, $($other),+) {
            fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
                self.$first_at.check_rows(check)?;
                $(self.$at.check_rows(check)?;)+
                Ok(())
            }

            fn check_lengths(&self) -> Result<()> {
                self.$first_at.check_lengths()?;
                $(self.$at.check_lengths()?;)+
                Ok(())
            }

            fn warn(&self, warnings: &mut Vec<Warning>) {
                self.$first_at.warn(warnings);
                $(self.$at.warn(warnings);)+
            }

            fn row_bytes(&self) -> usize {
                self.$first_at.row_bytes() $(+ self.$at.row_bytes())+
            }

            fn pages(&self) -> Option<Pages> {
                let pages = self.$first_at.pages()?;
                $(let pages = pages.and(self.$at.pages()?);)+
                Some(pages)
            }
        }

        impl<$first: Rows, $($other: Rows),+> Rows for ($first, $($other),+) {
            type Row = ($first::Row, $($other::Row),+);
            type Block = ($first::Block, $($other::Block),+);

            fn n_rows(&self) -> usize {
                self.$first_at.n_rows()
            }

            fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Self::Row> {
                side_by_side!(@zip self.$first_at.iter(rows.clone()) $(, self.$at.iter(rows.clone()))+)
            }

            fn block(&self, rows: Range<usize>) -> Self::Block {
                (self.$first_at.block(rows.clone()), $(self.$at.block(rows.clone())),+)
            }
        }
    };
}

side_by_side!(I 0, J 1);
side_by_side!(I 0, J 1, K 2);
side_by_side!(I 0, J 1, K 2, L 3);

/// The input of [`run_tasks`](crate::Fork::run_tasks): rows that hold nothing but their index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indices(pub(super) usize);

impl sealed::Source for Indices {
    fn check_rows(&self, _check: &mut RowCheck) -> Result<()> {
        Ok(())
    }

    fn check_lengths(&self) -> Result<()> {
        Ok(())
    }

    fn warn(&self, _warnings: &mut Vec<Warning>) {}

    fn row_bytes(&self) -> usize {
        0
    }

    fn pages(&self) -> Option<Pages> {
        None
    }
}

impl Rows for Indices {
    type Row = usize;
    type Block = Range<usize>;

    fn n_rows(&self) -> usize {
        self.0
    }

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        rows
    }

    fn block(&self, rows: Range<usize>) -> Range<usize> {
        rows
    }
}
