//! What is summed, and what is wanted of a sum: the two sides on which the anchored sums are
//! generic.
//!
//! Implemented here for doubles, in `single_precision.rs` for floats, in `means.rs` for means.

use super::certificate;
use super::three_term::ThreeTerm;
use super::vector::Vector;

/// What is summed: doubles, or floats as doubles.
pub(super) trait Term: Copy + Default + PartialEq {
    /// A longer row is summed in pieces of so many terms, each of which may have an anchor of its
    /// own: the more terms, the worse the bound of what is missing.
    const PIECE: usize;

    /// Rows up to this long are summed one per lane.
    const SHORT: usize;

    fn widen(self) -> f64;

    fn load<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[Self; N]) -> V;

    /// At most `N` terms, and zeros behind them.
    fn load_short<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[Self]) -> V;

    /// See [`Vector::stream`].
    fn stream<V: Vector<N>, const N: usize>(proof: V::Proof, values: [Self; N], to: &mut [Self; N]);
}

impl Term for f64 {
    const PIECE: usize = 4096;
    const SHORT: usize = 64;

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn load<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[f64; N]) -> V {
        V::load(proof, terms)
    }

    #[inline(always)]
    fn load_short<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[f64]) -> V {
        V::load_short(proof, terms)
    }

    #[inline(always)]
    fn stream<V: Vector<N>, const N: usize>(proof: V::Proof, values: [f64; N], to: &mut [f64; N]) {
        V::stream(proof, values, to);
    }
}

/// What is wanted of a sum: itself, rounded once, or its mean.
pub(super) trait SumResult<E>: Copy {
    /// That of the sum in each lane, which is exactly that of its terms; `None` if not all can be
    /// told.
    fn of_exact<V: Vector<N>, const N: usize, const T: usize>(
        self,
        terms: [V; T],
    ) -> Option<[E; N]>;

    /// That of a sum in so many terms, if no more than `dropped` is missing and it is proved.
    fn of_terms<const T: usize>(self, terms: [f64; T], dropped: f64) -> Option<E>;

    /// The same of three terms, no magnitude in what was dropped having gone through more
    /// additions.
    fn of_total(self, total: ThreeTerm, additions: usize) -> Option<E>;
}

/// The sum itself.
#[derive(Clone, Copy)]
pub(super) struct Rounded;

impl SumResult<f64> for Rounded {
    #[inline(always)]
    fn of_exact<V: Vector<N>, const N: usize, const T: usize>(
        self,
        terms: [V; T],
    ) -> Option<[f64; N]> {
        const { assert!(T == 2, "one addition can round") };
        Some((terms[0] + terms[1]).to_array())
    }

    #[inline(always)]
    fn of_terms<const T: usize>(self, terms: [f64; T], dropped: f64) -> Option<f64> {
        const { assert!(T >= 2) };
        if T > 2 {
            return self.of_total(ThreeTerm::new(terms, dropped), 0);
        }
        let (low, high) = certificate::bounds(terms[0], terms[1], dropped);
        (low == high).then_some(low)
    }

    #[inline(always)]
    fn of_total(self, total: ThreeTerm, additions: usize) -> Option<f64> {
        total.nearest(additions)
    }
}
