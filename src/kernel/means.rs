//! Dot products, means and weighted means of rows: the first tiers, the last one, and which
//! question each is asked.
//!
//! Called by the dispatcher, which compiles it for every instruction set.

use super::anchored::{self, Anchor};
use super::dot::{self, Careful, Conclusion, Elements, Products, Quick};
use super::interval::{Interval, mean_of};
use super::ratio;
use super::result::SumResult;
use super::three_term::ThreeTerm;
use super::vector::Vector;

/// The weights of a weighted mean, weighed: made by [`Kernels::weigh`](super::Kernels::weigh), once
/// for many rows.
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

    pub(crate) fn values(&self) -> &'w [f64] {
        self.values
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// The mean of that many terms.
#[derive(Clone, Copy)]
pub(super) struct Mean<const FUSED: bool>(pub(super) usize);

impl<const FUSED: bool> SumResult<f64> for Mean<FUSED> {
    #[inline(always)]
    fn of_exact<V: Vector<N>, const N: usize, const T: usize>(
        self,
        terms: [V; T],
    ) -> Option<[f64; N]> {
        const { assert!(T == 2, "two make an interval") };
        let count = Interval::of_count(self.0)?;
        let (s, c) = (terms[0].to_array(), terms[1].to_array());
        let mut means = [0.0; N];
        for (i, mean) in means.iter_mut().enumerate() {
            *mean = Interval::of_sum(s[i], c[i], 0.0).over_or_nan::<FUSED>(count);
        }
        let mut all = true;
        for mean in means {
            all &= !mean.is_nan();
        }
        all.then_some(means)
    }

    #[inline(always)]
    fn of_terms<const T: usize>(self, terms: [f64; T], dropped: f64) -> Option<f64> {
        const { assert!(T >= 2) };
        if T > 2 {
            return self.of_total(ThreeTerm::new(terms, dropped), 0);
        }
        let Interval { h, l, margin } = Interval::of_sum(terms[0], terms[1], dropped);
        mean_of::<FUSED>(h, l, margin, self.0)
    }

    #[inline(always)]
    fn of_total(self, total: ThreeTerm, additions: usize) -> Option<f64> {
        let Interval { h, l, margin } = total.interval(additions);
        mean_of::<FUSED>(h, l, margin, self.0)
    }
}

/// The mean of any row, whatever is in it.
#[inline(always)]
pub(super) fn refine_mean<V: Vector<N>, const N: usize, const FUSED: bool>(
    proof: V::Proof,
    row: &[f64],
    anchor: Option<Anchor>,
) -> f64 {
    let proved =
        anchored::sum_row::<f64, V, N, 3>(proof, row, Mean::<FUSED>(row.len()), &mut { anchor });
    proved.unwrap_or_else(|| {
        count_for_tests();
        ratio::mean(row)
    })
}

/// A dot product itself.
#[derive(Clone, Copy)]
struct Nearest;

impl Conclusion for Nearest {
    #[inline(always)]
    fn of(self, dot: Interval) -> f64 {
        dot.nearest_or_nan()
    }
}

/// A dot product over the sum of the weights.
#[derive(Clone, Copy)]
struct Over<const FUSED: bool>(Interval);

impl<const FUSED: bool> Conclusion for Over<FUSED> {
    #[inline(always)]
    fn of(self, dot: Interval) -> f64 {
        dot.over_or_nan::<FUSED>(self.0)
    }
}

/// The nearest double to the dot product of each row and `vector`, of as many elements.
#[inline(always)]
pub(super) fn row_dots<V: Vector<N>, const N: usize, const FUSED: bool>(
    proof: V::Proof,
    rows: &[f64],
    vector: &[f64],
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    let products = Products::<FUSED>(vector);
    dot::rows::<V, N, Quick<N>, _>(proof, rows, vector.len(), out, products, Nearest, refine);
}

/// The nearest double to the weighted mean of each row.
#[inline(always)]
pub(super) fn row_weighted_means<V: Vector<N>, const N: usize, const FUSED: bool>(
    proof: V::Proof,
    rows: &[f64],
    weights: Weights<'_>,
    out: &mut [f64],
    refine: impl Fn(&[f64]) -> f64,
) {
    let (products, over) = (Products::<FUSED>(weights.values), Over::<FUSED>(weights.total));
    dot::rows::<V, N, Quick<N>, _>(proof, rows, weights.len(), out, products, over, refine);
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
pub(super) fn refine_weighted_mean<const N: usize, const FUSED: bool>(
    row: &[f64],
    weights: Weights<'_>,
) -> f64 {
    let proved = dot::dot_carefully::<N, FUSED>(row, weights.values).over::<FUSED>(weights.total);
    proved.unwrap_or_else(|| {
        count_for_tests();
        ratio::weighted_mean(row, weights.values)
    })
}

fn count_for_tests() {
    #[cfg(test)]
    super::tests::count_refined(1);
}
