//! A word that forked processes share, for kernels that must behave differently the second time,
//! and signals.
#![allow(unsafe_code, reason = "maps a page that a fork shares, changes a disposition")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// An `AtomicU64` in a shared page, 0 at first.
pub(crate) struct SharedWord(&'static AtomicU64);

impl SharedWord {
    pub(crate) fn new() -> Self {
        let len = NonZeroUsize::new(4096).expect("not zero");
        // SAFETY: a new mapping.
        let page = unsafe {
            mmap_anonymous(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
            )
        };
        // SAFETY: mapped, zeroed, aligned; unmapped in `drop` only.
        Self(unsafe { page.expect("mmap").cast().as_ref() })
    }
}

impl Deref for SharedWord {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        self.0
    }
}

impl Drop for SharedWord {
    fn drop(&mut self) {
        let page = std::ptr::NonNull::from(self.0).cast();
        // SAFETY: the page mapped in `new`; the reference is not used any more.
        let _ = unsafe { munmap(page, 4096) };
    }
}

/// Sends a signal to this very process.
pub(crate) fn raise(signal: Signal) {
    nix::sys::signal::kill(nix::unistd::getpid(), signal).expect("kill self");
}

/// Has the kernel forget dead children at once, as some hosts do.
pub(crate) fn ignore_sigchld() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: "ignore" runs no code.
    unsafe {
        sigaction(Signal::SIGCHLD, &ignore).expect("sigaction");
    }
}
