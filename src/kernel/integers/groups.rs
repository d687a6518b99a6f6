//! Rows cut into groups of as many terms as there are lanes.
//!
//! Called by the sums of short rows, and of bytes. Every loop has a whole number of vectors: the
//! last group of a row is read past its end, into the rows after it, and the terms of these are
//! masked. The reads stay within the slice of all rows. The last rows, after which there is too
//! little to read, have their last group copied and filled up with zeros.

use std::hint::black_box;
use std::ops::{BitAnd, Not};

use crate::kernel::lanes::last_terms;
use crate::kernel::overflow::Overflow;

/// Stores for each row the result of `sum` for its groups: those before the last, which are full,
/// and the last, which has at least one term and zeros for the rest. It stops at the first row for
/// which `sum` returns `Err`, with the exact sum that does not fit. `n_columns` is at least 1.
#[inline(always)]
pub(super) fn each_in_groups<X, const L: usize, S>(
    rows: &[X],
    n_columns: usize,
    sums: &mut [S],
    sum: impl Fn(&[[X; L]], [X; L]) -> Result<S, i128>,
) -> Result<(), Overflow>
where
    X: Copy + Default + BitAnd<Output = X> + Not<Output = X>,
{
    let padded = n_columns.next_multiple_of(L);
    let n_last = L + n_columns - padded;
    let mut mask = [X::default(); L];
    mask[..n_last].fill(!X::default());
    // All ones for the terms of the row, zero for what comes after. The mask is hidden from the
    // compiler, which would otherwise make it anew for each row, by comparing numbers of lanes.
    let mask = black_box(mask);

    let mut i = 0;
    // The windows begin with the rows after which there is enough to be read, and end with what is
    // masked.
    for (window, out) in rows.windows(padded).step_by(n_columns).zip(&mut *sums) {
        if let Some((last, full)) = window.as_chunks().0.split_last() {
            let mut last: [X; L] = *last;
            for (x, keep) in last.iter_mut().zip(&mask) {
                *x = *x & *keep;
            }
            *out = sum(full, last).map_err(|sum| Overflow { row: i, sum })?;
        }
        i += 1;
    }
    // The rows that no window has: `i` is the first of them.
    for (row, out) in rows.chunks_exact(n_columns).zip(sums).skip(i) {
        let (full, last) = row.split_at(n_columns - n_last);
        *out = sum(full.as_chunks().0, last_terms(row, last))
            .map_err(|sum| Overflow { row: i, sum })?;
        i += 1;
    }
    Ok(())
}

/// The lanes with their halves in each other's place.
///
/// The callers swap their running sums at every step. It loses nothing, as all lanes are added up
/// in the end; and where a half is a vector or more, it costs nothing, since registers change their
/// names. Without it the compiler sees that a lane is the sum of every `L`th term, adds several
/// terms to each at once, and gathers them one by one.
#[inline(always)]
pub(super) fn swapped<T: Copy, const L: usize>(lanes: [T; L]) -> [T; L] {
    let mut out = lanes;
    for (i, x) in out.iter_mut().enumerate() {
        *x = lanes[(i + L / 2) % L];
    }
    out
}
