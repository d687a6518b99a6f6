//! Sums of bytes.
//!
//! Called for rows of bytes, whether they are to be summed or counted. x86-64 has an instruction,
//! PSADBW, for the differences of pictures: it sums the distances of eight bytes from eight others,
//! here from zeros. Compilers know it, but do not find it here.
//!
//! # Safety
//! Relies on SSE2 alone, which every x86-64 has.
#![allow(unsafe_code, reason = "calling a #[target_feature] function is unsafe; see # Safety")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    _mm_min_epu8, _mm_sad_epu8, _mm_set1_epi8, _mm_setzero_si128, _mm_xor_si128,
};

/// The number of bytes that are summed at once: a vector of SSE2.
pub(super) const GROUP: usize = 16;

/// The sum of `min(x ^ FLIP, MOST)` over the bytes `x`, which are fewer than 2^56, so that it stays
/// below 2^64. `FLIP` turns the sign bit of signed bytes; `MOST` is 1 where bytes are counted.
#[inline(always)]
pub(super) fn sum<const FLIP: u8, const MOST: u8>(full: &[[u8; GROUP]], last: [u8; GROUP]) -> u64 {
    let [mut low, mut high] = sums_of_halves::<FLIP, MOST>(last);
    for group in full {
        let sums = sums_of_halves::<FLIP, MOST>(*group);
        low += sums[0];
        high += sums[1];
    }
    low + high
}

/// The sums over the first and the last eight bytes of a group; each is at most `8 * 255`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn sums_of_halves<const FLIP: u8, const MOST: u8>(group: [u8; GROUP]) -> [u64; 2] {
    #[target_feature(enable = "sse2")]
    #[inline]
    fn sse2<const FLIP: u8, const MOST: u8>(group: [u8; GROUP]) -> [u64; 2] {
        let flipped = _mm_xor_si128(bytemuck::cast(group), _mm_set1_epi8(FLIP.cast_signed()));
        let terms = _mm_min_epu8(flipped, _mm_set1_epi8(MOST.cast_signed()));
        bytemuck::cast(_mm_sad_epu8(terms, _mm_setzero_si128()))
    }
    // SAFETY: every x86-64 has SSE2.
    unsafe { sse2::<FLIP, MOST>(group) }
}

/// The same for other processors, left to the compiler.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn sums_of_halves<const FLIP: u8, const MOST: u8>(group: [u8; GROUP]) -> [u64; 2] {
    let sum = |half: &[u8]| half.iter().map(|x| u64::from((x ^ FLIP).min(MOST))).sum();
    let (low, high) = group.split_at(GROUP / 2);
    [sum(low), sum(high)]
}
