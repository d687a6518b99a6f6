//! [`Rows`]: what operations take their rows from. It is one array, a part of one, or several side
//! by side.
//!
//! Every operation takes its input as a `Rows`. `run.rs` asks it for facts (how many rows, which
//! segments), and `operation.rs` for the views that workers read. Nothing here knows the kernel.
//!
//! # Safety
//! Inputs are unpacked here in the order in which they were packed; `engine/args.rs` says what else
//! that requires.
#![allow(unsafe_code, reason = "unpacks inputs in workers that are no copies of the caller")]

use std::ops::Range;

use ndarray::{ArrayView, Axis, Dimension, RemoveAxis, Slice};

pub(super) use self::sealed::RowCheck;
use super::release_pages::FileRows;
use super::{Block, Row};
use crate::array::{Element, MappedArray, Selection, SharedArray};
use crate::engine::args::{ArgReader, PackedArgs, pack_view, unpack_view};
use crate::engine::report::{Output, Warning};
use crate::error::Result;
use crate::segment::{Pages, Segment};

/// The input of an operation: `&array` (or the `&output` of another call), a [`Selection`] of one,
/// or a tuple of two to nine of these whose rows are taken together, as in
/// `(&prices, volumes.columns(..3)?)`. They may differ in everything but the number of rows. What
/// is the same for every row stands beside them: [`param`](crate::param) and
/// [`broadcast`](crate::broadcast); and [`tasks`] are rows without an array.
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
            nine of these"
)]
#[allow(private_bounds, reason = "nobody outside is to implement it")]
pub trait Rows:
    sealed::Input<View: sealed::RowAccess<Row = Self::Row, Block = Self::Block>>
{
    /// What a kernel gets of one row: a [`Row`], or a tuple of them.
    type Row;

    /// What a kernel gets of a block of rows: a [`Block`], or a tuple of them.
    type Block;

    /// The number of rows.
    fn n_rows(&self) -> usize {
        sealed::n_rows(self)
    }
}

pub(super) mod sealed {
    use std::ops::Range;

    use crate::engine::args::{ArgReader, PackedArgs};
    use crate::error::{Error, Result};
    use crate::rows::release_pages::FileRows;
    use crate::segment::{Pages, Segment};

    /// Looks at the parts of an input one after the other, tuples in tuples included.
    #[derive(Debug, Default)]
    pub(crate) struct RowCheck {
        n_parts: usize,
        n_rows: Option<usize>,
    }

    impl RowCheck {
        /// The next part, of this shape.
        pub(in crate::rows) fn part(&mut self, shape: &[usize]) -> Result<()> {
            let input = self.n_parts;
            let &found = shape.first().ok_or(Error::NoRows { input })?;
            self.n_parts += 1;
            let expected = *self.n_rows.get_or_insert(found);
            if found == expected {
                Ok(())
            } else {
                Err(Error::UnequalRows { input, expected, found })
            }
        }
    }

    impl RowCheck {
        /// The next part, which is the same for every row.
        pub(in crate::rows) fn same_for_all(&mut self) {
            self.n_parts += 1;
        }

        /// After the last part: that there are rows at all.
        pub(in crate::rows) fn rows_found(&self) -> Result<()> {
            self.n_rows.map(|_| ()).ok_or(Error::NoRows { input: 0 })
        }
    }

    /// An input in a worker: what its rows are read from.
    pub(crate) trait RowAccess {
        type Row;
        type Block;

        /// The rows of a range, one by one.
        fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Self::Row>;

        /// The rows of a range, together.
        fn block(&self, rows: Range<usize>) -> Self::Block;

        /// Notes where rows lie in files on a disk, so that they can be unmapped once read.
        fn note_file_rows(&self, _file_rows: &mut FileRows) {}
    }

    /// What is asked of an input whatever its type. Object-safe, so that a call is compiled once
    /// for all inputs.
    pub(crate) trait InputFacts {
        /// How many rows there are; `None` for a part that is the same for every row.
        fn rows_if_any(&self) -> Option<usize>;

        /// That every part has rows at all, and as many as those before.
        fn check_rows(&self, check: &mut RowCheck) -> Result<()>;

        /// Calls `each` for every segment that it lies in.
        fn each_segment(&self, each: &mut dyn FnMut(&Segment)) {
            let _ = each;
        }

        /// Bytes of the elements of one row.
        fn row_bytes(&self) -> usize {
            0
        }

        /// The pages that it lies in, if that is known.
        fn pages(&self) -> Option<Pages>;
    }

    /// How many rows an input has; 0 if every part is the same for all rows.
    pub(super) fn n_rows(input: &(impl InputFacts + ?Sized)) -> usize {
        input.rows_if_any().unwrap_or(0)
    }

    impl dyn InputFacts + '_ {
        /// How many rows there are.
        pub(in crate::rows) fn n_rows(&self) -> usize {
            n_rows(self)
        }

        /// `Truncated` and the like if another process has cut a segment since.
        pub(in crate::rows) fn check_lengths(&self) -> Result<()> {
            let mut checked = Ok(());
            self.each_segment(&mut |segment| {
                if checked.is_ok() {
                    checked = segment.check_length();
                }
            });
            checked
        }

        /// Whether only this process and its workers can reach the segments.
        pub(in crate::rows) fn is_private(&self) -> bool {
            let mut is_private = true;
            self.each_segment(&mut |segment| is_private &= segment.is_private());
            is_private
        }
    }

    /// How workers read the rows of an input of one type.
    pub(crate) trait Input: InputFacts {
        /// The input as a worker has it.
        type View: RowAccess;

        /// The input as a worker has it that is a copy of this process.
        fn view(&self) -> Self::View;

        /// Packs the input for a worker that is no copy of this process.
        fn pack<'s>(&'s self, args: &mut PackedArgs<'s>);

        /// Unpacks what `pack` has packed.
        ///
        /// # Safety
        /// As for `Marshal::unpack`.
        unsafe fn unpack(words: &mut ArgReader<'_>) -> Self::View;
    }
}

impl<'a, A: Element, D: RemoveAxis> sealed::RowAccess for ArrayView<'a, A, D> {
    type Row = Row<'a, A, D::Smaller>;
    type Block = Block<'a, A, D>;

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Row<'a, A, D::Smaller>> {
        let view = self.clone();
        rows.map(move |index| Row::new(index, view.clone().index_axis_move(Axis(0), index)))
    }

    fn note_file_rows(&self, file_rows: &mut FileRows) {
        let row_bytes = self.shape().iter().zip(self.strides()).skip(1).try_fold(
            size_of::<A>(),
            |bytes, (&n, &stride)| {
                Some(bytes + n.saturating_sub(1) * usize::try_from(stride).ok()? * size_of::<A>())
            },
        );
        let stride = self.strides().first().and_then(|&stride| usize::try_from(stride).ok());
        if let (Some(row_bytes), Some(stride), false) = (row_bytes, stride, self.is_empty()) {
            file_rows.add(self.as_ptr().addr(), stride * size_of::<A>(), row_bytes);
        }
    }

    fn block(&self, rows: Range<usize>) -> Block<'a, A, D> {
        // ndarray would count a range beyond `isize::MAX` from the end.
        assert!(rows.end <= self.len_of(Axis(0)), "rows {rows:?} of {}", self.len_of(Axis(0)));
        let mut block = self.clone();
        block.slice_axis_inplace(Axis(0), Slice::from(rows.clone()));
        Block::new(rows, block)
    }
}

/// Inputs that are one array: a selection, and what is one by reference.
macro_rules! one_array {
    ($($array:ty: $select:expr),+) => {$(
        impl<'a, A: Element, D: RemoveAxis> sealed::Input for $array {
            type View = ArrayView<'a, A, D>;

            fn view(&self) -> ArrayView<'a, A, D> {
                selected::<A, D, _>(self, $select).view()
            }

            fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
                let selection = selected::<A, D, _>(self, $select);
                pack_view(&selection.view(), selection.segment(), args);
            }

            unsafe fn unpack(words: &mut ArgReader<'_>) -> ArrayView<'a, A, D> {
                // SAFETY: as the caller promises.
                unsafe { unpack_view(words) }
            }

        }

        impl<'a, A: Element, D: RemoveAxis> sealed::InputFacts for $array {
            fn rows_if_any(&self) -> Option<usize> {
                Some(selected::<A, D, _>(self, $select).n_rows())
            }

            fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
                check.part(self.shape())
            }

            fn each_segment(&self, each: &mut dyn FnMut(&Segment)) {
                each(self.segment());
            }

            fn row_bytes(&self) -> usize {
                self.shape().iter().skip(1).product::<usize>() * size_of::<A>()
            }

            fn pages(&self) -> Option<Pages> {
                self.segment().pages()
            }
        }

        impl<'a, A: Element, D: RemoveAxis> Rows for $array {
            type Row = Row<'a, A, D::Smaller>;
            type Block = Block<'a, A, D>;
        }
    )+};
}

one_array!(
    Selection<'a, A, D>: Clone::clone,
    &Selection<'a, A, D>: |selection| Selection::clone(selection),
    &'a SharedArray<A, D>: |array| Selection::from(*array),
    &'a MappedArray<A, D>: |array| Selection::from(*array),
    &'a Output<SharedArray<A, D>>: |output| Selection::from(*output)
);

fn selected<'a, A: Element, D: Dimension, I>(
    input: &I,
    select: impl Fn(&I) -> Selection<'a, A, D>,
) -> Selection<'a, A, D> {
    select(input)
}

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

macro_rules! side_by_side {
    ($first:ident $first_at:tt $(, $other:ident $at:tt)+) => {
        impl<$first: Rows, $($other: Rows),+> sealed::Input for ($first, $($other),+) {
            type View = ($first::View, $($other::View),+);

            fn view(&self) -> Self::View {
                (self.$first_at.view(), $(self.$at.view()),+)
            }

            fn pack<'s>(&'s self, args: &mut PackedArgs<'s>) {
                self.$first_at.pack(args);
                $(self.$at.pack(args);)+
            }

            #[allow(non_snake_case, reason = "values called like their types")]
            unsafe fn unpack(words: &mut ArgReader<'_>) -> Self::View {
                // SAFETY: as the caller promises; in the order in which they were packed.
                let $first = unsafe { $first::unpack(words) };
                $(
                    // SAFETY: as above.
                    let $other = unsafe { $other::unpack(words) };
                )+
                ($first, $($other),+)
            }

        }

        impl<$first: Rows, $($other: Rows),+> sealed::InputFacts for ($first, $($other),+) {
            fn rows_if_any(&self) -> Option<usize> {
                self.$first_at.rows_if_any()$(.or_else(|| self.$at.rows_if_any()))+
            }

            fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
                self.$first_at.check_rows(check)?;
                $(self.$at.check_rows(check)?;)+
                Ok(())
            }

            fn each_segment(&self, each: &mut dyn FnMut(&Segment)) {
                self.$first_at.each_segment(each);
                $(self.$at.each_segment(each);)+
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

        impl<$first: sealed::RowAccess, $($other: sealed::RowAccess),+> sealed::RowAccess for ($first, $($other),+) {
            type Row = ($first::Row, $($other::Row),+);
            type Block = ($first::Block, $($other::Block),+);

            #[allow(non_snake_case, reason = "values called like their types")]
            fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = Self::Row> {
                $(let mut $other = self.$at.iter(rows.clone());)+
                let $first = self.$first_at.iter(rows);
                $first.map(move |row| (row, $($other.next().expect(SAME_ROWS)),+))
            }

            fn note_file_rows(&self, file_rows: &mut FileRows) {
                self.$first_at.note_file_rows(file_rows);
                $(self.$at.note_file_rows(file_rows);)+
            }

            fn block(&self, rows: Range<usize>) -> Self::Block {
                (self.$first_at.block(rows.clone()), $(self.$at.block(rows.clone())),+)
            }
        }

        impl<$first: Rows, $($other: Rows),+> Rows for ($first, $($other),+) {
            type Row = ($first::Row, $($other::Row),+);
            type Block = ($first::Block, $($other::Block),+);
        }
    };
}

/// Why each part has a row where the first has.
const SAME_ROWS: &str = "every part has the rows that were asked for";

side_by_side!(A 0, B 1);
side_by_side!(A 0, B 1, C 2);
side_by_side!(A 0, B 1, C 2, D 3);
side_by_side!(A 0, B 1, C 2, D 3, E 4);
side_by_side!(A 0, B 1, C 2, D 3, E 4, F 5);
side_by_side!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
side_by_side!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
side_by_side!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);

/// `n` rows that hold nothing but their index: what [`run_tasks`](crate::Executor::run_tasks) works
/// on, for those who have something to hand to a task.
///
/// ```
/// let squares = rowfork::fork().map_rows((rowfork::tasks(10), rowfork::param(0.5)), |(i, scale)| scale * (i * i) as f64)?;
/// assert_eq!(squares[9], 40.5);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[must_use]
pub fn tasks(n: usize) -> Tasks {
    Tasks(n)
}

/// Rows that hold nothing but their index. Made by [`tasks`].
#[derive(Debug, Clone, Copy)]
pub struct Tasks(pub(super) usize);

impl sealed::Input for Tasks {
    type View = Self;

    fn view(&self) -> Self {
        *self
    }

    fn pack<'s>(&'s self, _args: &mut PackedArgs<'s>) {}

    unsafe fn unpack(_words: &mut ArgReader<'_>) -> Self {
        Self(usize::MAX) // which of them there are is for the blocks to say
    }
}

impl sealed::InputFacts for Tasks {
    fn rows_if_any(&self) -> Option<usize> {
        Some(self.0)
    }

    fn check_rows(&self, check: &mut RowCheck) -> Result<()> {
        check.part(&[self.0])
    }

    fn pages(&self) -> Option<Pages> {
        None
    }
}

impl sealed::RowAccess for Tasks {
    type Row = usize;
    type Block = Range<usize>;

    fn iter(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        rows
    }

    fn block(&self, rows: Range<usize>) -> Range<usize> {
        rows
    }
}

impl Rows for Tasks {
    type Row = usize;
    type Block = Range<usize>;
}
