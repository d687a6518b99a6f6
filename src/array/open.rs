#![allow(unsafe_code, reason = "declares attaching unsafe; allocates zeros")]
//! Shared arrays from what is there already, and back to disk.
//!
//! # Safety
//! [`SharedArray::attach`] passes on what only its caller can know. Memory for a copy comes from
//! the global allocator in the layout of the vector that it is made into.

use std::alloc;
use std::io;
use std::path::Path;

use ndarray::{Array, Dimension};

use super::{Element, MappedArray, SegmentName, SharedArray, draft};
use crate::error::Result;
use crate::segment::{self, ExpectedArray, Layout, NpyFile, os};

#[expect(
    clippy::needless_pass_by_value,
    reason = "a name reads better without a borrow, and `None` has no type then"
)]
impl<A: Element, D: Dimension> SharedArray<A, D> {
    const EXPECTED: ExpectedArray = ExpectedArray {
        descr: A::DESCR,
        size: size_of::<A>(),
        align: align_of::<A>(),
        axes: D::NDIM,
    };

    /// Opens a segment that another process made: another rowfork program, or NumPy with
    /// `np.lib.format.open_memmap("/dev/shm/NAME", ...)`. No copy. Holes of a sparse file are given
    /// memory.
    ///
    /// The header is checked, field by field, against the file's length. Dropping the array never
    /// removes the name.
    ///
    /// ```
    /// # let name = format!("rowfork-doc-attach-{}", std::process::id());
    /// use rowfork::SharedArray;
    /// use ndarray::Ix2;
    /// let made = SharedArray::from_shape_fn(name.as_str(), (2, 3), |(i, j)| (i * j) as f64)?;
    /// // SAFETY: this program alone knows the name, and does not write while it reads.
    /// let seen = unsafe { SharedArray::<f64, Ix2>::attach(&name) }?;
    /// assert_eq!(seen.view(), made.view());
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Safety
    /// While the array lives no process may make the file shorter (touching what is gone is a
    /// SIGBUS), and none may write to elements while this one reads or writes them.
    /// [`read_copy`](Self::read_copy) needs no such promise.
    ///
    /// # Errors
    /// [`NameNotFound`](crate::Error::NameNotFound), [`InvalidName`](crate::Error::InvalidName),
    /// [`NotRegular`](crate::Error::NotRegular), [`NotOurs`](crate::Error::NotOurs),
    /// [`Npy`](crate::Error::Npy), [`WrongDtype`](crate::Error::WrongDtype),
    /// [`WrongDimension`](crate::Error::WrongDimension), [`Truncated`](crate::Error::Truncated),
    /// [`ShmFull`](crate::Error::ShmFull), [`MemoryLimit`](crate::Error::MemoryLimit),
    /// [`AddressSpaceLimit`](crate::Error::AddressSpaceLimit); [`InUse`](crate::Error::InUse) if
    /// somebody holds the file's exclusive lock for more than a second.
    pub unsafe fn attach(name: &str) -> Result<Self> {
        let (segment, layout) = segment::attach(name, Self::EXPECTED)?;
        Ok(Self::of_segment(segment, dim_of(&layout)))
    }

    /// Copies a segment, or any `.npy` file in `/dev/shm`, into this process's own memory. Safe
    /// whatever others do to the file meanwhile: it is read, not mapped.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Os`](crate::Error::Os) if there is not enough memory.
    pub fn read_copy(name: &str) -> Result<Array<A, D>> {
        let npy = NpyFile::open_name(segment::validated(name)?, false)?;
        let layout = npy.layout(Self::EXPECTED)?;
        segment::check_address_space(layout.data_bytes as u64)?;
        segment::check_memory(layout.data_bytes as u64)?; // near or not: no child can have private memory for us
        let no_memory =
            || os("hold a copy of", &segment::path_of(name))(io::ErrorKind::OutOfMemory.into());
        let mut elements =
            zeros_from_the_system::<A>(layout.data_bytes / size_of::<A>()).ok_or_else(no_memory)?;
        npy.read_all(&layout, bytemuck::cast_slice_mut(&mut elements))?;
        let shape = dim_of::<D>(&layout);
        // The layout's byte count is its shape's, so this cannot fail; if it did, no half answer.
        let unfit = |error| os("shape a copy of", &segment::path_of(name))(io::Error::other(error));
        Array::from_shape_vec(shape, elements).map_err(unfit)
    }

    /// Reads a `.npy` file straight into a new segment, in parallel.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros), and [`NotAFile`](crate::Error::NotAFile),
    /// [`Npy`](crate::Error::Npy), [`WrongDtype`](crate::Error::WrongDtype),
    /// [`WrongDimension`](crate::Error::WrongDimension), [`Truncated`](crate::Error::Truncated),
    /// [`Os`](crate::Error::Os) if the file cannot be opened or read.
    pub fn from_npy_file(name: impl SegmentName, path: impl AsRef<Path>) -> Result<Self> {
        Self::from_npy_file_with(name, path, |_| ())
    }

    /// As [`from_npy_file`](Self::from_npy_file), and tells `progress` of every piece that is
    /// there: so many bytes more. It is called by several threads, thousands of times for a large
    /// file.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("m.npy");
    /// # rowfork::SharedArray::<f64, _>::zeros(None, (1000, 8))?.write_npy(&path)?;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let read = AtomicUsize::new(0);
    /// let more = |bytes| drop(read.fetch_add(bytes, Ordering::Relaxed));
    /// let m = rowfork::SharedArray::<f64, ndarray::Ix2>::from_npy_file_with(None, &path, more)?;
    /// assert_eq!(read.into_inner(), m.len() * 8);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_npy_file`](Self::from_npy_file).
    ///
    /// # Panics
    /// If `progress` does. Nothing is left behind.
    pub fn from_npy_file_with(
        name: impl SegmentName,
        path: impl AsRef<Path>,
        progress: impl Fn(usize) + Sync,
    ) -> Result<Self> {
        let npy = NpyFile::open_path(path.as_ref())?;
        let layout = npy.layout(Self::EXPECTED)?;
        let fill = |offset, bytes: &mut [u8]| {
            npy.read_data(&layout, offset, bytes)?;
            progress(bytes.len());
            Ok(())
        };
        Self::born(name.get(), dim_of(&layout), Some(&fill))
    }

    /// Maps a `.npy` file where it is, on whatever file system, to be read: nothing is copied,
    /// neither here nor in the workers, and nothing of it is anybody's own memory. For a file that
    /// is read once this beats [placing](Self::from_npy_file) it; for one that is read again and
    /// again, huge pages of a segment do.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("m.npy");
    /// use rowfork::SharedArray;
    /// # SharedArray::from_shape_fn(None, (1000, 8), |(i, j)| (i * j) as f64)?.write_npy(&path)?;
    /// // SAFETY: nobody writes to the file while it is read.
    /// let m = unsafe { SharedArray::<f64, ndarray::Ix2>::map_npy_file(&path) }?;
    /// let sums = rowfork::fork().row_sums(&m)?;
    /// assert_eq!(sums[2], 2.0 * 28.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    ///
    /// # Safety
    /// While the array lives no process may make the file shorter (touching what is gone is a
    /// SIGBUS: an error in a worker, the end of the program elsewhere), and none may write to it
    /// while this one reads. A file that is replaced, as [`write_npy`](Self::write_npy) does, is
    /// another file. [`from_npy_file`](Self::from_npy_file) needs no such promise.
    ///
    /// # Errors
    /// [`NotAFile`](crate::Error::NotAFile), [`Npy`](crate::Error::Npy),
    /// [`WrongDtype`](crate::Error::WrongDtype), [`WrongDimension`](crate::Error::WrongDimension),
    /// [`Truncated`](crate::Error::Truncated),
    /// [`AddressSpaceLimit`](crate::Error::AddressSpaceLimit), [`Os`](crate::Error::Os) if the file
    /// cannot be opened or mapped.
    pub unsafe fn map_npy_file(path: impl AsRef<Path>) -> Result<MappedArray<A, D>> {
        let (segment, layout) = segment::map_file(path.as_ref(), Self::EXPECTED)?;
        Ok(MappedArray::new(Self::of_segment(segment, dim_of(&layout))))
    }

    /// Writes a `.npy` file, byte for byte the one that `np.save` would write. A file of that name
    /// is replaced at the end, in one go: nobody ever sees half of it. So is a symbolic link; what
    /// it leads to stays as it was.
    ///
    /// For a result that does not exist yet, [`NpyDraft`](crate::NpyDraft) is the file itself: its
    /// room is taken before the work.
    ///
    /// # Errors
    /// [`DiskFull`](crate::Error::DiskFull), [`FileSizeLimit`](crate::Error::FileSizeLimit),
    /// [`NotAFile`](crate::Error::NotAFile) if a directory, a device or a fifo stands at `path`,
    /// [`Os`](crate::Error::Os). A file that was there stays as it was then.
    pub fn write_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        draft::write_npy(self, path.as_ref())
    }
}

/// Zeros that are not written but had: no page is touched before it is read into.
fn zeros_from_the_system<A: Element>(len: usize) -> Option<Vec<A>> {
    let layout = alloc::Layout::array::<A>(len).ok()?;
    if layout.size() == 0 {
        return Some(vec![A::zeroed(); len]);
    }
    // SAFETY: the size is not 0, as just checked.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    #[expect(clippy::same_length_and_capacity, reason = "all of what was allocated is elements")]
    // SAFETY: had from the global allocator, in the layout of so many elements; bytes of zero are
    // one (`Pod`).
    (!start.is_null()).then(|| unsafe { Vec::from_raw_parts(start.cast(), len, len) })
}

/// The dimension that a checked layout describes.
fn dim_of<D: Dimension>(layout: &Layout) -> D {
    let mut dim = D::zeros(layout.shape.len());
    dim.slice_mut().copy_from_slice(&layout.shape);
    dim
}
