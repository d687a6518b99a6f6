//! Rows on end, several at a time: short ones a row to a lane, longer ones one after the other and
//! their lanes side by side.
//!
//! Called by the dispatcher for blocks of rows. The arithmetic, and why it is exact, is in
//! `anchored.rs`. A row that two tiers cannot vouch for goes to the closure `refine`, which always
//! knows.

use super::anchored::{Anchor, MAGNITUDE_BITS, Running, Starts, WINDOW_BITS, accumulate, sum_row};
use super::result::{SumResult, Term};
use super::vector::Vector;
use crate::sys::prefetch::prefetch;

/// Results of rows up to this long are stored past the caches: else each line of them is read from
/// memory before it is written, and that counts beside so little input. (1 GiB of 8 columns: 0.95
/// of the ceiling in place of 0.78.)
const STREAMED: usize = 128;

/// But not of less than so many bytes of rows: their results may be read again soon.
const STREAMED_FROM: usize = 512 << 10;

/// Has what was streamed stored when it is dropped: before anybody else can look.
struct Fence<V: Vector<N>, const N: usize>(V::Proof);

impl<V: Vector<N>, const N: usize> Drop for Fence<V, N> {
    #[inline(always)]
    fn drop(&mut self) {
        V::fence(self.0);
    }
}

/// How far ahead memory is asked for, in bytes: for its latency at full speed and some more.
pub(super) const AHEAD: usize = 4096;

/// What is wanted of each row of `n_columns` terms in `rows`, by `T` running terms or by `U`;
/// `refine` tells it of a row of which these cannot.
///
/// `N` rows at a time, so that their lanes are added up side by side; with the anchor of the rows
/// before.
#[inline(always)]
pub(super) fn each<E: Term, V: Vector<N>, const N: usize, const T: usize, const U: usize>(
    proof: V::Proof,
    rows: &[E],
    n_columns: usize,
    goal: impl SumResult<E>,
    results: &mut [E],
    refine: impl Fn(&[E], Option<Anchor>) -> E,
) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic.
        results.fill_with(|| refine(&[], None));
        return;
    }
    // What is longer than a piece takes so long that nothing is won by several at a time.
    let n_grouped = if n_columns <= E::PIECE { results.len() / N * N } else { 0 };
    let (grouped_rows, other_rows) = rows.split_at(n_grouped * n_columns);
    let (grouped_results, other_results) = results.split_at_mut(n_grouped);
    let (groups, _) = grouped_results.as_chunks_mut::<N>();
    let streams = n_columns <= STREAMED && size_of_val(rows) >= STREAMED_FROM;
    let mut anchor = None;
    if n_grouped > 0 {
        let _fence = Fence::<V, N>(proof);
        let mut starts = Starts::<V, T>::new::<N>(
            proof,
            Anchor::of_group::<E, N>(&rows[..n_columns], n_columns),
        );
        for (group, results) in grouped_rows.chunks_exact(N * n_columns).zip(groups) {
            let group =
                sum_group::<E, V, N, T, U>(proof, group, n_columns, goal, &mut starts, &refine);
            if streams {
                E::stream::<V, N>(proof, group, results);
            } else {
                *results = group;
            }
        }
        anchor = Some(starts.anchor);
    }
    for (row, result) in other_rows.chunks_exact(n_columns).zip(other_results) {
        *result = sum_or_refine::<E, V, N, T>(proof, row, goal, &mut anchor, &refine);
    }
}

/// What is wanted of one row; first with the anchor of those before, then with its own, which is
/// left for those after.
#[inline(always)]
fn sum_or_refine<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    row: &[E],
    goal: impl SumResult<E>,
    anchor: &mut Option<Anchor>,
    refine: &impl Fn(&[E], Option<Anchor>) -> E,
) -> E {
    if anchor.is_some()
        && let Some(sum) = sum_row::<E, V, N, T>(proof, row, goal, anchor)
    {
        return sum;
    }
    let own = Some(Anchor::of_row::<E, N>(row));
    if own != *anchor {
        *anchor = own;
        if let Some(sum) = sum_row::<E, V, N, T>(proof, row, goal, anchor) {
            return sum;
        }
    }
    refine(row, own)
}

/// What is wanted of `N` rows; first with the anchor of those before, then with their own, which is
/// left for those after, then by tier two, which has `U` running terms.
#[inline(always)]
fn sum_group<E: Term, V: Vector<N>, const N: usize, const T: usize, const U: usize>(
    proof: V::Proof,
    group: &[E],
    n_columns: usize,
    goal: impl SumResult<E>,
    starts: &mut Starts<V, T>,
    refine: &impl Fn(&[E], Option<Anchor>) -> E,
) -> [E; N] {
    let guessed = accumulate_group(proof, group, n_columns, starts);
    if let Some(results) = guessed.all(goal, starts.anchor) {
        return results;
    }
    let own = Anchor::of_group::<E, N>(group, n_columns);
    let mut all = guessed;
    if own != starts.anchor {
        *starts = Starts::new::<N>(proof, own);
        all = accumulate_group(proof, group, n_columns, starts);
    }
    let mut results = all.each::<E, N>(goal, own);
    let in_window = all.strayed.has_none_of(WINDOW_BITS);
    if in_window && results.iter().any(Option::is_none) {
        let more =
            accumulate_group::<E, V, N, U>(proof, group, n_columns, &Starts::new::<N>(proof, own));
        for (result, more) in results.iter_mut().zip(more.each::<E, N>(goal, own)) {
            #[cfg(test)]
            super::tests::count_refined(usize::from(result.is_none() && more.is_some()));
            *result = result.or(more);
        }
    }
    let mut known = [E::default(); N];
    for ((known, result), row) in known.iter_mut().zip(results).zip(group.chunks_exact(n_columns)) {
        *known = match result {
            Some(result) => result,
            None if in_window => refine(row, None),
            // Some row is not finite, or too large; the others are like any.
            None => sum_or_refine::<E, V, N, T>(proof, row, goal, &mut None, refine),
        };
    }
    known
}

/// The running terms of row `i` in lane `i`, but for `strayed`, which is that of some row in any
/// lane.
#[inline(always)]
fn accumulate_group<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    group: &[E],
    n_columns: usize,
    starts: &Starts<V, T>,
) -> Running<V, T> {
    if n_columns <= E::SHORT {
        row_per_lane(proof, group, n_columns, starts)
    } else {
        row_after_row(proof, group, n_columns, starts)
    }
}

impl<V, const T: usize> Running<V, T> {
    /// What is wanted of the row in each lane, if all are proved.
    #[inline(always)]
    fn all<E: Term, const N: usize>(
        &self,
        goal: impl SumResult<E>,
        anchor: Anchor,
    ) -> Option<[E; N]>
    where
        V: Vector<N>,
    {
        if self.inexact.has_none_of(MAGNITUDE_BITS) && self.strayed.has_none_of(WINDOW_BITS) {
            return goal.of_exact(self.terms);
        }
        let mut results = [E::default(); N];
        for (result, proved) in results.iter_mut().zip(self.each(goal, anchor)) {
            *result = proved?;
        }
        Some(results)
    }

    /// What is wanted of the row in each lane, where it is proved.
    #[inline(always)]
    fn each<E: Term, const N: usize>(
        &self,
        goal: impl SumResult<E>,
        anchor: Anchor,
    ) -> [Option<E>; N]
    where
        V: Vector<N>,
    {
        let mut results = [None; N];
        if self.strayed.has_none_of(WINDOW_BITS) {
            let terms = self.terms.map(V::to_array);
            for (i, (result, inexact)) in
                results.iter_mut().zip(self.inexact.to_array()).enumerate()
            {
                let is_exact = inexact.to_bits() & MAGNITUDE_BITS == 0;
                let dropped = if is_exact { 0.0 } else { anchor.most_dropped::<T>() };
                *result = goal.of_terms(terms.map(|term| term[i]), dropped);
            }
        }
        results
    }
}

/// The sum of row `i` of `N` in lane `i`, for short rows: column after column, so that there are no
/// lanes to add up.
#[inline(always)]
fn row_per_lane<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    group: &[E],
    n_columns: usize,
    starts: &Starts<V, T>,
) -> Running<V, T> {
    let group = &group[..N * n_columns];
    let (mut even, mut odd) = (starts.running(), starts.running());
    // The rows of a group are `N` interleaved streams, which at some strides run at a third of the
    // speed of memory. Asking for what lies ahead in order mends that.
    let ask_ahead = |column: usize| {
        for i in 0..N {
            prefetch(group.as_ptr().wrapping_add((column + i) * N).wrapping_byte_add(AHEAD));
        }
    };
    let (n_tiled, n_left) = (n_columns / N * N, n_columns % N);
    for j in (0..n_tiled).step_by(N) {
        let mut tile = [starts.nothing; N];
        for (i, row) in tile.iter_mut().enumerate() {
            *row =
                E::load(proof, group[i * n_columns + j..].first_chunk().expect("N columns more"));
        }
        ask_ahead(j);
        for [x, y] in V::transposed(tile).as_chunks::<2>().0 {
            even.push(*x, starts);
            odd.push(*y, starts);
        }
    }
    if n_left > 0 {
        let mut tile = [starts.nothing; N];
        for (i, row) in tile.iter_mut().enumerate() {
            *row = E::load_short(proof, &group[i * n_columns + n_tiled..][..n_left]);
        }
        ask_ahead(n_tiled);
        for [x, y] in V::transposed(tile).as_chunks::<2>().0.iter().take(n_left.div_ceil(2)) {
            // Of a column too many, zeros are added.
            even.push(*x, starts);
            odd.push(*y, starts);
        }
    }
    even.sum(odd, starts)
}

/// The sum of row `i` of `N` in lane `i`, for longer rows: memory is read in order, which it
/// rewards; then the lanes of all rows are added up at once.
#[inline(always)]
fn row_after_row<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    group: &[E],
    n_columns: usize,
    starts: &Starts<V, T>,
) -> Running<V, T> {
    let nothing = starts.nothing;
    let (mut terms, mut inexact) = ([[nothing; N]; T], [nothing; N]);
    let (mut strayed, mut any_inexact) = (nothing, nothing);
    for (i, row) in group.chunks_exact(n_columns).enumerate().take(N) {
        let row = accumulate(proof, row, starts);
        for (terms, term) in terms.iter_mut().zip(row.terms) {
            terms[i] = term;
        }
        inexact[i] = row.inexact;
        strayed = strayed.or(row.strayed);
        any_inexact = any_inexact.or(row.inexact);
    }
    let mut total = Running { terms: [nothing; T], strayed, inexact: any_inexact };
    for (total, terms) in total.terms.iter_mut().zip(terms) {
        for term in V::transposed(terms) {
            *total = *total + term;
        }
    }
    if !any_inexact.has_none_of(MAGNITUDE_BITS) {
        total.inexact = nothing;
        for inexact in V::transposed(inexact) {
            total.inexact = total.inexact.or(inexact);
        }
    }
    total
}
