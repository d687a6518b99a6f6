//! `.npy` files that are there already, segments or not. They are opened, their header is read and
//! checked against what is wanted and against the file's length, and data are read by `pread`. No
//! length that a file claims is believed before it is compared with the length that the file has.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::header::{self, Header};
use super::name::{self, kind_name, os};
use super::parallel;
use crate::error::{Error, HeaderError, Result};
use crate::sys::memory::{self, HUGE_PAGE};

/// An open `.npy` file whose header has been parsed.
#[derive(Debug)]
pub(crate) struct NpyFile {
    /// The open file; its offset is never used.
    pub(super) file: File,
    /// What error messages call it. The path may lead elsewhere by now.
    pub(super) path: PathBuf,
    /// The metadata of the open file, from the moment of opening.
    pub(super) meta: std::fs::Metadata,
    /// What the header claims.
    pub(super) header: Header,
}

/// What the header of a `.npy` file says, without looking at the data.
///
/// ```
/// use rowfork::{SharedArray, segment::NpyInfo};
/// let name = format!("rowfork-doc-npy-info-{}", std::process::id());
/// let m = SharedArray::<f32, _>::zeros(&name, (3, 4))?;
/// let info = NpyInfo::of_segment(&name)?;
/// assert_eq!((info.shape, &*info.dtype, info.data_offset), (vec![3, 4], "<f4", 4096));
/// # Ok::<(), rowfork::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NpyInfo {
    /// Axis lengths.
    pub shape: Vec<u64>,
    /// The element type as NumPy spells it.
    pub dtype: String,
    /// Where in the file the data begin, in bytes.
    pub data_offset: usize,
    /// Length of the file in bytes. Whether that is enough for the shape is found out when the file
    /// is opened for use.
    pub bytes: u64,
}

impl NpyInfo {
    /// The header of any file, wherever it lies. Links are followed.
    ///
    /// # Errors
    /// [`NotAFile`](Error::NotAFile), [`Npy`](Error::Npy), [`Os`](Error::Os) if it cannot be opened
    /// or read.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self> {
        NpyFile::open_path(path.as_ref()).map(NpyFile::into_info)
    }

    /// The header of what stands in `/dev/shm` under `name`, whoever made it. A link is not
    /// followed.
    ///
    /// # Errors
    /// [`InvalidName`](Error::InvalidName), [`NameNotFound`](Error::NameNotFound),
    /// [`NotRegular`](Error::NotRegular), [`NotOurs`](Error::NotOurs), [`Npy`](Error::Npy),
    /// [`Os`](Error::Os).
    pub fn of_segment(name: &str) -> Result<Self> {
        NpyFile::open_name(name::validated(name)?, false).map(NpyFile::into_info)
    }
}

/// The elements that are wanted, as NumPy and as Rust see them. `array` has one for each type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedArray {
    /// `<f8` and the like.
    pub(crate) descr: &'static str,
    /// Bytes per element.
    pub(crate) size: usize,
    /// Alignment of an element in bytes.
    pub(crate) align: usize,
    /// The number of axes, if that is fixed.
    pub(crate) axes: Option<usize>,
}

/// Where the data of a file lie. Both numbers were checked: the data end inside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Axis lengths.
    pub(crate) shape: Vec<usize>,
    /// Offset of the data in the file, in bytes.
    pub(crate) data_offset: usize,
    /// Length of the data in bytes.
    pub(crate) data_bytes: usize,
}

impl Layout {
    /// Where the data end in the file, in bytes. The sum cannot overflow, since
    /// `header::data_bytes` leaves room for a header.
    pub(crate) fn end(&self) -> usize {
        self.data_offset + self.data_bytes
    }
}

impl NpyFile {
    /// Opens any file, links followed; a fifo or a directory is refused, not waited for.
    ///
    /// See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
    ///
    /// # Errors
    /// `NotAFile`, with the kind; `Npy` if the header is not one; `Os`.
    pub(crate) fn open_path(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(os("open", path))?;
        let refused = |kind| Error::NotAFile { path: path.to_owned(), kind };
        if !meta.is_file() {
            return Err(refused(kind_name(meta.file_type())));
        }
        // The file may have been exchanged since: do not wait for a fifo, and look again.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(os("open", path))?;
        let meta = file.metadata().map_err(os("examine", path))?;
        if !meta.is_file() {
            return Err(refused(kind_name(meta.file_type())));
        }
        Self::read(file, meta, path.to_owned())
    }

    /// Opens what stands at `name` under `/dev/shm`, to read it, or with `write` to attach. `name`
    /// must be validated.
    pub(crate) fn open_name(name: &str, write: bool) -> Result<Self> {
        let (file, meta) = name::open_regular(name, write)?;
        Self::read(file, meta, name::path(name))
    }

    /// Reads and parses the header of a file that is open already.
    ///
    /// The length of the header is bounded before memory is allocated for it, and the bytes are
    /// counted as they come: a file that shrinks meanwhile is `BeyondFile`, like one that was too
    /// short from the start.
    fn read(file: File, meta: std::fs::Metadata, path: PathBuf) -> Result<Self> {
        let mut prelude = [0; header::PRELUDE];
        let had = read_up_to(&file, &mut prelude, 0).map_err(os("read", &path))?;
        let parsed = header::extent(&prelude[..had], meta.size()).and_then(|text| {
            let mut bytes = vec![0; text.len()]; // at most MAX_HEADER
            // A read error is counted as an end of the file: the header cannot be read either way.
            let had = read_up_to(&file, &mut bytes, text.start as u64).unwrap_or(0);
            if had < bytes.len() {
                let file_bytes = (text.start + had) as u64;
                return Err(HeaderError::BeyondFile { end: text.end as u64, file_bytes });
            }
            header::parse(&bytes, text.end)
        });
        match parsed {
            Ok(header) => Ok(Self { file, path, meta, header }),
            Err(cause) => Err(Error::Npy { path, cause }),
        }
    }

    /// The part that users see. The file is closed.
    fn into_info(self) -> NpyInfo {
        let Header { descr, shape, data_offset } = self.header;
        NpyInfo { shape, dtype: descr, data_offset, bytes: self.meta.size() }
    }

    /// Checks every field of the header against what is wanted and against the file's length.
    ///
    /// # Errors
    /// `WrongDtype`, `WrongDimension`, `Truncated`; `Npy` if the shape does not fit the address
    /// space. The element type is compared first, since the size in bytes depends on it.
    pub(crate) fn layout(&self, wanted: ExpectedArray) -> Result<Layout> {
        let Header { descr, shape, data_offset } = &self.header;
        let npy = |cause| Error::Npy { path: self.path.clone(), cause };
        // `=` and no mark at all mean the byte order of the machine, which is little endian. `|`
        // means that there is no order: the element is a byte. A big-endian file has not got here.
        let bare = |descr: &str| descr.strip_prefix(['<', '=', '|']).unwrap_or(descr).to_owned();
        if bare(descr) != bare(wanted.descr) {
            return Err(Error::WrongDtype {
                path: self.path.clone(),
                expected: wanted.descr,
                found: descr.clone(),
            });
        }
        let (axes, data_bytes) = self.header.size(wanted.size).map_err(npy)?;
        if let Some(expected) = wanted.axes
            && expected != shape.len()
        {
            return Err(Error::WrongDimension { path: self.path.clone(), expected, shape: axes });
        }
        let layout = Layout { shape: axes, data_offset: *data_offset, data_bytes };
        let (expected, actual) = (layout.end() as u64, self.meta.size());
        if actual < expected {
            return Err(Error::Truncated { path: self.path.clone(), expected, actual });
        }
        Ok(layout)
    }

    /// The same, and the data must lie where elements may be read in place. NumPy pads its headers
    /// to a multiple of 64 (of 16 in old versions); a file of another program may begin its data
    /// anywhere, and a reference to an element there would be undefined behaviour.
    ///
    /// # Errors
    /// Those of [`layout`](Self::layout), and `Npy` with `Misaligned`. Such a file can still be
    /// copied.
    pub(crate) fn layout_to_map(&self, wanted: ExpectedArray) -> Result<Layout> {
        let layout = self.layout(wanted)?;
        if layout.data_offset.is_multiple_of(wanted.align) {
            return Ok(layout);
        }
        let cause =
            HeaderError::Misaligned { data_offset: layout.data_offset, align: wanted.align };
        Err(Error::Npy { path: self.path.clone(), cause })
    }

    /// Reads the data from `offset` (in bytes, header not counted) on into `bytes`. If the file
    /// shrinks meanwhile, the answer is `Truncated` and never a signal.
    ///
    /// See [pread(2)](https://man7.org/linux/man-pages/man2/pread.2.html).
    pub(crate) fn read_data(&self, layout: &Layout, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let at = (layout.data_offset + offset) as u64;
        let had = read_up_to(&self.file, bytes, at).map_err(os("read", &self.path))?;
        if had == bytes.len() {
            return Ok(());
        }
        let expected = layout.end() as u64;
        Err(Error::Truncated { path: self.path.clone(), expected, actual: at + had as u64 })
    }

    /// Reads all data, in parallel, into memory that is best not touched yet: then it can come in
    /// huge pages. Each thread reads chunks of 2 MiB.
    pub(crate) fn read_all(&self, layout: &Layout, bytes: &mut [u8]) -> Result<()> {
        memory::prefer_huge_pages(bytes);
        parallel::each_chunk(bytes, HUGE_PAGE, |offset, chunk| {
            self.read_data(layout, offset, chunk)
        })
    }
}

/// Calls `pread` until `bytes` are full or the file ends, and returns how many bytes it has read.
/// One call may return less: Linux reads at most some 2 GiB at a time, and a signal can interrupt
/// it.
///
/// See [pread(2)](https://man7.org/linux/man-pages/man2/pread.2.html).
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut had = 0;
    while had < bytes.len() {
        match file.read_at(&mut bytes[had..], offset + had as u64) {
            Ok(0) => break,
            Ok(n) => had += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(had)
}
