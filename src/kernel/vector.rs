//! A vector register full of doubles, as the anchored sums need it: one small trait, an
//! implementation for each instruction set, and a portable one. As in the memchr crate, the
//! algorithm is written once over it.
//!
//! Used by `anchored.rs`, `rows.rs` and `dot.rs`. Most of the other kernels are loops that the
//! compiler turns into vectors by itself ([`Lanes`]). In these files that fails for two things: the
//! transposition of short rows, and masked loads at their ends.
//!
//! Additions and subtractions round to nearest in each lane, as those of `f64` do, provided that
//! the control word is the default (see `DefaultFpu` in `src/sys/fpu.rs`). So a lane of every
//! implementation gives what scalar code would; they differ in the number of lanes alone. No method
//! has a special case for NaN, infinities, subnormals or zeros of either sign.
//!
//! The semantics of each intrinsic are those of the [Intel intrinsics guide][guide].
//!
//! [guide]: https://www.intel.com/content/www/us/en/docs/intrinsics-guide/index.html
//!
//! # Safety
//! An intrinsic may run only where the processor has the instruction. *The value is the proof*: a
//! vector is made only from a [`Vector::Proof`] or from other vectors, and a proof only by `here`,
//! which has the `#[target_feature]` in question, so that only a function compiled for it can call
//! it without `unsafe`. Loads read from references, no more than these span. Nobody may touch what
//! is streamed before a fence in the same thread. The one caller, `rows.rs`, reads none of it and
//! fences before it returns, by a guard, so also if something panics.
#![allow(
    unsafe_code,
    reason = "intrinsics are called outside functions with their #[target_feature]; see # Safety"
)]

use std::array::from_fn;
use std::ops::{Add, Sub};

use super::lanes::Lanes;

/// `N` doubles, whose bits can be compared and collected, too.
///
/// All methods are `#[inline(always)]`: they have no `#[target_feature]` of their own, and get that
/// of the function that they are inlined into. Not inlined, they would be slow, not wrong.
pub(super) trait Vector<const N: usize>:
    Copy + Add<Output = Self> + Sub<Output = Self>
{
    /// The proof that this processor has the instructions; of no size, so it costs nothing to hand
    /// on.
    type Proof: Copy;

    /// `value` in every lane.
    fn splat(proof: Self::Proof, value: f64) -> Self;

    /// `terms[i]` in lane `i`. The place need not be aligned.
    fn load(proof: Self::Proof, terms: &[f64; N]) -> Self;

    /// The first `N` terms, or +0.0 where there are fewer. Nothing beyond the slice is read, which
    /// may end where mapped memory does; an empty one will do.
    fn load_short(proof: Self::Proof, terms: &[f64]) -> Self;

    /// [`Vector::load`] of floats, as doubles, which holds each of them exactly.
    fn load_f32(proof: Self::Proof, terms: &[f32; N]) -> Self;

    /// [`Vector::load_short`] of floats, as doubles.
    fn load_short_f32(proof: Self::Proof, terms: &[f32]) -> Self;

    /// The doubles in the order of the lanes, for the scalar end of a sum.
    fn to_array(self) -> [f64; N];

    /// Stores the values past the caches if the address is a multiple of the size of all of them,
    /// for output that nobody reads soon; else in the ordinary way, which is also the default.
    /// [`Vector::fence`] must follow before anybody reads them.
    #[inline(always)]
    fn stream(_: Self::Proof, values: [f64; N], to: &mut [f64; N]) {
        *to = values;
    }

    /// [`Vector::stream`] for floats, whose size is half that of doubles.
    #[inline(always)]
    fn stream_f32(_: Self::Proof, values: [f32; N], to: &mut [f32; N]) {
        *to = values;
    }

    /// Has all that was streamed stored before whatever this thread stores next. Another process
    /// that sees this thread's later note of a finished block then sees its results, too.
    #[inline(always)]
    fn fence(_: Self::Proof) {}

    /// The bits of `self`, and those in which `a` and `b` differ: what a running term collects, by
    /// one or two instructions a term, to be looked at once in the end.
    fn or_different(self, a: Self, b: Self) -> Self;

    /// The bits of both. The result is a set of bits, not a number.
    fn or(self, other: Self) -> Self;

    /// Whether no lane has a bit of `mask`, which is the same for all lanes.
    fn has_none_of(self, mask: u64) -> bool;

    /// Lane `j` of vector `i` of the result is lane `i` of vector `j`. For short rows: rows are
    /// loaded, and columns are added, so each lane sums a row of its own.
    fn transposed(rows: [Self; N]) -> [Self; N];
}

/// The portable vectors, in safe code: two lanes for the baseline. Arrays need no instruction, so
/// the proof is nothing.
impl<const N: usize> Vector<N> for Lanes<N> {
    type Proof = ();

    #[inline(always)]
    fn splat((): (), value: f64) -> Self {
        Self([value; N])
    }

    #[inline(always)]
    fn load((): (), terms: &[f64; N]) -> Self {
        Self(*terms)
    }

    #[inline(always)]
    fn load_short((): (), terms: &[f64]) -> Self {
        Self(from_fn(|i| terms.get(i).copied().unwrap_or(0.0)))
    }

    #[inline(always)]
    fn load_f32((): (), terms: &[f32; N]) -> Self {
        Self(from_fn(|i| f64::from(terms[i])))
    }

    #[inline(always)]
    fn load_short_f32((): (), terms: &[f32]) -> Self {
        Self(from_fn(|i| f64::from(terms.get(i).copied().unwrap_or(0.0))))
    }

    #[inline(always)]
    fn to_array(self) -> [f64; N] {
        self.0
    }

    // Through integers: a double's bits may be a NaN's here, and operations on bits keep them all.
    #[inline(always)]
    fn or_different(self, a: Self, b: Self) -> Self {
        Self(from_fn(|i| {
            f64::from_bits(self.0[i].to_bits() | (a.0[i].to_bits() ^ b.0[i].to_bits()))
        }))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(from_fn(|i| f64::from_bits(self.0[i].to_bits() | other.0[i].to_bits())))
    }

    #[inline(always)]
    fn has_none_of(self, mask: u64) -> bool {
        self.0.iter().fold(0, |all, x| all | x.to_bits()) & mask == 0
    }

    #[inline(always)]
    fn transposed(rows: [Self; N]) -> [Self; N] {
        from_fn(|i| Self(from_fn(|j| rows[j].0[i])))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{Avx2, Avx512, F64x4, F64x8};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    #![expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one fact makes all of them sound: see # Safety above"
    )]

    #[allow(clippy::wildcard_imports, reason = "intrinsics bring their name space with them")]
    use std::arch::x86_64::*;
    use std::array::from_fn;
    use std::ops::{Add, Sub};

    use super::Vector;

    /// The proof that the processor has AVX2, with AVX and SSE before it. Its field is private, so
    /// there is no other way to one than `here`.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(());

    impl Avx2 {
        /// Safe to call only in a function with the feature, which is thereby the proof.
        #[target_feature(enable = "avx2")]
        pub(in super::super) fn here() -> Self {
            Self(())
        }
    }

    /// Four doubles in a register of 256 bits. The intrinsics are those of AVX. The condition is
    /// AVX2 all the same, since the loops over integers are compiled for it, too.
    #[derive(Clone, Copy)]
    pub(in super::super) struct F64x4(__m256d);

    impl Add for F64x4 {
        type Output = Self;

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm256_add_pd(self.0, other.0) })
        }
    }

    impl Sub for F64x4 {
        type Output = Self;

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm256_sub_pd(self.0, other.0) })
        }
    }

    impl Vector<4> for F64x4 {
        type Proof = Avx2;

        #[inline(always)]
        fn splat(_: Avx2, value: f64) -> Self {
            // SAFETY: the proof was handed over.
            Self(unsafe { _mm256_set1_pd(value) })
        }

        #[inline(always)]
        fn load(_: Avx2, terms: &[f64; 4]) -> Self {
            // SAFETY: the proof was handed over, and the reference spans four doubles.
            Self(unsafe { _mm256_loadu_pd(terms.as_ptr()) })
        }

        // VMASKMOVPD: a lane is loaded if the top bit of its mask is set, and is +0.0 else. A lane
        // that is masked out cannot fault. The mask for `n` lanes is a window of eight words.
        #[inline(always)]
        fn load_short(_: Avx2, terms: &[f64]) -> Self {
            const MASKS: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];
            let mask: &[i64; 4] =
                MASKS[4 - terms.len().min(4)..].first_chunk().expect("four of eight");
            // SAFETY: the proof was handed over; the mask selects as many doubles as the slice has,
            // no others are read.
            Self(unsafe {
                _mm256_maskload_pd(terms.as_ptr(), _mm256_loadu_si256(mask.as_ptr().cast()))
            })
        }

        #[inline(always)]
        fn load_f32(_: Avx2, terms: &[f32; 4]) -> Self {
            // SAFETY: the proof was handed over, and the reference spans four floats.
            Self(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(terms.as_ptr())) })
        }

        // VMASKMOVPS, the same for words of 32 bits.
        #[inline(always)]
        fn load_short_f32(_: Avx2, terms: &[f32]) -> Self {
            const MASKS: [i32; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];
            let mask: &[i32; 4] =
                MASKS[4 - terms.len().min(4)..].first_chunk().expect("four of eight");
            // SAFETY: the proof was handed over; the mask selects as many floats as the slice has,
            // no others are read.
            Self(unsafe {
                _mm256_cvtps_pd(_mm_maskload_ps(
                    terms.as_ptr(),
                    _mm_loadu_si128(mask.as_ptr().cast()),
                ))
            })
        }

        #[inline(always)]
        fn to_array(self) -> [f64; 4] {
            let mut array = [0.0; 4];
            // SAFETY: this value is the proof, and the array is of four doubles.
            unsafe { _mm256_storeu_pd(array.as_mut_ptr(), self.0) };
            array
        }

        // VMOVNTPD faults where the place is not a multiple of 32 bytes. Groups of results follow
        // each other at that distance, so a block streams either all of them or none.
        #[inline(always)]
        fn stream(_: Avx2, values: [f64; 4], to: &mut [f64; 4]) {
            if to.as_ptr().addr().is_multiple_of(32) {
                // SAFETY: the proof was handed over, and the reference spans four doubles on a
                // multiple of their size.
                unsafe { _mm256_stream_pd(to.as_mut_ptr(), _mm256_loadu_pd(values.as_ptr())) };
            } else {
                *to = values;
            }
        }

        // Four floats are a vector of SSE: 16 bytes.
        #[inline(always)]
        fn stream_f32(_: Avx2, values: [f32; 4], to: &mut [f32; 4]) {
            if to.as_ptr().addr().is_multiple_of(16) {
                // SAFETY: the proof was handed over, and the reference spans four floats on a
                // multiple of their size.
                unsafe { _mm_stream_ps(to.as_mut_ptr(), _mm_loadu_ps(values.as_ptr())) };
            } else {
                *to = values;
            }
        }

        // Streaming stores are weakly ordered: neither later stores nor a release store of Rust's
        // wait for them, but SFENCE does.
        #[inline(always)]
        fn fence(_: Avx2) {
            // SAFETY: SSE is part of x86-64.
            unsafe { _mm_sfence() };
        }

        #[inline(always)]
        fn or_different(self, a: Self, b: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm256_or_pd(self.0, _mm256_xor_pd(a.0, b.0)) })
        }

        #[inline(always)]
        fn or(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm256_or_pd(self.0, other.0) })
        }

        // VPTEST: one instruction sets a flag if the conjunction of all bits is zero.
        #[inline(always)]
        fn has_none_of(self, mask: u64) -> bool {
            // SAFETY: this value is the proof.
            unsafe {
                _mm256_testz_si256(
                    _mm256_castpd_si256(self.0),
                    _mm256_set1_epi64x(mask.cast_signed()),
                ) == 1
            }
        }

        // Eight instructions in two steps. Unpacking interleaves two rows within each half of 128
        // bits: `ab_even` is a0 b0 a2 b2, `ab_odd` a1 b1 a3 b3. Then 0x20 puts the lower halves of
        // two vectors together, for columns 0 and 1, and 0x31 the upper ones, for columns 2 and 3.
        #[inline(always)]
        fn transposed([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            // SAFETY: these values are the proof.
            let columns = unsafe {
                let (ab_even, ab_odd) =
                    (_mm256_unpacklo_pd(a.0, b.0), _mm256_unpackhi_pd(a.0, b.0));
                let (cd_even, cd_odd) =
                    (_mm256_unpacklo_pd(c.0, d.0), _mm256_unpackhi_pd(c.0, d.0));
                [
                    _mm256_permute2f128_pd::<0x20>(ab_even, cd_even),
                    _mm256_permute2f128_pd::<0x20>(ab_odd, cd_odd),
                    _mm256_permute2f128_pd::<0x31>(ab_even, cd_even),
                    _mm256_permute2f128_pd::<0x31>(ab_odd, cd_odd),
                ]
            };
            columns.map(Self)
        }
    }

    /// The proof that the processor has AVX-512F and AVX-512VL. VL is for one instruction, the
    /// masked load of eight floats, which is one of 256 bits.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(());

    impl Avx512 {
        /// Safe to call only in a function with both features, which is thereby the proof.
        #[target_feature(enable = "avx512f,avx512vl")]
        pub(in super::super) fn here() -> Self {
            Self(())
        }
    }

    /// The mask of the first `n` lanes of eight, or of all of them; bit `i` is that of lane `i`.
    /// (`(1 << n) - 1` would overflow eight bits where `n` is 8.)
    #[inline(always)]
    fn first_lanes(n: usize) -> __mmask8 {
        const MASKS: [__mmask8; 9] = [0, 0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
        MASKS[n.min(8)]
    }

    /// Eight doubles in a register of AVX-512.
    #[derive(Clone, Copy)]
    pub(in super::super) struct F64x8(__m512d);

    impl Add for F64x8 {
        type Output = Self;

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm512_add_pd(self.0, other.0) })
        }
    }

    impl Sub for F64x8 {
        type Output = Self;

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe { _mm512_sub_pd(self.0, other.0) })
        }
    }

    impl Vector<8> for F64x8 {
        type Proof = Avx512;

        #[inline(always)]
        fn splat(_: Avx512, value: f64) -> Self {
            // SAFETY: the proof was handed over.
            Self(unsafe { _mm512_set1_pd(value) })
        }

        #[inline(always)]
        fn load(_: Avx512, terms: &[f64; 8]) -> Self {
            // SAFETY: the proof was handed over, and the reference spans eight doubles.
            Self(unsafe { _mm512_loadu_pd(terms.as_ptr()) })
        }

        // VMOVUPD with a zeroing mask: a lane that is masked out is +0.0, and cannot fault.
        #[inline(always)]
        fn load_short(_: Avx512, terms: &[f64]) -> Self {
            let mask = first_lanes(terms.len());
            // SAFETY: the proof was handed over; the mask selects as many doubles as the slice has,
            // no others are read.
            Self(unsafe { _mm512_maskz_loadu_pd(mask, terms.as_ptr()) })
        }

        #[inline(always)]
        fn load_f32(_: Avx512, terms: &[f32; 8]) -> Self {
            // SAFETY: the proof was handed over, and the reference spans eight floats.
            Self(unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(terms.as_ptr())) })
        }

        // The mask is of a 256-bit vector, which is what needs AVX-512VL.
        #[inline(always)]
        fn load_short_f32(_: Avx512, terms: &[f32]) -> Self {
            let mask = first_lanes(terms.len());
            // SAFETY: the proof was handed over; the mask selects as many floats as the slice has,
            // no others are read.
            Self(unsafe { _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, terms.as_ptr())) })
        }

        #[inline(always)]
        fn to_array(self) -> [f64; 8] {
            let mut array = [0.0; 8];
            // SAFETY: this value is the proof, and the array is of eight doubles.
            unsafe { _mm512_storeu_pd(array.as_mut_ptr(), self.0) };
            array
        }

        // As for `F64x4`, with 64 bytes: a whole cache line, so nothing is read to fill it up.
        #[inline(always)]
        fn stream(_: Avx512, values: [f64; 8], to: &mut [f64; 8]) {
            if to.as_ptr().addr().is_multiple_of(64) {
                // SAFETY: the proof was handed over, and the reference spans eight doubles on a
                // multiple of their size.
                unsafe { _mm512_stream_pd(to.as_mut_ptr(), _mm512_loadu_pd(values.as_ptr())) };
            } else {
                *to = values;
            }
        }

        #[inline(always)]
        fn stream_f32(_: Avx512, values: [f32; 8], to: &mut [f32; 8]) {
            if to.as_ptr().addr().is_multiple_of(32) {
                // SAFETY: the proof was handed over, and the reference spans eight floats on a
                // multiple of their size.
                unsafe { _mm256_stream_ps(to.as_mut_ptr(), _mm256_loadu_ps(values.as_ptr())) };
            } else {
                *to = values;
            }
        }

        #[inline(always)]
        fn fence(_: Avx512) {
            // SAFETY: SSE is part of x86-64.
            unsafe { _mm_sfence() };
        }

        #[inline(always)]
        fn or_different(self, a: Self, b: Self) -> Self {
            /// `x | (y ^ z)`: bit `4 x + 2 y + z` of the table is the result for these three bits.
            /// One instruction does what takes two in AVX2.
            const OR_XOR: i32 = 0b1111_0110;
            // SAFETY: these values are the proof.
            Self(unsafe {
                let [all, a, b] = [self.0, a.0, b.0].map(|x| _mm512_castpd_si512(x));
                _mm512_castsi512_pd(_mm512_ternarylogic_epi64::<OR_XOR>(all, a, b))
            })
        }

        #[inline(always)]
        fn or(self, other: Self) -> Self {
            // SAFETY: these values are the proof.
            Self(unsafe {
                let [a, b] = [self.0, other.0].map(|x| _mm512_castpd_si512(x));
                _mm512_castsi512_pd(_mm512_or_si512(a, b))
            })
        }

        #[inline(always)]
        fn has_none_of(self, mask: u64) -> bool {
            // SAFETY: this value is the proof.
            unsafe {
                _mm512_test_epi64_mask(
                    _mm512_castpd_si512(self.0),
                    _mm512_set1_epi64(mask.cast_signed()),
                ) == 0
            }
        }

        #[inline(always)]
        fn transposed(rows: [Self; 8]) -> [Self; 8] {
            let rows = rows.map(|row| row.0);
            // SAFETY: these values are the proof.
            let columns = unsafe {
                // Three steps of eight instructions. In step `s` vectors whose numbers differ in
                // bit `s` exchange halves, so a vector holds doubles of two rows, then of four,
                // then of all. Unpacking takes the even or the odd doubles of both; a shuffle by
                // 0x88 takes the even ones of their quarters of 128 bits, one by 0xdd the odd ones.
                let singles: [_; 8] = from_fn(|i| {
                    let (a, b) = (rows[i & !1], rows[i | 1]);
                    if i & 1 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) }
                });
                let pairs: [_; 8] = from_fn(|i| {
                    let (a, b) = (singles[i & !2], singles[i | 2]);
                    if i & 2 == 0 {
                        _mm512_shuffle_f64x2::<0x88>(a, b)
                    } else {
                        _mm512_shuffle_f64x2::<0xdd>(a, b)
                    }
                });
                from_fn(|i| {
                    let (a, b) = (pairs[i & !4], pairs[i | 4]);
                    if i & 4 == 0 {
                        _mm512_shuffle_f64x2::<0x88>(a, b)
                    } else {
                        _mm512_shuffle_f64x2::<0xdd>(a, b)
                    }
                })
            };
            columns.map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads every number of terms, and none beside them, and transposes a tile; `here` is the
    /// proof.
    fn short_loads<V: Vector<N>, const N: usize>(here: V::Proof) {
        for n in 0..=N {
            // More terms follow, which must not be seen.
            let (terms, singles): (Vec<f64>, Vec<f32>) =
                ((1..20_u8).map(f64::from).collect(), (1..20_u8).map(f32::from).collect());
            let expected: [f64; N] = from_fn(|i| if i < n { terms[i] } else { 0.0 });
            assert_eq!(V::load_short(here, &terms[..n]).to_array(), expected);
            assert_eq!(V::load_short_f32(here, &singles[..n]).to_array(), expected);
        }
        let tile = from_fn(|i| V::load(here, &from_fn(|j| (i * N + j) as f64)));
        for (j, column) in V::transposed(tile).into_iter().enumerate() {
            assert_eq!(column.to_array(), from_fn(|i| (i * N + j) as f64));
        }
    }

    #[test]
    fn short_loads_and_transpositions_by_every_set_of_instructions() {
        short_loads::<Lanes<2>, 2>(());
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has it.
                short_loads::<F64x4, 4>(unsafe { Avx2::here() });
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: the processor has them.
                short_loads::<F64x8, 8>(unsafe { Avx512::here() });
            }
        }
    }
}
