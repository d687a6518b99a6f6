//! What may be an element of a shared array.

/// An element type: plain bytes, and a name that NumPy knows it by.
///
/// Sealed: implemented for `f64`. Every bit pattern must be a value, since any program may write to a segment.
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug + sealed::Sealed {
    /// The `descr` in the `.npy` header, byte order included.
    const DESCR: &'static str;
}

impl Element for f64 {
    const DESCR: &'static str = "<f8";
}

#[cfg(target_endian = "big")]
compile_error!("rowfork's segments are little endian");

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
}
