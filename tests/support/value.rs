//! Element types as the tests of operations use them: values by number, and functions of a row that
//! notice a wrong element, a wrong order and a wrong index.
#![allow(dead_code, reason = "each test binary uses a part")]

use ndarray::{Array, Dimension};
use rowfork::{Bool, Element, Summand};

pub(crate) trait Value: Summand + PartialEq {
    /// The value of that number: many different ones, of both signs, whose sums are exact in every
    /// order.
    fn at(number: usize) -> Self;
    /// Takes one more value in; the order matters.
    fn mix(self, other: Self) -> Self;
    /// A sum that never overflows; the order does not matter.
    fn plus(self, other: Self) -> Self;
    /// What a plain loop says is the sum of a row.
    fn sum(elements: &[Self]) -> Self::Sum;
    fn bits(self) -> u64;
}

macro_rules! floats {
    ($($type:ty)+) => {$(
        impl Value for $type {
            fn at(number: usize) -> Self {
                f32::from(u8::try_from(number * 37 % 101).unwrap()) as $type / 4.0 - 12.5
            }
            fn mix(self, other: Self) -> Self {
                self / 3.0 + other
            }
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn sum(elements: &[Self]) -> Self {
                elements.iter().fold(0.0, |sum, x| sum + x)
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
        }
    )+};
}

macro_rules! integers {
    ($($type:ty => $sum:ty),+) => {$(
        impl Value for $type {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "any bits will do")]
            fn at(number: usize) -> Self {
                // At most 47 bits, so that the sum of a row fits.
                ((number as i64).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 17) as $type
            }
            fn mix(self, other: Self) -> Self {
                self.wrapping_mul(31).wrapping_add(other)
            }
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn sum(elements: &[Self]) -> $sum {
                elements.iter().map(|&x| <$sum>::from(x)).sum()
            }
            #[allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "any bits will do")]
            fn bits(self) -> u64 {
                self as u64
            }
        }
    )+};
}

floats!(f64 f32);
integers!(i8 => i64, i16 => i64, i32 => i64, i64 => i64, u8 => u64, u16 => u64, u32 => u64);

impl Value for Bool {
    fn at(number: usize) -> Self {
        number.is_multiple_of(3).into()
    }
    fn mix(self, other: Self) -> Self {
        (self.get() && !other.get()).into()
    }
    fn plus(self, other: Self) -> Self {
        (self.get() != other.get()).into()
    }
    fn sum(elements: &[Self]) -> u64 {
        elements.iter().filter(|x| x.get()).count() as u64
    }
    fn bits(self) -> u64 {
        self.get().into()
    }
}

/// One value for a row: from its index, its elements and their order.
pub(crate) fn digest<'e, A: Value>(index: usize, elements: impl IntoIterator<Item = &'e A>) -> A {
    elements.into_iter().fold(A::at(index), |digest, &x| digest.mix(x))
}

/// The same as an odd word.
pub(crate) fn hash<'e, A: Element + Value>(
    index: usize,
    elements: impl IntoIterator<Item = &'e A>,
) -> u64 {
    elements
        .into_iter()
        .fold(index as u64, |hash, &x| (hash ^ x.bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        | 1
}

/// A shape as the dimension that it is one of.
pub(crate) fn dim_of<D: Dimension>(shape: &[usize]) -> D {
    let mut dim = D::zeros(shape.len());
    dim.slice_mut().copy_from_slice(shape);
    dim
}

/// An ordinary array of values.
pub(crate) fn values<A: Value, D: Dimension>(shape: D) -> Array<A, D> {
    let n = shape.size();
    Array::from_shape_vec(shape, (0..n).map(A::at).collect()).unwrap()
}
