//! What may be an element of a shared array.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Not;

use bytemuck::{Pod, Zeroable};

use super::fill_value::FillValue;

/// An element type: plain bytes, and a name that NumPy knows it by.
///
/// Sealed. Every bit pattern must be a value, since any program may write to a segment; hence
/// [`Bool`].
///
/// | Rust | NumPy | in the file |
/// |---|---|---|
/// | `f64`, `f32` | `float64`, `float32` | `<f8`, `<f4` |
/// | `i8`, `i16`, `i32`, `i64` | `int8` to `int64` | <code>&#124;i1</code>, `<i2`, `<i4`, `<i8` |
/// | `u8`, `u16`, `u32`, `u64` | `uint8` to `uint64` | <code>&#124;u1</code>, `<u2`, `<u4`, `<u8` |
/// | [`Bool`] | `bool` | <code>&#124;b1</code> |
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an element of a shared array",
    label = "not an element type",
    note = "elements are f64, f32, i8 to i64, u8 to u64 and rowfork::Bool",
    note = "a kernel may also return `bool`, `usize`, and a `Result` of any of these; for an `Option`, say `.ok_or(...)`; several \
            values per row are `transform_rows`"
)]
pub trait Element: Pod + Send + Sync + fmt::Debug + sealed::Sealed {
    /// The `descr` in the `.npy` header, byte order included.
    const DESCR: &'static str;

    /// The element of this very value, if there is one.
    #[doc(hidden)]
    fn of_fill(value: FillValue) -> Option<Self>;
}

macro_rules! elements {
    ($($type:ty: $descr:literal, $of_fill:expr;)*) => {$(
        impl Element for $type {
            const DESCR: &'static str = $descr;

            fn of_fill(value: FillValue) -> Option<Self> {
                $of_fill(value)
            }
        }
        impl sealed::Sealed for $type {}
    )*};
}

elements! {
    f64: "<f8", double_of; f32: "<f4", single_of;
    i8: "|i1", integer_of; i16: "<i2", integer_of; i32: "<i4", integer_of; i64: "<i8", integer_of;
    u8: "|u1", integer_of; u16: "<u2", integer_of; u32: "<u4", integer_of; u64: "<u8", integer_of;
    Bool: "|b1", bool_of;
}

#[expect(clippy::cast_possible_truncation, reason = "what is lost is seen on the way back")]
fn double_of(value: FillValue) -> Option<f64> {
    match value {
        FillValue::Float(value) => Some(value),
        FillValue::Integer(value) => Some(value as f64).filter(|double| *double as i128 == value),
        FillValue::Bool(_) => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is lost is seen on the way back")]
fn single_of(value: FillValue) -> Option<f32> {
    let double = double_of(value)?;
    Some(double as f32).filter(|&single| f64::from(single) == double || double.is_nan())
}

#[expect(clippy::cast_possible_truncation, reason = "what is lost is seen on the way back")]
fn integer_of<T: TryFrom<i128>>(value: FillValue) -> Option<T> {
    match value {
        FillValue::Integer(value) => value.try_into().ok(),
        FillValue::Float(value) => {
            Some(value as i128).filter(|integer| *integer as f64 == value)?.try_into().ok()
        }
        FillValue::Bool(_) => None,
    }
}

fn bool_of(value: FillValue) -> Option<Bool> {
    match value {
        FillValue::Bool(value) => Some(value.into()),
        FillValue::Float(_) | FillValue::Integer(_) => None,
    }
}

/// A truth value in shared memory: NumPy's `bool`, one byte. 0 is false; this crate and NumPy write
/// 1 for true, and any other byte that some program may have written is true as well.
///
/// A `bool` cannot be an element itself, since most bytes are no `bool`. A kernel may return one
/// all the same.
///
/// ```
/// use ndarray::array;
/// use rowfork::{Bool, SharedArray};
///
/// let m = SharedArray::copy_from(None, &array![[1.0, 2.0], [-1.0, 3.0]])?;
/// let positive = rowfork::fork().map_rows(&m, |row| row.iter().all(|&x| x > 0.0))?;
/// assert_eq!(positive.view().mapv(bool::from), array![true, false]);
/// assert!(positive.view()[0] == true && !positive.view()[1].get());
///
/// let mask = SharedArray::copy_from(None, &array![true, false].mapv(Bool::from))?;
/// assert_eq!(mask.view()[1], Bool::FALSE);
/// # Ok::<(), rowfork::Error>(())
/// ```
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bool(u8);

impl Bool {
    /// The byte 1.
    pub const TRUE: Self = Self(1);
    /// The byte 0.
    pub const FALSE: Self = Self(0);

    /// Whether the byte is not 0.
    #[must_use]
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(value.into())
    }
}

impl From<Bool> for FillValue {
    fn from(value: Bool) -> Self {
        Self::Bool(value.get())
    }
}

impl From<Bool> for bool {
    fn from(value: Bool) -> Self {
        value.get()
    }
}

impl PartialEq for Bool {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Bool {}

impl PartialEq<bool> for Bool {
    fn eq(&self, other: &bool) -> bool {
        self.get() == *other
    }
}

impl Hash for Bool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.get().hash(state);
    }
}

impl Not for Bool {
    type Output = Self;

    fn not(self) -> Self {
        (!self.get()).into()
    }
}

impl fmt::Debug for Bool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Display for Bool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

mod sealed {
    pub trait Sealed {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_value_becomes_the_element_of_that_very_value_or_none() {
        let [half, nan, many, minus, large] =
            [0.5.into(), f64::NAN.into(), 300.into(), (-1).into(), u64::MAX.into()];
        assert_eq!(
            (f64::of_fill(half), f32::of_fill(half), i8::of_fill(half)),
            (Some(0.5), Some(0.5), None)
        );
        assert!(f64::of_fill(nan).unwrap().is_nan() && f32::of_fill(nan).unwrap().is_nan());
        assert_eq!((i64::of_fill(nan), u8::of_fill(nan)), (None, None));
        assert_eq!(
            (u8::of_fill(many), i16::of_fill(many), f32::of_fill(many)),
            (None, Some(300), Some(300.0))
        );
        assert_eq!(
            (u64::of_fill(minus), i64::of_fill(minus), f64::of_fill(minus)),
            (None, Some(-1), Some(-1.0))
        );
        assert_eq!((u64::of_fill(large), f64::of_fill(large)), (Some(u64::MAX), None));
        assert_eq!((f32::of_fill(1e300.into()), f32::of_fill(0.1.into())), (None, None));
        assert_eq!(i32::of_fill(7.0.into()), Some(7));
        assert_eq!(
            (Bool::of_fill(true.into()), Bool::of_fill(1.into()), f64::of_fill(true.into())),
            (Some(Bool::TRUE), None, None)
        );
        assert_eq!(f64::of_fill((-0.0).into()).map(f64::to_bits), Some((-0.0f64).to_bits()));
    }
}
