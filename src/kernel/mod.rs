//! Kernels: pure functions of slices. They know nothing of processes, segments or blocks.
//!
//! The operations in `src/rows/` call them, and so do the public functions in `functions.rs`. An
//! operation calls [`Kernels::get`] before it forks, so a worker finds the choice made. Nothing
//! here allocates, locks or does a system call, except the first call of [`Kernels::get`].
//!
//! # Tiers
//! A tier either proves that its answer is the correctly rounded one, or gives none. So the tier
//! that answers decides how long a row takes, and never what its bits are.
//!
//! | | tier one | tier two | tier three |
//! |---|---|---|---|
//! | sums and means of `f64` | two running terms | three running terms | fixed point |
//! | sums of `f32` | one running term | two running terms | fixed point |
//! | dot products, weighted means | `dot::Quick` | `dot::Careful` | fixed point |
//! | sums of integers | 64 or 128 bits: always exact | | |
//!
//! | file | what |
//! |---|---|
//! | `functions.rs` | the public functions of slices |
//! | `dispatch.rs` | the choice of instructions, made once |
//! | `vector.rs` | a vector register, by intrinsics |
//! | `lanes.rs` | small arrays that the compiler turns into vectors; `TwoSum` |
//! | `anchored.rs` | tiers one and two: exact running terms; nearly every row ends here |
//! | `rows.rs` | the same for many rows, several at a time |
//! | `result.rs` | the element types of a sum, and what is computed from the sum |
//! | `certificate.rs` | when a sum with an error is proved to be rounded right |
//! | `three_term.rs` | three terms, and their rounding |
//! | `fallback.rs` | tiers two and three for rows that tier one cannot prove; NaN, infinities |
//! | `superaccumulator.rs` | tier three: fixed point, exact |
//! | `single_precision.rs` | rows of `f32`: the same tiers with one running term less |
//! | `integers/`, `overflow.rs` | rows of integers, bytes to be counted; a sum that does not fit |
//! | `means.rs` | dot products, means, weighted means: the tiers of each |
//! | `dot.rs` | tiers one and two of dot products and weighted means: a sum with a bound |
//! | `product.rs`, `interval.rs` | `TwoProduct`; what one sum with a bound, or two, prove |
//! | `ratio.rs` | the last tier of dot products, means and weighted means |
//! | `wide_int.rs` | the wide integers of these last tiers: sum, quotient, rounding |
//! | `plain.rs` | the plain sum, in a fixed order |
//! | `exact_sum.rs` | the element types, for callers generic over them |
//!
//! Only `dispatch.rs`, `vector.rs` and `integers/bytes.rs` have `unsafe` code.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is compiled for the baseline: see lanes.rs"
)]

mod anchored;
mod certificate;
mod dispatch;
mod dot;
mod exact_sum;
mod fallback;
mod functions;
mod integers;
mod interval;
mod lanes;
mod means;
mod overflow;
mod plain;
mod product;
mod ratio;
mod result;
mod rows;
mod single_precision;
mod superaccumulator;
mod three_term;
mod vector;
mod wide_int;

#[cfg(test)]
mod tests;

pub use functions::{
    exact_dot, exact_mean, exact_row_dots, exact_row_means, exact_sum, exact_weighted_mean,
    fast_row_sums, fast_sum,
};
#[cfg(feature = "failpoints")]
pub use functions::{instructions, tier_of_exact_sum};

pub(crate) use dispatch::Kernels;
pub(crate) use exact_sum::ExactSum;
pub(crate) use means::Weights;
pub(crate) use overflow::Overflow;
