//! [`FillValue`]: a value for missing rows, before it is known of which type the output is.

use std::fmt;

/// A number or a truth value of any type. Made by [`Policy::fill`](crate::Policy::fill).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FillValue {
    /// A float.
    Float(f64),
    /// An integer.
    Integer(i128),
    /// A truth value.
    Bool(bool),
}

macro_rules! fill_from {
    ($($type:ty => $variant:ident),+) => {$(
        impl From<$type> for FillValue {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )+};
}

fill_from!(f64 => Float, f32 => Float, bool => Bool);
fill_from!(i8 => Integer, i16 => Integer, i32 => Integer, i64 => Integer);
fill_from!(u8 => Integer, u16 => Integer, u32 => Integer, u64 => Integer);

impl From<usize> for FillValue {
    fn from(value: usize) -> Self {
        Self::Integer(value as i128)
    }
}

impl From<isize> for FillValue {
    fn from(value: isize) -> Self {
        Self::Integer(value as i128)
    }
}

impl fmt::Display for FillValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}
