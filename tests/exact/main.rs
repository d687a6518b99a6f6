//! Arithmetic: the sums, means and dot products of the kernels against exact arithmetic.

#[path = "../support/mod.rs"]
mod support;

// Sums are those of exact arithmetic, rounded once.
mod exact_sums;
// So are means, dot products and weighted means.
mod exact_means;
