//! The crate's one error type. Every variant is a thing a caller may want to tell apart, and
//! carries the name and the numbers of it; its text ends with the way out where there is one.
//!
//! Most layers above use it; `kernel/`, `engine/blocks.rs` and `engine/control/` do not. It uses
//! one type of a lower layer: `death.rs` translates the exit status of a process, from
//! `sys/process.rs`.

mod death;
mod header;

pub use self::death::{DeathCause, FailedRow};
pub use self::header::HeaderError;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use self::death::ThreadHint;

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by name and number.
///
/// An error's text is complete: the text of what caused it is part of it. So no error has a
/// [`source`](std::error::Error::source), and a chain of sources prints no reason twice; what
/// caused it is in the variant, as `cause`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A segment name that cannot be a file name directly under `/dev/shm`.
    #[error("segment name {name:?} is invalid: {reason}")]
    #[non_exhaustive]
    InvalidName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of that name exists; nothing was overwritten.
    #[error(
        "segment name {name:?} is in use (owner uid {owner_uid}, {}",
        match *.live {
            Some(true) => "a process has it open); choose another name",
            Some(false) => "no rowfork process has it open); choose another name, or remove it first",
            None => "another user's, or may not be opened); choose another name",
        }
    )]
    #[non_exhaustive]
    NameInUse {
        /// The segment name.
        name: String,
        /// Who owns the file.
        owner_uid: u32,
        /// Whether some process holds the segment's lock; `None` for another user's file and one
        /// that may not be opened.
        live: Option<bool>,
    },
    /// No file of that name.
    #[error("no segment named {name:?} in /dev/shm")]
    #[non_exhaustive]
    NameNotFound {
        /// The segment name.
        name: String,
    },
    /// The name leads to something that is not a regular file. Links are never followed.
    #[error("/dev/shm/{name} is a {kind}, not a shared-memory segment")]
    #[non_exhaustive]
    NotRegular {
        /// The segment name.
        name: String,
        /// What it is instead: `directory`, `symbolic link`, ...
        kind: &'static str,
    },
    /// The path leads to something that is not a file with contents.
    #[error("{path} is a {kind}, not a file", path = .path.display())]
    #[non_exhaustive]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead: `directory`, `fifo`, ...
        kind: &'static str,
    },
    /// The segment belongs to another user.
    #[error(
        "segment {name:?} belongs to uid {owner_uid}, not to this process's uid {our_uid}; `read_copy` reads what its \
         mode allows"
    )]
    #[non_exhaustive]
    NotOurs {
        /// The segment name.
        name: String,
        /// Who owns it.
        owner_uid: u32,
        /// Who we are.
        our_uid: u32,
    },
    /// The segment already has a name.
    #[error("the segment is already published as {name:?}; a segment has one name")]
    #[non_exhaustive]
    AlreadyNamed {
        /// The name that it has.
        name: String,
    },
    /// The operation is for a named segment and this one has no name.
    #[error("the segment has no name; publish it first")]
    Nameless,
    /// The segment is in use by a live process, so it is not removed.
    #[error("segment {name:?} is in use by a live process")]
    #[non_exhaustive]
    InUse {
        /// The segment name.
        name: String,
    },
    /// The number of bytes does not fit the address space.
    #[error(
        "an array of shape {shape:?} with {element_bytes}-byte elements exceeds the address space"
    )]
    #[non_exhaustive]
    ShapeOverflow {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Bytes per element.
        element_bytes: usize,
    },
    /// `/dev/shm` has not enough room. Nothing was left behind.
    #[error(
        "/dev/shm is too small: {need} bytes needed, {available} of {total} available; free some, or enlarge it \
         (mount -o remount,size=..., docker run --shm-size=..., Kubernetes: emptyDir with medium Memory)"
    )]
    #[non_exhaustive]
    ShmFull {
        /// Bytes needed.
        need: u64,
        /// Bytes available.
        available: u64,
        /// Bytes in all.
        total: u64,
    },
    /// There is not enough memory, and asking the kernel for it would end in a kill, not in an
    /// error.
    #[error(
        "{need} bytes of memory needed, {available} available within {limit}; free some, or raise the limit \
         (docker run --memory=..., Kubernetes: resources.limits.memory, systemd: MemoryMax=)"
    )]
    #[non_exhaustive]
    MemoryLimit {
        /// Bytes needed.
        need: u64,
        /// Bytes available, as an estimate.
        available: u64,
        /// `the machine's memory`, or the directory of the control group.
        limit: String,
    },
    /// The process may not map so much more.
    #[error(
        "{need} bytes of address space needed, {available} of {limit} available (RLIMIT_AS); raise the limit (ulimit -v), \
         or drop other arrays first"
    )]
    #[non_exhaustive]
    AddressSpaceLimit {
        /// Bytes needed; for a segment of 2 MiB and more 2 MiB above its length.
        need: u64,
        /// Bytes that the limit leaves.
        available: u64,
        /// The soft limit in bytes.
        limit: u64,
    },
    /// The process may not make a file of this size.
    #[error(
        "a file of {need} bytes exceeds this process's file size limit of {limit} bytes (RLIMIT_FSIZE, ulimit -f)"
    )]
    #[non_exhaustive]
    FileSizeLimit {
        /// Bytes needed.
        need: u64,
        /// The soft limit in bytes.
        limit: u64,
    },
    /// The `.npy` header is damaged, foreign, or of a kind that is not supported.
    #[error("{path}: {cause}", path = .path.display())]
    #[non_exhaustive]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: HeaderError,
    },
    /// The elements are of another type.
    #[error("{path}: holds dtype {found:?}, {expected:?} is wanted", path = .path.display())]
    #[non_exhaustive]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The `descr` that is wanted.
        expected: &'static str,
        /// The `descr` found.
        found: String,
    },
    /// The array has another number of dimensions.
    #[error("{path}: has {} dimensions (shape {shape:?}), {expected} wanted", .shape.len(), path = .path.display())]
    #[non_exhaustive]
    WrongDimension {
        /// The file.
        path: PathBuf,
        /// The number wanted.
        expected: usize,
        /// The shape found.
        shape: Vec<usize>,
    },
    /// The file ends before the data that its header promises.
    #[error("{path}: truncated: {expected} bytes promised by the header, {actual} there", path = .path.display())]
    #[non_exhaustive]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that should be there, header included.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// Memory was taken out of a shared array: somebody punched a hole into its file, or cut it and
    /// made it longer again. What is gone reads as zeros.
    #[error(
        "{path}: lost memory: of {expected} bytes {actual} are still there (fallocate -p, or cut and made longer again); \
         the rest reads as zeros: make the array anew",
        path = .path.display()
    )]
    #[non_exhaustive]
    HolesPunched {
        /// The file.
        path: PathBuf,
        /// Bytes that should have memory, header included.
        expected: u64,
        /// Bytes that have it, as far as they are counted: 4,096 or 2 MiB at a time.
        actual: u64,
    },
    /// The disk that a file was to be written to has not enough room. The half-written file was
    /// removed.
    #[error("no room for {path}: {need} bytes needed, {available} available", path = .path.display())]
    #[non_exhaustive]
    DiskFull {
        /// The file that was to be written.
        path: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes available.
        available: u64,
    },
    /// An array passed in has not the shape that the operation needs.
    #[error("the {what} has shape {found:?}, {expected:?} is needed")]
    #[non_exhaustive]
    WrongShape {
        /// Which array.
        what: &'static str,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape given.
        found: Vec<usize>,
    },
    /// A selection reaches beyond an axis.
    #[error("{what} {index} asked for, but there are {len} (the first is 0)")]
    #[non_exhaustive]
    SelectionOutOfRange {
        /// `row`, `column`, `index` (of another axis) or `axis`.
        what: &'static str,
        /// The index asked for; negative ones count from the end.
        index: isize,
        /// How many there are.
        len: usize,
    },
    /// Inputs whose rows are to be taken together have different numbers of them.
    #[error(
        "input {input} has {found} rows, and input 0 has {expected}; inputs that are taken together need as many"
    )]
    #[non_exhaustive]
    UnequalRows {
        /// Which input, counted from 0.
        input: usize,
        /// The rows of input 0.
        expected: usize,
        /// The rows of this one.
        found: usize,
    },
    /// An array without axes has no rows.
    #[error("input {input} has no axes, hence no rows; at least 1 axis is needed")]
    #[non_exhaustive]
    NoRows {
        /// Which input, counted from 0.
        input: usize,
    },
    /// An accumulator that can hold nothing.
    #[error("the accumulator has {found} bytes (shape {shape:?}), at least {needed} are needed")]
    #[non_exhaustive]
    EmptyAccumulator {
        /// Its shape; empty for a plain value.
        shape: Vec<usize>,
        /// Its size in bytes.
        found: usize,
        /// The least possible.
        needed: usize,
    },
    /// The sum of a row of integers does not fit the type of the sums.
    #[error("the sum of row {row} is {sum}, beyond the range of {dtype} ({min} to {max})")]
    #[non_exhaustive]
    SumOverflow {
        /// The row; no lower one overflows.
        row: usize,
        /// The exact sum.
        sum: i128,
        /// The type of the sums, as NumPy calls it.
        dtype: &'static str,
        /// The least that it holds.
        min: i128,
        /// The most that it holds.
        max: i128,
    },
    /// An update in place failed when rows had been changed already: some, or, where an input was
    /// found cut at the end, all.
    #[error(
        "the update failed: {cause}; {}rows {} are updated, {}all others are as they were",
        if matches!(**cause, Error::UnguardedCrash { .. }) { "but for what that may have written, " } else { "" },
        Ranges(updated),
        Torn(torn)
    )]
    #[non_exhaustive]
    UpdateInterrupted {
        /// What ended it.
        cause: Box<Error>,
        /// The rows that are updated, in order.
        updated: Vec<Range<usize>>,
        /// The rows that were being updated: what they hold is unknown.
        torn: Vec<Range<usize>>,
    },
    /// A call with zero workers can never end.
    #[error("workers is 0; at least 1 is needed (leave it out for one per core)")]
    ZeroWorkers,
    /// More workers than a claim word can name.
    #[error("{asked} workers asked for, at most {max} are possible")]
    #[non_exhaustive]
    TooManyWorkers {
        /// The number asked for.
        asked: usize,
        /// The largest possible.
        max: usize,
    },
    /// A block of zero rows can never be finished.
    #[error("block_rows is 0; at least 1 is needed (leave it out for the default)")]
    ZeroBlockRows,
    /// A stall limit of no time: every worker would be killed at once.
    #[error("the stall limit is 0; no row takes less than that (leave it out for none)")]
    ZeroStallLimit,
    /// A call was made from inside a kernel: a worker never forks workers of its own.
    #[error("rowfork was called from inside a kernel; a worker does not fork workers of its own")]
    InsideWorker,
    /// A call on a pool was made by a function that the pool's own call had called, in the same
    /// thread: it would wait for itself.
    #[error(
        "a call on a pool was made within another call on it, in the same thread (in a progress callback, say); it would wait for \
         itself"
    )]
    PoolReentered,
    /// The pool can make no more calls.
    #[error("the pool is broken: {reason}; make another one")]
    #[non_exhaustive]
    PoolBroken {
        /// What has happened to it.
        reason: String,
    },
    /// A kernel of a pool is a closure that captures a value, or a reference to a function. (What
    /// captures a reference, or more than a word, does not compile.)
    #[error(
        "a kernel of a pool is a closure that captures a value (or a reference to a function), of which the workers have no copy: hand \
         it over with the input (rowfork::param, rowfork::broadcast), or use rowfork::fork()"
    )]
    KernelCaptures,
    /// A kernel is not among the code that the pool's workers have.
    #[error(
        "the kernel at address {address:#x} is not among the code that the pool's workers have: the library that it is in was loaded \
         after the pool was made (make the pool later, or another one)"
    )]
    #[non_exhaustive]
    KernelNotInZygote {
        /// Its address.
        address: usize,
    },
    /// A call speaks of more arrays than a worker keeps mapped.
    #[error(
        "a call of {asked} arrays, at most {max} are possible on a pool (output and work space included): lay some of them side by side in one"
    )]
    #[non_exhaustive]
    TooManyArrays {
        /// The number of arrays of the call.
        asked: usize,
        /// The largest possible.
        max: usize,
    },
    /// Not a single worker could be forked.
    #[error("no worker could be forked: {0} (check ulimit -u, pids.max and free memory)")]
    ForkFailed(io::Error),
    /// A worker was forked, but a system call that it needs failed (a seccomp filter, or a limit),
    /// or it hung before it was ready.
    #[error("a worker could not do its work: {message}")]
    #[non_exhaustive]
    WorkerSetup {
        /// What failed, and how.
        message: String,
    },
    /// The kernel panicked. No lower row failed.
    #[error("the kernel panicked on row {row}: {message} ({location})")]
    #[non_exhaustive]
    KernelPanicked {
        /// The row it was called for.
        row: usize,
        /// The panic message, cut at 3 KiB.
        message: String,
        /// `file:line:column`, or `location unknown`.
        location: String,
    },
    /// The kernel returned `Err`. No lower row failed.
    #[error("the kernel failed on row {row}: {message}")]
    #[non_exhaustive]
    KernelFailed {
        /// The row it was called for.
        row: usize,
        /// The error's text, cut at 3 KiB.
        message: String,
    },
    /// Rows that are fatal to every worker that runs them. Under
    /// [`Policy::Fail`](crate::Policy::Fail) the first that is found out; else more than one call
    /// goes on without.
    #[error("{}", Poisoned(.rows))]
    #[non_exhaustive]
    PoisonedRows {
        /// The rows, in order.
        rows: Vec<FailedRow>,
    },
    /// A worker died of something that may have written anywhere before, and the kernel runs
    /// unguarded, so no row can be vouched for.
    #[error(
        "{}; it may have written to any row before, so no row can be vouched for: run the call with guard(true)",
        Unguarded { row: *row, worker: *worker, cause, runs: *runs }
    )]
    #[non_exhaustive]
    UnguardedCrash {
        /// The row that was running, if it is known.
        row: Option<usize>,
        /// The slot of its worker.
        worker: usize,
        /// How it died.
        cause: DeathCause,
        /// How often all rows were run, with such a death in each.
        runs: u32,
    },
    /// The time for the call was over.
    #[error(
        "the deadline of {limit:?} was over with {rows_done} of {rows_total} rows done (policy(Policy::fill(...)) keeps them, \
         stall_limit(...) finds a row that hangs){}",
        ThreadHint(*.caller_threads)
    )]
    #[non_exhaustive]
    DeadlineExceeded {
        /// The deadline, from the beginning of the call.
        limit: Duration,
        /// Rows done.
        rows_done: usize,
        /// Rows in all.
        rows_total: usize,
        /// Threads of the caller at the fork; a lock that another of them held then is held for
        /// ever in a worker.
        caller_threads: usize,
    },
    /// The call was cancelled.
    #[error("the call was cancelled with {rows_done} of {rows_total} rows done")]
    #[non_exhaustive]
    Cancelled {
        /// Rows done.
        rows_done: usize,
        /// Rows in all.
        rows_total: usize,
    },
    /// A worker does not die of SIGKILL: it hangs in the operating system (a lost network drive, a
    /// broken device). It may still write to the output of the call, which must not be used any
    /// more.
    #[error(
        "worker {pid} is not dead {waited:?} after SIGKILL: it hangs in the operating system; the output of the call must not be used, as it may still change"
    )]
    #[non_exhaustive]
    WorkerUnkillable {
        /// Its process id.
        pid: i32,
        /// How long its end was waited for.
        waited: Duration,
    },
    /// A worker of an earlier call on this array did not die, and may still write to it.
    #[error("{path}: a worker of an earlier call does not die and may still write to it; drop this array", path = .path.display())]
    #[non_exhaustive]
    Abandoned {
        /// The file.
        path: PathBuf,
    },
    /// The value for missing rows is none of the output's type.
    #[error(
        "missing rows cannot be filled with {value}: the output is of dtype {dtype:?} and has no such value (0.1 is no f32, 0.1f32 is)"
    )]
    #[non_exhaustive]
    UnfitFill {
        /// The value.
        value: String,
        /// The `descr` of the output's elements.
        dtype: &'static str,
    },
    /// Workers die faster than they finish blocks.
    #[error(
        "{deaths} workers ended with no block finished in between (rows {rows:?} are unfinished); the last {cause}"
    )]
    #[non_exhaustive]
    WorkersKeepDying {
        /// Ends of workers since a block was last finished.
        deaths: usize,
        /// From the first to past the last unfinished row.
        rows: Range<usize>,
        /// How the last worker died.
        cause: DeathCause,
    },
    /// The control block was overwritten (by a stray store of a kernel), twice.
    #[error(
        "the control block was overwritten in block {block}; a kernel writes where it must not"
    )]
    #[non_exhaustive]
    ControlCorrupted {
        /// The block whose word is nonsense.
        block: usize,
    },
    /// A system call failed in a way that no other variant names.
    #[error("cannot {action} {subject}: {cause}")]
    #[non_exhaustive]
    Os {
        /// What was attempted: `open`, `map`, ...
        action: &'static str,
        /// On what.
        subject: String,
        /// The system's answer.
        cause: io::Error,
    },
}

/// What an [`enum@Error`] is about, for callers that treat all errors of a kind alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name or a path: it is invalid, taken, not there, or leads to something else.
    Name,
    /// There is too little memory, room or address space, or a limit forbids to take it.
    Shortage,
    /// The contents of a file or a segment: they are not what is wanted, they were cut, or a worker
    /// of an earlier call may still change them.
    Contents,
    /// An argument or an option makes no sense, or arguments do not fit each other.
    Argument,
    /// A kernel failed, or a row has no result.
    Kernel,
    /// Workers cannot be started, cannot be kept alive, or do not end.
    Workers,
    /// The deadline was over, or the call was cancelled.
    Interrupted,
    /// A system call failed in a way that has no kind of its own.
    System,
}

impl Error {
    /// What the error is about. That of an interrupted update is the kind of what ended it.
    ///
    /// ```
    /// use rowfork::{ErrorKind, SharedArray};
    ///
    /// let error = SharedArray::<f64, _>::zeros("a/b", 3).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Name);
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidName { .. }
            | Self::NameInUse { .. }
            | Self::NameNotFound { .. }
            | Self::NotRegular { .. }
            | Self::NotAFile { .. }
            | Self::NotOurs { .. }
            | Self::AlreadyNamed { .. }
            | Self::Nameless
            | Self::InUse { .. } => ErrorKind::Name,
            Self::ShmFull { .. }
            | Self::MemoryLimit { .. }
            | Self::AddressSpaceLimit { .. }
            | Self::FileSizeLimit { .. }
            | Self::DiskFull { .. } => ErrorKind::Shortage,
            Self::Npy { .. }
            | Self::WrongDtype { .. }
            | Self::WrongDimension { .. }
            | Self::Truncated { .. }
            | Self::HolesPunched { .. }
            | Self::Abandoned { .. } => ErrorKind::Contents,
            Self::ShapeOverflow { .. }
            | Self::WrongShape { .. }
            | Self::SelectionOutOfRange { .. }
            | Self::UnequalRows { .. }
            | Self::NoRows { .. }
            | Self::EmptyAccumulator { .. }
            | Self::ZeroWorkers
            | Self::TooManyWorkers { .. }
            | Self::ZeroBlockRows
            | Self::ZeroStallLimit
            | Self::UnfitFill { .. }
            | Self::InsideWorker
            | Self::PoolReentered
            | Self::KernelCaptures
            | Self::KernelNotInZygote { .. }
            | Self::TooManyArrays { .. } => ErrorKind::Argument,
            Self::SumOverflow { .. }
            | Self::KernelPanicked { .. }
            | Self::KernelFailed { .. }
            | Self::PoisonedRows { .. }
            | Self::UnguardedCrash { .. }
            | Self::ControlCorrupted { .. } => ErrorKind::Kernel,
            Self::PoolBroken { .. }
            | Self::ForkFailed(_)
            | Self::WorkerSetup { .. }
            | Self::WorkersKeepDying { .. }
            | Self::WorkerUnkillable { .. } => ErrorKind::Workers,
            Self::DeadlineExceeded { .. } | Self::Cancelled { .. } => ErrorKind::Interrupted,
            Self::UpdateInterrupted { cause, .. } => cause.kind(),
            Self::Os { .. } => ErrorKind::System,
        }
    }

    /// The sum of a row of integers does not fit `int64` (if `signed`) or `uint64`.
    pub(crate) fn sum_overflow(row: usize, sum: i128, signed: bool) -> Self {
        let (dtype, min, max) = if signed {
            ("int64", i64::MIN.into(), i64::MAX.into())
        } else {
            ("uint64", 0, u64::MAX.into())
        };
        Self::SumOverflow { row, sum, dtype, min, max }
    }

    /// A wait for workers has failed.
    pub(crate) fn of_watching(cause: io::Error) -> Self {
        Self::Os { action: "watch", subject: "the workers".to_owned(), cause }
    }
}

/// How many entries of a list the text of an error, or a printed report, shows.
pub(crate) const MAX_LISTED: usize = 10;

/// Row ranges as people write them: `0..3, 7..9`, or `none`.
struct Ranges<'a>(&'a [Range<usize>]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.0.split_first() else { return f.write_str("none") };
        write!(f, "{first:?}")?;
        others.iter().try_for_each(|range| write!(f, ", {range:?}"))
    }
}

/// Rows of which nothing is known, if there are any.
struct Torn<'a>(&'a [Range<usize>]);

impl fmt::Display for Torn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{} may be half updated, ", Ranges(self.0))
        }
    }
}

/// A table of rows in words.
struct Poisoned<'a>(&'a [FailedRow]);

impl fmt::Display for Poisoned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.0.split_first() else { return f.write_str("rows failed") };
        if others.is_empty() {
            return write!(f, "{first} (policy(Policy::fill(...)) goes on without such rows)");
        }
        write!(f, "{} rows failed, more than a call goes on without: {first}", self.0.len())?;
        others.iter().take(MAX_LISTED - 1).try_for_each(|row| write!(f, "; {row}"))?;
        if self.0.len() > MAX_LISTED {
            f.write_str("; ...")?;
        }
        f.write_str(" (have the kernel return a value for rows that are expected to fail)")
    }
}

struct Unguarded<'a> {
    row: Option<usize>,
    worker: usize,
    cause: &'a DeathCause,
    runs: u32,
}

impl fmt::Display for Unguarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} {}", self.worker, self.cause)?;
        if let Some(row) = self.row {
            write!(f, " on row {row}")?;
        }
        if self.runs > 1 {
            write!(f, ", as others did in each of {} runs", self.runs)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_cause_is_in_the_text_and_no_source_repeats_it() {
        let cause = || io::Error::from_raw_os_error(libc::EMFILE);
        let header = HeaderError::FortranOrder;
        let os = || Error::Os { action: "open", subject: "/x".to_owned(), cause: cause() };
        let (updated, torn) = (std::iter::once(0..3).collect(), Vec::new());
        let errors = [
            (Error::Npy { path: "/x".into(), cause: header.clone() }, header.to_string()),
            (Error::UpdateInterrupted { cause: Box::new(os()), updated, torn }, os().to_string()),
            (Error::ForkFailed(cause()), cause().to_string()),
            (os(), cause().to_string()),
        ];
        for (error, cause) in errors {
            assert!(error.to_string().contains(&cause), "{error}");
            assert!(error.source().is_none(), "{error}");
        }
    }

    #[test]
    fn an_interrupted_update_is_of_the_kind_of_its_cause() {
        let (updated, torn) = (std::iter::once(0..3).collect(), Vec::new());
        let cause = Box::new(Error::Cancelled { rows_done: 3, rows_total: 9 });
        let error = Error::UpdateInterrupted { cause, updated, torn };
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
