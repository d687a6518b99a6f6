//! [`CancelToken`]: ends a running call from another thread, a worker or a signal handler.
//!
//! It is a flag in an eventfd. The supervisor sleeps on its descriptor beside those of the workers,
//! so a cancellation wakes it at once.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::event::Event;

/// Ends the calls that it was given to (see [`Fork::cancel_token`](crate::Executor::cancel_token)),
/// now or later: from another thread, from a kernel in a worker, or from a signal handler. Clones
/// are the same token. A cancelled token stays cancelled, and a call that is given it ends at once.
///
/// ```
/// use std::time::Duration;
/// use rowfork::{CancelToken, Error, SharedArray};
///
/// let m = SharedArray::<f64, _>::zeros(None, (1000, 3))?;
/// let token = CancelToken::new()?;
/// let stop = token.clone();
/// let button = std::thread::spawn(move || {
///     std::thread::sleep(Duration::from_millis(50));
///     stop.cancel();
/// });
/// let outcome = rowfork::fork().cancel_token(&token).map_rows(&m, |row| {
///     std::thread::sleep(Duration::from_millis(100)); // slow
///     row.sum()
/// });
/// assert!(matches!(outcome, Err(Error::Cancelled { rows_total: 1000, .. })));
/// # button.join().unwrap();
/// # Ok::<(), Error>(())
/// ```
///
/// In a signal handler, use one that was made before: `static TOKEN: OnceLock<CancelToken>`, and
/// `TOKEN.get().map(CancelToken::cancel)` is all that the handler does.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Event>);

impl CancelToken {
    /// A token that is not cancelled. It holds a file descriptor.
    ///
    /// # Errors
    /// [`Os`](Error::Os) when this process has too many descriptors.
    pub fn new() -> Result<Self> {
        let event = Event::new();
        let event = event.map_err(|cause| Error::Os {
            action: "make",
            subject: "a cancel token".to_owned(),
            cause,
        })?;
        Ok(Self(Arc::new(event)))
    }

    /// Cancels. Async-signal-safe: one `write(2)`, no lock, no allocation.
    pub fn cancel(&self) {
        self.0.raise();
    }

    /// Whether it is cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_raised()
    }
}

impl AsFd for CancelToken {
    /// A descriptor that is readable once the token is cancelled, for an event loop of the
    /// caller's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
