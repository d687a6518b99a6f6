//! Where answers go: lines on standard output, a `.npy` file, a segment that stays. Whether there
//! is room and the name is free is found out before the work; the name is given when all is there.

use ndarray::{Dimension, Ix1};
use rowfork::{Element, NpyDraft, SharedArray, segment};

use crate::failure::Failure;
use crate::location::Location;
use crate::signals;
use crate::text;

/// An answer in the making, and where it goes.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    Lines(SharedArray<T, Ix1>),
    /// Workers write to the pages of the file.
    File(NpyDraft<T, Ix1>),
    Segment(SharedArray<T, Ix1>, String),
}

impl<T: Element> Answer<T> {
    /// Of so many values.
    pub(crate) fn prepare(destination: Option<&Location>, n_rows: usize) -> Result<Self, Failure> {
        signals::while_noting(|_| match destination {
            None => SharedArray::zeros(None, n_rows).map(Self::Lines),
            Some(Location::Segment(name)) => {
                segment::check_free(name)?;
                Ok(Self::Segment(SharedArray::zeros(None, n_rows)?, name.clone()))
            }
            Some(Location::File(path)) => {
                let draft = NpyDraft::create(path, n_rows)?;
                if draft.is_visible() {
                    signals::only_note(); // or who would remove it?
                }
                Ok(Self::File(draft))
            }
        })
    }

    /// What is to be filled.
    pub(crate) fn values(&mut self) -> &mut SharedArray<T, Ix1> {
        match self {
            Self::Lines(values) | Self::Segment(values, _) => values,
            Self::File(draft) => draft,
        }
    }

    /// Hands it over.
    pub(crate) fn deliver(self) -> Result<(), Failure> {
        match self {
            Self::Lines(values) => Ok(text::write_lines(values.as_slice())?),
            Self::File(mut draft) => {
                draft.complete()?;
                signals::while_naming(|| draft.finish())
            }
            Self::Segment(values, name) => keep(values, &name),
        }
    }
}

/// Gives an array a name that stays.
pub(crate) fn keep<A: Element, D: Dimension>(
    mut array: SharedArray<A, D>,
    name: &str,
) -> Result<(), Failure> {
    signals::while_naming(|| {
        array.publish(name)?;
        array.persist()
    })
}
