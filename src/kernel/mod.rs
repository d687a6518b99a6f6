//! Kernels: pure functions of slices. They know nothing of processes, segments or blocks.
//!
//! Called by the engine, which obtains a [`Kernel`] before it forks and hands it to the workers. Nothing here
//! allocates, locks or does a system call, [`Kernel::get`] excepted.
//!
//! | file | what |
//! |---|---|
//! | `dispatch.rs` | the choice of instructions, once |
//! | `vector.rs` | a vector register, by intrinsics; with the former and one instruction in `integers/bytes.rs` the only `unsafe` here |
//! | `lanes.rs` | small arrays the compiler turns into vectors; `TwoSum` |
//! | `anchored.rs` | tiers one and two: exact running terms; nearly every row ends here |
//! | `rows.rs` | the same for many rows, several at a time |
//! | `goal.rs` | what is summed and what is wanted of it |
//! | `certificate.rs` | when a sum with an error is proved to be rounded right |
//! | `three_term.rs` | three terms, and their rounding |
//! | `refine.rs` | the way down for the rows that tier one cannot vouch for |
//! | `superaccumulator.rs` | tier three: fixed point, exact |
//! | `single_precision.rs` | rows of `f32`: the same tiers with one running term less |
//! | `integers/` | rows of integers, and of bytes to be counted |
//! | `means.rs` | dot products, means, weighted means: which tiers they have |
//! | `dot.rs` | first tier of dot products and weighted means: a compensated sum with a bound |
//! | `product.rs`, `interval.rs` | `TwoProduct`; what a sum with a bound proves, and a quotient of two |
//! | `ratio.rs` | the last tier of dot products, means and weighted means |
//! | `fixed.rs` | what both are made of: wide integers, their quotient, its rounding |
//! | `plain.rs` | the plain sum, in a fixed order |
//! | `summand.rs` | the element types, for callers generic over them |

#![expect(clippy::inline_always, reason = "what is not inlined is compiled for the baseline: see lanes.rs")]

mod anchored;
mod certificate;
mod dispatch;
mod dot;
mod fixed;
mod functions;
mod goal;
mod integers;
mod interval;
mod lanes;
mod means;
mod plain;
mod product;
mod ratio;
mod refine;
mod rows;
mod single_precision;
mod summand;
mod superaccumulator;
mod three_term;
mod vector;

#[cfg(test)]
mod tests;

pub use functions::{
    exact_dot, exact_mean, exact_row_dots, exact_row_means, exact_weighted_mean, fast_row_sums, fast_sum,
};
#[cfg(feature = "failpoints")]
pub use functions::{instructions, tier_of_exact_sum};

pub(crate) use dispatch::Kernel;
pub(crate) use means::Weights;
pub(crate) use summand::{Overflow, Summand};

/// The double nearest the exact sum of `values`, ties to even: correctly rounded, like Python's `math.fsum`, at the
/// speed of memory.
///
/// The exact sum has one nearest double, so the bits do not depend on the order of the values, the machine, its vector
/// instructions, or the rounding mode and flush-to-zero setting of the calling thread.
///
/// Unlike `math.fsum`, partial sums may overflow: `[1e308, 1e308, -1e308]` gives `1e308`. As with IEEE 754 addition:
///
/// | values | sum |
/// |---|---|
/// | the exact sum rounds past `f64::MAX` | infinity of its sign |
/// | a NaN, or both infinities | NaN, always the same one: positive, quiet, no payload |
/// | infinities of one sign | that infinity |
/// | none, only zeros of either sign, or an exact sum of zero | `+0.0` |
///
/// ```
/// # use rowfork::exact_sum;
/// let tenths = [0.1; 10];
/// assert_eq!(exact_sum(&tenths), 1.0);
/// assert_ne!(tenths.iter().sum::<f64>(), 1.0);
///
/// assert_eq!(exact_sum(&[1e100, 1.0, -1e100]), 1.0);
/// ```
///
/// # Method
/// Three tiers, each giving an answer only if it is proved. First two running sums that start from a number so large that
/// additions to it are exact but for a remainder, which the second takes (Ogita, Rump and Oishi, "Accurate
/// floating-point summation part I", 2008; Demmel and Nguyen, "Fast reproducible floating-point summation", 2013); if
/// the second drops nothing, their sum is exact and is rounded once, as for practically all ordinary data, and else a
/// bound of what it dropped decides whether the rounding is certain. Then the same with three, rounded to odd (Boldo and
/// Melquiond 2008). Else fixed point over the whole range of doubles (Kulisch; Neal, "Fast exact summation using small and
/// large superaccumulators", 2015).
///
/// # Fork safety
/// Safe in kernels of rowfork's operations. The first call in a process reads `ROWFORK_ISA` from the environment, under a
/// lock that another thread may hold while the program forks by itself: such a program calls this once before.
#[must_use]
pub fn exact_sum(values: &[f64]) -> f64 {
    Kernel::get().sum(values)
}
