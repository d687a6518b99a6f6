//! The public operations over the rows of a shared array. Each turns its kernel into a function of a won block and hands
//! it to an executor; no process is known here.

mod map;
mod row;
mod sums;
mod target;

pub use map::KernelReturn;
pub use row::Row;
pub use sums::exact_row_sums;

use std::ops::{ControlFlow, Range};

use ndarray::{Dimension, Ix1};

use self::target::BlockTarget;
use crate::array::{Element, SharedArray};
use crate::control::{Claim, Slot};
use crate::error::{Error, Result};
use crate::fork::{Call, Fork, RowCost};
use crate::report::{Output, Report};

/// One value per row: checks the output, runs `kernel` on the rows of every block and the values to fill, and reports.
///
/// A segment that somebody else has truncated is reported as that, not as the memory fault that it causes.
fn one_value_per_row<A: Element, D: Dimension, T: Element>(
    fork: &Fork<'_>,
    input: &SharedArray<A, D>,
    output: &mut SharedArray<T, Ix1>,
    cost: RowCost,
    kernel: impl Fn(Range<usize>, &mut [T], &Slot) -> ControlFlow<()>,
) -> Result<Report> {
    let n_rows = input.n_rows();
    if output.shape() != [n_rows] {
        return Err(Error::WrongShape { what: "output", expected: vec![n_rows], found: output.shape().to_vec() });
    }
    let check_lengths = |output: &SharedArray<T, Ix1>| {
        input.segment().check_length()?;
        output.segment().check_length()
    };
    check_lengths(output)?;
    let (output_pages, output_mapping) = (output.pages(), output.segment().address());
    let target = BlockTarget::new(output);
    let call = Call {
        n_rows,
        input_row_bytes: input.len() / n_rows.max(1) * size_of::<A>(),
        output_row_bytes: size_of::<T>(),
        input_pages: input.pages(),
        output_pages,
        output_mapping,
        cost,
        run: &|claim: &mut Claim<'_>, slot: &Slot| kernel(claim.block().rows(), target.rows_mut(claim), slot),
    };
    let ran = fork.run(&call);
    // Whatever became of the call: an array that is shorter now is the news.
    check_lengths(output)?;
    ran
}

/// The form of an operation that makes its own output.
fn with_new_output<T: Element>(
    fork: &Fork<'_>,
    n_rows: usize,
    fill: impl FnOnce(&mut SharedArray<T, Ix1>) -> Result<Report>,
) -> Result<Output<SharedArray<T, Ix1>>> {
    fork.check()?;
    let mut output = SharedArray::output(Ix1(n_rows))?;
    let report = fill(&mut output)?;
    Ok(Output::new(output, report))
}
