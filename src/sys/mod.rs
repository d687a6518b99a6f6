//! One thin safe function per system call, so that everything above is safe code or says why not.
//!
//! An errno stays an errno (`io::Error`); the caller gives it a name and a way out. Nothing is
//! decided here: a function may repeat an interrupted call or take the way of an older kernel, but
//! what an answer means for an array or a worker is for its caller. Every function that makes a
//! system call names the page of the Linux manual.

pub(crate) mod atomic;
pub(crate) mod channel;
pub(crate) mod code;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod file_pages;
pub(crate) mod fpu;
pub(crate) mod futex;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod prefetch;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod shared;
pub(crate) mod signal;
