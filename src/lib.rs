//! rowfork: a process pool for large numeric arrays.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(target_os = "linux"))]
compile_error!("rowfork runs on Linux only: it is built on /dev/shm, pidfd and MADV_COLLAPSE");

mod array;
mod blocks;
mod control;
mod error;
mod kernel;
pub mod segment;
mod supervise;
mod sys;

pub use array::{Element, SharedArray};
pub use error::{DeathCause, Error, HeaderError, Result};
pub use kernel::exact_sum;
