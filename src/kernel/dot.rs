//! The first two tiers of dot products and weighted means: a compensated sum with a measured bound
//! of its error.
//!
//! `means.rs` calls this. What these tiers cannot prove, NaN and infinities among it, goes to
//! `ratio.rs`.
//!
//! # Algorithm
//! Per lane and term: `TwoProduct` into `p + e` (Ogita, Rump, Oishi, "Accurate sum and dot
//! product", 2005; the sum of the weights has no product, and `e = 0`); `TwoSum` of `p` into `s`.
//! There are two ways on, and both end with `T = s + c + D` for the exact sum `T`, and a bound of
//! `|D|`. `TwoSum` is exact, and so is `TwoProduct` but for underflow, which loses at most 2^-1004
//! per product, so `D` is that, and what the steps below lose. `u = 2^-53`.
//!
//! [`Quick`] adds the error of `s` and `e` up, plainly, to `t`, adds `t`, plainly, to `c`, and its
//! magnitude to `a`. [`Careful`] adds both to `c` by `TwoSum`, and the magnitudes of what *that*
//! loses to `a`. It costs twice as much for products, half as much more for sums, and where it
//! loses nothing it knows that: sums half-way between two doubles are then decided. For dot
//! products of integers or with equal factors it comes second, for the sum of weights first.
//!
//! # Proof of the bounds
//! Quick:
//!
//! 1. `t = fl(e1 + e)` loses at most `u |t|`, all of them together at most `u A`, `A` being the
//!    exact sum of all `|t|`.
//! 2. `c` after `j` steps is at most `A (1 + u)^j`, so a step loses at most `u A (1 + u)^j`, and
//!    `k` steps `k u A (1 + u)^k`.
//! 3. [`Quick::merge`] adds two lanes' `s` by `TwoSum`, whose error goes to `c` and to `a` as any
//!    `t`, and two plain additions to `c` lose at most `2 u A (1 + u)^(k + 2)`, `A` now being that
//!    of both. So if each lane had lost `k u A`, both together have lost `(k + 2) u A`; after no
//!    more than `m` merges one upon another, `|D| <= (k + 1 + 2 m) u A (1 + u)^(k + 2 m)`. There
//!    are at most `N` everywhere below: that of even and odd, then `log2 N` or `N - 1` for the
//!    lanes.
//! 4. `a` is `A` rounded in as many additions: `A <= a (1 - u)^-(k + 2 m)`. Rows are shorter than
//!    2^43, so the powers are below 1.01. The bound is `2 (k + 16 + 2 m) u a`, which also pays for
//!    its own roundings. If it underflows, it loses 2^-1075: then either `a` is at least 2^-1022,
//!    and that is less than `u a`, or all `t` and `c` are below 2^-1021, where additions are exact,
//!    and `D` is the underflows alone.
//!
//! Careful: `|D|` is at most the exact sum of the magnitudes that went into `a`, each of which
//! passed through at most `2 k + 4 m` additions that lose a factor of at most `1 - u`. The bound is
//! `a (1 + 2 (2 k + 16 + 4 m) u)`; the double rounding in it is paid for by the `16`. (A subnormal
//! `a` is exact, and the product at least that, as rounding is monotone.)
//!
//! If anything overflows or is not finite, some error of a `TwoSum` or `e` is infinite or NaN, then
//! `c` is, then `a` with the next step or the sum `h + l` of `s` and `c`, and nothing is proved of
//! such an [`Interval`].

use super::interval::Interval;
use super::lanes::{Lanes, last_terms, two_sum};
use super::product::two_products;
use super::rows::AHEAD;
use super::vector::Vector;
use crate::sys::prefetch::prefetch;

/// Sums in every lane, of which a bound is known.
pub(super) trait Sum<const N: usize>: Copy {
    const ZERO: Self;

    /// Adds a term `p + e`; `e` is `None`, for zero, where a term is one double.
    fn push(&mut self, p: Lanes<N>, e: Option<Lanes<N>>);

    /// The sum of both, lane by lane; one merge of the proof above.
    fn merge(self, other: Self) -> Self;

    /// `s`, `c` and `a` of each lane.
    fn parts(self) -> [Lanes<N>; 3];

    /// The sum with these `s`, `c` and `a`: those of another, with lanes moved.
    fn from_parts(parts: [Lanes<N>; 3]) -> Self;

    /// `s`, `c` and `a` of the first lane.
    #[inline(always)]
    fn first(self) -> [f64; 3] {
        let [s, c, a] = self.parts();
        [s.0[0], c.0[0], a.0[0]]
    }

    /// The bound of `|D|` but for underflow, for an `a` to which no lane contributed more than
    /// `steps` pushes, and which has gone through at most `N` merges.
    fn bound(a: f64, steps: usize) -> f64;

    /// Every lane holds the sum of all lanes, by `log2 N` merges; `N` is a power of two. (All lanes
    /// do the same work, as vectors would do it anyway; the first is looked at.)
    #[inline(always)]
    fn combined(self) -> Self {
        let mut all = self;
        let mut by = N / 2;
        while by > 0 {
            let [s, c, a] = all.parts();
            all = all.merge(Self::from_parts([s.rotated(by), c.rotated(by), a.rotated(by)]));
            by /= 2;
        }
        all
    }
}

/// The cheaper sum, for all rows: nine additions a term, and `TwoProduct`. It hardly ever fails to
/// prove the nearest double of ordinary data, but it proves no tie and no zero of products.
#[derive(Clone, Copy)]
pub(super) struct Quick<const N: usize> {
    /// Running sum.
    s: Lanes<N>,
    /// The errors of the running sum and of the products, plainly added up.
    c: Lanes<N>,
    /// The magnitudes that went into `c`.
    a: Lanes<N>,
}

/// The costlier sum, for rows that [`Quick`] leaves and for weights.
#[derive(Clone, Copy)]
pub(super) struct Careful<const N: usize> {
    /// Running sum.
    s: Lanes<N>,
    /// The errors of the running sum and of the products, added up by `TwoSum`.
    c: Lanes<N>,
    /// The magnitudes of what `c` lost: zero if, and only if, it lost nothing.
    a: Lanes<N>,
}

impl<const N: usize> Sum<N> for Quick<N> {
    const ZERO: Self = Self { s: Lanes::ZERO, c: Lanes::ZERO, a: Lanes::ZERO };

    #[inline(always)]
    fn push(&mut self, p: Lanes<N>, e: Option<Lanes<N>>) {
        let (s, error) = two_sum(self.s, p);
        let t = e.map_or(error, |e| error + e);
        *self = Self { s, c: self.c + t, a: self.a + t.abs() };
    }

    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let (s, e) = two_sum(self.s, other.s);
        Self { s, c: (self.c + other.c) + e, a: (self.a + other.a) + e.abs() }
    }

    #[inline(always)]
    fn parts(self) -> [Lanes<N>; 3] {
        [self.s, self.c, self.a]
    }

    #[inline(always)]
    fn from_parts([s, c, a]: [Lanes<N>; 3]) -> Self {
        Self { s, c, a }
    }

    #[inline(always)]
    fn bound(a: f64, steps: usize) -> f64 {
        (steps + 16 + 2 * N) as f64 * f64::EPSILON * a
    }
}

impl<const N: usize> Sum<N> for Careful<N> {
    const ZERO: Self = Self { s: Lanes::ZERO, c: Lanes::ZERO, a: Lanes::ZERO };

    #[inline(always)]
    fn push(&mut self, p: Lanes<N>, e: Option<Lanes<N>>) {
        let (s, error) = two_sum(self.s, p);
        let (c, lost) = two_sum(self.c, error);
        *self = Self { s, c, a: self.a + lost.abs() };
        if let Some(e) = e {
            let (c, lost) = two_sum(self.c, e);
            *self = Self { s, c, a: self.a + lost.abs() };
        }
    }

    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let (s, e) = two_sum(self.s, other.s);
        let (c, lost) = two_sum(self.c, other.c);
        let (c, lost_too) = two_sum(c, e);
        Self { s, c, a: (self.a + other.a) + (lost.abs() + lost_too.abs()) }
    }

    #[inline(always)]
    fn parts(self) -> [Lanes<N>; 3] {
        [self.s, self.c, self.a]
    }

    #[inline(always)]
    fn from_parts([s, c, a]: [Lanes<N>; 3]) -> Self {
        Self { s, c, a }
    }

    #[inline(always)]
    fn bound(a: f64, steps: usize) -> f64 {
        a * (1.0 + (2 * steps + 16 + 4 * N) as f64 * f64::EPSILON)
    }
}

/// What is known of a sum with these parts, of `n_terms` terms, with at most `steps` pushes in one
/// lane. Every term may have lost something by underflow, so the margin grows with their number.
#[inline(always)]
fn interval<const N: usize, S: Sum<N>, T: Terms>(
    [s, c, a]: [f64; 3],
    n_terms: usize,
    steps: usize,
) -> Interval {
    Interval::of_sum(s, c, S::bound(a, steps) + n_terms as f64 * T::UNDERFLOW)
}

/// What is summed of a row: its elements, or their products with those of another.
pub(super) trait Terms: Copy {
    /// More than a term may lose by underflow.
    const UNDERFLOW: f64;

    /// Adds the terms of the elements `x`. `partners` takes the elements at the same places from a
    /// vector as long as the row; where there is none it is not called.
    fn push<const N: usize>(
        self,
        sum: &mut impl Sum<N>,
        x: Lanes<N>,
        partners: impl FnOnce(&[f64]) -> Lanes<N>,
    );
}

/// The elements themselves: weights, when they are weighed, and products that are known to be
/// exact.
#[derive(Clone, Copy)]
pub(super) struct Elements;

impl Terms for Elements {
    const UNDERFLOW: f64 = 0.0;

    #[inline(always)]
    fn push<const N: usize>(
        self,
        sum: &mut impl Sum<N>,
        x: Lanes<N>,
        _: impl FnOnce(&[f64]) -> Lanes<N>,
    ) {
        sum.push(x, None);
    }
}

/// Their products with the elements of a vector. `FUSED`: see
/// [`two_product`](super::product::two_product).
#[derive(Clone, Copy)]
pub(super) struct Products<'v, const FUSED: bool>(pub(super) &'v [f64]);

impl<const FUSED: bool> Terms for Products<'_, FUSED> {
    /// 2^-1003, twice what `two_product` may be off by. A multiple by a number of terms is exact or
    /// rounded by far less than that factor of two.
    const UNDERFLOW: f64 = f64::from_bits(20 << 52);

    #[inline(always)]
    fn push<const N: usize>(
        self,
        sum: &mut impl Sum<N>,
        x: Lanes<N>,
        partners: impl FnOnce(&[f64]) -> Lanes<N>,
    ) {
        let (p, e) = two_products::<FUSED, N>(x, partners(self.0));
        sum.push(p, Some(e));
    }
}

/// All terms of one row, shared among the lanes of two sums, since an addition to either has to
/// wait for the one before. Two chunks a round, then one, then the tail with zeros.
#[inline(always)]
fn accumulate<const N: usize, S: Sum<N>, T: Terms>(row: &[f64], terms: T) -> S {
    let (mut even, mut odd) = (S::ZERO, S::ZERO);
    let (chunks, tail) = row.as_chunks::<N>();
    let (pairs, last) = chunks.as_chunks::<2>();
    for (i, [x, y]) in pairs.iter().enumerate() {
        terms.push(&mut even, Lanes(*x), |vector| Lanes(vector.as_chunks().0[2 * i]));
        terms.push(&mut odd, Lanes(*y), |vector| Lanes(vector.as_chunks().0[2 * i + 1]));
    }
    if let [x] = last {
        terms.push(&mut even, Lanes(*x), |vector| Lanes(vector.as_chunks().0[chunks.len() - 1]));
    }
    if !tail.is_empty() {
        // The zeros that fill up both are in the same lanes. They are added, or multiplied with
        // each other, and change nothing.
        let from = chunks.len() * N;
        terms.push(&mut odd, Lanes(last_terms(row, tail)), |vector| {
            Lanes(last_terms(vector, &vector[from..]))
        });
    }
    even.merge(odd)
}

/// What is known of the sum of one row. That of no terms is zero; with products it has no margin
/// either, as there is no term that may underflow.
#[inline(always)]
pub(super) fn sum_row<const N: usize, S: Sum<N>, T: Terms>(row: &[f64], terms: T) -> Interval {
    interval::<N, S, T>(
        accumulate::<N, S, T>(row, terms).combined().first(),
        row.len(),
        row.len() / N + 1,
    )
}

/// What is known of the dot product of two rows by the careful sum. If no product can have lost
/// anything by underflow, no margin is left for that. So zero is known for certain, as for rows of
/// zeros. A product with NaN or overflow passes or fails that check, and spoils the sum either way.
#[inline(always)]
pub(super) fn dot_carefully<const N: usize, const FUSED: bool>(
    row: &[f64],
    vector: &[f64],
) -> Interval {
    // 2^-960: see `two_product`.
    let is_exact =
        |(&x, &y): (&f64, &f64)| x == 0.0 || y == 0.0 || (x * y).abs() >= f64::from_bits(63 << 52);
    let (n, steps) = (row.len(), row.len() / N + 1);
    let sum = accumulate::<N, Careful<N>, _>(row, Products::<FUSED>(vector)).combined().first();
    if row.iter().zip(vector).all(is_exact) {
        // What holds of terms that are doubles holds of these.
        interval::<N, Careful<N>, Elements>(sum, n, steps)
    } else {
        interval::<N, Careful<N>, Products<'_, FUSED>>(sum, n, steps)
    }
}

/// Rows up to this many columns are summed one per lane.
const SHORT: usize = 64;

/// What is computed from a sum: the nearest double, or a quotient.
pub(super) trait Conclusion: Copy {
    /// NaN if nothing is proved. Without a branch, so that it is done for many side by side.
    fn of(self, sum: Interval) -> f64;
}

/// The result for each row of `n_columns` doubles in `rows`: what `conclusion` proves from the sum
/// of its terms, or else `refine` of the row itself. A NaN that `refine` gives is a result like any
/// other. Without columns all results are those of `refine`.
///
/// `N` rows at a time form a group, so that their lanes are combined, and conclusions drawn, side
/// by side. The rows that are left are summed one by one, to the same bits.
#[inline(always)]
pub(super) fn rows<V: Vector<N>, const N: usize, S: Sum<N>, T: Terms>(
    proof: V::Proof,
    rows: &[f64],
    n_columns: usize,
    out: &mut [f64],
    terms: T,
    conclusion: impl Conclusion,
    refine: impl Fn(&[f64]) -> f64,
) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic.
        out.fill_with(|| refine(&[]));
        return;
    }
    let (groups, others) = out.as_chunks_mut::<N>();
    let group_len = N * n_columns;
    let (grouped_rows, other_rows) = rows.split_at(groups.len() * group_len);
    for (group, results) in grouped_rows.chunks_exact(group_len).zip(groups) {
        let sum = if n_columns <= SHORT {
            row_per_lane::<V, N, S, T>(proof, group, n_columns, terms)
        } else {
            row_after_row::<V, N, S, T>(proof, group, n_columns, terms)
        };
        let [s, c, a] = sum.parts();
        // Both ways push at most `n_columns` times in a lane.
        let mut found = [0.0; N];
        for (i, found) in found.iter_mut().enumerate() {
            *found =
                conclusion.of(interval::<N, S, T>([s.0[i], c.0[i], a.0[i]], n_columns, n_columns));
        }
        *results = found;
        // Without an early exit, so it becomes vectors. Nearly always all are proved.
        let mut all = true;
        for x in found {
            all &= !x.is_nan();
        }
        if !all {
            for (row, result) in group.chunks_exact(n_columns).zip(results) {
                *result = if result.is_nan() { refine(row) } else { *result };
            }
        }
    }
    for (row, result) in other_rows.chunks_exact(n_columns).zip(others) {
        let found = conclusion.of(sum_row::<N, S, T>(row, terms));
        *result = if found.is_nan() { refine(row) } else { found };
    }
}

/// The sum of row `i` of `N` in lane `i`, for short rows: column after column, so that there is
/// nothing to combine but the sum of every other column with that of the rest.
#[inline(always)]
fn row_per_lane<V: Vector<N>, const N: usize, S: Sum<N>, T: Terms>(
    proof: V::Proof,
    group: &[f64],
    n_columns: usize,
    terms: T,
) -> S {
    let group = &group[..N * n_columns];
    let (mut even, mut odd) = (S::ZERO, S::ZERO);
    for j in (0..n_columns).step_by(N) {
        let n_left = n_columns - j;
        let mut tile = [V::splat(proof, 0.0); N];
        for (i, row) in tile.iter_mut().enumerate() {
            let row_here = &group[i * n_columns + j..];
            *row = match row_here[..n_left].first_chunk() {
                Some(chunk) => V::load(proof, chunk),
                None => V::load_short(proof, &row_here[..n_left]),
            };
            // Asked for in order: the rows of a group are `N` interleaved streams, which are slow
            // at some strides. See `rows.rs`.
            prefetch(group.as_ptr().wrapping_add((j + i) * N).wrapping_byte_add(AHEAD));
        }
        let columns = V::transposed(tile);
        for (k, [x, y]) in columns.as_chunks::<2>().0.iter().enumerate().take(n_left.div_ceil(2)) {
            let at = j + 2 * k;
            terms.push(&mut even, Lanes(x.to_array()), |vector| Lanes([vector[at]; N]));
            // If the number of columns is odd, the last pair has a column too many: its zeros are
            // multiplied by zero and added.
            terms.push(&mut odd, Lanes(y.to_array()), |vector| {
                Lanes([vector.get(at + 1).copied().unwrap_or(0.0); N])
            });
        }
    }
    even.merge(odd)
}

/// The sum of row `i` of `N` in lane `i`, for longer rows: memory is read in order; then lane `j`
/// of all rows at once is merged into the total.
#[inline(always)]
fn row_after_row<V: Vector<N>, const N: usize, S: Sum<N>, T: Terms>(
    proof: V::Proof,
    group: &[f64],
    n_columns: usize,
    terms: T,
) -> S {
    // `s`, `c` and `a` are in arrays of their own: of 24 doubles in a row the compiler makes
    // vectors of half the length.
    let mut parts = [[V::splat(proof, 0.0); N]; 3];
    for (i, row) in group.chunks_exact(n_columns).enumerate().take(N) {
        for (part, lanes) in parts.iter_mut().zip(accumulate::<N, S, T>(row, terms).parts()) {
            part[i] = V::load(proof, &lanes.0);
        }
    }
    let [s, c, a] = parts;
    let (s, c, a) = (V::transposed(s), V::transposed(c), V::transposed(a));
    let mut total = None;
    for ((s, c), a) in s.into_iter().zip(c).zip(a) {
        let lane = S::from_parts([Lanes(s.to_array()), Lanes(c.to_array()), Lanes(a.to_array())]);
        total = Some(match total {
            Some(total) => S::merge(total, lane),
            None => lane,
        });
    }
    total.unwrap_or(S::ZERO)
}
