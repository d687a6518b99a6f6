//! A call whose kernel does some harm on the way.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::atomic::Ordering;

use ndarray::{Ix1, Ix2};
use rowfork::{SharedArray, fork};

use super::shared::SharedWord;

pub(crate) fn matrix(n_rows: usize, n_columns: usize) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| (i * 7 + j) as f64 * 0.1)
        .unwrap()
}

pub(crate) fn bits(array: &SharedArray<f64, Ix1>) -> Vec<u64> {
    array.view().iter().map(|value| value.to_bits()).collect()
}

/// Sums by a kernel that first does `harm` on each row.
pub(crate) fn harmed(
    m: &SharedArray<f64, Ix2>,
    workers: usize,
    harm: impl Fn(usize),
) -> rowfork::Result<(Vec<u64>, rowfork::Report)> {
    let kernel = |row: rowfork::Row<'_, f64, Ix1>| {
        harm(row.index());
        row.sum()
    };
    let (sums, report) = fork().workers(workers).block_rows(10).map_rows(m, kernel)?.into_parts();
    Ok((bits(&sums), report))
}

/// True for the first of all processes that ask.
pub(crate) fn first_time(word: &SharedWord) -> bool {
    word.fetch_add(1, Ordering::Relaxed) == 0
}
