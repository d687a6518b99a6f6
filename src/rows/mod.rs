//! The public operations over the rows of shared arrays.
//!
//! Programs call them as methods of an `Executor`. Each operation turns its kernel into a function
//! of a won block, and hands that to the executor. No operation knows of processes. `run.rs` and
//! `output.rs` know this much: a worker of a failed call may live on, and what a worker saved of
//! its rows is found by its slot. No file here knows which executors there are.
//!
//! | file | what |
//! |---|---|
//! | `input.rs` | `Rows`: one input or several, and parts of them |
//! | `broadcast.rs` | parts of an input that are the same for every row |
//! | `row.rs`, `kernel_return.rs` | what a kernel is called with, and what it may return |
//! | `map.rs`, `tasks.rs` | a value per row, a value per task |
//! | `transform.rs`, `blocks.rs` | rows to rows, blocks to blocks |
//! | `update.rs` | rows in place |
//! | `fold.rs` | all rows to one value or array |
//! | `sums.rs` | exact sums: a built-in kernel |
//! | `means.rs` | exact means, dot products, weighted means, and plain sums: built-in kernels |
//! | `operation.rs` | an operation with its types: what all operations compile for every kernel |
//! | `run.rs` | what all operations end in: one call, from the checks to the report |
//! | `reader.rs` | rows as one contiguous slice, for built-in kernels |
//! | `release_pages.rs` | unmaps rows of files on a disk once they have been read |
//! | `output.rs` | the part of the output that belongs to a won block |
#![expect(
    clippy::needless_pass_by_value,
    reason = "inputs are references, or parts that read best made in place"
)]

mod blocks;
mod broadcast;
mod fold;
mod input;
mod kernel_return;
mod map;
mod means;
mod operation;
mod output;
mod reader;
mod release_pages;
mod row;
mod run;
mod sums;
mod tasks;
mod transform;
mod update;

pub use self::broadcast::{Broadcast, Param, broadcast, param};
pub use self::input::{Rows, Tasks, tasks};
pub use self::kernel_return::KernelReturn;
pub use self::row::{Block, Row, RowMut};
pub use self::sums::{Summand, exact_row_sums};
