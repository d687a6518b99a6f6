#![allow(unsafe_code, reason = "declares attaching unsafe; allocates zeros")]
//! Shared arrays from what is there already, and back to disk.
//!
//! # Safety
//! [`SharedArray::attach`] passes on what only its caller can know. Memory for a copy comes from the global allocator in
//! the layout of the vector that it is made into.

use std::alloc;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ndarray::{Array, Dimension};

use super::{Element, SegmentName, SharedArray};
use crate::error::{Error, Result};
use crate::segment::{self, Layout, NpyFile, Wanted, os};
use crate::sys::{file, limits};

#[expect(clippy::needless_pass_by_value, reason = "a name reads better without a borrow, and `None` has no type then")]
impl<A: Element, D: Dimension> SharedArray<A, D> {
    const WANTED: Wanted = Wanted { descr: A::DESCR, size: size_of::<A>(), align: align_of::<A>(), axes: D::NDIM };

    /// Opens a segment that another process made: another rowfork program, or NumPy with
    /// `np.lib.format.open_memmap("/dev/shm/NAME", ...)`. No copy. Holes of a sparse file are given memory.
    ///
    /// The header is checked, field by field, against the file's length. Dropping the array never removes the name.
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
    /// While the array lives no process may make the file shorter (touching what is gone is a SIGBUS), and none may
    /// write to elements while this one reads or writes them. [`read_copy`](Self::read_copy) needs no such promise.
    ///
    /// # Errors
    /// [`NameNotFound`](Error::NameNotFound), [`InvalidName`](Error::InvalidName), [`NotRegular`](Error::NotRegular),
    /// [`NotOurs`](Error::NotOurs), [`Npy`](Error::Npy), [`WrongDtype`](Error::WrongDtype),
    /// [`WrongDimension`](Error::WrongDimension), [`Truncated`](Error::Truncated), [`ShmFull`](Error::ShmFull),
    /// [`MemoryLimit`](Error::MemoryLimit), [`AddressSpaceLimit`](Error::AddressSpaceLimit);
    /// [`InUse`](Error::InUse) if somebody holds the file's exclusive lock for more than a second.
    pub unsafe fn attach(name: &str) -> Result<Self> {
        let (segment, layout) = segment::attach(name, Self::WANTED)?;
        Ok(Self { segment, dim: dim_of(&layout), elements: PhantomData })
    }

    /// Copies a segment, or any `.npy` file in `/dev/shm`, into this process's own memory. Safe whatever others do to
    /// the file meanwhile: it is read, not mapped.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), and [`Os`](Error::Os) if there is not enough memory.
    pub fn read_copy(name: &str) -> Result<Array<A, D>> {
        let npy = NpyFile::open_name(segment::validated(name)?, false)?;
        let layout = npy.layout(Self::WANTED)?;
        segment::check_address_space(layout.data_bytes as u64)?;
        segment::check_memory(layout.data_bytes as u64)?; // near or not: no child can have private memory for us
        let no_memory = || os("hold a copy of", &segment::path_of(name))(io::ErrorKind::OutOfMemory.into());
        let mut elements = zeros_from_the_system::<A>(layout.data_bytes / size_of::<A>()).ok_or_else(no_memory)?;
        npy.read_all(&layout, bytemuck::cast_slice_mut(&mut elements))?;
        let shape = dim_of::<D>(&layout);
        // The layout's byte count is its shape's, so this cannot fail; if it did, no half answer.
        let unfit = |error| os("shape a copy of", &segment::path_of(name))(io::Error::other(error));
        Array::from_shape_vec(shape, elements).map_err(unfit)
    }

    /// Reads a `.npy` file straight into a new segment, in parallel.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros), and [`NotAFile`](Error::NotAFile), [`Npy`](Error::Npy),
    /// [`WrongDtype`](Error::WrongDtype), [`WrongDimension`](Error::WrongDimension), [`Truncated`](Error::Truncated),
    /// [`Os`](Error::Os) if the file cannot be opened or read.
    pub fn from_npy_file(name: impl SegmentName, path: impl AsRef<Path>) -> Result<Self> {
        let npy = NpyFile::open_path(path.as_ref())?;
        let layout = npy.layout(Self::WANTED)?;
        let fill = |offset, bytes: &mut [u8]| npy.read_data(&layout, offset, bytes);
        Self::born(name.get(), dim_of(&layout), Some(&fill))
    }

    /// Writes a `.npy` file, byte for byte the one that `np.save` would write. A file of that name is replaced at the
    /// end, in one go: nobody ever sees half of it. So is a symbolic link; what it leads to stays as it was.
    ///
    /// # Errors
    /// [`DiskFull`](Error::DiskFull), [`FileSizeLimit`](Error::FileSizeLimit), [`Os`](Error::Os). The half-written
    /// file is removed, a file that was there stays as it was.
    pub fn write_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let header = segment::npy_file_header(A::DESCR, self.shape());
        let data: &[u8] = bytemuck::cast_slice(self.as_slice());
        let need = header.len() + data.len();
        let limit = limits::file_size().map_err(os("read the file size limit for", path))?;
        if need as u64 > limit {
            return Err(Error::FileSizeLimit { need: need as u64, limit });
        }
        let draft = Draft::beside(path)?;
        let written = (&draft.file).write_all(&header).and_then(|()| (&draft.file).write_all(data));
        written.map_err(|error| draft.failed(path, need, error))?;
        std::fs::rename(&draft.path, path).map_err(os("replace", path))
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
    // SAFETY: had from the global allocator, in the layout of so many elements; bytes of zero are one (`Pod`).
    (!start.is_null()).then(|| unsafe { Vec::from_raw_parts(start.cast(), len, len) })
}

/// The dimension that a checked layout describes.
fn dim_of<D: Dimension>(layout: &Layout) -> D {
    let mut dim = D::zeros(layout.shape.len());
    dim.slice_mut().copy_from_slice(&layout.shape);
    dim
}

/// A file under a temporary name, removed on drop unless it has been renamed.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn beside(target: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed); // only has to differ
            let path = target.with_file_name(format!(".rowfork-{}-{count}.tmp", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path }),
                // Of a program with our id, killed before or in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(os("make a draft of", target)(error)),
            }
        }
    }

    fn failed(&self, target: &Path, need: usize, error: io::Error) -> Error {
        if error.kind() != io::ErrorKind::StorageFull {
            return os("write", target)(error);
        }
        let had = self.file.metadata().map_or(0, |meta| meta.len());
        let available = file::room(&self.file).map_or(0, |room| room.available).saturating_add(had);
        Error::DiskFull { path: target.to_owned(), need: need as u64, available }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // after the rename there is none
    }
}
