//! Columns that no stride expresses: workers gather the listed columns of some rows at a time, and
//! hand them to a function that needs rows on end.

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
) -> Result<(), String> {
    let n_columns = columns.len();
    let at_once = (GATHERED_BYTES / (n_columns * size_of::<A>()).max(1)).max(1);
    let mut rows = Vec::with_capacity(at_once * n_columns);
    let chunks =
        block.axis_chunks_iter(Axis(0), at_once).zip(out.axis_chunks_iter_mut(Axis(0), at_once));
    for (start, (part, values)) in (block.row_range().start..).step_by(at_once).zip(chunks) {
        rows.clear();
        for row in part.rows() {
            // In range: the indices were chosen from as many columns as the block has.
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

/// How the message of a kernel begins that has met a sum which does not fit. The row and the sum
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

/// What a function on slices may return: nothing, if it cannot fail, or a sum that does not fit
/// with its row.
pub(crate) trait Verdict {
    /// The same as a `Result`.
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
