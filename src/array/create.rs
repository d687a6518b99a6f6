//! Ways to make a shared array. Each fills the segment in place, in parallel, before anybody else
//! can see it.

use ndarray::{ArrayRef, Dimension, IntoDimension};

use super::fill::{copy_range, fill_range};
use super::{Element, SegmentName, SharedArray};
use crate::error::Result;
use crate::segment::{self, Fill};

#[expect(
    clippy::needless_pass_by_value,
    reason = "a name reads better without a borrow, and `None` has no type then"
)]
impl<A: Element, D: Dimension> SharedArray<A, D> {
    /// An array of zeros, its memory reserved: writing to it can not fail.
    ///
    /// `name` is a name under `/dev/shm` or `None`.
    ///
    /// ```
    /// let m = rowfork::SharedArray::<f64, _>::zeros(None, (1000, 8))?;
    /// assert_eq!(m.view().sum(), 0.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidName`](crate::Error::InvalidName), [`NameInUse`](crate::Error::NameInUse),
    /// [`ShapeOverflow`](crate::Error::ShapeOverflow), [`ShmFull`](crate::Error::ShmFull),
    /// [`MemoryLimit`](crate::Error::MemoryLimit),
    /// [`AddressSpaceLimit`](crate::Error::AddressSpaceLimit),
    /// [`FileSizeLimit`](crate::Error::FileSizeLimit), [`Os`](crate::Error::Os) for what is left.
    /// Nothing is left behind.
    pub fn zeros(name: impl SegmentName, shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        Self::born(name.get(), shape.into_dimension(), None)
    }

    /// An array whose element at index `i` is `f(i)`. Threads of this process share the work, so
    /// `f` is called in no particular order.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    ///
    /// # Panics
    /// If `f` panics. Nothing is left behind.
    pub fn from_shape_fn(
        name: impl SegmentName,
        shape: impl IntoDimension<Dim = D>,
        f: impl Fn(D::Pattern) -> A + Sync + Send,
    ) -> Result<Self> {
        let dim = shape.into_dimension();
        let fill = |offset, bytes: &mut [u8]| {
            fill_range(cast::<A>(bytes), &dim, offset / size_of::<A>(), &f);
            Ok(())
        };
        Self::born(name.get(), dim.clone(), Some(&fill))
    }

    /// A copy of an ndarray of any layout: C or Fortran order, strided, reversed, broadcast. Copied
    /// in parallel, without a temporary.
    ///
    /// ```
    /// use ndarray::array;
    /// let a = array![[1.0, 2.0], [3.0, 4.0]];
    /// let m = rowfork::SharedArray::copy_from(None, &a.t())?;
    /// assert_eq!(m.view(), array![[1.0, 3.0], [2.0, 4.0]]);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn copy_from(name: impl SegmentName, source: &ArrayRef<A, D>) -> Result<Self> {
        let dim = source.raw_dim();
        if let Some(slice) = source.as_slice() {
            let slice: &[u8] = bytemuck::cast_slice(slice);
            let fill = |offset: usize, bytes: &mut [u8]| {
                bytes.copy_from_slice(&slice[offset..offset + bytes.len()]);
                Ok(())
            };
            return Self::born(name.get(), dim, Some(&fill));
        }
        let fill = |offset, bytes: &mut [u8]| {
            copy_range(cast::<A>(bytes), &source.view().into_dyn(), offset / size_of::<A>());
            Ok(())
        };
        Self::born(name.get(), dim, Some(&fill))
    }

    /// The output of a call: nameless, reserved, zero.
    pub(crate) fn output(dim: D) -> Result<Self> {
        Self::born(None, dim, None)
    }

    /// Bears the segment for `dim`, which is then checked to fit the address space.
    pub(super) fn born(name: Option<&str>, dim: D, fill: Option<&Fill<'_>>) -> Result<Self> {
        const {
            assert!(
                segment::DATA_OFFSET.is_multiple_of(size_of::<A>()),
                "elements must not straddle pages"
            );
        };
        let segment = segment::birth(name, A::DESCR, size_of::<A>(), dim.slice(), fill)?;
        Ok(Self::of_segment(segment, dim))
    }
}

/// The elements in a piece of a fresh segment: pieces start and end between elements.
fn cast<A: Element>(bytes: &mut [u8]) -> &mut [A] {
    bytemuck::cast_slice_mut(bytes)
}
