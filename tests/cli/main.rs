//! The command `rowfork`.

#[path = "../support/mod.rs"]
mod support;

// The command does what it says.
mod cli;
// The command refuses in one line.
mod cli_bad_input;
// `rowfork doctor` and `rowfork bench`.
mod cli_doctor;
// Signals to the command.
mod cli_killed;
