//! Dot products, means and weighted means of rows: which tiers each goes through, and what a tier
//! has to prove of it. The dispatcher calls this, and compiles it for every instruction set.
//!
//! | | tier one | tier two | tier three |
//! |---|---|---|---|
//! | mean | two running terms, divided | three running terms, divided | `ratio::mean` |
//! | dot product | [`Quick`] | [`Careful`] | `ratio::dot` |
//! | weighted mean | [`Quick`], divided | [`Careful`], divided | `ratio::weighted_mean` |
//!
//! Tiers one and two know a number as an [`Interval`], and divide intervals: a quotient of rounded
//! sums would be rounded more than once. They prove nothing where there is a NaN or an infinity,
//! where the divisor may be zero, or where a quotient other than zero lies beyond `2^-480..2^480`.
//! Tier three has an answer for all of these.

use super::anchored::{self, Anchor};
use super::dot::{self, Careful, Conclusion, Elements, Products, Quick};
use super::interval::{Interval, mean_of};
use super::ratio;
use super::result::SumResult;
use super::three_term::ThreeTerm;
use super::vector::Vector;

/// The weights of a weighted mean, with their sum: made by
/// [`Kernels::weigh`](super::Kernels::weigh), once for many rows. A worker in a pool makes it anew:
/// the values are marshalled, the sum is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'w> {
    /// One for each column.
    values: &'w [f64],
    /// Their sum, as [`Careful`] knows it. For weights whose sum two doubles hold, such as small
    /// whole numbers, the margin is zero.
    total: Interval,
}

impl<'w> Weights<'w> {
    /// Sums the weights by the careful sum, as it is done only once, and what is not known of it
    /// widens the margin of every row.
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

/// The mean of that many terms, for the anchored sums: the exact sum, or an interval around it,
/// over a count. With no terms nothing is proved, and with 2^53 or more nothing is tried.
#[derive(Clone, Copy)]
pub(super) struct Mean<const FUSED: bool>(pub(super) usize);

impl<const FUSED: bool> SumResult<f64> for Mean<FUSED> {
    /// All lanes or none: if one quotient is not proved, the group goes the way down, where each
    /// row is asked again.
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
        // Not `iter().all`, which would leave at the first: the loop becomes vectors without that.
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

/// The mean of any row, whatever is in it, by three running terms or by fixed point; `anchor`, if
/// there is one, is for this row.
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

/// The conclusion from a dot product to its nearest double.
#[derive(Clone, Copy)]
struct Nearest;

impl Conclusion for Nearest {
    #[inline(always)]
    fn of(self, dot: Interval) -> f64 {
        dot.nearest_or_nan()
    }
}

/// The conclusion from a dot product to the double nearest its quotient by the sum of the weights.
#[derive(Clone, Copy)]
struct Over<const FUSED: bool>(Interval);

impl<const FUSED: bool> Conclusion for Over<FUSED> {
    #[inline(always)]
    fn of(self, dot: Interval) -> f64 {
        dot.over_or_nan::<FUSED>(self.0)
    }
}

/// The double nearest the dot product of each row and `vector`, which has as many elements;
/// `refine` gives that of a row for which the quick tier proves nothing.
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

/// The double nearest the weighted mean of each row, as for [`row_dots`]. If the sum of the
/// weights is zero, or may be, every row goes to `refine`.
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

/// The dot product of any two rows, by the careful tier, or else by fixed point. The careful one
/// decides sums that are ties or zero, as are those of orthogonal rows of integers.
#[inline(always)]
pub(super) fn refine_dot<const N: usize, const FUSED: bool>(row: &[f64], vector: &[f64]) -> f64 {
    let proved = dot::dot_carefully::<N, FUSED>(row, vector).nearest();
    proved.unwrap_or_else(|| {
        count_for_tests();
        ratio::dot(row, vector)
    })
}

/// The weighted mean of any row, by the same two tiers.
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

/// Has tests see how many rows got to the last tier; nothing in any other build.
fn count_for_tests() {
    #[cfg(test)]
    super::tests::count_refined(1);
}
