//! Rows of which only some columns count, where no stride says which: gathered in the workers, some at a time, and handed to what
//! wants rows on end.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix2};
use rowfork::{Block, Element, Summand};

/// So many bytes of rows are gathered at a time: they stay in the first cache.
const GATHERED_BYTES: usize = 16 << 10;

/// The values of rows of which only some columns count, by what makes them of rows on end.
pub(crate) fn gathered<A: Element, T: Element, E: Verdict>(
    block: &Block<'_, A, Ix2>,
    columns: &ArrayView1<'_, u64>,
    out: &mut ArrayViewMut1<'_, T>,
    values_of: impl Fn(&[A], usize, &mut [T]) -> E,
) -> Result<(), String> {
    let n_columns = columns.len();
    let at_once = (GATHERED_BYTES / (n_columns * size_of::<A>()).max(1)).max(1);
    let mut rows = Vec::with_capacity(at_once * n_columns);
    for (part, values) in block.axis_chunks_iter(Axis(0), at_once).zip(out.axis_chunks_iter_mut(Axis(0), at_once)) {
        rows.clear();
        for row in part.rows() {
            // In range: they were chosen of so many columns.
            rows.extend(columns.iter().map(|&column| row[usize::try_from(column).unwrap_or(usize::MAX)]));
        }
        values_of(&rows, n_columns, values.into_slice().expect("values lie on end")).verdict()?;
    }
    Ok(())
}

/// What may come of a function on slices: nothing that could go wrong, or words about it.
pub(crate) trait Verdict {
    /// The words, if it has failed.
    fn verdict(self) -> Result<(), String>;
}

impl Verdict for () {
    fn verdict(self) -> Result<(), String> {
        Ok(())
    }
}

impl Verdict for Result<(), String> {
    fn verdict(self) -> Result<(), String> {
        self
    }
}

/// Sums, or the first that does not fit.
pub(crate) fn sums_in_words<A: Summand>(rows: &[A], n_columns: usize, sums: &mut [A::Sum]) -> Result<(), String> {
    A::sum_rows(rows, n_columns, sums)
        .map_err(|(_, sum)| format!("the sum of one of its rows is {sum}, beyond its type"))
}
