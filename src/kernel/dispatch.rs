//! Which instructions the kernels are compiled to, and the choice among them, made once.
//!
//! The operations in `src/rows/` and the functions in `functions.rs` call it. The algorithms are
//! generic and know no instruction set; here, and only here, they are compiled several times. A new
//! instruction set needs a variant of [`Isa`], an implementation of the trait in `vector.rs`, and a
//! `compile!` below.
//!
//! Every entry gives the same bits for every instruction set. An exact result is rounded once, so
//! it has no choice, and the plain sum keeps to one order of additions.
//!
//! # Safety
//! A function with `#[target_feature]` may run only where the processor has the feature. A
//! [`Kernels`] of some [`Isa`] comes only from [`Kernels::new`], which asks the processor: *the
//! value is the proof*. ([`Kernels::choose`] also makes that of [`Isa::Scalar`], which needs none.)
#![allow(unsafe_code, reason = "calling a #[target_feature] function is unsafe; see # Safety")]

use std::hint::black_box;
use std::sync::OnceLock;

use super::anchored::Anchor;
use super::integers::Integer;
use super::lanes::Lanes;
use super::means::{Mean, Weights};
use super::overflow::Overflow;
use super::result::Rounded;
#[cfg(target_arch = "x86_64")]
use super::vector::{Avx2, Avx512, F64x4, F64x8};
use super::{anchored, fallback, integers, means, plain, rows, single_precision};
use crate::sys::fpu::DefaultFpu;

/// An instruction set the kernels are compiled for, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What the target guarantees: SSE2 on x86-64, NEON on `AArch64`.
    Scalar,
    /// AVX2 and FMA: 256-bit vectors, and a multiplication and addition with one rounding. A few
    /// processors have AVX2 without FMA; they count as `Scalar`.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F, AVX-512VL and FMA: 512-bit vectors. VL brings the masks for 256-bit loads, by
    /// which the end of a row of floats is read.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// All that this target has, each better than the one before: [`Kernels::choose`] begins at the
    /// end.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::Avx512];
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const ALL: &[Self] = &[Self::Scalar];

    /// The name that stands for it in `ROWFORK_ISA`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}

/// The row kernels for one instruction set that this processor has. The bits that they return do
/// not depend on the instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The kernels for `isa`, or `None` if the processor lacks it. The conditions are the features
    /// that `compile!` names for that instruction set. The detection also asks whether the
    /// operating system saves the wide registers.
    pub(crate) fn new(isa: Isa) -> Option<Self> {
        let available = match isa {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("fma")
            }
        };
        available.then_some(Self { isa })
    }

    /// The best kernels this processor has, or those that `ROWFORK_ISA` (`scalar`, `avx2`,
    /// `avx512`) names, if it has them.
    ///
    /// # Fork safety
    /// The first call reads the environment, under a lock that another thread may hold at the
    /// fork. So the parent calls this before it forks, and a worker, which inherits the static,
    /// reads what is chosen.
    pub(crate) fn get() -> Self {
        static CHOSEN: OnceLock<Kernels> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::choose(&std::env::var("ROWFORK_ISA").unwrap_or_default()))
    }

    /// The kernels of that name if this processor has them, else its best. A name that is unknown
    /// or empty, or that another machine would have, is no error.
    pub(super) fn choose(name: &str) -> Self {
        let named = Isa::ALL.iter().copied().filter(|isa| isa.name() == name).find_map(Self::new);
        named
            .or_else(|| Isa::ALL.iter().rev().copied().find_map(Self::new))
            .unwrap_or(Self { isa: Isa::Scalar })
    }

    /// The instruction set that this is the proof of.
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) const fn isa(self) -> Isa {
        self.isa
    }
}

/// The entries of the table. They are `unsafe` to call because they need the instructions that they
/// are compiled for. Shapes are checked by the methods below: an entry that gets others panics or
/// leaves results unwritten, and never reads or writes beyond its slices.
type RowSums = unsafe fn(&[f64], usize, &mut [f64]);
type Sum = unsafe fn(&[f64]) -> f64;
type RowDots = unsafe fn(&[f64], &[f64], &mut [f64]);
type Weigh = for<'w> unsafe fn(&'w [f64]) -> Weights<'w>;
type RowWeightedMeans = unsafe fn(&[f64], Weights<'_>, &mut [f64]);
type RowSumsF32 = unsafe fn(&[f32], usize, &mut [f32]);
type IntegerRowSums<X> = unsafe fn(&[X], usize, &mut [<X as Integer>::Sum]) -> Result<(), Overflow>;
type RowCounts = unsafe fn(&[u8], usize, &mut [u64]);
#[cfg(any(test, feature = "failpoints"))]
type Tier<X> = unsafe fn(&[X]) -> Option<X>;

/// One table for each instruction set; the methods of [`Kernels`] say what an entry does.
struct Compiled {
    row_sums: RowSums,
    sum: Sum,
    row_means: RowSums,
    row_dots: RowDots,
    weigh: Weigh,
    row_weighted_means: RowWeightedMeans,
    row_plain_sums: RowSums,
    row_sums_f32: RowSumsF32,
    row_counts: RowCounts,
    /// Tiers one and two by themselves, `None` where they prove nothing, for tests and benches.
    #[cfg(any(test, feature = "failpoints"))]
    tiers: [Tier<f64>; 2],
    #[cfg(test)]
    tiers_f32: [Tier<f32>; 2],
}

/// Compiles the kernels under the given attributes, as a module with a table.
///
/// - `vector`: the type of `vector.rs` for the loops that are written with intrinsics, its number
///   of doubles, and the proof that makes it. The proof is made anew in each function, which may
///   make it because it has the feature.
/// - `loops`: the number of lanes where the compiler makes vectors by itself. That is one vector of
///   512 bits, or two of the others, so that two additions are under way.
/// - `fused`: see `FUSED` below.
///
/// The loops that these functions call are `#[inline(always)]`, so they are compiled for the same
/// features. The fixed-point code of the last tiers is not: it has no use for vectors, and is
/// compiled once. The `refine` functions have the attribute themselves and stay calls: few rows get
/// to them, and their code would take registers and instruction cache from the loop that matters.
macro_rules! compile {
    (
        $name:ident,
        vector: $lanes:literal of $vector:ty, $proof:expr,
        loops: $n:literal,
        fused: $fused:expr,
        $(#[$feature:meta])?
    ) => {
        mod $name {
            use super::{Anchor, Integer, Mean, Overflow, Rounded, Weights};

            const N: usize = $n;

            /// Whether a fused multiplication and addition is one instruction. Without it,
            /// `mul_add` is a slow library function, so `two_product` does without. No bit depends
            /// on this: `two_product` is exact either way, and the compiler fuses no plain code.
            const FUSED: bool = $fused;

            // The closure here, and in the functions below, has the features of the function
            // around it. A function with `#[target_feature]` is no `Fn` by itself.
            $(#[$feature])?
            pub(super) fn row_sums(rows: &[f64], n_columns: usize, out: &mut [f64]) {
                let refine = |row: &[f64], anchor| refine(row, anchor);
                super::rows::each::<f64, $vector, $lanes, 2, 3>($proof, rows, n_columns, Rounded, out, refine);
            }

            $(#[$feature])?
            pub(super) fn sum(row: &[f64]) -> f64 {
                let sum = super::anchored::sum_row::<f64, $vector, $lanes, 2>($proof, row, Rounded, &mut None);
                sum.unwrap_or_else(|| refine(row, None))
            }

            $(#[$feature])?
            #[cold]
            #[inline(never)]
            fn refine(row: &[f64], anchor: Option<Anchor>) -> f64 {
                super::fallback::sum_row::<$vector, $lanes>($proof, row, anchor)
            }

            $(#[$feature])?
            fn row_means(rows: &[f64], n_columns: usize, out: &mut [f64]) {
                let refine = |row: &[f64], anchor| refine_mean(row, anchor);
                let sum_result = Mean::<FUSED>(n_columns);
                super::rows::each::<f64, $vector, $lanes, 2, 3>($proof, rows, n_columns, sum_result, out, refine);
            }

            $(#[$feature])?
            #[cold]
            #[inline(never)]
            fn refine_mean(row: &[f64], anchor: Option<Anchor>) -> f64 {
                super::means::refine_mean::<$vector, $lanes, FUSED>($proof, row, anchor)
            }

            $(#[$feature])?
            fn row_dots(rows: &[f64], vector: &[f64], out: &mut [f64]) {
                let refine = |row: &[f64]| refine_dot(row, vector);
                super::means::row_dots::<$vector, $lanes, FUSED>($proof, rows, vector, out, refine);
            }

            $(#[$feature])?
            #[cold]
            #[inline(never)]
            fn refine_dot(row: &[f64], vector: &[f64]) -> f64 {
                super::means::refine_dot::<N, FUSED>(row, vector)
            }

            $(#[$feature])?
            fn weigh(weights: &[f64]) -> Weights<'_> {
                Weights::new::<N>(weights)
            }

            $(#[$feature])?
            fn row_weighted_means(rows: &[f64], weights: Weights<'_>, out: &mut [f64]) {
                let refine = |row: &[f64]| refine_weighted(row, weights);
                super::means::row_weighted_means::<$vector, $lanes, FUSED>($proof, rows, weights, out, refine);
            }

            $(#[$feature])?
            #[cold]
            #[inline(never)]
            fn refine_weighted(row: &[f64], weights: Weights<'_>) -> f64 {
                super::means::refine_weighted_mean::<N, FUSED>(row, weights)
            }

            $(#[$feature])?
            fn row_plain_sums(rows: &[f64], n_columns: usize, out: &mut [f64]) {
                super::plain::row_sums(rows, n_columns, out);
            }

            $(#[$feature])?
            fn row_sums_f32(rows: &[f32], n_columns: usize, out: &mut [f32]) {
                let refine = |row: &[f32], anchor| refine_f32(row, anchor);
                super::rows::each::<f32, $vector, $lanes, 1, 2>($proof, rows, n_columns, Rounded, out, refine);
            }

            $(#[$feature])?
            #[cold]
            #[inline(never)]
            fn refine_f32(row: &[f32], anchor: Option<Anchor>) -> f32 {
                super::single_precision::refine::<$vector, $lanes>($proof, row, anchor)
            }

            // Generic, and so not in the table: `Kernels::integer_row_sums` matches instead.
            $(#[$feature])?
            pub(super) fn integer_row_sums<X: Integer>(
                rows: &[X],
                n_columns: usize,
                out: &mut [X::Sum],
            ) -> Result<(), Overflow> {
                super::integers::row_sums::<X, N, { 2 * N }>(rows, n_columns, out)
            }

            $(#[$feature])?
            fn row_counts(rows: &[u8], n_columns: usize, out: &mut [u64]) {
                super::integers::row_counts(rows, n_columns, out);
            }

            // Without an anchor from rows before, so that the row alone decides.
            #[cfg(any(test, feature = "failpoints"))]
            $(#[$feature])?
            fn tier_one(row: &[f64]) -> Option<f64> {
                super::anchored::sum_row::<f64, $vector, $lanes, 2>($proof, row, Rounded, &mut None)
            }

            #[cfg(any(test, feature = "failpoints"))]
            $(#[$feature])?
            fn tier_two(row: &[f64]) -> Option<f64> {
                super::anchored::sum_row::<f64, $vector, $lanes, 3>($proof, row, Rounded, &mut None)
            }

            #[cfg(test)]
            $(#[$feature])?
            fn tier_one_f32(row: &[f32]) -> Option<f32> {
                super::anchored::sum_row::<f32, $vector, $lanes, 1>($proof, row, Rounded, &mut None)
            }

            #[cfg(test)]
            $(#[$feature])?
            fn tier_two_f32(row: &[f32]) -> Option<f32> {
                super::anchored::sum_row::<f32, $vector, $lanes, 2>($proof, row, Rounded, &mut None)
            }

            pub(super) const COMPILED: super::Compiled = super::Compiled {
                row_sums,
                sum,
                row_means,
                row_dots,
                weigh,
                row_weighted_means,
                row_plain_sums,
                row_sums_f32,
                row_counts,
                #[cfg(any(test, feature = "failpoints"))]
                tiers: [tier_one, tier_two],
                #[cfg(test)]
                tiers_f32: [tier_one_f32, tier_two_f32],
            };
        }
    };
}

// Two doubles are a register of SSE2 or NEON. Only a program compiled for a later x86-64, or for
// AArch64, has the fused instruction here.
compile!(
    scalar,
    vector: 2 of super::Lanes<2>, (),
    loops: 4,
    fused: cfg!(any(target_feature = "fma", target_arch = "aarch64")),
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx2,
    vector: 4 of super::F64x4, super::Avx2::here(),
    loops: 8,
    fused: true,
    #[target_feature(enable = "avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512,
    vector: 8 of super::F64x8, super::Avx512::here(),
    loops: 8,
    fused: true,
    #[target_feature(enable = "avx512f,avx512vl,fma")]
);

// Shapes are checked, and the control word is set for sums of floats, once a block and not once a
// row.
impl Kernels {
    /// The table of the instruction set. Its entries may be called because `self` is there.
    const fn compiled(self) -> &'static Compiled {
        match self.isa {
            Isa::Scalar => &scalar::COMPILED,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::COMPILED,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::COMPILED,
        }
    }

    /// The correctly rounded sum of each row: `rows` holds `out.len()` rows of `n_columns` doubles,
    /// one after the other. A row of no columns has the sum +0.0. The function allocates nothing,
    /// takes no lock, and does not depend on the caller's rounding mode, FTZ or DAZ.
    ///
    /// # Panics
    /// If `rows` is not of that length.
    pub(crate) fn row_sums(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        // The pointer is hidden from the compiler, so that it moves no arithmetic of the kernel
        // across the guard: see `DefaultFpu`.
        let row_sums = black_box(self.compiled().row_sums);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_sums(rows, n_columns, out) };
    }

    /// The correctly rounded sum of one row. The rest is as for [`Kernels::row_sums`].
    pub(crate) fn sum(self, row: &[f64]) -> f64 {
        let _fpu = DefaultFpu::new();
        let sum = black_box(self.compiled().sum);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { sum(row) }
    }

    /// The double nearest the mean of each row, NaN for rows of no elements. The rest is as for
    /// [`Kernels::row_sums`].
    pub(crate) fn row_means(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        // Hidden for the same reason as in `row_sums`, as are those below.
        let row_means = black_box(self.compiled().row_means);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_means(rows, n_columns, out) };
    }

    /// The double nearest the dot product of `vector` and each row, which has as many elements. An
    /// empty vector gives +0.0. The rest is as for [`Kernels::row_sums`].
    pub(crate) fn row_dots(self, rows: &[f64], vector: &[f64], out: &mut [f64]) {
        assert_shape(rows, vector.len(), out);
        let _fpu = DefaultFpu::new();
        let row_dots = black_box(self.compiled().row_dots);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_dots(rows, vector, out) };
    }

    /// Sums weights, once for all rows that they are for. Any weights will do: those with a sum of
    /// zero, or with a NaN, leave every row to the last tier.
    pub(crate) fn weigh(self, weights: &[f64]) -> Weights<'_> {
        let _fpu = DefaultFpu::new();
        let weigh = black_box(self.compiled().weigh);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { weigh(weights) }
    }

    /// The double nearest the weighted mean of each row, which has as many elements as there are
    /// weights; NaN if there are none. The rest is as for [`Kernels::row_sums`].
    pub(crate) fn row_weighted_means(self, rows: &[f64], weights: Weights<'_>, out: &mut [f64]) {
        assert_shape(rows, weights.len(), out);
        let _fpu = DefaultFpu::new();
        let row_weighted_means = black_box(self.compiled().row_weighted_means);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_weighted_means(rows, weights, out) };
    }

    /// The plain sum of each row, in the order of `plain.rs`. The control word matters here, too:
    /// every addition is rounded. The rest is as for [`Kernels::row_sums`].
    pub(crate) fn row_plain_sums(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        let row_plain_sums = black_box(self.compiled().row_plain_sums);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_plain_sums(rows, n_columns, out) };
    }

    /// The `f32` nearest the exact sum of each row, rounded once. The rest is as for
    /// [`Kernels::row_sums`].
    pub(crate) fn row_sums_f32(self, rows: &[f32], n_columns: usize, out: &mut [f32]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        let row_sums = black_box(self.compiled().row_sums_f32);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_sums(rows, n_columns, out) };
    }

    /// The sum of each row of integers, 0 for a row of none. Shapes and panics are as for
    /// [`Kernels::row_sums`]. There is no guard, since integer arithmetic does not look at the
    /// floating-point control word.
    ///
    /// # Errors
    /// The first row whose sum does not fit; those before it are summed.
    pub(crate) fn integer_row_sums<X: Integer>(
        self,
        rows: &[X],
        n_columns: usize,
        out: &mut [X::Sum],
    ) -> Result<(), Overflow> {
        assert_shape(rows, n_columns, out);
        let row_sums: IntegerRowSums<X> = match self.isa {
            Isa::Scalar => scalar::integer_row_sums::<X>,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::integer_row_sums::<X>,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::integer_row_sums::<X>,
        };
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_sums(rows, n_columns, out) }
    }

    /// The number of bytes other than zero in each row. Shapes and panics are as for
    /// [`Kernels::row_sums`]. No count overflows: a row in memory has fewer bytes than 2^64.
    pub(crate) fn row_counts(self, rows: &[u8], n_columns: usize, out: &mut [u64]) {
        assert_shape(rows, n_columns, out);
        let row_counts = self.compiled().row_counts;
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_counts(rows, n_columns, out) };
    }

    /// The answer of tier `tier` (one or two) for a row, or `None` if it proves nothing. The
    /// control word is the caller's.
    #[cfg(any(test, feature = "failpoints"))]
    pub(super) fn tier(self, tier: usize, row: &[f64]) -> Option<f64> {
        let tier = self.compiled().tiers[tier - 1];
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { tier(row) }
    }

    /// The same for a row of floats.
    #[cfg(test)]
    pub(super) fn tier_f32(self, tier: usize, row: &[f32]) -> Option<f32> {
        let tier = self.compiled().tiers_f32[tier - 1];
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { tier(row) }
    }
}

/// Panics unless `rows` is as long as `out.len()` rows of `n_columns`. A product that overflows is
/// no length; with no columns `rows` is empty, and `out` may have any length.
#[track_caller]
fn assert_shape<X, Y>(rows: &[X], n_columns: usize, out: &[Y]) {
    assert_eq!(
        Some(rows.len()),
        n_columns.checked_mul(out.len()),
        "rows x columns is not the length of the data"
    );
}
