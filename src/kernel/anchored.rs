//! Tiers one and two: a sum in two or three running terms that are exact by construction, at five
//! or eight additions a term of the row, and hence the speed of memory. Ordinary rows end in the
//! first.
//!
//! `rows.rs` calls this for consecutive rows, and the dispatcher for single ones. A row that is not
//! proved gets no answer. There is no check for NaN and infinities: they leave the anchor's window
//! like any term that is too large.
//!
//! # Algorithm
//! An *anchor* is a number so large beside the terms that adding them never changes its exponent. A
//! running term starts from the anchor; what is added to it is rounded to the anchor's unit, and
//! `x - ((s + x) - s)` is what the rounding took, exactly. That goes to a second running term with
//! an anchor of its own some forty bits further down, and what is rounded there to a third. If the
//! last one rounds nothing, as the second with practically all data, the running terms together
//! *are* the sum, and one addition of two rounds it. Sums of lanes are exact, too, so it does not
//! matter how terms are shared among them.
//!
//! This follows Rump, Ogita and Oishi ("Accurate floating-point summation part I: faithful
//! rounding", 2008: extraction of high parts) and Demmel and Nguyen ("Fast reproducible
//! floating-point summation", 2013: running sums that start from 1.5 times a power of two). Three
//! things are ours: the anchor is guessed from the rows before, one logical operation finds out if
//! the guess was wrong, and one more whether anything was dropped.
//!
//! # Proof
//! Write `M` for the anchor, `(1 + 1/2 + 1/8) 2^k`, and `ulp = 2^(k-52)`, the distance of doubles
//! in `2^k .. 2^(k+1)`. The *window* is `1.5 * 2^k .. 1.75 * 2^k`: the doubles that agree with `M`
//! in their first 14 bits, all within `2^(k-3)` of it. Let `n` be the number of terms of a piece.
//!
//! 1. *An addition in the window loses nothing.* Let `s` and `t = fl(s + x)` lie in it. Then
//!    `q = t - s` is a multiple of `ulp` below `2^53 ulp`: a double, so `fl(t - s) = q`. And
//!    `r = x - q = (s + x) - t` is the rounding error of an addition, hence a double (nothing
//!    overflows): `fl(x - q) = r`. So `x = q + r` exactly, and `|r| <= ulp / 2`.
//! 2. *The window is looked at.* The first 14 bits of all `t` are compared with those of `M`, and
//!    what differs is collected. If nothing did, step 1 holds for all terms: (sum of a lane's
//!    terms) `= (s - M) + (sum of its r)`, and `s - M` is exact, as `q` was. An infinity or a NaN
//!    differs.
//! 3. *Lanes add up exactly.* Each `s - M` is a multiple of `ulp` of at most `2^(k-3)`, so the sums
//!    of up to [`MOST_LANES`] of them are multiples of at most `2^(k+1) = 2^53 ulp`: doubles.
//! 4. *The next running term* is the same for the `r`, with `k' = k - 51 + ceil(log2 n)`. All `r`
//!    of the piece together are at most `n 2^(k-53) <= 2^(k'-2)`, and what they are rounded by adds
//!    next to nothing: so no lane of it gets as far as where the unit changes, and sums of lanes
//!    are multiples of it of at most `2^k'`. There is nothing to look at. A third follows the
//!    second in the same way.
//! 5. *The last running term* `c` drops what it rounds, at most half its unit, `2^(k'-53)`, of each
//!    term: of the piece no more than `n 2^(k'-53)`, [`Anchor::most_dropped`]. If
//!    `fl(c + r) - c = r` for all terms nothing was dropped, and the sum of the piece *is* that of
//!    its running terms. (Bits are compared, but for the sign: should `r` and the change of `c`
//!    differ in that alone, both are zero. Else the change were at least `2^(k'-52)`, and the
//!    error, at most half of that, twice the change.)
//! 6. *Rounding.* If two running terms dropped nothing, `fl(s + c)` is the answer, rounded once.
//!    Else the proof in [`certificate`](super::certificate), or for three terms and for longer rows
//!    that in [`three_term`](super::three_term), takes over with that bound.
//! 7. *Signed zeros.* `x - x` is +0.0, and so are `s - M` and `s + c` where they are zero.
//!
//! The answer being the correctly rounded one, it does not depend on the anchor, on the number of
//! lanes or on how rows are grouped.

use super::lanes::Lanes;
use super::result::{SumResult, Term};
use super::three_term::ThreeTerm;
use super::vector::Vector;

/// The first 14 bits of a double, in which all doubles of a window agree: the sign, the exponent
/// and two bits of the fraction.
pub(super) const WINDOW_BITS: u64 = 0xfffc << 48;

/// All bits but the sign, in which alone two zeros differ: see step 5 of the proof.
pub(super) const MAGNITUDE_BITS: u64 = u64::MAX >> 1;

/// The most lanes that the terms of a piece are shared among: step 3 of the proof adds up that
/// many. Two vectors of eight doubles have as many.
const MOST_LANES: usize = 16;

/// The exponents `k` that an anchor may have. They lie well inside the range of doubles, so no sum
/// of lanes overflows, and the anchor of a third running term is never subnormal. Rows of terms
/// beyond some 2^985, or with bits below some 2^-900, are left to fixed point.
const LEAST_EXPONENT: i32 = -800;
const MOST_EXPONENT: i32 = 1000;

/// The bits that an anchor has to spare when it is chosen. The rows after may then be a little
/// larger, and still stay in its window.
const SPARE_BITS: i32 = 1;

/// Where the running terms start: `M`, `M'` and `M''` of the proof, for pieces of at most so many
/// terms.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Anchor {
    /// `k` of the proof, for the first running term.
    exponent: i32,
    /// Logarithm of the number of terms in a piece, rounded up: `ceil(log2 n)` of the proof.
    log_terms: i32,
}

impl Anchor {
    /// An anchor for pieces of `n_terms` terms, `n_lane_terms` in each lane, that are like those of
    /// `sample`. It certainly serves for `sample` itself, unless that is out of the range of
    /// anchors: terms that are too large or not finite stray from it, and with tiny terms nothing
    /// is proved. A sample of zeros, or of nothing, gets the least anchor.
    #[inline(always)]
    fn of<E: Term, const N: usize>(sample: &[E], n_terms: usize, n_lane_terms: usize) -> Self {
        let (chunks, tail) = sample.as_chunks::<N>();
        let mut lanes = Lanes::<N>::ZERO;
        for chunk in chunks {
            lanes = lanes.max(Lanes(chunk.map(E::widen)).abs());
        }
        // `f64::max` passes over NaN, as do the lanes: the anchor is that of the other terms.
        let tail = tail.iter().map(|x| x.widen());
        let largest =
            lanes.0.into_iter().chain(tail).fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let exponent = exponent(largest);
        let log = |n: usize| n.next_power_of_two().ilog2().cast_signed();
        // Below 2^(exponent + 1) each, those of a lane together at most 2^(k - 3).
        let k = exponent + 1 + log(n_lane_terms) + 3 + SPARE_BITS;
        Self { exponent: k.clamp(LEAST_EXPONENT, MOST_EXPONENT), log_terms: log(n_terms) }
    }

    /// The anchor for a row, or for the pieces of a longer one, by the terms of its first piece.
    #[inline(always)]
    pub(super) fn of_row<E: Term, const N: usize>(row: &[E]) -> Self {
        let piece = &row[..row.len().min(E::PIECE)];
        Self::of_piece::<E, N>(piece, piece.len())
    }

    /// The anchor for pieces of up to `n_terms` terms that [`accumulate`] shares among `2 N` lanes.
    #[inline(always)]
    fn of_piece<E: Term, const N: usize>(piece: &[E], n_terms: usize) -> Self {
        Self::of::<E, N>(piece, n_terms, n_terms.div_ceil(2 * N))
    }

    /// The anchor for all rows of a group. A short row has but two lanes to itself: see `rows.rs`.
    #[inline(always)]
    pub(super) fn of_group<E: Term, const N: usize>(group: &[E], n_columns: usize) -> Self {
        let n_lanes = if n_columns <= E::SHORT { 2 } else { 2 * N };
        Self::of::<E, N>(group, n_columns, n_columns.div_ceil(n_lanes))
    }

    /// `k` of the proof, for term `i`.
    #[inline(always)]
    fn exponent(self, i: i32) -> i32 {
        self.exponent - i * (51 - self.log_terms)
    }

    /// Where each of the running terms starts.
    #[inline(always)]
    fn starts<const T: usize>(self) -> [f64; T] {
        let mut starts = [1.0 + 1.0 / 2.0 + 1.0 / 8.0; T];
        for (start, i) in starts.iter_mut().zip(0..) {
            *start *= power_of_two(self.exponent(i));
        }
        starts
    }

    /// No more than this is dropped of the terms of a piece by `T` running terms: step 5.
    #[inline(always)]
    pub(super) fn most_dropped<const T: usize>(self) -> f64 {
        let last = const {
            assert!(1 <= T && T <= 3);
            [0, 1, 2][T - 1]
        };
        power_of_two(self.exponent(last) - 53 + self.log_terms)
    }
}

/// The exponent of `x` as its bits have it: -1023 for zero and subnormals, 1024 for infinity and
/// NaN.
#[inline(always)]
fn exponent(x: f64) -> i32 {
    let biased = (x.abs().to_bits() >> 52) as i32;
    biased - 1023
}

/// `2^k`, for `k` of normal doubles.
#[inline(always)]
fn power_of_two(k: i32) -> f64 {
    debug_assert!((-1022..=1023).contains(&k));
    f64::from_bits(u64::from((k + 1023).cast_unsigned()) << 52)
}

/// `T` running terms of every lane; the bits in which the first ever differed from its anchor;
/// those in which the change of the last ever differed from what was added to it.
#[derive(Clone, Copy)]
pub(super) struct Running<V, const T: usize> {
    pub(super) terms: [V; T],
    pub(super) strayed: V,
    pub(super) inexact: V,
}

/// Where running terms start, in every lane. They are made once for many rows with one anchor.
#[derive(Clone, Copy)]
pub(super) struct Starts<V, const T: usize> {
    pub(super) anchor: Anchor,
    terms: [V; T],
    /// +0.0 in every lane, whose bits are zero, too: no difference yet.
    pub(super) nothing: V,
}

impl<V, const T: usize> Starts<V, T> {
    #[inline(always)]
    pub(super) fn new<const N: usize>(proof: V::Proof, anchor: Anchor) -> Self
    where
        V: Vector<N>,
    {
        let terms = anchor.starts::<T>().map(|start| V::splat(proof, start));
        Self { anchor, terms, nothing: V::splat(proof, 0.0) }
    }

    #[inline(always)]
    pub(super) fn running<const N: usize>(self) -> Running<V, T>
    where
        V: Vector<N>,
    {
        Running { terms: self.terms, strayed: self.nothing, inexact: self.nothing }
    }
}

impl<V, const T: usize> Running<V, T> {
    /// Adds one term to each lane: steps 1, 2, 4 and 5 of the proof. That is three additions for
    /// each running term, and two for the last, whose own remainder is not needed.
    #[inline(always)]
    pub(super) fn push<const N: usize>(&mut self, mut x: V, starts: &Starts<V, T>)
    where
        V: Vector<N>,
    {
        for i in 0..T {
            let before = self.terms[i];
            let after = before + x;
            let change = after - before;
            if i == 0 {
                self.strayed = self.strayed.or_different(after, starts.terms[0]);
            }
            if i == T - 1 {
                self.inexact = self.inexact.or_different(x, change);
            }
            x = x - change;
            self.terms[i] = after;
        }
    }

    /// The sum, lane by lane, of what was added to both, without the anchors: steps 2 and 3 of the
    /// proof. Nothing may be [`push`](Self::push)ed to the result.
    #[inline(always)]
    pub(super) fn sum<const N: usize>(self, other: Self, starts: &Starts<V, T>) -> Self
    where
        V: Vector<N>,
    {
        let mut sum = Self {
            terms: self.terms,
            strayed: self.strayed.or(other.strayed),
            inexact: self.inexact.or(other.inexact),
        };
        // A closure, as `from_fn` takes, is not always inlined, and would then be compiled for the
        // baseline.
        for ((sum, other), start) in sum.terms.iter_mut().zip(other.terms).zip(starts.terms) {
            *sum = (*sum - start) + (other - start);
        }
        sum
    }
}

/// The sum of a piece, shared among the lanes of two vectors, so that an addition need not wait for
/// the one before. Zeros fill up the last vector, and change no running term.
#[inline(always)]
pub(super) fn accumulate<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    piece: &[E],
    starts: &Starts<V, T>,
) -> Running<V, T> {
    const { assert!(2 * N <= MOST_LANES) };
    let (mut even, mut odd) = (starts.running(), starts.running());
    let (chunks, tail) = piece.as_chunks::<N>();
    let (pairs, last) = chunks.as_chunks::<2>();
    for [x, y] in pairs {
        even.push(E::load(proof, x), starts);
        odd.push(E::load(proof, y), starts);
    }
    if let [x] = last {
        even.push(E::load(proof, x), starts);
    }
    if !tail.is_empty() {
        odd.push(E::load_short(proof, tail), starts);
    }
    even.sum(odd, starts)
}

/// The sum of a piece in `T` terms and a bound of what they lack; `None` if the piece strays from
/// the anchor.
#[inline(always)]
fn sum_piece<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    piece: &[E],
    anchor: Anchor,
) -> Option<([f64; T], f64)> {
    let all = accumulate::<E, V, N, T>(proof, piece, &Starts::new(proof, anchor));
    let dropped =
        if all.inexact.has_none_of(MAGNITUDE_BITS) { 0.0 } else { anchor.most_dropped::<T>() };
    let terms = all.terms.map(|term| term.to_array().iter().sum());
    all.strayed.has_none_of(WINDOW_BITS).then_some((terms, dropped))
}

/// What `sum_result` makes of the sum of one row by `T` running terms, or `None` if they do not
/// prove it. Every piece is tried with `anchor`, if there is one, and then with its own, which is
/// left in `anchor` for the next. A row of no terms has the sum +0.0.
#[inline(always)]
pub(super) fn sum_row<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    row: &[E],
    sum_result: impl SumResult<E>,
    anchor: &mut Option<Anchor>,
) -> Option<E> {
    let mut total = ThreeTerm::new([], 0.0);
    for piece in row.chunks(E::PIECE) {
        let guessed = anchor.and_then(|anchor| sum_piece::<E, V, N, T>(proof, piece, anchor));
        let (terms, dropped) = if let Some(sum) = guessed {
            sum
        } else {
            let own = Anchor::of_piece::<E, N>(piece, row.len().min(E::PIECE));
            sum_piece::<E, V, N, T>(proof, piece, *anchor.insert(own))?
        };
        for term in terms {
            total.push(term);
        }
        total.dropped += dropped;
    }
    sum_result.of_total(total, (T + 1) * row.len().div_ceil(E::PIECE))
}
