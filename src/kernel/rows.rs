//! Consecutive rows, several at a time. The dispatcher calls this for blocks of rows. The
//! arithmetic, and why it is exact, is in `anchored.rs`.
//!
//! # Algorithm
//! A group is `N` rows, as many as a vector has lanes, and there are two ways to bring the sum of
//! row `i` into lane `i`:
//!
//! - *Short rows, a row to a lane* ([`row_per_lane`]): tiles of `N x N` terms are transposed in
//!   registers, and columns are added. In the end there are no lanes to add up.
//! - *Longer rows, one after the other* ([`row_after_row`]): each row is summed in `2 N` lanes.
//!   Then the lanes of all `N` rows are transposed and added up side by side, so the rows share the
//!   cost of it.
//!
//! The rounding of all rows of a group, and the check that each of them is proved, is then a few
//! vector instructions. Rows longer than a piece, and the last `results.len() % N`, are summed one
//! at a time.
//!
//! # The way down
//! The anchor is guessed: it is that of the group before. If some row is not proved with it,
//!
//! 1. the group is summed again with its own anchor, if that differs, and leaves it for the next
//!    group;
//! 2. if all rows stay in its window, the rows that are still not proved get `U` running terms,
//!    with the same anchor;
//! 3. if some row strays, as each row with a NaN or an infinity does, nothing is known of any row
//!    of the group, and each is summed alone with an anchor of its own;
//! 4. a row that is still not proved goes to the closure `refine`, which always gives an answer.
//!
//! How rows are grouped, and which anchor is guessed, changes no bit: an answer is the correctly
//! rounded one, or there is none.

use super::anchored::{Anchor, MAGNITUDE_BITS, Running, Starts, WINDOW_BITS, accumulate, sum_row};
use super::result::{SumResult, Term};
use super::vector::Vector;
use crate::sys::prefetch::prefetch;

/// Results of rows up to this many columns are stored past the caches. Otherwise each line of them
/// is read from memory before it is written, and that counts beside so little input. (1 GiB of 8
/// columns: 0.95 of the ceiling in place of 0.78.)
const STREAMED: usize = 128;

/// The least block, in bytes of rows, whose results are stored past the caches: those of a smaller
/// one may be read again soon.
const STREAMED_FROM: usize = 512 << 10;

/// A guard that has what was streamed stored when it is dropped, before anybody else can look: also
/// if the closure `refine` panics. See `# Safety` in `vector.rs`.
struct Fence<V: Vector<N>, const N: usize>(V::Proof);

impl<V: Vector<N>, const N: usize> Drop for Fence<V, N> {
    #[inline(always)]
    fn drop(&mut self) {
        V::fence(self.0);
    }
}

/// How far ahead memory is asked for, in bytes: as much as arrives within its latency at full
/// speed, and some more. A prefetch beyond the end of the rows is harmless.
pub(super) const AHEAD: usize = 4096;

/// What `sum_result` makes of the sum of each row of `n_columns` terms in `rows`, by `T` running
/// terms or by `U`, or else by `refine`.
///
/// There are `results.len()` rows, `N` of them to a group; each group is tried with the anchor of
/// the one before. The anchor that `refine` gets is one for its row, if there is one already.
/// Without columns every result is that of `refine` for no terms.
#[inline(always)]
pub(super) fn each<E: Term, V: Vector<N>, const N: usize, const T: usize, const U: usize>(
    proof: V::Proof,
    rows: &[E],
    n_columns: usize,
    sum_result: impl SumResult<E>,
    results: &mut [E],
    refine: impl Fn(&[E], Option<Anchor>) -> E,
) {
    if n_columns == 0 {
        // `chunks_exact(0)` below would panic.
        results.fill_with(|| refine(&[], None));
        return;
    }
    // A row longer than a piece has an anchor for each piece. It also takes so long that several at
    // a time would win nothing.
    let n_grouped = if n_columns <= E::PIECE { results.len() / N * N } else { 0 };
    let (grouped_rows, other_rows) = rows.split_at(n_grouped * n_columns);
    let (grouped_results, other_results) = results.split_at_mut(n_grouped);
    let (groups, _) = grouped_results.as_chunks_mut::<N>();
    let streams = n_columns <= STREAMED && size_of_val(rows) >= STREAMED_FROM;
    let mut anchor = None;
    if n_grouped > 0 {
        let _fence = Fence::<V, N>(proof);
        // The first row stands for the first group. A bad guess costs one more pass over the
        // group, which is in a cache by then.
        let mut starts = Starts::<V, T>::new::<N>(
            proof,
            Anchor::of_group::<E, N>(&rows[..n_columns], n_columns),
        );
        for (group, results) in grouped_rows.chunks_exact(N * n_columns).zip(groups) {
            let group = sum_group::<E, V, N, T, U>(
                proof,
                group,
                n_columns,
                sum_result,
                &mut starts,
                &refine,
            );
            if streams {
                E::stream::<V, N>(proof, group, results);
            } else {
                *results = group;
            }
        }
        anchor = Some(starts.anchor);
    }
    for (row, result) in other_rows.chunks_exact(n_columns).zip(other_results) {
        *result = sum_or_refine::<E, V, N, T>(proof, row, sum_result, &mut anchor, &refine);
    }
}

/// What `sum_result` makes of the sum of one row: first with the anchor of the rows before, then
/// with its own, which is left in `anchor` for the rows after, then by `refine`.
#[inline(always)]
fn sum_or_refine<E: Term, V: Vector<N>, const N: usize, const T: usize>(
    proof: V::Proof,
    row: &[E],
    sum_result: impl SumResult<E>,
    anchor: &mut Option<Anchor>,
    refine: &impl Fn(&[E], Option<Anchor>) -> E,
) -> E {
    if anchor.is_some()
        && let Some(sum) = sum_row::<E, V, N, T>(proof, row, sum_result, anchor)
    {
        return sum;
    }
    let own = Some(Anchor::of_row::<E, N>(row));
    // If they are the same, `sum_row` has proved nothing with this anchor already.
    if own != *anchor {
        *anchor = own;
        if let Some(sum) = sum_row::<E, V, N, T>(proof, row, sum_result, anchor) {
            return sum;
        }
    }
    refine(row, own)
}

/// What `sum_result` makes of the sums of `N` rows: first with the anchor of the rows before, then
/// with their own, which is left in `starts` for the rows after, then by tier two, which has `U`
/// running terms; see *The way down* above.
#[inline(always)]
fn sum_group<E: Term, V: Vector<N>, const N: usize, const T: usize, const U: usize>(
    proof: V::Proof,
    group: &[E],
    n_columns: usize,
    sum_result: impl SumResult<E>,
    starts: &mut Starts<V, T>,
    refine: &impl Fn(&[E], Option<Anchor>) -> E,
) -> [E; N] {
    let guessed = accumulate_group(proof, group, n_columns, starts);
    if let Some(results) = guessed.all(sum_result, starts.anchor) {
        return results;
    }
    let own = Anchor::of_group::<E, N>(group, n_columns);
    let mut all = guessed;
    if own != starts.anchor {
        *starts = Starts::new::<N>(proof, own);
        all = accumulate_group(proof, group, n_columns, starts);
    }
    let mut results = all.each::<E, N>(sum_result, own);
    // All rows or none: a lane of `strayed` may have the bits of any row.
    let in_window = all.strayed.has_none_of(WINDOW_BITS);
    if in_window && results.iter().any(Option::is_none) {
        let more =
            accumulate_group::<E, V, N, U>(proof, group, n_columns, &Starts::new::<N>(proof, own));
        for (result, more) in results.iter_mut().zip(more.each::<E, N>(sum_result, own)) {
            #[cfg(test)]
            super::tests::count_refined(usize::from(result.is_none() && more.is_some()));
            *result = result.or(more);
        }
    }
    let mut known = [E::default(); N];
    for ((known, result), row) in known.iter_mut().zip(results).zip(group.chunks_exact(n_columns)) {
        *known = match result {
            Some(result) => result,
            // Without the group's anchor: that of the row itself may be less.
            None if in_window => refine(row, None),
            // Some row is not finite, or too large. The others are like any, and start anew.
            None => sum_or_refine::<E, V, N, T>(proof, row, sum_result, &mut None, refine),
        };
    }
    known
}

/// The sums of a group's rows: terms and `inexact` of row `i` are in lane `i`, but the lanes of
/// `strayed` may be those of any row.
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
    /// What `sum_result` makes of the row in each lane, if all are proved. Nearly every group takes
    /// the first exit: no row strayed and none dropped anything, so the terms are the sums.
    #[inline(always)]
    fn all<E: Term, const N: usize>(
        &self,
        sum_result: impl SumResult<E>,
        anchor: Anchor,
    ) -> Option<[E; N]>
    where
        V: Vector<N>,
    {
        if self.inexact.has_none_of(MAGNITUDE_BITS) && self.strayed.has_none_of(WINDOW_BITS) {
            return sum_result.of_exact(self.terms);
        }
        let mut results = [E::default(); N];
        for (result, proved) in results.iter_mut().zip(self.each(sum_result, anchor)) {
            *result = proved?;
        }
        Some(results)
    }

    /// What `sum_result` makes of the row in each lane, where that is proved; of no row if one
    /// strayed. A row that dropped something is bounded by what it may have dropped, not by what it
    /// did.
    #[inline(always)]
    fn each<E: Term, const N: usize>(
        &self,
        sum_result: impl SumResult<E>,
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
                *result = sum_result.of_terms(terms.map(|term| term[i]), dropped);
            }
        }
        results
    }
}

/// The sum of row `i` of `N` in lane `i`, for short rows: column after column, so that there are no
/// lanes to add up but the two of even and odd columns, which hide the latency of an addition.
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
    // speed of memory. Asking for what lies ahead in order mends that. A tile of `N` columns asks
    // for `N` consecutive vectors, so over a group every place is asked for, in order.
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
            // If the number of columns is odd, the last pair has a column of zeros.
            even.push(*x, starts);
            odd.push(*y, starts);
        }
    }
    even.sum(odd, starts)
}

/// The sum of row `i` of `N` in lane `i`, for longer rows: memory is read in order, which the
/// processor foresees; then the lanes of all rows are added up at once, exactly, by step 3 of the
/// proof in `anchored.rs`.
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
    // With most data no row is inexact, and there is nothing to transpose: all lanes are clean.
    if !any_inexact.has_none_of(MAGNITUDE_BITS) {
        total.inexact = nothing;
        for inexact in V::transposed(inexact) {
            total.inexact = total.inexact.or(inexact);
        }
    }
    total
}
