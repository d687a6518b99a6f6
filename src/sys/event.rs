//! A flag that is raised from anywhere: another thread, another process, a signal handler. `poll`
//! sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The flag: an eventfd, readable from a raise on.
#[derive(Debug)]
pub(crate) struct Event(EventFd);

impl Event {
    /// Not raised.
    ///
    /// # Errors
    /// Too many descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Raises it: one `write`, no lock, no allocation.
    pub(crate) fn raise(&self) {
        // Fails only when the counter is full, and raised then.
        let _ = self.0.write(1);
    }

    /// Lowers it again.
    pub(crate) fn lower(&self) {
        let _ = self.0.read(); // not raised: nothing to read
    }

    /// Whether it is raised.
    pub(crate) fn is_raised(&self) -> bool {
        let mut polled = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, PollTimeout::ZERO).is_ok() && polled[0].any().unwrap_or(false)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
