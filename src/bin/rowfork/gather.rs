//! Columns that no stride expresses: workers gather the listed columns of some rows at a time, and
//! hand them to a function that needs rows on end.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix2};
use rowfork::{Block, Element, Error};

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

/// Turns the error of a call that [`gathered`] rows into the error that the same call without
/// gathering would return.
pub(crate) fn in_words<T: Element>(error: Error) -> Error {
    let found = match &error {
        Error::KernelFailed { message, .. } => {
            message.strip_prefix(OVERFLOW).and_then(|rest| rest.split_once(' '))
        }
        _ => None,
    };
    let Some((Ok(row), Ok(sum))) = found.map(|(row, sum)| (row.parse(), sum.parse())) else {
        return error;
    };
    if T::DESCR == i64::DESCR {
        Error::SumOverflow { row, sum, dtype: "int64", min: i64::MIN.into(), max: i64::MAX.into() }
    } else {
        Error::SumOverflow { row, sum, dtype: "uint64", min: 0, max: u64::MAX.into() }
    }
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
