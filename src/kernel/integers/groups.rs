//! Rows cut into groups of as many terms as there are lanes.
//!
//! Called by the sums of short rows, and of bytes. No loop is left whose length is not a whole
//! number of vectors: the last group of a row is read past its end, into the rows after it, and
//! what belongs to them is masked.

use std::hint::black_box;
use std::ops::{BitAnd, Not};

use crate::kernel::lanes::last_terms;
use crate::kernel::overflow::Overflow;

/// Stores for each row what `sum` makes of its full groups and of its last, in which zeros stand
/// for what the row does not have; up to the first row for which it returns `Err`, a sum that does
/// not fit.
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
    // Hidden from the compiler, which would compare the numbers of lanes anew for each row.
    let mask = black_box(mask);

    let mut i = 0;
    // The windows are the rows after which there is enough to be read.
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
/// Sums of lanes swap at every step, and lose nothing: a vector or more to a half, it is a matter
/// of names. Without it the compiler sees that the lanes are sums of every `L`th term, adds several
/// terms to each at once, and gathers them.
#[inline(always)]
pub(super) fn swapped<T: Copy, const L: usize>(lanes: [T; L]) -> [T; L] {
    let mut out = lanes;
    for (i, x) in out.iter_mut().enumerate() {
        *x = lanes[(i + L / 2) % L];
    }
    out
}
