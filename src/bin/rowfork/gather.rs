//! Rows of which only some columns count, where no stride says which: gathered in the workers, some
//! at a time, and handed to what wants rows on end.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix2};
use rowfork::{Block, Element};

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
    let chunks =
        block.axis_chunks_iter(Axis(0), at_once).zip(out.axis_chunks_iter_mut(Axis(0), at_once));
    for (start, (part, values)) in (block.row_range().start..).step_by(at_once).zip(chunks) {
        rows.clear();
        for row in part.rows() {
            // In range: they were chosen of so many columns.
            rows.extend(
                columns.iter().map(|&column| row[usize::try_from(column).unwrap_or(usize::MAX)]),
            );
        }
        let done =
            values_of(&rows, n_columns, values.into_slice().expect("values lie on end")).verdict();
        done.map_err(|(row, sum)| format!("{OVERFLOW}{} {sum}", start + row))?;
    }
    Ok(())
}

/// What begins the words of a kernel that has met a sum which does not fit; its row and the sum
/// follow.
const OVERFLOW: &str = "overflow ";

/// The text of the library's `SumOverflow` for the words of a kernel that [`gathered`] rows, if they
/// are about a sum: rows count from `first_row` on.
pub(crate) fn overflow_text<T: Element>(message: &str, first_row: usize) -> Option<String> {
    let (row, sum) = message.strip_prefix(OVERFLOW)?.split_once(' ')?;
    let row = row.parse::<usize>().ok()? + first_row;
    let (dtype, min, max) = if T::DESCR == i64::DESCR {
        ("int64", i64::MIN.to_string(), i64::MAX.to_string())
    } else {
        ("uint64", u64::MIN.to_string(), u64::MAX.to_string())
    };
    Some(format!("the sum of row {row} is {sum}, beyond the range of {dtype} ({min} to {max})"))
}

/// What may come of a function on slices: nothing that could go wrong, or a sum that does not fit,
/// and its row.
pub(crate) trait Verdict {
    /// Which it is.
    fn verdict(self) -> Result<(), (usize, i128)>;
}

impl Verdict for () {
    fn verdict(self) -> Result<(), (usize, i128)> {
        Ok(())
    }
}

impl Verdict for Result<(), (usize, i128)> {
    fn verdict(self) -> Result<(), (usize, i128)> {
        self
    }
}
