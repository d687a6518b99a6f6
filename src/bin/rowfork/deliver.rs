//! Where answers go: lines on standard output, a `.npy` file, or a segment that stays.
//!
//! Before the work the command finds out whether there is room and whether the name is free. The
//! answer gets its name last, when it is complete.

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
    /// Makes room for this many values.
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

    /// The values, for the workers to fill.
    pub(crate) fn values(&mut self) -> &mut SharedArray<T, Ix1> {
        match self {
            Self::Lines(values) | Self::Segment(values, _) => values,
            Self::File(draft) => draft,
        }
    }

    /// Writes the answer out, or gives it its name.
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
