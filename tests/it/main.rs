//! Calls that go well or are refused, through the public face: operations, inputs, reports, errors.

#[path = "../support/mod.rs"]
mod support;

// Calls in fork mode: inputs, outputs, reports, limits.
mod fork_mode;
// Kernels that panic: what the error says of row, message and place.
mod panics;
// A fold has the same bits for every number of workers and every death.
mod fold_bits;
// Rows, columns and indices that a call is restricted to.
mod selections;
// Several inputs side by side, and nested tuples of them.
mod tuple_inputs;
// What is refused, and what the refusal says.
mod bad_input;
// Arguments of kernels on their way to the workers of a pool.
mod pool_arguments;
// What a kernel may do with arrays of its own.
mod in_a_kernel;
// Updates in place that are interrupted, and what becomes of every row.
mod interrupted;
