//! Dot products, means and weighted means of rows: the first tiers, the last one, and which question each is asked.
//!
//! Called by the dispatcher, which compiles it for every instruction set.

use super::dot::{self, Careful, Elements, Products, Quick};
use super::interval::{Interval, mean_of};
use super::ratio;

/// The weights of a weighted mean, weighed: made by [`Kernel::weigh`](super::Kernel::weigh), once for many rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'w> {
    values: &'w [f64],
    /// What the first tier knows of their sum.
    total: Interval,
}

impl<'w> Weights<'w> {
    #[inline(always)]
    pub(super) fn new<const N: usize>(values: &'w [f64]) -> Self {
        Self { values, total: dot::sum_row::<N, Careful<N>, _>(values, Elements) }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// The nearest double to the mean of each row.
#[inline(always)]
pub(super) fn row_means<const N: usize, const FUSED: bool>(
    rows: &[f64],
    n_columns: usize,
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    let mean = |Interval { h, l, margin }: Interval| mean_of::<FUSED>(h, l, margin, n_columns);
    dot::rows::<N, Careful<N>, _>(rows, n_columns, out, Elements, mean, refine);
}

/// The nearest double to the dot product of each row and `vector`, of as many elements.
#[inline(always)]
pub(super) fn row_dots<const N: usize, const FUSED: bool>(
    rows: &[f64],
    vector: &[f64],
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    dot::rows::<N, Quick<N>, _>(rows, vector.len(), out, Products::<FUSED>(vector), Interval::nearest, refine);
}

/// The nearest double to the weighted mean of each row.
#[inline(always)]
pub(super) fn row_weighted_means<const N: usize, const FUSED: bool>(
    rows: &[f64],
    weights: Weights<'_>,
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    let mean = |dot: Interval| dot.over::<FUSED>(weights.total);
    dot::rows::<N, Quick<N>, _>(rows, weights.len(), out, Products::<FUSED>(weights.values), mean, refine);
}

/// The mean of any row, whatever is in it.
pub(super) fn refine_mean(row: &[f64]) -> f64 {
    count_for_tests();
    ratio::mean(row)
}

/// The dot product of any two rows, carefully, then whatever it costs.
#[inline(always)]
pub(super) fn refine_dot<const N: usize, const FUSED: bool>(row: &[f64], vector: &[f64]) -> f64 {
    let proved = dot::dot_carefully::<N, FUSED>(row, vector).nearest();
    proved.unwrap_or_else(|| {
        count_for_tests();
        ratio::dot(row, vector)
    })
}

/// The weighted mean of any row, likewise.
#[inline(always)]
pub(super) fn refine_weighted_mean<const N: usize, const FUSED: bool>(row: &[f64], weights: Weights<'_>) -> f64 {
    let proved = dot::dot_carefully::<N, FUSED>(row, weights.values).over::<FUSED>(weights.total);
    proved.unwrap_or_else(|| {
        count_for_tests();
        ratio::weighted_mean(row, weights.values)
    })
}

fn count_for_tests() {
    #[cfg(test)]
    super::tests::REFINED.set(super::tests::REFINED.get() + 1);
}
