//! A handful of doubles that the compiler keeps in vector registers, and the one error-free
//! transformation that everything here rests on.
//!
//! Used by the tiers in this directory only. There are no intrinsics: every operation is a loop of
//! a length known to the compiler, and the *caller* decides, by its `#[target_feature]`, which
//! instructions that becomes. For this reason everything here is `#[inline(always)]`: a function
//! that is not inlined into such a caller would be compiled for the baseline, and be slow, not
//! wrong. Closures are avoided for the same reason, as they are not always inlined.
//!
//! Rust never contracts `a * b + c` and never reorders additions, which is what makes [`two_sum`]
//! sound.

use std::ops::{Add, Sub};

/// `N` independent doubles. Only [`Lanes::rotated`] moves values from lane to lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes<const N: usize>(pub(super) [f64; N]);

impl<const N: usize> Lanes<N> {
    /// Positive zero in every lane: a sum that starts from it is never -0.0.
    pub(super) const ZERO: Self = Self([0.0; N]);

    /// The magnitude of every lane (clears the sign bit, so NaN stays NaN).
    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        let mut out = self.0;
        for a in &mut out {
            *a = a.abs();
        }
        Self(out)
    }

    /// The larger of both in every lane; where either is NaN, that of `self`. So a running maximum
    /// that starts from zero passes over NaN.
    #[inline(always)]
    pub(super) fn max(self, other: Self) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(&other.0) {
            // One instruction, where `f64::max` has to look for NaN on either side.
            *a = if *b > *a { *b } else { *a };
        }
        Self(out)
    }

    /// Lane `i` of the result is lane `(i + by) % N` of `self`.
    #[inline(always)]
    pub(super) fn rotated(self, by: usize) -> Self {
        let mut out = self.0;
        for (i, a) in out.iter_mut().enumerate() {
            *a = self.0[(i + by) % N];
        }
        Self(out)
    }
}

impl<const N: usize> Add for Lanes<N> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(&other.0) {
            *a += b;
        }
        Self(out)
    }
}

impl<const N: usize> Sub for Lanes<N> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(&other.0) {
            *a -= b;
        }
        Self(out)
    }
}

/// The terms of `tail`, with which `row` ends and which are fewer than `N`, and zeros, in a place
/// that depends on the lengths of both. A dot product that takes the same lengths from its two rows
/// has partners in the same lanes.
///
/// Where the row is long enough, its last `N` terms are loaded, and zeros replace those before
/// `tail`: a copy of variable length costs more than the additions.
#[inline(always)]
pub(super) fn last_terms<T: Copy + Default, const N: usize>(row: &[T], tail: &[T]) -> [T; N] {
    let mut last = [T::default(); N];
    if let Some(end) = row.last_chunk::<N>() {
        for (i, a) in last.iter_mut().enumerate() {
            *a = if i + tail.len() >= N { end[i] } else { T::default() };
        }
    } else {
        for (a, x) in last.iter_mut().zip(tail) {
            *a = *x;
        }
    }
    last
}

/// Knuth's `TwoSum`: `(s, e)` with `s = fl(a + b)` and `s + e = a + b` exactly, whatever the
/// magnitudes of `a` and `b` ("The Art of Computer Programming", volume 2, section 4.2.2). It takes
/// six additions and no comparison, so it runs in every lane of a vector: Dekker's `FastTwoSum`
/// takes three, but needs to know which of the two is larger.
///
/// It is exact for subnormals too, because an addition of doubles never underflows. If anything
/// overflows, or an operand is not finite, `e` is NaN or infinite (S. Boldo, S. Graillat, J.-M.
/// Muller, "On the robustness of the `2Sum` and `Fast2Sum` algorithms", 2017: besides `s` itself
/// only a step next to `f64::MAX` can overflow); it is never a finite number that is wrong.
#[inline(always)]
pub(super) fn two_sum<T: Copy + Add<Output = T> + Sub<Output = T>>(a: T, b: T) -> (T, T) {
    let s = a + b;
    let b_seen = s - a;
    let a_seen = s - b_seen;
    (s, (a - a_seen) + (b - b_seen))
}
