//! One call, the same for all workers: its cut into blocks, the control block, the life of a
//! worker, the supervisor and what it decides, and the report.
//!
//! | file | what |
//! |---|---|
//! | `call.rs`, `options.rs`, `policy.rs`, `cancel.rs` | what an operation asks for, and what a caller asks for beside it |
//! | `blocks.rs`, `ranges.rs` | the cut of the rows into blocks; lists of row ranges |
//! | `args.rs` | the arguments of a call as words, for workers that are no copies of the caller |
//! | `control/` | what the processes share: claim words and slots; its README is the protocol |
//! | `worker/` | a worker's whole life |
//! | `worker_set.rs` | the workers as the supervisor has them |
//! | `decide/` | what to do about deaths, hangs and time: pure |
//! | `supervisor.rs` | look, decide, act, sleep |
//! | `undo.rs` | rows saved before they are changed in place |
//! | `report.rs` | what a call says of itself |

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
