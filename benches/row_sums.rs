//! `row_sums/<impl>/<rows>x<columns>`: the same matrix, in the same segment, summed by everybody in turn. Every answer is
//! checked before it is timed. In test mode (`cargo bench -- --test`) the shapes are small.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::parallel::prelude::*;
use ndarray::{ArrayView2, Axis, Zip};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use rowfork::SharedArray;

/// 1 GiB in long rows and in middling ones, then what fits in a cache, then next to nothing: the cost of the call itself.
const SHAPES: [(usize, usize); 4] = [(131_072, 1024), (1_048_576, 128), (1000, 1000), (1000, 10)];
const TEST_SHAPES: [(usize, usize); 2] = [(300, 100), (50, 10)];

/// Bytes of rows that a thread sums at a time: as much as one block of the forked workers.
const CHUNK_BYTES: usize = 256 << 10;

fn ndarray_serial(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    Zip::from(sums).and(rows.rows()).for_each(|sum, row| *sum = row.sum());
}

fn rayon_ndarray(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    rows.axis_iter(Axis(0)).into_par_iter().zip(sums).for_each(|(row, sum)| *sum = row.sum());
}

/// The kernel of the forked workers, by threads: what isolation costs is the difference.
fn threads_exact(rows: &ArrayView2<'_, f64>, sums: &mut [f64]) {
    let n_columns = rows.ncols();
    let chunk_rows = (CHUNK_BYTES / (n_columns * size_of::<f64>())).max(1);
    let elements = rows.as_slice().expect("C order");
    elements
        .par_chunks(chunk_rows * n_columns)
        .zip(sums.par_chunks_mut(chunk_rows))
        .for_each(|(rows, sums)| rowfork::exact_row_sums(rows, n_columns, sums));
}

fn row_sums(criterion: &mut Criterion) {
    let testing = std::env::args().any(|argument| argument == "--test");
    let shapes: &[(usize, usize)] = if testing { &TEST_SHAPES } else { &SHAPES };
    let mut group = criterion.benchmark_group("row_sums");
    for &(n_rows, n_columns) in shapes {
        let matrix = SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| {
            ((i * 7919 + j * 104_729) % 1_000_003) as f64 / 1000.0 - 500.0
        })
        .expect("room in /dev/shm");
        let rows = matrix.view();
        let exact: Vec<f64> = rows.rows().into_iter().map(|row| rowfork::exact_sum(row.as_slice().unwrap())).collect();
        let mut sums = vec![0.0; n_rows];
        let mut shared_sums = SharedArray::<f64, _>::zeros(None, n_rows).expect("room in /dev/shm");
        let fork = rowfork::fork();

        for plain in [ndarray_serial, rayon_ndarray] {
            plain(&rows, &mut sums);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * n_columns as f64;
            assert!(sums.iter().zip(&exact).all(close));
        }
        threads_exact(&rows, &mut sums);
        assert_eq!(sums, exact);
        fork.row_sums_into(&matrix, &mut shared_sums).expect("sums");
        assert_eq!(shared_sums.view().as_slice(), Some(&exact[..]));

        group.throughput(Throughput::Bytes((n_rows * n_columns * size_of::<f64>()) as u64));
        let shape = format!("{n_rows}x{n_columns}");
        for (name, sum) in [
            ("ndarray_serial", ndarray_serial as fn(&ArrayView2<'_, f64>, &mut [f64])),
            ("rayon_ndarray", rayon_ndarray),
            ("threads_exact", threads_exact),
        ] {
            group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                bencher.iter(|| sum(black_box(&rows), black_box(&mut sums)));
            });
        }
        group.bench_function(BenchmarkId::new("fork_exact", &shape), |bencher| {
            bencher.iter(|| fork.row_sums_into(black_box(&matrix), &mut shared_sums).expect("sums"));
        });
    }
    group.finish();
}

criterion_group!(benches, row_sums);
criterion_main!(benches);
