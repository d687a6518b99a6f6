//! [`Mode`]: what an operation asks of the workers, wherever they come from, and how a kernel
//! reaches them.
//!
//! `rows/run.rs` calls `sealed::Run::run`, in which every operation ends. `fork/` and `pool/`
//! implement it. This file uses neither.

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
    /// Whether its workers are copies of the caller, for which nothing has to be marshalled.
    #[doc(hidden)]
    const COPIES_THE_CALLER: bool;
}

/// A kernel that workers of this kind can run. In fork mode: any closure or function. On a pool: a
/// closure that captures nothing, a function, or a function pointer. The compiler rejects most
/// others with "not `Copy`" or "borrowed value does not live long enough". A closure that captures
/// `Copy` values by `move` is refused when it is called, with
/// [`KernelCaptures`](crate::Error::KernelCaptures). Pass what the closure captures with the input
/// instead, by [`param`](crate::param) or [`broadcast`](crate::broadcast).
///
/// Sealed.
pub trait KernelFor<M>: Sized {
    /// How the kernel reaches a worker that has no copy of it. `None` where every worker has one.
    #[doc(hidden)]
    const CODEC: Option<KernelCodec<Self>>;
}

/// How a kernel becomes a word in the caller, and a kernel again in a worker.
#[doc(hidden)]
#[derive(Debug)]
pub struct KernelCodec<K> {
    pub(crate) pack: fn(&K) -> u64,
    /// Sound on a word that `pack` of the same codec has made, in a process with the same code at
    /// the same addresses.
    pub(crate) unpack: unsafe fn(u64) -> K,
}

impl<K: Copy> KernelCodec<K> {
    /// The codec of a kernel of no bytes, or of a function pointer.
    pub(crate) const AS_WORD: Self = Self { pack: to_word, unpack: from_word };
}

/// The kernel of a call, and how it reaches the workers.
pub(crate) struct KernelArg<'k, K> {
    pub(crate) kernel: &'k K,
    pub(crate) codec: Option<KernelCodec<K>>,
}

impl KernelArg<'static, ()> {
    /// No kernel: the operation itself is all that is run.
    pub(crate) const NONE: Self = Self { kernel: &(), codec: Some(KernelCodec::AS_WORD) };
}

impl<'k, K> KernelArg<'k, K> {
    /// The user's kernel, for workers of this mode.
    pub(crate) fn to<M>(_: &M, kernel: &'k K) -> Self
    where
        K: KernelFor<M>,
    {
        Self { kernel, codec: K::CODEC }
    }
}

/// The function that a worker runs for a call if it is no copy of the caller. It unpacks the
/// arguments, makes the function of a block from them, and passes that to [`RunBlocks`].
///
/// # Safety
/// The words are those that were packed for this very function, and the words and segments that the
/// [`ArgReader`] was given stay as long as it runs.
pub(crate) type EntryPoint = unsafe fn(&mut ArgReader<'_>, RunBlocks<'_>) -> Result<()>;

/// What an entry point calls with the function of a block: claims blocks and runs it on them until
/// nothing is left.
pub(crate) type RunBlocks<'w> = &'w mut dyn FnMut(&BlockFn<'_>);

pub(crate) mod sealed {
    use super::{BlockFn, Call, EntryPoint, Options, PackedArgs, Report, Result};

    /// What an operation asks of the workers. Object-safe, so that a call is compiled once for all
    /// operations and kernels.
    pub(crate) trait Run {
        /// How many threads the process had that its workers are copies of, when it was forked.
        fn caller_threads(&self) -> usize;

        /// How many workers a call of this many blocks has at most at a time.
        fn workers_for(&self, options: &Options<'_>, n_blocks: usize) -> usize;

        /// Whether the caller had better do a call of a built-in kernel itself, which reads and
        /// writes this many bytes in memory that no other process can take away.
        fn runs_inline(&self, _bytes: u64) -> bool {
            false
        }

        /// Counts such a call.
        fn count_inline(&self) {}

        /// Whether calls are so short that looks at the lengths of private segments would cost too
        /// much: each is a system call.
        fn skips_length_checks(&self) -> bool {
            false
        }

        /// Refuses calls that cannot be made, before the output is.
        fn check(&self) -> Result<()> {
            Ok(())
        }

        /// Runs a call, from the first worker to the last. Workers that are copies of the caller
        /// get the function of a block from `block_fn`. For others `marshal` packs what that
        /// function is made of, and returns the entry point that makes it.
        fn run<'s>(
            &self,
            options: &Options<'_>,
            call: &Call<'_>,
            block_fn: &mut dyn FnMut() -> Result<Box<BlockFn<'s>>>,
            marshal: &mut dyn FnMut(&mut PackedArgs<'s>) -> EntryPoint,
        ) -> Result<Report>;
    }
}
