//! The slot of this process, if it is a worker. The panic hook and the fault handler leave their
//! messages there.
//!
//! Both are called by the runtime or the kernel, without arguments of ours, so the slot has to be
//! in a static. Everything here is async-signal-safe: it loads and stores atomics.
//!
//! # Safety
//! The pointer is null in every process but a worker, and a worker never unmaps its control block.
#![allow(unsafe_code, reason = "a slot pointer for the panic hook and the fault handler")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::fault_map::FAULT_MAP;
use crate::engine::control::{Fault, Slot};

/// This process's slot; null in every process that is not a worker.
static OWN_SLOT: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// The slot of this process; `None` in a process that is not a worker.
pub(super) fn own_slot() -> Option<&'static Slot> {
    // SAFETY: null, or set in `take_slot` to a slot that stays mapped until this process ends. It
    // consists of atomics.
    unsafe { OWN_SLOT.load(Ordering::Relaxed).as_ref() }
}

/// From now on panics and faults of this process are noted in `slot`. A worker calls this when the
/// slot is its own.
pub(crate) fn take_slot(slot: &Slot) {
    OWN_SLOT.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
}

/// Notes a memory fault of this process in its slot. The signal handler calls it, so it takes no
/// lock and allocates nothing; see
/// [signal-safety(7)](https://man7.org/linux/man-pages/man7/signal-safety.7.html).
pub(super) fn note_fault(signal: i32, address: usize) {
    if let Some(slot) = own_slot() {
        slot.leave_fault(Fault { signal, address: FAULT_MAP.to_caller(address) });
    }
}
