//! The floating-point control register of the calling thread: rounding mode, flush-to-zero (FTZ),
//! denormals-are-zero (DAZ).
//!
//! The kernels call this, because they owe the same bits to a caller that computes with FTZ set. A
//! worker calls it at birth, because a fork inherits the register. Nothing but that register of
//! this thread is touched.
//!
//! The layout of MXCSR is in the Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 1, section 10.2.3; that of FPCR in the Arm Architecture Reference Manual for A-profile
//! (DDI 0487).
//!
//! # Safety
//! Inline assembly reads and writes MXCSR (x86-64) or FPCR (`AArch64`). Rust assumes the default
//! contents everywhere; writing the default is therefore always sound, and restoring what was found
//! leaves a caller no worse than before.
#![allow(unsafe_code, reason = "there is no other way to this register than inline assembly")]

/// Puts the default control word (round to nearest even, subnormals kept, exceptions masked) in
/// force until it is dropped, then puts back what was found. It writes only if the two differ,
/// which they hardly ever do.
///
/// The compiler knows nothing of this register and may move arithmetic across both ends. So
/// whatever the guard is to cover must be called through a function pointer hidden by
/// [`std::hint::black_box`]: a call of something unknown is not moved across inline assembly.
#[derive(Debug)]
pub(crate) struct DefaultFpu {
    /// What the register held; `None` if that was the default already, and nothing is to be put
    /// back.
    found: Option<control::Word>,
}

impl DefaultFpu {
    #[inline]
    pub(crate) fn new() -> Self {
        let word = control::read();
        let found = (!control::is_default(word)).then_some(word);
        if found.is_some() {
            control::write(control::DEFAULT);
        }
        Self { found }
    }
}

impl Drop for DefaultFpu {
    #[inline]
    fn drop(&mut self) {
        if let Some(word) = self.found {
            control::write(word);
        }
    }
}

/// Puts the default in force for the rest of this thread's life. This is for workers: nothing
/// returns from a worker into code that might have wanted the old setting.
pub(crate) fn set_default() {
    std::mem::forget(DefaultFpu::new());
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub(super) type Word = u32;

    /// Bits 7 to 12 mask the six exceptions. Bits 13 and 14 are 0: round to nearest even. Bit 15
    /// (FTZ) and bit 6 (DAZ) are 0: subnormals are kept.
    pub(super) const DEFAULT: Word = 0x1f80;

    /// The six sticky flags (bits 0 to 5) record what happened and steer nothing.
    pub(super) fn is_default(word: Word) -> bool {
        word & !0x3f == DEFAULT
    }

    pub(super) fn read() -> Word {
        let mut word: Word = 0;
        // SAFETY: stores the four bytes of MXCSR to a live local.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: `word` is either the default or was read from MXCSR, so no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub(super) type Word = u64;

    /// All zeros: round to nearest even, no flush to zero, no trap.
    pub(super) const DEFAULT: Word = 0;

    /// On this architecture the sticky flags live in another register (FPSR).
    pub(super) fn is_default(word: Word) -> bool {
        word == DEFAULT
    }

    pub(super) fn read() -> Word {
        let word;
        // SAFETY: reads a register that user space may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: `word` is either zero, the default, or was read from this register.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

/// On other architectures the default is taken for granted.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub(super) type Word = u8;

    pub(super) const DEFAULT: Word = 0;

    pub(super) fn is_default(_: Word) -> bool {
        true
    }

    pub(super) fn read() -> Word {
        DEFAULT
    }

    pub(super) fn write(_: Word) {}
}

/// Calls `run` with MXCSR set to `word`; returns what it returned and MXCSR as it left it. The
/// register is put back.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn under<R>(word: u32, run: impl FnOnce() -> R) -> (R, u32) {
    let before = control::read();
    control::write(word);
    let result = run();
    let after = control::read();
    control::write(before);
    (result, after)
}
