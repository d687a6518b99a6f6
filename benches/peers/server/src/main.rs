//! What `peers.py` compares others with: a Rust program that places the matrix and sums its rows
//! whenever it is told to.
//!
//! `peer-server ROWS COLUMNS WORKERS` says, in one line, the names of the matrix and of the sums in
//! `/dev/shm` and the MiB that lie in 2 MiB pages. Then a line of standard input is a rival
//! (`fork`, `threads`, `read`, `rayon`), which is answered with the seconds that its call took. It
//! ends, and both names with it, when standard input does.

/// The same ceiling as that of rowfork's own benchmarks.
#[allow(dead_code, reason = "copies, too, which nobody here does")]
#[path = "../../../rivals/ceiling.rs"]
mod ceiling;

use std::cell::OnceCell;
use std::error::Error;
use std::time::Instant;

use ndarray::parallel::prelude::*;
use ndarray::{Axis, Ix1, Ix2};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use rowfork::SharedArray;

use crate::ceiling::Ceiling;

/// Bytes of rows that a thread sums at a time: as the largest blocks of the forked workers.
const CHUNK_BYTES: usize = 4 << 20;

/// So few bytes are still cut into several chunks.
const LEAST_CHUNK_BYTES: usize = 64 << 10;

type Matrix = SharedArray<f64, Ix2>;
type Sums = SharedArray<f64, Ix1>;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers =
        std::env::args().skip(1).map(|word| word.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [n_rows, n_columns, n_workers] = numbers[..] else {
        return Err("usage: peer-server ROWS COLUMNS WORKERS".into());
    };
    rayon::ThreadPoolBuilder::new().num_threads(n_workers).build_global()?;

    let id = std::process::id(); // so that two of these do not get in each other's way
    let (matrix_name, sums_name) =
        (format!("rowfork-peers-matrix-{id}"), format!("rowfork-peers-sums-{id}"));
    let matrix = Matrix::from_shape_fn(matrix_name.as_str(), (n_rows, n_columns), |(i, j)| {
        uniform(i * n_columns + j)
    })?;
    let mut sums = Sums::zeros(sums_name.as_str(), n_rows)?;
    let huge_mib = matrix.pages().map_or(0, |pages| pages.huge_bytes >> 20);
    println!("{matrix_name} {sums_name} {huge_mib}");

    let ceiling = OnceCell::new();
    for rival in std::io::stdin().lines() {
        let start = Instant::now();
        match rival?.as_str() {
            "fork" => drop(rowfork::fork().workers(n_workers).row_sums_into(&matrix, &mut sums)?),
            "threads" => exact_by_threads(&matrix, &mut sums),
            "read" => {
                ceiling.get_or_init(|| Ceiling::of(matrix.as_slice())).read(matrix.as_slice())
            }
            "rayon" => plain_by_threads(&matrix, &mut sums),
            unknown => return Err(format!("no rival {unknown:?}").into()),
        }
        println!("{:e}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The kernel of the forked workers: what isolation costs is the difference.
fn exact_by_threads(matrix: &Matrix, sums: &mut Sums) {
    let n_columns = matrix.shape()[1];
    let row_bytes = n_columns * size_of::<f64>();
    let chunk_bytes = (matrix.shape()[0] * row_bytes / 16).clamp(LEAST_CHUNK_BYTES, CHUNK_BYTES);
    let chunk_rows = (chunk_bytes / row_bytes).max(1);
    let mut sums = sums.view_mut();
    matrix
        .as_slice()
        .par_chunks(chunk_rows * n_columns)
        .zip(sums.as_slice_mut().expect("one axis").par_chunks_mut(chunk_rows))
        .for_each(|(rows, sums)| rowfork::exact_row_sums(rows, n_columns, sums));
}

/// What one would write without rowfork. Not exact.
fn plain_by_threads(matrix: &Matrix, sums: &mut Sums) {
    let mut sums = sums.view_mut();
    let sums = sums.as_slice_mut().expect("one axis");
    matrix
        .view()
        .axis_iter(Axis(0))
        .into_par_iter()
        .zip(sums)
        .for_each(|(row, sum)| *sum = row.sum());
}

/// Element number `index`, in [0, 1), all 53 bits of it in use so that nobody's sums are exact by
/// luck. [SplitMix64](https://prng.di.unimi.it/splitmix64.c).
fn uniform(index: usize) -> f64 {
    let mut z = (index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
