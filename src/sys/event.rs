//! A flag that can be raised from anywhere: another thread, another process, a signal handler. A
//! sleeper in `poll` sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The flag: an eventfd, which is readable from the first raise on. Forked children share it with
/// their parent.
#[derive(Debug)]
pub(crate) struct Event(EventFd);

impl Event {
    /// Makes a flag that is not raised. Its descriptor never blocks, so neither a raise nor a
    /// lowering can hang.
    ///
    /// See [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
    ///
    /// # Errors
    /// Too many descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Raises the flag: one `write`, no lock, no allocation. A signal handler may therefore call
    /// it.
    ///
    /// See [write(2)](https://man7.org/linux/man-pages/man2/write.2.html) and
    /// [signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html).
    pub(crate) fn raise(&self) {
        // The write fails only when the counter is full, and then the flag is raised already.
        let _ = self.0.write(1);
    }

    /// Lowers the flag again, however often it was raised: one read takes the whole counter.
    ///
    /// See [read(2)](https://man7.org/linux/man-pages/man2/read.2.html).
    pub(crate) fn lower(&self) {
        let _ = self.0.read(); // not raised: nothing to read
    }

    /// Whether the flag is raised. The look leaves it as it is. A `poll` that fails counts as no.
    ///
    /// See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
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
