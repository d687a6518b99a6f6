//! Where answers go: lines on standard output, a `.npy` file, a segment that stays. Whether there is room and the name is free is
//! asked before the work; the name is given when all is there.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ndarray::Ix1;
use rowfork::{Element, NpyDraft, SharedArray, segment};

use crate::failure::Failure;
use crate::signals;
use crate::text;

/// Where an answer is to go, if not to standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    File(PathBuf),
    Segment(String),
}

impl FromStr for Destination {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("shm:") {
            Some(name) => Self::Segment(name.to_owned()),
            None => Self::File(text.into()),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Segment(name) => write!(f, "shm:{name}"),
        }
    }
}

/// A place that waits for its answer.
#[derive(Debug)]
pub(crate) enum Place {
    Lines,
    File(NpyDraft),
    Segment(String),
}

impl Place {
    /// For so many values.
    pub(crate) fn prepare<A: Element>(destination: Option<&Destination>, n_rows: usize) -> rowfork::Result<Self> {
        Ok(match destination {
            None => Self::Lines,
            Some(Destination::File(path)) => Self::File(NpyDraft::create::<A>(path, &[n_rows])?),
            Some(Destination::Segment(name)) => {
                segment::check_free(name)?;
                Self::Segment(name.clone())
            }
        })
    }

    /// Hands it over.
    pub(crate) fn deliver<A: Element>(self, answer: SharedArray<A, Ix1>) -> Result<(), Failure> {
        match self {
            Self::Lines => Ok(text::write_lines(answer.as_slice())?),
            Self::File(draft) => Ok(signals::while_naming(|| draft.write(&answer))?),
            Self::Segment(name) => Ok(keep(answer, &name)?),
        }
    }
}

/// Gives an array a name that stays.
pub(crate) fn keep<A: Element, D: ndarray::Dimension>(mut array: SharedArray<A, D>, name: &str) -> rowfork::Result<()> {
    signals::while_naming(|| {
        array.publish(name)?;
        array.persist()
    })
}
