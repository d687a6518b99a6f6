//! Kernels: pure functions of slices. They know nothing of processes, segments or blocks.
//!
//! Called by the engine, which obtains a [`Kernels`] before it forks and hands it to the workers.
//! Nothing here allocates, locks or does a system call, [`Kernels::get`] excepted.
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

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is compiled for the baseline: see lanes.rs"
)]

mod anchored;
mod certificate;
mod dispatch;
mod dot;
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
mod summand;
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
pub(crate) use means::Weights;
pub(crate) use overflow::Overflow;
pub(crate) use summand::ExactSum;
