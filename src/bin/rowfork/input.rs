//! What rows come from: a file where it lies, or a segment.
//!
//! # Safety
//! Mapping a file requires that no other program changes it, which a command cannot promise. It
//! promises instead that this process looks at no element. Workers do look, and a worker that meets
//! a file that was cut meanwhile dies alone; the call ends with an error that names the file. An
//! element that another program changes meanwhile is summed as it was or as it is.
#![allow(unsafe_code, reason = "maps files of others")]

use std::io;
use std::path::Path;

use ndarray::{Ix1, Ix2, Slice};
use rowfork::segment::NpyInfo;
use rowfork::{Element, Error, HeaderError, MappedArray, Selection, SharedArray};

use crate::columns::{Chosen, List};
use crate::failure::Failure;
use crate::location::Location;

/// What the header of an array says.
pub(crate) fn info(location: &Location) -> rowfork::Result<NpyInfo> {
    match location {
        Location::File(path) => NpyInfo::of_file(path),
        Location::Segment(name) => NpyInfo::of_segment(name),
    }
}

/// A vector, copied: it is small, and every row needs it.
pub(crate) fn vector(location: &Location) -> rowfork::Result<SharedArray<f64, Ix1>> {
    match location {
        Location::File(path) => SharedArray::from_npy_file(None, path),
        Location::Segment(name) => SharedArray::copy_from(None, &SharedArray::read_copy(name)?),
    }
}

/// The rows and columns that were asked for.
#[derive(Debug)]
pub(crate) struct Part<'m, A> {
    /// The rows and columns, as far as starts, ends and steps say which.
    pub(crate) selection: Selection<'m, A, Ix2>,
    /// The indices of the columns within the selection, where a step cannot say which.
    pub(crate) listed: Option<SharedArray<u64, Ix1>>,
    /// Which row of the matrix is the first, from 0.
    pub(crate) first_row: usize,
}

/// A matrix, as workers read it.
#[derive(Debug)]
pub(crate) enum Matrix<A> {
    /// The file where it lies.
    Mapped(MappedArray<A, Ix2>),
    /// A segment, of ours or NumPy's.
    Attached(SharedArray<A, Ix2>),
    /// A copy, where the data of a file lie at no multiple of an element's size.
    Placed(SharedArray<A, Ix2>),
}

impl<A: Element> Matrix<A> {
    /// Opens what is there. Nothing is read yet.
    pub(crate) fn open(location: &Location) -> rowfork::Result<Self> {
        match location {
            Location::File(path) => Self::of_file(path),
            // SAFETY: see the module: this process looks at no element.
            Location::Segment(name) => match unsafe { SharedArray::attach(name) } {
                // Attaching needs the right to write to the segment; mapping it does not.
                Err(error) if may_be_mapped(&error) => {
                    Self::of_file(&Path::new("/dev/shm").join(name))
                }
                attached => attached.map(Self::Attached),
            },
        }
    }

    fn of_file(path: &Path) -> rowfork::Result<Self> {
        // SAFETY: as above.
        match unsafe { SharedArray::map_npy_file(path) } {
            Err(error) if is_misaligned(&error) => {
                SharedArray::from_npy_file(None, path).map(Self::Placed)
            }
            mapped => mapped.map(Self::Mapped),
        }
    }

    /// How the matrix was opened, for the report.
    pub(crate) fn way(&self) -> &'static str {
        match self {
            Self::Mapped(_) => "mapped where it lies",
            Self::Attached(_) => "attached",
            Self::Placed(_) => "copied: its data are not aligned",
        }
    }

    /// The whole matrix.
    fn whole(&self) -> Selection<'_, A, Ix2> {
        match self {
            Self::Mapped(array) => array.into(),
            Self::Attached(array) | Self::Placed(array) => array.into(),
        }
    }

    /// The rows and columns that were asked for.
    pub(crate) fn part(
        &self,
        rows: Option<&List>,
        columns: Option<&List>,
    ) -> Result<Part<'_, A>, Failure> {
        let mut selection = self.whole();
        let &[n_rows, n_columns] = selection.shape() else { unreachable!("a matrix has two axes") };
        let mut first_row = 0;
        match rows.map(|rows| chosen(rows, "row", n_rows)).transpose()? {
            None => {}
            Some(Chosen::Slice(Slice { start, end, step: 1 })) => {
                first_row = start.unsigned_abs();
                selection = selection.rows(Slice { start, end, step: 1 })?;
            }
            Some(_) => {
                return Err(Failure::Usage(
                    "--rows takes one range, such as 1000- or 1-500".to_owned(),
                ));
            }
        }
        let mut listed = None;
        match columns.map(|columns| chosen(columns, "column", n_columns)).transpose()? {
            None => {}
            Some(Chosen::Slice(slice)) => selection = selection.columns(slice)?,
            Some(Chosen::Indices(indices)) => {
                listed =
                    Some(SharedArray::from_shape_fn(None, indices.len(), |i| indices[i] as u64)?);
            }
        }
        Ok(Part { selection, listed, first_row })
    }
}

fn is_misaligned(error: &Error) -> bool {
    matches!(error, Error::Npy { cause: HeaderError::Misaligned { .. }, .. })
}

fn may_be_mapped(error: &Error) -> bool {
    let denied = |error: &Error| matches!(error, Error::Os { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied);
    is_misaligned(error) || denied(error) || matches!(error, Error::NotOurs { .. })
}

fn chosen(list: &List, what: &str, n: usize) -> Result<Chosen, Failure> {
    list.of(n).map_err(|missing| {
        Failure::Said(format!("--{what}s {list}: there is no {what} {missing}, the last is {n}"))
    })
}
