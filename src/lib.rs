//! rowfork places an ndarray in a shared-memory segment, forks workers over its rows, and lets them write into a shared
//! output without copying anything: threads' speed, processes' isolation.
//!
//! - [`SharedArray`] is an ndarray that lives in a segment: a `.npy` file under `/dev/shm`, which NumPy maps as it is.
//! - [`fork()`] makes calls whose workers live for that one call: [`Fork::row_sums`] for exact sums,
//!   [`Fork::map_rows`] for any function of a row. The closure may capture anything.
//! - [`Output`] is a result with its [`Report`]; [`Error`] is everything that can go wrong, by name and number.
//! - [`segment`] lists, removes and sweeps segments. [`exact_sum`] and [`exact_row_sums`] are the exact sums alone.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (1000, 16), |(i, j)| (i + j) as f64 / 10.0)?;
//!
//! // The correctly rounded sum of each row: the same bits for any number of workers.
//! let sums = rowfork::fork().row_sums(&m)?;
//! assert_eq!(sums.view()[0], 12.0);
//!
//! // Any function of a row, with captures; a kernel may return a Result.
//! let limit = 100.0;
//! let rest = rowfork::fork().workers(4).map_rows(&m, |row| {
//!     let sum = row.sum();
//!     if sum.is_finite() { Ok(limit - sum) } else { Err("not a number") }
//! })?;
//! println!("{}", rest.report());
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! # What a kernel may do
//! A forked worker is a copy of the calling thread alone. Arithmetic, allocation, reading what was captured, calling C, and
//! threads of its own are fine. Not fine: printing, logging, or any lock, pool or runtime that other threads of the
//! caller use (a lock held at the fork is held for ever in the worker), and relying on changes to captured values (they
//! stay in the worker). A kernel must be a pure function of its row, its captures and the row's index: a row is run again
//! when its worker dies.
//!
//! # Platform
//! Linux 5.4, little endian, 64 bits. See the README for what is less on older kernels and in small containers.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(target_os = "linux"))]
compile_error!("rowfork runs on Linux only: it is built on /dev/shm, pidfd and MADV_COLLAPSE");
#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!(
    "rowfork needs a 64-bit little-endian machine: its segments are little-endian .npy files mapped as they are"
);

mod array;
mod blocks;
mod control;
mod crew;
mod error;
mod fork;
mod kernel;
mod report;
mod rows;
pub mod segment;
mod supervise;
mod sys;
mod worker;

pub use array::{Element, SegmentName, SharedArray};
pub use error::{DeathCause, Error, HeaderError, Result};
pub use fork::{Fork, fork};
pub use kernel::exact_sum;
pub use report::{BlockTimes, Output, Progress, Report, WorkerDeath, WorkerReport};
pub use rows::{KernelReturn, Row, exact_row_sums};

/// Compiles and runs the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
