//! An operation with its types: a function of the rows of a won block, made of the inputs, the
//! user's kernel and what else it needs; and the way in which it reaches workers that are no copies
//! of the caller.
//!
//! Every operation calls [`run`] with a function from a [`Task`] to the function of a block. What is
//! compiled for every kernel is in this file and in the operation's own; the rest of a call is in
//! `run.rs`, and is compiled once.
//!
//! # Safety
//! [`entry`] unpacks in a worker what [`TypedCall::marshal`] has packed, with the same types:
//! `marshal` names the `entry` of its own types, and no other function packs for it.
#![allow(unsafe_code, reason = "unpacks a call in workers that are no copies of the caller")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{ControlFlow, Range};

use ndarray::Dimension;

use super::Rows;
use super::input::sealed::RowAccess;
use super::output::{BlockOutput, CallOutput, FillRows};
use super::release_pages::FileRows;
use super::run::{Plan, TypedCall, run_call};
use crate::array::{Element, SharedArray};
use crate::engine::args::{ArgReader, Marshal, PackedArgs, from_word};
use crate::engine::control::{BlockContext, Claim, MessageKind};
use crate::engine::report::Report;
use crate::engine::worker::BlockFn;
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{EntryPoint, KernelArg, Mode, RunBlocks};

/// What an operation works with in a worker: the rows, the user's kernel, and what else it needs.
///
/// An operation is a function from this to a function of a block. It captures nothing, so that a
/// worker which is no copy of the caller has it, too.
pub(super) struct Task<'t, V, K, X> {
    pub(super) input: V,
    pub(super) kernel: &'t K,
    pub(super) extra: X,
}

/// One call of an operation: see [`run_call`]. `operation` makes the function of a block from the
/// task.
pub(super) fn run<'t, M, I, T, D, K, X, O, B>(
    executor: &Executor<'_, M>,
    inputs: &'t I,
    output: &mut SharedArray<T, D>,
    plan: Plan,
    kernel: KernelArg<'t, K>,
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
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()> + 't,
{
    let of_types = PhantomData;
    let call = Operation::<M, I, T, K, X, O> { inputs, kernel, extra, body: operation, of_types };
    run_call(executor.mode(), executor.options(), inputs, CallOutput::new(output), plan, &call)
}

/// The same for a kernel of ours, which the caller may run itself.
pub(super) fn run_built_in<'t, M, I, T, D, X, O, B>(
    executor: &Executor<'_, M>,
    inputs: &'t I,
    output: &mut SharedArray<T, D>,
    extra: X,
    operation: O,
) -> Result<Report>
where
    M: Mode,
    I: Rows,
    T: Element,
    D: Dimension,
    X: Marshal,
    O: Fn(Task<'t, I::View, (), X>) -> Result<B> + Copy,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()> + 't,
{
    let (kernel, of_types) = (KernelArg::NONE, PhantomData);
    let call = Operation::<M, I, T, (), X, O> { inputs, kernel, extra, body: operation, of_types };
    let (mode, options, output) = (executor.mode(), executor.options(), CallOutput::new(output));
    run_call(mode, options, inputs, output, Plan::BuiltIn, &BuiltIn(call))
}

/// An operation, and what it is called with. `M` is the kind of workers, `T` the output's elements.
struct Operation<'t, M, I, T, K, X, O> {
    inputs: &'t I,
    kernel: KernelArg<'t, K>,
    extra: X,
    body: O,
    of_types: PhantomData<fn(&M, &T)>,
}

impl<'t, M, I, T, K, X, O, B> Operation<'t, M, I, T, K, X, O>
where
    I: Rows,
    X: Marshal,
    O: Fn(Task<'t, I::View, K, X>) -> Result<B>,
{
    /// The function that is run on blocks, and where the rows lie in files.
    fn block(&self) -> Result<(B, FileRows)> {
        let (input, file_rows) = view_of(self.inputs);
        let (kernel, extra) = (self.kernel.kernel, self.extra.clone());
        Ok(((self.body)(Task { input, kernel, extra })?, file_rows))
    }
}

impl<'t, M, I, T, K, X, O, B> TypedCall for Operation<'t, M, I, T, K, X, O>
where
    M: Mode,
    I: Rows,
    T: Element,
    X: Marshal,
    O: Fn(Task<'t, I::View, K, X>) -> Result<B> + Copy,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()> + 't,
{
    fn block_fn<'s>(&'s self, output: &CallOutput<'s>) -> Result<Box<BlockFn<'s>>> {
        // Decided by a constant, so that only one way into a worker is compiled for a kernel: here,
        // or by `entry`.
        if M::COPIES_THE_CALLER {
            let (block, file_rows) = self.block()?;
            on_blocks::<T>(Box::new(block), output, file_rows)
        } else {
            unreachable!("workers that are no copies of the caller have an entry point");
        }
    }

    fn marshal<'s>(&'s self, output: &'s CallOutput<'_>, args: &mut PackedArgs<'s>) -> EntryPoint {
        if M::COPIES_THE_CALLER {
            unreachable!("nothing is marshalled for copies of the caller");
        } else {
            let codec = self.kernel.codec.as_ref().expect("a kernel that can be marshalled");
            args.kernel::<K>((codec.pack)(self.kernel.kernel));
            args.size(codec.unpack as usize);
            self.inputs.pack(args);
            self.extra.pack(args);
            output.pack(args);
            entry::<I, T, K, X, O, B>
        }
    }
}

/// An operation whose kernel is ours, which the caller may run itself.
struct BuiltIn<O>(O);

impl<'t, M, I, T, X, O, B> TypedCall for BuiltIn<Operation<'t, M, I, T, (), X, O>>
where
    M: Mode,
    I: Rows,
    T: Element,
    X: Marshal,
    O: Fn(Task<'t, I::View, (), X>) -> Result<B> + Copy,
    B: Fn(Range<usize>, &mut [T], &BlockContext<'_>) -> ControlFlow<()> + 't,
{
    fn block_fn<'s>(&'s self, output: &CallOutput<'s>) -> Result<Box<BlockFn<'s>>> {
        self.0.block_fn(output)
    }

    fn marshal<'s>(&'s self, output: &'s CallOutput<'_>, args: &mut PackedArgs<'s>) -> EntryPoint {
        self.0.marshal(output, args)
    }

    fn run_here(
        &self,
        output: &mut CallOutput<'_>,
        context: &BlockContext<'_>,
    ) -> Option<ControlFlow<()>> {
        // Not by `block`: nothing is released of files here, and a small call is short.
        let Operation { inputs, kernel, extra, body, .. } = &self.0;
        let task = Task { input: inputs.view(), kernel: kernel.kernel, extra: extra.clone() };
        let block = body(task).ok()?;
        Some(block(0..inputs.n_rows(), output.as_mut_slice(), context))
    }
}

/// The function that a worker runs on a won block, in a worker that is a copy of the caller.
/// Compiled once for each type of outputs, not for each kernel.
#[inline(never)]
fn on_blocks<'s, T: Element>(
    block: Box<dyn FillRows<T> + 's>,
    output: &CallOutput<'s>,
    file_rows: FileRows,
) -> Result<Box<BlockFn<'s>>> {
    let output = output.for_workers()?;
    Ok(Box::new(move |claim, context| on_block(&*block, &output, &file_rows, claim, context)))
}

/// The same in a worker that is no copy of the caller: runs on all blocks that the worker wins.
///
/// # Safety
/// As for [`BlockOutput::unpack`].
#[inline(never)]
unsafe fn run_on_blocks<T: Element>(
    block: &dyn FillRows<T>,
    words: &mut ArgReader<'_>,
    file_rows: &FileRows,
    run_blocks: RunBlocks<'_>,
) -> Result<()> {
    // SAFETY: as the caller promises.
    let output = unsafe { BlockOutput::unpack(words) }?;
    run_blocks(&|claim: &mut Claim<'_>, context: &BlockContext<'_>| {
        on_block(block, &output, file_rows, claim, context)
    });
    Ok(())
}

/// Fills the part of the output that belongs to a won block.
fn on_block<T: Element>(
    block: &dyn FillRows<T>,
    output: &BlockOutput<'_, T>,
    file_rows: &FileRows,
    claim: &mut Claim<'_>,
    context: &BlockContext<'_>,
) -> ControlFlow<()> {
    let done = output.fill(claim, context, block);
    file_rows.release(&claim.block().rows());
    done
}

/// An input as a worker has it that is a copy of the caller, and where its rows lie in files.
/// Compiled once for each type of inputs, not for each kernel.
#[inline(never)]
fn view_of<I: Rows>(inputs: &I) -> (I::View, FileRows) {
    let view = inputs.view();
    let file_rows = file_rows_of(&view);
    (view, file_rows)
}

/// The same in a worker that is no copy of the caller.
///
/// # Safety
/// As for `Input::unpack`.
#[inline(never)]
unsafe fn unpacked<I: Rows>(words: &mut ArgReader<'_>) -> (I::View, FileRows) {
    // SAFETY: as the caller promises.
    let view = unsafe { I::unpack(words) };
    let file_rows = file_rows_of(&view);
    (view, file_rows)
}

fn file_rows_of(input: &impl RowAccess) -> FileRows {
    let mut file_rows = FileRows::default();
    input.note_file_rows(&mut file_rows);
    file_rows
}

/// In a worker that is no copy of the caller: unpacks what [`TypedCall::marshal`] has packed, and
/// works.
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
    // `TypedCall::marshal` has packed, in this order and of these types: the kernel and the function
    // that unpacks it, the inputs, the extra argument, the output. The caller of an entry point
    // promises that `words` are what was packed, and that the segments they lead to stay mapped until
    // it returns. Both are what each `unpack` below asks for.
    let kernel = words.word();
    // SAFETY: the word is a function of this type.
    let unpack: unsafe fn(u64) -> K = unsafe { from_word(words.word()) };
    // SAFETY: `unpack` is the counterpart of what has made the word.
    let kernel = ManuallyDrop::new(unsafe { unpack(kernel) });
    let kernel: *const K = &raw const *kernel;
    // SAFETY: `kernel` is a local that is never moved again and never dropped. All that borrows it,
    // the task and the block function made of it, is a later local, so it is dropped earlier.
    let kernel: &'t K = unsafe { &*kernel };
    // SAFETY: the words of the inputs come next, and their segments outlive `input`, a local.
    let (input, file_rows) = unsafe { unpacked::<I>(words) };
    // SAFETY: the words of the extra argument come next, and what they lead to outlives `extra`.
    let extra = unsafe { X::unpack(words) };
    // SAFETY: a value of a type of no bytes, which the caller has, and which may be copied.
    let operation: O = unsafe { from_word(0) };
    let block = operation(Task { input, kernel, extra })?;
    // SAFETY: the words of the output come last, and its segment outlives the run.
    unsafe { run_on_blocks(&block, words, &file_rows, run_blocks) }
}

/// Calls `kernel` for some rows of `inputs`, in order, each with its place among them. A failure
/// ends this, and its message goes into the slot.
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

/// Leaves a kernel's failure in the slot, as a failure of the row that the slot is at.
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
