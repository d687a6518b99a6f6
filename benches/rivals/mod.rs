//! Those that row sums are measured against, over the same bytes and with as many threads, and the
//! data. Shared by the benches and by `examples/abba.rs`.
#![allow(dead_code, unused_imports, reason = "each program uses a part")]

mod ceiling;
mod data;
mod heap;
mod paired;

use ndarray::parallel::prelude::*;
use ndarray::{ArrayView2, Axis, Zip};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

pub(crate) use self::ceiling::{Ceiling, copy};
pub(crate) use self::data::{DATA, Data};
pub(crate) use self::heap::Heap;
pub(crate) use self::paired::Pairs;

/// Sums the rows of the first into the second.
pub(crate) type Sum = fn(&ArrayView2<'_, f64>, &mut [f64]);

/// Bytes of rows that a thread sums at a time: as the largest blocks of the forked workers.
const CHUNK_BYTES: usize = 4 << 20;

/// So few bytes are still cut into several chunks.
const LEAST_CHUNK_BYTES: usize = 64 << 10;

pub(crate) fn ndarray_serial(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    Zip::from(sums).and(rows.rows()).for_each(|sum, row| *sum = row.sum());
}

pub(crate) fn rayon_ndarray(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    rows.axis_iter(Axis(0)).into_par_iter().zip(sums).for_each(|(row, sum)| *sum = row.sum());
}

/// The kernel of the forked workers, by threads: what isolation costs is the difference.
pub(crate) fn threads_exact(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    let n_columns = rows.ncols();
    by_chunks(rows, sums, |rows, sums| rowfork::exact_row_sums(rows, n_columns, sums));
}

/// Plain sums in a fixed order, likewise.
pub(crate) fn threads_fast(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    let n_columns = rows.ncols();
    by_chunks(rows, sums, |rows, sums| rowfork::fast_row_sums(rows, n_columns, sums));
}

/// What one would write for short rows, which ndarray's rows are slow for: plain sums of slices.
pub(crate) fn rayon_slices(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    let n_columns = rows.ncols();
    by_chunks(rows, sums, |rows, sums| {
        for (row, sum) in rows.chunks_exact(n_columns).zip(sums) {
            *sum = row.iter().sum();
        }
    });
}

/// Whether the rival writes the sums of plain summation at least; `exact` being those.
pub(crate) fn is_right(
    rival: Sum,
    rows: &ArrayView2<'_, f64>,
    sums: &mut [f64],
    exact: &[f64],
) -> bool {
    // No answer of somebody else is left for one that writes nothing.
    sums.fill(f64::NAN);
    rival(rows, sums);
    are_close(sums, exact, rows)
}

fn by_chunks(
    rows: &ArrayView2<'_, f64>,
    sums: &mut [f64],
    sum: impl Fn(&[f64], &mut [f64]) + Sync,
) {
    let row_bytes = rows.ncols() * size_of::<f64>();
    let chunk_bytes = (rows.nrows() * row_bytes / 16).clamp(LEAST_CHUNK_BYTES, CHUNK_BYTES);
    let chunk_rows = (chunk_bytes / row_bytes).max(1);
    let elements = rows.as_slice().expect("C order");
    elements
        .par_chunks(chunk_rows * rows.ncols())
        .zip(sums.par_chunks_mut(chunk_rows))
        .for_each(|(rows, sums)| sum(rows, sums));
}

/// Whether `sums` are those of plain summation: right but for its rounding errors.
pub(crate) fn are_close(sums: &[f64], exact: &[f64], rows: &ArrayView2<'_, f64>) -> bool {
    let magnitude = |row: usize| rows.row(row).iter().map(|x| x.abs()).sum::<f64>();
    let error = f64::EPSILON * rows.ncols() as f64;
    sums.iter()
        .zip(exact)
        .enumerate()
        .all(|(row, (a, b))| a == b || (a - b).abs() <= error * magnitude(row))
}
