//! The two sides on which the anchored sums are generic: the type of the terms ([`Term`]), and what
//! is computed from the sum ([`SumResult`]).
//!
//! Here both are implemented for sums of doubles, in `single_precision.rs` for sums of floats, and
//! in `means.rs` for means. `anchored.rs` and `rows.rs` call them.

use super::certificate;
use super::three_term::ThreeTerm;
use super::vector::Vector;

/// The type of the terms: doubles, or floats, which become doubles as they are loaded.
pub(super) trait Term: Copy + Default + PartialEq {
    /// The number of terms in a piece. A longer row is summed in pieces, each of which may have an
    /// anchor of its own: the more terms, the worse the bound of what is missing. With twice
    /// as many, that of two running terms is eight times as large.
    const PIECE: usize;

    /// The number of columns up to which rows are summed one per lane: see `rows.rs`. That way
    /// transposes all terms, the other one only the lanes in the end.
    const SHORT: usize;

    /// The term as a double, exactly.
    fn widen(self) -> f64;

    /// See [`Vector::load`].
    fn load<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[Self; N]) -> V;

    /// See [`Vector::load_short`]: at most `N` terms, and zeros behind them.
    fn load_short<V: Vector<N>, const N: usize>(proof: V::Proof, terms: &[Self]) -> V;

    /// See [`Vector::stream`].
    fn stream<V: Vector<N>, const N: usize>(proof: V::Proof, values: [Self; N], to: &mut [Self; N]);
}

impl Term for f64 {
    /// 2^12, so the second running term has its unit 39 bits below that of the first.
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

/// What is computed from a sum: the sum itself, rounded once, or the mean.
///
/// Each method either gives what is proved to be the correctly rounded result, or nothing. That of
/// a row must not depend on how the sum was split into terms.
pub(super) trait SumResult<E>: Copy {
    /// The results of the sums in all lanes, each of which is exactly the sum of its terms; `None`
    /// if any of them is not proved.
    fn of_exact<V: Vector<N>, const N: usize, const T: usize>(
        self,
        terms: [V; T],
    ) -> Option<[E; N]>;

    /// The result of a sum that differs from that of `terms` by no more than `dropped`, which may
    /// be zero; `None` if it is not proved.
    fn of_terms<const T: usize>(self, terms: [f64; T], dropped: f64) -> Option<E>;

    /// The result of a sum in three terms, if it is proved. No magnitude in `total.dropped` went
    /// through more than `additions` additions, each of which may have rounded it down.
    fn of_total(self, total: ThreeTerm, additions: usize) -> Option<E>;
}

/// The sum itself, rounded once to the type of the terms.
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
