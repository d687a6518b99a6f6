//! A hint to the processor that some memory will be read soon.
//!
//! The kernels call this in loops whose pattern of access the processor does not foresee by itself.
//!
//! # Safety
//! A prefetch reads nothing the program can see and never faults, whatever the address: a mapping
//! that ends there, a hole, or none at all. So the function is safe to call with any pointer.
#![allow(
    unsafe_code,
    reason = "the intrinsic takes a raw pointer and is therefore declared unsafe"
)]

/// Asks for the cache line of `address`; does nothing where the architecture has no stable way to
/// ask.
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and the instruction does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
