//! One call of an operation: the checks, the plan, the run by the workers of the executor, the fill
//! of missing rows, and the report.
//!
//! The call itself is not generic over the operation, its kernel, the inputs or the executor, so it
//! is compiled once, in this crate, and not again at every call of a user. What depends on types is
//! behind [`TypedCall`], which `operation.rs` implements.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use ndarray::Dimension;

use super::input::sealed::{InputFacts, RowCheck};
use super::input::warn_of_name;
use super::output::{CallOutput, Share};
use crate::array::{Element, SharedArray};
use crate::engine::args::PackedArgs;
use crate::engine::blocks::{Cut, RowBlocks};
use crate::engine::call::Call;
use crate::engine::control::{BlockContext, Slot};
use crate::engine::decide::Division;
use crate::engine::options::Options;
use crate::engine::policy::Policy;
use crate::engine::report::{Output, Report};
use crate::engine::worker::BlockFn;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::mode::sealed::Run;
use crate::executor::mode::{EntryPoint, Mode};
use crate::kernel::Kernels;

/// How rows are cut into blocks, which part of the output belongs to a block, and whether the
/// kernel is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Every row has a part of the output, and may take any time.
    Rows,
    /// Every row has a part of the output, and the kernel gets whole blocks.
    Blocks,
    /// Every row has a part of the output, and the kernel is rowfork's own.
    BuiltIn,
    /// The output's rows are changed where they are.
    InPlace,
    /// Every group of a fold has a part of the output.
    Groups,
    /// All rows together have the whole output. It is the last step of a larger operation, which
    /// began then.
    Whole(Instant),
}

impl Plan {
    /// How the `len` elements of an output are shared out among rows or blocks.
    fn share(self, n_rows: usize, len: usize) -> Share {
        match self {
            Self::Rows | Self::Blocks | Self::BuiltIn | Self::InPlace => {
                Share::PerRow(len / n_rows.max(1))
            }
            Self::Groups => Share::PerBlock(len / RowBlocks::fold_groups(n_rows).len().max(1)),
            Self::Whole(_) => Share::PerBlock(len),
        }
    }

    fn cut(self, n_rows: usize, input_row_bytes: usize, output_row_bytes: usize) -> Cut {
        match self {
            Self::Rows | Self::InPlace => Cut::Balanced { output_row_bytes },
            Self::Blocks | Self::BuiltIn => Cut::MemoryBound { input_row_bytes, output_row_bytes },
            Self::Groups => Cut::Fixed(RowBlocks::fold_groups(n_rows)),
            Self::Whole(_) => Cut::Fixed(RowBlocks::with_block_rows(n_rows, n_rows)),
        }
    }

    fn division(self) -> Division {
        match self {
            Self::Rows | Self::InPlace => Division::AtTheRow,
            Self::Blocks | Self::BuiltIn => Division::InHalves,
            Self::Groups | Self::Whole(_) => Division::Never,
        }
    }
}

/// The part of a call that depends on the types of its inputs, its kernel and its output.
pub(super) trait TypedCall {
    /// The function that is run on a won block, for workers that are copies of the caller. Its
    /// memory is allocated here, before the fork, since such workers allocate nothing.
    fn block_fn<'s>(&'s self, output: &CallOutput<'s>) -> Result<Box<BlockFn<'s>>>;

    /// Packs what other workers make the same function of, and returns the entry point that does
    /// so.
    fn marshal<'s>(&'s self, output: &'s CallOutput<'_>, args: &mut PackedArgs<'s>) -> EntryPoint;

    /// Works on all rows in the calling thread. `None` if it cannot, or may not, because the kernel
    /// is the user's.
    fn run_here(
        &self,
        _output: &mut CallOutput<'_>,
        _context: &BlockContext<'_>,
    ) -> Option<ControlFlow<()>> {
        None
    }
}

/// One call: checks that the inputs fit each other, runs `typed` on the rows of every block and the
/// elements of the output that belong to it, fills the rows that are missing, and reports.
///
/// A segment that somebody else has truncated is reported as that, not as the memory fault that it
/// causes.
pub(super) fn run_call(
    mode: &dyn Run,
    options: &Options<'_>,
    inputs: &dyn InputFacts,
    mut output: CallOutput<'_>,
    plan: Plan,
    typed: &dyn TypedCall,
) -> Result<Report> {
    check_call(mode, options, inputs)?;
    // The instructions are chosen before the fork, since the choice reads the environment under a
    // lock. A user's kernel may sum, too.
    Kernels::get();
    let fill = match (options.policy, plan) {
        // A fold leaves missing rows out.
        (Policy::Fail, _) | (_, Plan::Groups | Plan::Whole(_)) => None,
        (Policy::Fill(value), _) => Some(output.fill(value)?),
    };
    let n_rows = inputs.n_rows();
    let (input_row_bytes, output_bytes) = (inputs.row_bytes(), output.bytes());
    output.set_share(plan.share(n_rows, output.len()));
    if plan == Plan::BuiltIn
        && mode.runs_inline((n_rows * input_row_bytes + output_bytes) as u64)
        && inputs.is_private()
        && let Some(report) = run_here(options, inputs, &mut output, typed)
    {
        mode.count_inline();
        return Ok(report);
    }
    let in_place = plan == Plan::InPlace;
    let guarded = options.guard && plan != Plan::BuiltIn;
    let cut = plan.cut(n_rows, input_row_bytes, output_bytes / n_rows.max(1));
    let blocks =
        if guarded { Cut::guarded_blocks } else { Cut::blocks }(&cut, n_rows, options.block_rows);
    let workers = mode.workers_for(options, blocks.len());
    if in_place {
        output.save_rows(workers, &blocks, guarded)?;
    }
    if guarded {
        output.hide(&blocks)?;
    }
    let output = output; // no more changes: workers get copies of it
    let is_private =
        mode.skips_length_checks() && inputs.is_private() && output.segment().is_private();
    let check_lengths = || {
        if is_private {
            return Ok(()); // there is nobody who could have done anything to them
        }
        inputs.check_lengths()?;
        output.segment().check_length()
    };
    check_lengths()?;
    let restore = |rows: Range<usize>, slot: u16| output.restore(&rows, slot);
    let output_pages = output.segment().pages();
    let call = Call {
        bytes_read: n_rows as u64 * input_row_bytes as u64
            + if in_place { output_bytes as u64 } else { 0 },
        bytes_written: output_bytes as u64,
        input_pages: if in_place { output_pages } else { inputs.pages() },
        output_pages,
        writable: output.writable(),
        foreign: plan != Plan::BuiltIn,
        division: plan.division(),
        restore: in_place.then_some(&restore),
        check_lengths: &check_lengths,
        last_step_since: if let Plan::Whole(since) = plan { Some(since) } else { None },
        blocks,
        workers,
        caller_threads: mode.caller_threads(),
    };
    let ran = mode.run(options, &call, &mut || typed.block_fn(&output), &mut |args| {
        typed.marshal(&output, args)
    });
    let ran = ran.and_then(|mut report| {
        if let Some(element) = fill {
            output.fill_rows(&rows_to_fill(&report, in_place), element)?;
        }
        inputs.each_segment(&mut |segment| warn_of_name(segment, &mut report.warnings));
        warn_of_name(output.segment(), &mut report.warnings);
        Ok(report)
    });
    if ran.as_ref().is_err_and(is_unkillable) {
        output.segment().abandon();
        return ran;
    }
    match check_lengths() {
        Ok(()) => ran,
        Err(truncated) => {
            let rows_are_there = in_place && output.segment().check_length().is_ok();
            Err(truncated_error(truncated, ran, rows_are_there))
        }
    }
}

/// Does a small call of a built-in kernel here and now, on memory that no other process can take
/// away. `None` if an option asks for more, or if a row fails: then workers do the call.
fn run_here(
    options: &Options<'_>,
    inputs: &dyn InputFacts,
    output: &mut CallOutput<'_>,
    typed: &dyn TypedCall,
) -> Option<Report> {
    if !options.has_no_callbacks() || !output.segment().is_private() {
        return None;
    }
    let began = Instant::now();
    let (slot, n_rows) = (Slot::default(), inputs.n_rows());
    let done = typed.run_here(output, &BlockContext::of_caller(&slot))?;
    // A row that fails is left to workers: the supervisor knows how to report it.
    done.is_continue().then(|| Report {
        inline: true,
        elapsed: began.elapsed(),
        bytes_read: (n_rows * inputs.row_bytes()) as u64,
        bytes_written: output.bytes() as u64,
        input_pages: inputs.pages(),
        output_pages: output.segment().pages(),
        ..Report::of_rows(n_rows)
    })
}

/// Whether a worker of the call may still write to the output.
fn is_unkillable(error: &Error) -> bool {
    match error {
        Error::UpdateInterrupted { cause, .. } => is_unkillable(cause),
        _ => matches!(error, Error::WorkerUnkillable { .. }),
    }
}

/// The rows that a fill value goes to: those that are missing. In place only rows that failed are
/// filled, and rows that were not run stay as they were.
fn rows_to_fill(report: &Report, in_place: bool) -> Vec<Range<usize>> {
    if in_place {
        report.failed_rows.iter().map(|failed| failed.row..failed.row + 1).collect()
    } else {
        report.missing_rows.clone()
    }
}

/// The error of a call after which an array is shorter than before. It takes the place of whatever
/// became of the call. What is known of rows changed in place is kept, while the rows are there.
fn truncated_error(truncated: Error, ran: Result<Report>, rows_are_there: bool) -> Error {
    match ran {
        Err(Error::UpdateInterrupted { updated, torn, .. }) if rows_are_there => {
            Error::UpdateInterrupted { cause: Box::new(truncated), updated, torn }
        }
        Ok(report) if rows_are_there && report.rows > 0 => {
            let (updated, torn) = (std::iter::once(0..report.rows).collect(), Vec::new());
            Error::UpdateInterrupted { cause: Box::new(truncated), updated, torn }
        }
        _ => truncated,
    }
}

/// Checks what can be checked before the output of an operation is made.
pub(super) fn check<M: Mode>(executor: &Executor<'_, M>, inputs: &dyn InputFacts) -> Result<()> {
    check_call(executor.mode(), executor.options(), inputs)
}

fn check_call(mode: &dyn Run, options: &Options<'_>, inputs: &dyn InputFacts) -> Result<()> {
    options.check()?;
    mode.check()?;
    let mut check = RowCheck::default();
    inputs.check_rows(&mut check)?;
    check.rows_found()
}

/// Refuses an output of another shape.
pub(super) fn check_shape<T: Element, D: Dimension>(
    dim: &D,
    output: &SharedArray<T, D>,
) -> Result<()> {
    check_same_shape(dim.slice(), output.shape())
}

fn check_same_shape(expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::WrongShape { what: "output", expected: expected.to_vec(), found: found.to_vec() })
}

/// The form of an operation that makes its own output.
pub(super) fn with_new_output<T: Element, D: Dimension>(
    dim: D,
    fill: impl FnOnce(&mut SharedArray<T, D>) -> Result<Report>,
) -> Result<Output<SharedArray<T, D>>> {
    let mut output = new_output(dim)?;
    let report = fill(&mut output)?;
    Ok(Output::new(output, report))
}

/// Compiled once for each type of outputs, not for each kernel.
#[inline(never)]
pub(super) fn new_output<T: Element, D: Dimension>(dim: D) -> Result<SharedArray<T, D>> {
    SharedArray::output(dim)
}

/// `n` of what has the shape `part`.
pub(super) fn stacked<D: Dimension>(n: usize, part: &D) -> D::Larger {
    let mut dim = D::Larger::zeros(part.ndim() + 1);
    dim[0] = n;
    dim.slice_mut()[1..].copy_from_slice(part.slice());
    dim
}
