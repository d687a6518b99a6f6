//! Columns that no stride expresses: workers gather the listed columns of some rows at a time, and
//! hand them to a function that needs rows on end.

use std::fmt;

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix2};
use rowfork::{Block, Element};

/// How many bytes of rows are gathered at a time. They stay in the first cache.
const GATHERED_BYTES: usize = 16 << 10;

/// Fills `out` with a value for each row of `block`, made from the listed columns alone.
/// `values_of` gets rows on end, their length, and the values to fill.
pub(crate) fn gathered<A: Element, T: Element, E: Verdict>(
    block: &Block<'_, A, Ix2>,
    columns: &ArrayView1<'_, u64>,
    out: &mut ArrayViewMut1<'_, T>,
    values_of: impl Fn(&[A], usize, &mut [T]) -> E,
) -> Result<(), DoesNotFit> {
    let n_columns = columns.len();
    let at_once = (GATHERED_BYTES / (n_columns * size_of::<A>()).max(1)).max(1);
    let mut rows = Vec::with_capacity(at_once * n_columns);
    let chunks =
        block.axis_chunks_iter(Axis(0), at_once).zip(out.axis_chunks_iter_mut(Axis(0), at_once));
    for (part, values) in chunks {
        rows.clear();
        part.rows().into_iter().for_each(|row| rows.extend(listed(&row, columns)));
        let values = values.into_slice().expect("values lie on end");
        values_of(&rows, n_columns, values).verdict()?;
    }
    Ok(())
}

/// The elements of a row in the listed columns.
pub(crate) fn listed<A: Element>(
    row: &ArrayView1<'_, A>,
    columns: &ArrayView1<'_, u64>,
) -> impl Iterator<Item = A> {
    // In range: the indices were chosen from as many columns as the row has.
    columns.iter().map(move |&column| row[usize::try_from(column).unwrap_or(usize::MAX)])
}

/// The sum of some row of integers does not fit its type.
#[derive(Debug)]
pub(crate) struct DoesNotFit;

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sum of listed columns does not fit its type")
    }
}

/// What a function on slices may return: nothing, if it cannot fail, or a sum that does not fit
/// with its row.
pub(crate) trait Verdict {
    /// Whether all values fit.
    fn verdict(self) -> Result<(), DoesNotFit>;
}

impl Verdict for () {
    fn verdict(self) -> Result<(), DoesNotFit> {
        Ok(())
    }
}

impl Verdict for Result<(), (usize, i128)> {
    fn verdict(self) -> Result<(), DoesNotFit> {
        self.map_err(|_| DoesNotFit)
    }
}
