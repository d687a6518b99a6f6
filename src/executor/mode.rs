//! [`Mode`]: what an operation asks of the workers, wherever they come from, and how a kernel reaches them.
//!
//! The operations end in `sealed::Run::run`. The modes stand beside: `fork/` and `pool/`.

use crate::engine::args::{ArgReader, PackedArgs, from_word, to_word};
use crate::engine::call::Call;
use crate::engine::options::Options;
use crate::engine::report::Report;
use crate::engine::worker::BlockFn;
use crate::error::Result;

/// Where workers come from: [`PerCall`](crate::PerCall) or [`Persistent`](crate::Persistent).
///
/// Sealed.
#[allow(private_bounds, reason = "nobody outside is to implement it")]
pub trait Mode: sealed::Run {
    /// Whether its workers are copies of the caller, which need nothing marshalled.
    #[doc(hidden)]
    const COPIES_THE_CALLER: bool;
}

/// A kernel that workers of this kind can run: any for those that are forked for the call; for
/// those that are there before it one that captures nothing, or a function pointer. (Hence what the
/// compiler says of others: that a closure is not `Copy`, or borrows what does not live for ever.
/// Hand over with the input what it captures: [`param`](crate::param),
/// [`broadcast`](crate::broadcast).)
///
/// Sealed.
pub trait KernelFor<M>: Sized {
    /// How it reaches a worker that has no copy of it.
    #[doc(hidden)]
    const CODEC: Option<KernelCodec<Self>>;
}

/// How a kernel reaches a worker: as a word.
#[doc(hidden)]
#[derive(Debug)]
pub struct KernelCodec<K> {
    pub(crate) pack: fn(&K) -> u64,
    pub(crate) unpack: unsafe fn(u64) -> K,
}

impl<K: Copy> KernelCodec<K> {
    /// Of a kernel that is nothing, or a function pointer.
    pub(crate) const AS_WORD: Self = Self { pack: to_word, unpack: from_word };
}

/// The kernel of a call, and how it travels.
pub(crate) struct KernelArg<'k, K> {
    pub(crate) kernel: &'k K,
    pub(crate) codec: Option<KernelCodec<K>>,
}

impl KernelArg<'static, ()> {
    /// The operation is all that is run.
    pub(crate) const NONE: Self = Self { kernel: &(), codec: Some(KernelCodec::AS_WORD) };
}

impl<'k, K> KernelArg<'k, K> {
    /// The user's, for workers of this kind.
    pub(crate) fn to<M>(_: &M, kernel: &'k K) -> Self
    where
        K: KernelFor<M>,
    {
        Self { kernel, codec: K::CODEC }
    }
}

/// What a worker that has no copy of the caller is to run: makes of the packed words what is run on
/// blocks, and has it run.
///
/// # Safety
/// The words are those that were packed with this function, and what the unpacker was given stays
/// as long as it runs.
pub(crate) type EntryPoint = unsafe fn(&mut ArgReader<'_>, RunBlocks<'_>) -> Result<()>;

/// A worker's place in a call: given what is run on a block, it works until nothing is left.
pub(crate) type RunBlocks<'w> = &'w mut dyn FnMut(&BlockFn<'_>);

pub(crate) mod sealed {
    use super::{BlockFn, Call, EntryPoint, Options, PackedArgs, Report, Result};

    /// What an operation asks of the workers. Object-safe, so that a call is compiled once for all
    /// operations and kernels.
    pub(crate) trait Run {
        /// Threads of the process that its workers are copies of.
        fn caller_threads(&self) -> usize;

        /// At most so many workers at a time, for so many blocks.
        fn workers_for(&self, options: &Options<'_>, n_blocks: usize) -> usize;

        /// Whether a call of a kernel of ours that reads and writes so many bytes, which nobody
        /// else can take away, is better done by the caller.
        fn runs_inline(&self, _bytes: u64) -> bool {
            false
        }

        /// Such a call was made.
        fn count_inline(&self) {}

        /// Whether calls are so short that every system call counts.
        fn skips_length_checks(&self) -> bool {
            false
        }

        /// Refuses calls that cannot be made.
        fn check(&self) -> Result<()> {
            Ok(())
        }

        /// Runs a call, from the first worker to the last. What is run on a block comes from
        /// `block_fn` for workers that are copies of the caller; for others `marshal` writes down
        /// what they make it of.
        fn run<'s>(
            &self,
            options: &Options<'_>,
            call: &Call<'_>,
            block_fn: &mut dyn FnMut() -> Result<Box<BlockFn<'s>>>,
            marshal: &mut dyn FnMut(&mut PackedArgs<'s>) -> EntryPoint,
        ) -> Result<Report>;
    }
}
