#![allow(unsafe_code, reason = "makes ndarray views over a segment's mapping")]
//! `SharedArray`: an ndarray that lives in a segment. Shapes and element types are put on the bytes
//! here and nowhere else; birth, names and memory are `segment`'s.
//!
//! # Safety
//! A view is made from the segment's data pointer and the array's dimension. Both come from one
//! checked place, either birth (which sized the file for that dimension) or attach (which checked
//! the header against the file's length), and the segment's mapping lives as long as the array,
//! from which the view borrows.

mod create;
mod draft;
mod element;
mod fill;
mod fill_value;
mod mapped;
mod name;
mod open;
mod selection;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use ndarray::{Array, ArrayView, ArrayViewMut, Dimension, IndexLonger, Ix2, NdIndex};

pub use self::draft::{NpyDraft, sweep_drafts};
pub use self::element::{Bool, Element};
pub use self::fill_value::FillValue;
pub use self::mapped::MappedArray;
pub use self::name::SegmentName;
pub use self::selection::Selection;

use crate::error::Result;
use crate::segment::{Pages, Segment};

/// An `n`-dimensional array in shared memory, in C order: the bytes behind it are a `.npy` file
/// under `/dev/shm`. `A` is any [`Element`], `D` any dimension of ndarray's.
///
/// It derefs to nothing and copies nothing: take a [`view`](Self::view) and use ndarray, or index
/// it. Dropping it removes its name, if it was made here and not [`persist`](Self::persist)ed;
/// other processes that are attached keep the memory.
///
/// # Other programs
/// While its name is visible, another program of the same user can cut the file short, and touching
/// the array is then a SIGBUS: `np.save("/dev/shm/NAME.npy", ...)` onto a live name does just that.
/// To write from NumPy, map the array: `np.load(path, mmap_mode="r+")`. Nameless arrays are out of
/// reach.
///
/// # Fork safety
/// A forked child may read it and may drop its copy: that unmaps and never unlinks. While the child
/// lives the segment counts as in use.
///
/// ```
/// use rowfork::SharedArray;
/// let name = format!("rowfork-doc-array-{}", std::process::id());
/// let m = SharedArray::from_shape_fn(name.as_str(), (3, 4), |(i, j)| (10 * i + j) as f64)?;
/// assert_eq!(m.shape(), [3, 4]);
/// assert_eq!(m[[2, 3]], 23.0);
/// assert!(std::path::Path::new("/dev/shm").join(&name).exists());
/// drop(m);
/// assert!(!std::path::Path::new("/dev/shm").join(&name).exists());
/// # Ok::<(), rowfork::Error>(())
/// ```
pub struct SharedArray<A, D = Ix2> {
    segment: Segment,
    dim: D,
    elements: PhantomData<A>,
}

impl<A: Element, D: Dimension> SharedArray<A, D> {
    /// A read-only view of all elements.
    #[must_use]
    pub fn view(&self) -> ArrayView<'_, A, D> {
        // SAFETY: pointer and dimension belong together (see the module), `&self` keeps writers of
        // this process away.
        unsafe { ArrayView::from_shape_ptr(self.dim.clone(), self.as_ptr()) }
    }

    /// A view to write through.
    ///
    /// # Fork safety
    /// In a worker every shared array but the call's output is read-only: writing through a
    /// captured view is a memory fault there, reported with this array's name.
    #[must_use]
    pub fn view_mut(&mut self) -> ArrayViewMut<'_, A, D> {
        // SAFETY: as in `view`; `&mut self` makes it the only view in this process.
        unsafe { ArrayViewMut::from_shape_ptr(self.dim.clone(), self.as_mut_ptr()) }
    }

    /// All elements in C order, which is the order they lie in.
    #[must_use]
    pub fn as_slice(&self) -> &[A] {
        // SAFETY: as in `view`: as many elements as the dimension says lie behind the pointer.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// A copy in this process's own memory.
    #[must_use]
    pub fn to_owned(&self) -> Array<A, D> {
        self.view().to_owned()
    }

    /// The name under `/dev/shm`, `None` until [`publish`](Self::publish)ed.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.segment.name()
    }

    /// Axis lengths, in elements.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.dim.slice()
    }

    /// The length of axis 0; 1 for an array without axes (in which operations find no rows).
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dim.size()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which page sizes its memory has; `None` for an array that another process made.
    #[must_use]
    pub fn pages(&self) -> Option<Pages> {
        self.segment.pages()
    }

    /// Gives a nameless array a name, so that other programs see it too:
    /// `np.load("/dev/shm/NAME", mmap_mode="r")`. It goes with this process, or with the drop of
    /// this array, unless [`persist`](Self::persist)ed.
    ///
    /// From then on any program of the same user can write to it, and cut it short: after an
    /// `np.save` onto the name that is in use, touching the array is a SIGBUS.
    /// `np.load(path, mmap_mode="r+")` is the way to write.
    ///
    /// ```
    /// use rowfork::SharedArray;
    /// let mut m = SharedArray::<f64, _>::zeros(None, 10)?;
    /// let name = format!("rowfork-doc-publish-{}", std::process::id());
    /// m.publish(&name)?;
    /// assert_eq!(SharedArray::<f64, ndarray::Ix1>::read_copy(&name)?.len(), 10);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidName`](crate::Error::InvalidName), [`NameInUse`](crate::Error::NameInUse);
    /// [`AlreadyNamed`](crate::Error::AlreadyNamed) if it has a name; [`Os`](crate::Error::Os)
    /// where there is neither `/proc` nor Linux 6.10, and without `O_TMPFILE` (name the array at
    /// birth). The array stays as it was.
    pub fn publish(&mut self, name: &str) -> Result<()> {
        self.segment.publish(name)
    }

    /// Lets a named array outlive this process: drop no longer removes it, nor does a sweep. Remove
    /// it with [`remove`](crate::segment::remove). An attached array may be another program's: what
    /// lasts already, as every file that rowfork did not make, is not changed.
    ///
    /// # Errors
    /// [`Nameless`](crate::Error::Nameless) without a name; [`Os`](crate::Error::Os) if the file
    /// belongs to another user.
    pub fn persist(&mut self) -> Result<()> {
        self.segment.persist()
    }

    /// The first element.
    #[must_use]
    pub fn as_ptr(&self) -> *const A {
        self.segment.data().as_ptr().cast()
    }

    /// The first element, to write through.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut A {
        self.segment.data().as_ptr().cast()
    }

    /// An array over a segment that was made, or found, to hold one of this shape and type.
    fn of_segment(segment: Segment, dim: D) -> Self {
        Self { segment, dim, elements: PhantomData }
    }

    /// Axis lengths, as ndarray has them.
    pub(crate) fn dim(&self) -> D {
        self.dim.clone()
    }

    /// The segment that it lives in.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }
}

/// `sums[3]`, `m[[2, 3]]`: one element. Many are quicker through one [`view`](SharedArray::view).
///
/// # Panics
/// Outside of the array.
impl<A: Element, D: Dimension, I: NdIndex<D>> Index<I> for SharedArray<A, D> {
    type Output = A;

    fn index(&self, index: I) -> &A {
        IndexLonger::index(&self.view(), index)
    }
}

impl<A: Element, D: Dimension, I: NdIndex<D>> IndexMut<I> for SharedArray<A, D> {
    fn index_mut(&mut self, index: I) -> &mut A {
        IndexLonger::index(self.view_mut(), index)
    }
}

impl<A, D: Dimension> fmt::Debug for SharedArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArray")
            .field("name", &self.segment.name())
            .field("shape", &self.dim.slice())
            .field("address", &format_args!("{:#x}", self.segment.address()))
            .finish_non_exhaustive()
    }
}
