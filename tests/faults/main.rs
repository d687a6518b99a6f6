//! What becomes of a call when processes die, hang or are harmed.

#[path = "../support/mod.rs"]
mod support;

// Workers die in a call, of themselves and by other hands.
mod deaths;
// Arrays are cut, lose memory or lose their name.
mod truncation;
// Stray stores into the control block.
mod control_block;
// Hosts that handle or ignore signals, and hosts that are killed.
mod hosts;
// Descriptors and processes run out.
mod limits;
// Every kind of crash at every place of a call, on both executors.
mod crash_table;
// Stores into rows of others.
mod stray_stores;
// Rows that never end, deadlines and cancellation.
mod hangs;
// Rows that always fail, and calls that go on without them.
mod poison;
// What killed programs leave in /dev/shm.
mod killed;
// Updates while somebody kills the workers.
mod killed_updates;
// Random calls under random harm.
mod chaos;
// Signals to the caller and to its process group.
mod signals;
// Other processes that change a segment during a call.
mod foreign_processes;
// A fault or a kill at every system call.
mod syscalls;
// Kernels and sandboxes without pidfds.
mod without_pidfd;
// Memory runs out.
mod oom;
// Programs that are built with `panic = "abort"`.
mod panic_abort;
