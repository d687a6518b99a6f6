//! Floor 0: one thin safe function per thing asked of the system or the processor, so that everything above is safe code
//! or says why not. An errno stays an errno (`io::Error`); the floor above gives it a name and a way out.

pub(crate) mod file;
pub(crate) mod fpu;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod prefetch;
