//! Which instructions the kernels are compiled to, and the choice among them, made once.
//!
//! Called by the engine and by [`exact_sum`](super::exact_sum). The algorithms are generic and know
//! no instruction set; here, and only here, they are compiled several times. To add one, add a
//! variant of [`Isa`] and a line to the table.
//!
//! # Safety
//! A function with `#[target_feature]` may run only where the processor has the feature. A
//! [`Kernels`] of some [`Isa`] comes only from [`Kernels::new`], which asks the processor: *the
//! value is the proof*.
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
    /// 256-bit vectors, and fused multiplication and addition, which all processors that have them
    /// have but for a few.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    #[cfg(target_arch = "x86_64")]
    pub(crate) const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::Avx512];
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const ALL: &[Self] = &[Self::Scalar];

    /// The name as in `ROWFORK_ISA`.
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

/// The row kernels for one instruction set that this processor has. The bits they return do not
/// depend on which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// The kernels for `isa`, or `None` if the processor lacks it. The only place a `Kernels` is
    /// made.
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
    /// Reads the environment the first time and takes a lock for it: the parent calls this before
    /// it forks and hands the value, which is `Copy`, to its workers.
    pub(crate) fn get() -> Self {
        static CHOSEN: OnceLock<Kernels> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::choose(&std::env::var("ROWFORK_ISA").unwrap_or_default()))
    }

    /// The kernels of that name if this processor has them, else its best.
    pub(super) fn choose(name: &str) -> Self {
        let named = Isa::ALL.iter().copied().filter(|isa| isa.name() == name).find_map(Self::new);
        named
            .or_else(|| Isa::ALL.iter().rev().copied().find_map(Self::new))
            .unwrap_or(Self { isa: Isa::Scalar })
    }

    /// Which instructions these are.
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) const fn isa(self) -> Isa {
        self.isa
    }
}

/// What a table entry compiles, with the signatures the methods below rely on.
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
    /// The tiers by themselves, for tests and benches.
    #[cfg(any(test, feature = "failpoints"))]
    tiers: [Tier<f64>; 2],
    #[cfg(test)]
    tiers_f32: [Tier<f32>; 2],
}

/// Compiles the kernels under the given attributes: for vectors of so many doubles, and where loops
/// are left to the compiler for lanes of so many, which is one vector of 512 bits or two of the
/// others.
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

            /// Whether a fused multiplication and addition is one instruction. (Of plain code none
            /// is made.)
            const FUSED: bool = $fused;

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
                let goal = Mean::<FUSED>(n_columns);
                super::rows::each::<f64, $vector, $lanes, 2, 3>($proof, rows, n_columns, goal, out, refine);
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

            // Not in the table, which is not generic.
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

impl Kernels {
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
    /// one after the other. Allocates nothing, takes no lock, and does not depend on the caller's
    /// rounding mode, FTZ or DAZ.
    ///
    /// # Panics
    /// If `rows` is not of that length.
    pub(crate) fn row_sums(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        // Hidden from the compiler so that nothing of it is moved across the guard: see
        // `DefaultFpu`.
        let row_sums = black_box(self.compiled().row_sums);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_sums(rows, n_columns, out) };
    }

    /// The correctly rounded sum of one row; the rest as for [`Kernels::row_sums`].
    pub(crate) fn sum(self, row: &[f64]) -> f64 {
        let _fpu = DefaultFpu::new();
        let sum = black_box(self.compiled().sum);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { sum(row) }
    }

    /// The double nearest the mean of each row, NaN for rows of no elements; the rest as for
    /// [`Kernels::row_sums`].
    pub(crate) fn row_means(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        // Hidden for the same reason, as are those below.
        let row_means = black_box(self.compiled().row_means);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_means(rows, n_columns, out) };
    }

    /// The double nearest the dot product of `vector` and each row, which has as many elements; the
    /// rest as for [`Kernels::row_sums`].
    pub(crate) fn row_dots(self, rows: &[f64], vector: &[f64], out: &mut [f64]) {
        assert_shape(rows, vector.len(), out);
        let _fpu = DefaultFpu::new();
        let row_dots = black_box(self.compiled().row_dots);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_dots(rows, vector, out) };
    }

    /// Sums weights, once for all rows that they are for.
    pub(crate) fn weigh(self, weights: &[f64]) -> Weights<'_> {
        let _fpu = DefaultFpu::new();
        let weigh = black_box(self.compiled().weigh);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { weigh(weights) }
    }

    /// The double nearest the weighted mean of each row, which has as many elements as there are
    /// weights; the rest as for [`Kernels::row_sums`].
    pub(crate) fn row_weighted_means(self, rows: &[f64], weights: Weights<'_>, out: &mut [f64]) {
        assert_shape(rows, weights.len(), out);
        let _fpu = DefaultFpu::new();
        let row_weighted_means = black_box(self.compiled().row_weighted_means);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_weighted_means(rows, weights, out) };
    }

    /// The plain sum of each row, in the order of `plain.rs`; the rest as for
    /// [`Kernels::row_sums`].
    pub(crate) fn row_plain_sums(self, rows: &[f64], n_columns: usize, out: &mut [f64]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        let row_plain_sums = black_box(self.compiled().row_plain_sums);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_plain_sums(rows, n_columns, out) };
    }

    /// The `f32` nearest the exact sum of each row; the rest as for [`Kernels::row_sums`].
    pub(crate) fn row_sums_f32(self, rows: &[f32], n_columns: usize, out: &mut [f32]) {
        assert_shape(rows, n_columns, out);
        let _fpu = DefaultFpu::new();
        // Hidden for the same reason.
        let row_sums = black_box(self.compiled().row_sums_f32);
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_sums(rows, n_columns, out) };
    }

    /// The sum of each row of integers; shapes and panics as for [`Kernels::row_sums`].
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

    /// The number of bytes other than zero in each row; shapes and panics as for
    /// [`Kernels::row_sums`].
    pub(crate) fn row_counts(self, rows: &[u8], n_columns: usize, out: &mut [u64]) {
        assert_shape(rows, n_columns, out);
        let row_counts = self.compiled().row_counts;
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { row_counts(rows, n_columns, out) };
    }

    /// What tier `tier` (one or two) says of a row when it is asked alone.
    #[cfg(any(test, feature = "failpoints"))]
    pub(super) fn tier(self, tier: usize, row: &[f64]) -> Option<f64> {
        let tier = self.compiled().tiers[tier - 1];
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { tier(row) }
    }

    /// The same of a row of floats.
    #[cfg(test)]
    pub(super) fn tier_f32(self, tier: usize, row: &[f32]) -> Option<f32> {
        let tier = self.compiled().tiers_f32[tier - 1];
        // SAFETY: `self` is the proof that the processor has the instructions.
        unsafe { tier(row) }
    }
}

#[track_caller]
fn assert_shape<X, Y>(rows: &[X], n_columns: usize, out: &[Y]) {
    assert_eq!(
        Some(rows.len()),
        n_columns.checked_mul(out.len()),
        "rows x columns is not the length of the data"
    );
}
