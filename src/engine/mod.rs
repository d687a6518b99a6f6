//! The engine: one call, the same for workers of every origin. It has the cut into blocks, the
//! control block, the life of a worker, the supervisor and what it decides, and the report.
//!
//! The operations in `rows/` describe a call, and an executor (`executor/fork/`, `executor/pool/`)
//! runs it here with the workers that it has. The engine knows neither what a kernel computes nor
//! where workers come from.
//!
//! | file | what |
//! |---|---|
//! | `call.rs` | what an operation asks for |
//! | `options.rs`, `policy.rs`, `cancel.rs` | what a caller asks for beside the operation |
//! | `blocks.rs`, `ranges.rs` | the cut of the rows into blocks; lists of row ranges |
//! | `args.rs` | the arguments of a call as words, for workers that are no copies of the caller |
//! | `control/` | what the processes share: claim words and slots; its README is the protocol |
//! | `worker/` | a worker's whole life |
//! | `worker_set.rs` | the workers as the supervisor sees them |
//! | `decide/` | what to do about deaths, hangs and time: pure |
//! | `supervisor.rs` | look, decide, act, sleep |
//! | `undo.rs` | the undo buffers: rows saved before they are changed in place |
//! | `report.rs` | progress, and the account of a call |

pub(crate) mod args;
pub(crate) mod blocks;
pub(crate) mod call;
pub(crate) mod cancel;
pub(crate) mod control;
pub(crate) mod decide;
pub(crate) mod options;
pub(crate) mod policy;
pub(crate) mod ranges;
pub(crate) mod report;
pub(crate) mod supervisor;
pub(crate) mod undo;
pub(crate) mod worker;
pub(crate) mod worker_set;
