//! The slot of this process, if it is a worker: where the panic hook and the fault handler leave
//! word.
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

pub(super) fn own_slot() -> Option<&'static Slot> {
    // SAFETY: null, or set in `take_slot` to a slot that stays mapped until this process ends; all
    // of it is atomics.
    unsafe { OWN_SLOT.load(Ordering::Relaxed).as_ref() }
}

/// From now on panics and faults of this process leave word in `slot`.
pub(crate) fn take_slot(slot: &Slot) {
    OWN_SLOT.store(ptr::from_ref(slot).cast_mut(), Ordering::Relaxed);
}

/// Leaves word of a memory fault of this process; for the handler, so: no lock, no allocation.
pub(super) fn note_fault(signal: i32, address: usize) {
    if let Some(slot) = own_slot() {
        slot.leave_fault(Fault { signal, address: FAULT_MAP.to_caller(address) });
    }
}
