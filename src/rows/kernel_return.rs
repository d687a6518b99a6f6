//! [`KernelReturn`]: what a kernel may return.
//!
//! The operations call `into_result` on what the kernel has returned, in the worker.

use std::convert::Infallible;
use std::fmt;

use crate::array::{Bool, Element};

/// What a kernel may return: a value, or a `Result` whose error ends the call and names the row.
///
/// A value is an [`Element`], a `bool` (stored as [`Bool`]), a `usize` or `isize` (stored as `u64`
/// and `i64`) where the operation makes one per row, and `()` where the kernel writes to what it is
/// given. The error is anything that can be displayed; where nothing tells its type, as in
/// `Ok(1.0)` alone, say it: `Ok::<_, String>(1.0)`.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot return `{Self}`",
    label = "the kernel returns this",
    note = "a kernel returns an element (`f64`, `u8`, `bool`, `usize`, ...), or `()` if it writes to what it is given, or a \
            `Result` of these with an error that implements `Display`"
)]
pub trait KernelReturn {
    /// What it gives for a row.
    type Value;
    /// The error, if the kernel can fail.
    type Error: fmt::Display;

    /// The value or the error.
    ///
    /// # Errors
    /// The kernel's own.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T: Element> KernelReturn for T {
    type Value = T;
    type Error = Infallible;

    fn into_result(self) -> Result<T, Infallible> {
        Ok(self)
    }
}

/// What is stored as another type, without loss.
macro_rules! stored_as {
    ($($type:ty => $element:ty: $convert:expr),+) => {$(
        impl KernelReturn for $type {
            type Value = $element;
            type Error = Infallible;

            fn into_result(self) -> Result<$element, Infallible> {
                Ok($convert(self))
            }
        }
    )+};
}

// `usize as u64` loses nothing: the crate is for 64-bit machines only.
stored_as!(bool => Bool: Bool::from, usize => u64: |n| n as u64, isize => i64: |n| n as i64);

impl KernelReturn for () {
    type Value = ();
    type Error = Infallible;

    fn into_result(self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T: KernelReturn<Error = Infallible>, E: fmt::Display> KernelReturn for Result<T, E> {
    type Value = T::Value;
    type Error = E;

    fn into_result(self) -> Result<T::Value, E> {
        self.map(|value| {
            let Ok(value) = value.into_result();
            value
        })
    }
}
