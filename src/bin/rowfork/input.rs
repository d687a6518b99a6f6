//! What rows come from: a file where it lies, or a segment.
//!
//! # Safety
//! Mapping what other programs can change asks for a promise that a command cannot keep for them. It keeps its own: this process
//! looks at no element. Workers do, and one that meets a file that somebody cuts meanwhile dies alone; the call ends with an
//! error that names the file. An element that somebody changes meanwhile is summed as it was or as it is.
#![allow(unsafe_code, reason = "maps files of others")]

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ndarray::{Ix1, Ix2};
use rowfork::segment::NpyInfo;
use rowfork::{Element, Error, HeaderError, MappedArray, Selection, SharedArray};

use crate::columns::{Chosen, List};
use crate::failure::Failure;

/// Where an array is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Segment(String),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("shm:") {
            Some(name) => Self::Segment(name.to_owned()),
            None => Self::File(text.into()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Segment(name) => write!(f, "shm:{name}"),
        }
    }
}

impl Source {
    /// What its header says.
    pub(crate) fn info(&self) -> rowfork::Result<NpyInfo> {
        match self {
            Self::File(path) => NpyInfo::of_file(path),
            Self::Segment(name) => NpyInfo::of_segment(name),
        }
    }

    /// A vector, copied: this process looks at it.
    pub(crate) fn vector(&self) -> rowfork::Result<Vec<f64>> {
        match self {
            Self::File(path) => Ok(SharedArray::<f64, Ix1>::from_npy_file(None, path)?.as_slice().to_vec()),
            Self::Segment(name) => Ok(SharedArray::<f64, Ix1>::read_copy(name)?.to_vec()),
        }
    }
}

/// An element type by NumPy's name, without the mark of its byte order, of which there is one here.
pub(crate) fn bare(dtype: &str) -> &str {
    dtype.strip_prefix(['<', '=', '|']).unwrap_or(dtype)
}

/// The rows and columns that were asked for.
#[derive(Debug)]
pub(crate) struct Part<'m, A> {
    /// As far as starts, ends and steps say which.
    pub(crate) selection: Selection<'m, A, Ix2>,
    /// Those columns of it, where they do not.
    pub(crate) listed: Option<Vec<usize>>,
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
    pub(crate) fn open(source: &Source) -> rowfork::Result<Self> {
        match source {
            Source::File(path) => {
                // SAFETY: see the module: this process looks at no element.
                match unsafe { SharedArray::map_npy_file(path) } {
                    Err(Error::Npy { source: HeaderError::Misaligned { .. }, .. }) => {
                        SharedArray::from_npy_file(None, path).map(Self::Placed)
                    }
                    mapped => mapped.map(Self::Mapped),
                }
            }
            // SAFETY: likewise.
            Source::Segment(name) => unsafe { SharedArray::attach(name) }.map(Self::Attached),
        }
    }

    /// How it is had, for the report.
    pub(crate) fn way(&self) -> &'static str {
        match self {
            Self::Mapped(_) => "mapped where it lies",
            Self::Attached(_) => "attached",
            Self::Placed(_) => "copied: its data are not aligned",
        }
    }

    /// All of it.
    fn whole(&self) -> Selection<'_, A, Ix2> {
        match self {
            Self::Mapped(array) => array.into(),
            Self::Attached(array) | Self::Placed(array) => array.into(),
        }
    }

    /// What was asked for of it.
    pub(crate) fn part(&self, rows: Option<&List>, columns: Option<&List>) -> Result<Part<'_, A>, Failure> {
        let mut selection = self.whole();
        let &[n_rows, n_columns] = selection.shape() else { unreachable!("a matrix has two axes") };
        match rows.map(|rows| chosen(rows, "row", n_rows)).transpose()? {
            None => {}
            Some(Chosen::Slice(slice)) => selection = selection.rows(slice)?,
            Some(Chosen::Indices(_)) => {
                return Err(Failure::Usage("--rows takes one range, such as 1000- or 1-500".to_owned()));
            }
        }
        let mut listed = None;
        match columns.map(|columns| chosen(columns, "column", n_columns)).transpose()? {
            None => {}
            Some(Chosen::Slice(slice)) => selection = selection.columns(slice)?,
            Some(Chosen::Indices(indices)) => listed = Some(indices),
        }
        Ok(Part { selection, listed })
    }
}

fn chosen(list: &List, what: &str, n: usize) -> Result<Chosen, Failure> {
    list.of(n)
        .map_err(|missing| Failure::Said(format!("--{what}s {list}: there is no {what} {missing}, the last is {n}")))
}
