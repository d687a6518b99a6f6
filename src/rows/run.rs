//! One call of an operation: checks, the plan, the run by whatever workers the executor has, the
//! fill of missing rows, the report.
//!
//! # Safety
//! [`entry`] unpacks in a worker what [`run`] has packed, with the same types: each is the only one
//! of its kind.
#![allow(unsafe_code, reason = "unpacks a call in workers that are no copies of the caller")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use ndarray::Dimension;

use super::Rows;
use super::input::sealed::{RowAccess, RowCheck};
use super::input::warn_of_name;
use super::output::{BlockOutput, CallOutput, Share};
use super::release_pages::FileRows;
use crate::array::{Element, SharedArray};
use crate::engine::args::{ArgReader, Marshal, from_word};
use crate::engine::blocks::{Cut, RowBlocks};
use crate::engine::call::Call;
use crate::engine::control::{BlockContext, Claim, MessageKind, Slot};
use crate::engine::decide::Division;
use crate::engine::options::Options;
use crate::engine::policy::Policy;
use crate::engine::report::{Output, Report};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::executor::mode::{EntryPoint, KernelArg, Mode, RunBlocks};
use crate::kernel::Kernels;

/// How rows are cut into blocks, what of the output belongs to a block, and who wrote the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// A part of the output for every row; rows that may take any time.
    Rows,
    /// The same, by a kernel that gets whole blocks.
    Blocks,
    /// The same, by a kernel of ours.
    BuiltIn,
    /// The output's rows are changed where they are.
    InPlace,
    /// A part of the output for every fold group.
    Groups,
    /// The whole output for all rows together: the last step of a larger operation, which began
    /// then.
    Whole(Instant),
}

impl Plan {
    /// What of an output of `len` elements belongs to whom.
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

/// What an operation works with in a worker: the rows, the user's kernel, and what else it needs.
///
/// An operation is a function from this to a function of a block. It captures nothing, so that a
/// worker which is no copy of the caller has it, too.
pub(super) struct Task<'t, V, K, X> {
    pub(super) input: V,
    pub(super) kernel: &'t K,
    pub(super) extra: X,
}

/// One call: checks that the inputs fit each other, runs on the rows of every block and the
/// elements of the output that belong to it what `operation` makes of the task, fills the rows that
/// are missing, and reports.
///
/// A segment that somebody else has truncated is reported as that, not as the memory fault that it
/// causes.
pub(super) fn run<'t, M, I, T, D, K, X, O, B>(
    executor: &Executor<'_, M>,
    inputs: &'t I,
    output: &mut SharedArray<T, D>,
    plan: Plan,
    given: KernelArg<'t, K>,
    extra: X,
    operation: O,
) -> Result<Report>
where
    M: Mode,
    I: Rows,
    T: Element,
    D: Dimension,
    X: Marshal,
    O: Fn(Task<'t, I::View, K, X>) -> Result<B> + Copy,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()>,
{
    let (options, mode) = (executor.options(), executor.mode());
    check(executor, inputs)?;
    // Chosen before the fork, since the choice reads the environment under a lock, and a user's
    // kernel may sum, too.
    Kernels::get();
    let fill = fill_value::<T>(options, plan)?;
    let n_rows = inputs.n_rows();

    let (input_row_bytes, output_bytes) = (inputs.row_bytes(), output.len() * size_of::<T>());
    let share = plan.share(n_rows, output.len());
    if plan == Plan::BuiltIn
        && mode.runs_inline((n_rows * input_row_bytes + output_bytes) as u64)
        && inputs.is_private()
        && let Some(report) =
            in_the_caller(options, inputs, output, given.kernel, &extra, operation)
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
    let output_pages = output.pages();
    let mut target = CallOutput::new(output, share);
    if in_place {
        target = target.in_place(workers, &blocks, guarded)?;
    }
    if guarded {
        target = target.guarded(&blocks)?;
    }
    let out_of_reach =
        mode.skips_length_checks() && inputs.is_private() && target.segment().is_private();
    let check_lengths = || {
        if out_of_reach {
            return Ok(()); // there is nobody who could have done anything to them
        }
        inputs.check_lengths()?;
        target.segment().check_length()
    };
    check_lengths()?;
    let restore = |rows: Range<usize>, slot: u16| target.restore(&rows, slot);
    let call = Call {
        bytes_read: n_rows as u64 * input_row_bytes as u64
            + if in_place { output_bytes as u64 } else { 0 },
        bytes_written: output_bytes as u64,
        input_pages: if in_place { output_pages } else { inputs.pages() },
        output_pages,
        writable: target.writable(),
        foreign: plan != Plan::BuiltIn,
        division: plan.division(),
        restore: in_place.then_some(&restore),
        check_lengths: &check_lengths,
        last_step_since: if let Plan::Whole(since) = plan { Some(since) } else { None },
        blocks,
        workers,
        caller_threads: mode.caller_threads(),
    };
    let body = || {
        let task = Task { input: inputs.view(), kernel: given.kernel, extra: extra.clone() };
        let file_rows = file_rows_of(&task.input);
        Ok(on_blocks(operation(task)?, target.for_workers()?, file_rows))
    };
    let ran = mode.run(options, &call, body, |args| {
        let codec = given.codec.as_ref().expect("such workers are given kernels that travel");
        args.kernel::<K>((codec.pack)(given.kernel));
        args.size(codec.unpack as usize);
        inputs.pack(args);
        extra.pack(args);
        target.pack(args);
        entry::<I, T, K, X, O, B> as EntryPoint
    });
    let ran = ran.and_then(|mut report| {
        if let Some(value) = fill {
            target.fill_rows(&rows_to_fill(&report, in_place), value)?;
        }
        inputs.warn(&mut report.warnings);
        warn_of_name(target.segment(), &mut report.warnings);
        Ok(report)
    });
    if ran.as_ref().is_err_and(is_unkillable) {
        target.segment().abandon();
        return ran;
    }
    match check_lengths() {
        Ok(()) => ran,
        Err(truncated) => Err(truncated_error(
            truncated,
            ran,
            in_place && target.segment().check_length().is_ok(),
        )),
    }
}

/// A small call of a kernel of ours, whose memory nobody can take away, done here and now. `None`
/// where something is asked for that takes a whole call: then workers do it.
fn in_the_caller<'t, I, T, D, K, X, O, B>(
    options: &Options<'_>,
    inputs: &I,
    output: &mut SharedArray<T, D>,
    kernel: &'t K,
    extra: &X,
    operation: O,
) -> Option<Report>
where
    I: Rows,
    T: Element,
    D: Dimension,
    X: Marshal,
    O: Fn(Task<'t, I::View, K, X>) -> Result<B>,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()>,
{
    if !options.has_no_callbacks() || !output.segment().is_private() {
        return None;
    }
    let began = Instant::now();
    let block = operation(Task { input: inputs.view(), kernel, extra: extra.clone() }).ok()?;
    let (slot, n_rows) = (Slot::default(), inputs.n_rows());
    let done = block(0..n_rows, output.as_mut_slice(), &BlockContext::of_caller(&slot));
    // Of rows that fail the supervisor knows how to speak.
    done.is_continue().then(|| Report {
        inline: true,
        elapsed: began.elapsed(),
        bytes_read: (n_rows * inputs.row_bytes()) as u64,
        bytes_written: (output.len() * size_of::<T>()) as u64,
        input_pages: inputs.pages(),
        output_pages: output.pages(),
        ..Report::of_rows(n_rows)
    })
}

/// What a worker runs on a won block.
fn on_blocks<T: Element>(
    block: impl Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()>,
    target: BlockOutput<'_, T>,
    file_rows: FileRows,
) -> impl Fn(&mut Claim<'_>, &BlockContext<'_>) -> ControlFlow<()> {
    move |claim, context| {
        let done = target.fill(claim, context, |rows, values| block(rows, values, context));
        file_rows.release(&claim.block().rows());
        done
    }
}

fn file_rows_of(input: &impl RowAccess) -> FileRows {
    let mut file_rows = FileRows::default();
    input.note_file_rows(&mut file_rows);
    file_rows
}

/// In a worker that is no copy of the caller: unpacks what `pack` in [`run`] has packed, and works.
///
/// # Safety
/// As for [`EntryPoint`].
unsafe fn entry<'t, I, T, K, X, O, B>(
    words: &mut ArgReader<'_>,
    run_blocks: RunBlocks<'_>,
) -> Result<()>
where
    I: Rows,
    T: Element,
    X: Marshal,
    O: Fn(Task<'t, I::View, K, X>) -> Result<B> + Copy,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()>,
    K: 't,
{
    const { assert!(size_of::<O>() == 0, "an operation captures nothing") };
    let kernel = words.word();
    // SAFETY: the words are in the order of `pack`, and of its types.
    let unpack: unsafe fn(u64) -> K = unsafe { from_word(words.word()) };
    // SAFETY: the other half of what made the word.
    let kernel = ManuallyDrop::new(unsafe { unpack(kernel) });
    let kernel: *const K = &raw const *kernel;
    // SAFETY: `kernel` lives until the end of this function, and so does the task that borrows it.
    let kernel: &'t K = unsafe { &*kernel };
    // SAFETY: likewise.
    let input = unsafe { I::unpack(words) };
    // SAFETY: likewise.
    let extra = unsafe { X::unpack(words) };
    // SAFETY: likewise.
    let target = unsafe { BlockOutput::unpack(words) }?;
    // SAFETY: a value of a type of no bytes, which the caller has, and which may be copied.
    let operation: O = unsafe { from_word(0) };
    let file_rows = file_rows_of(&input);
    let block = operation(Task { input, kernel, extra })?;
    run_blocks(&on_blocks(block, target, file_rows));
    Ok(())
}

/// Whether a worker of the call may still write to the output.
fn is_unkillable(error: &Error) -> bool {
    match error {
        Error::UpdateInterrupted { source, .. } => is_unkillable(source),
        _ => matches!(error, Error::WorkerUnkillable { .. }),
    }
}

/// The rows that a fill value goes to: what is missing. Rows of an array of the caller's own that
/// were not run are as they were.
fn rows_to_fill(report: &Report, in_place: bool) -> Vec<Range<usize>> {
    if in_place {
        report.failed_rows.iter().map(|failed| failed.row..failed.row + 1).collect()
    } else {
        report.missing_rows.clone()
    }
}

/// What missing rows of this output hold; a fold leaves them out.
fn fill_value<T: Element>(options: &Options<'_>, plan: Plan) -> Result<Option<T>> {
    match (options.policy, plan) {
        (Policy::Fail, _) | (_, Plan::Groups | Plan::Whole(_)) => Ok(None),
        (Policy::Fill(value), _) => match T::of_fill(value) {
            Some(element) => Ok(Some(element)),
            None => Err(Error::UnfitFill { value: value.to_string(), dtype: T::DESCR }),
        },
    }
}

/// Whatever became of the call: an array that is shorter now is the news. What is said of rows
/// changed in place holds while they are there.
fn truncated_error(truncated: Error, ran: Result<Report>, rows_are_there: bool) -> Error {
    match ran {
        Err(Error::UpdateInterrupted { updated, torn, .. }) if rows_are_there => {
            Error::UpdateInterrupted { source: Box::new(truncated), updated, torn }
        }
        Ok(report) if rows_are_there && report.rows > 0 => {
            let (updated, torn) = (std::iter::once(0..report.rows).collect(), Vec::new());
            Error::UpdateInterrupted { source: Box::new(truncated), updated, torn }
        }
        _ => truncated,
    }
}

/// Calls `kernel` for some rows of `inputs`, in order, each with its place among them, and leaves
/// word of the first that fails.
pub(super) fn each_row<V: RowAccess, E: fmt::Display>(
    inputs: &V,
    rows: Range<usize>,
    context: &BlockContext<'_>,
    mut kernel: impl FnMut(usize, V::Row) -> Result<(), E>,
) -> ControlFlow<()> {
    for (place, row) in inputs.iter(rows.clone()).enumerate() {
        let index = rows.start + place;
        context.set_row(index);
        if !context.skips(index) {
            record_failure(kernel(place, row), context)?;
        }
    }
    ControlFlow::Continue(())
}

/// A kernel's failure goes into the slot, as one of the row that the slot is at.
pub(super) fn record_failure<E: fmt::Display>(
    outcome: Result<(), E>,
    context: &BlockContext<'_>,
) -> ControlFlow<()> {
    match outcome {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            context.leave_message(MessageKind::KernelError, error, "");
            ControlFlow::Break(())
        }
    }
}

/// Checks what can be checked before the output of an operation is made.
pub(super) fn check<M: Mode>(executor: &Executor<'_, M>, inputs: &impl Rows) -> Result<()> {
    executor.options().check()?;
    executor.mode().check()?;
    let mut check = RowCheck::default();
    inputs.check_rows(&mut check)?;
    check.rows_found()
}

/// Refuses an output of another shape.
pub(super) fn check_shape<T: Element, D: Dimension>(
    dim: &D,
    output: &SharedArray<T, D>,
) -> Result<()> {
    let (expected, found) = (dim.slice(), output.shape());
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
    let mut output = SharedArray::output(dim)?;
    let report = fill(&mut output)?;
    Ok(Output::new(output, report))
}

/// `n` of what has the shape `part`.
pub(super) fn stacked<D: Dimension>(n: usize, part: &D) -> D::Larger {
    let mut dim = D::Larger::zeros(part.ndim() + 1);
    dim[0] = n;
    dim.slice_mut()[1..].copy_from_slice(part.slice());
    dim
}
