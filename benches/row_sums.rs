//! `row_sums/<impl>/<rows>x<columns>`: the same matrix, in the same segment, summed by everybody in
//! turn. Every answer is checked before it is timed. In test mode (`cargo bench -- --test`) the
//! shapes are small.
//!
//! `ceiling` reads the bytes and no more, `memcpy` copies them, `*_fast` are plain sums, `*_exact`
//! exact ones; a pool's are by the caller itself where they are small, as its users have it. For
//! each shape the share of rows that each tier of the exact sum settles is printed, by kind of
//! data, each row asked alone. (Among others a row has the anchor of those before and may need a
//! second try.) The ceiling of what fits in a cache is none: threads take longer to begin than one
//! takes to read it. For claims about ratios see `examples/abba.rs`, which measures in pairs.

mod rivals;

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use ndarray::{Array2, Ix2};
use rivals::{
    Ceiling, DATA, Sum, are_close, copy, is_right, ndarray_serial, rayon_ndarray, rayon_slices,
    threads_exact, threads_fast,
};
use rowfork::{Pool, SharedArray, fork};

/// 1 GiB in rows of every length, then what fits in a cache, then next to nothing: the cost of the
/// call itself.
const SHAPES: [(usize, usize); 6] =
    [(131_072, 1024), (16_384, 8192), (1_342_177, 100), (16_777_216, 8), (1000, 1000), (1000, 10)];
const TEST_SHAPES: [(usize, usize); 2] = [(300, 100), (50, 10)];

/// As many rows of each kind of data are looked at for the tiers.
const SAMPLE_ROWS: usize = 2000;

const RIVALS: [(&str, Sum); 5] = [
    ("ndarray_serial", ndarray_serial),
    ("rayon_ndarray", rayon_ndarray),
    ("rayon_slices", rayon_slices),
    ("threads_fast", threads_fast),
    ("threads_exact", threads_exact),
];

fn row_sums(criterion: &mut Criterion) {
    let testing = std::env::args().any(|argument| argument == "--test");
    let shapes: &[(usize, usize)] = if testing { &TEST_SHAPES } else { &SHAPES };
    let pool = Pool::new().expect("a pool"); // while there is next to nothing to copy
    let mut group = criterion.benchmark_group("row_sums");
    for &(n_rows, n_columns) in shapes {
        print_tiers(n_rows.min(SAMPLE_ROWS), n_columns);
        let matrix = SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| {
            (DATA[0].element)(i, j, n_columns)
        });
        bench_shape(&mut group, &pool, &matrix.expect("room in /dev/shm"));
    }
    group.finish();
}

fn bench_shape(
    group: &mut BenchmarkGroup<'_, WallTime>,
    pool: &Pool,
    matrix: &SharedArray<f64, Ix2>,
) {
    let (rows, elements, n_rows) = (matrix.view(), matrix.as_slice(), matrix.n_rows());
    let shape = format!("{n_rows}x{}", rows.ncols());
    group.throughput(Throughput::Bytes(size_of_val(elements) as u64));

    // All that is large lies in segments: what the caller holds of its own costs a fork.
    let exact = SharedArray::from_shape_fn(None, n_rows, |i| {
        rowfork::exact_sum(rows.row(i).as_slice().unwrap())
    });
    let (exact, placed) =
        (exact.expect("room in /dev/shm"), SharedArray::<f64, _>::zeros(None, n_rows));
    let (exact, mut placed) = (exact.as_slice(), placed.expect("room in /dev/shm"));
    let sums = placed.view_mut().into_slice().expect("C order");
    for (name, sum) in RIVALS {
        assert!(is_right(sum, &rows, sums, exact), "{name}, {shape}");
        assert!(name != "threads_exact" || sums == exact, "{name}, {shape}");
        group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
            bencher.iter(|| sum(black_box(&rows), black_box(&mut *sums)));
        });
    }

    let mut shared_sums = SharedArray::<f64, _>::zeros(None, n_rows).expect("room in /dev/shm");
    fork().row_sums_fast_into(matrix, &mut shared_sums).expect("sums");
    assert!(are_close(shared_sums.as_slice(), exact, &rows), "fork_fast, {shape}");
    group.bench_function(BenchmarkId::new("fork_fast", &shape), |bencher| {
        bencher
            .iter(|| fork().row_sums_fast_into(black_box(matrix), &mut shared_sums).expect("sums"));
    });
    shared_sums.view_mut().fill(f64::NAN);
    fork().row_sums_into(matrix, &mut shared_sums).expect("sums");
    assert_eq!(shared_sums.as_slice(), exact, "fork_exact, {shape}");
    group.bench_function(BenchmarkId::new("fork_exact", &shape), |bencher| {
        bencher.iter(|| fork().row_sums_into(black_box(matrix), &mut shared_sums).expect("sums"));
    });
    shared_sums.view_mut().fill(f64::NAN);
    pool.row_sums_into(matrix, &mut shared_sums).expect("sums");
    assert_eq!(shared_sums.as_slice(), exact, "pool_exact, {shape}");
    group.bench_function(BenchmarkId::new("pool_exact", &shape), |bencher| {
        bencher.iter(|| pool.row_sums_into(black_box(matrix), &mut shared_sums).expect("sums"));
    });

    let ceiling = Ceiling::of(elements);
    group.bench_function(BenchmarkId::new("ceiling", &shape), |bencher| {
        bencher.iter(|| ceiling.read(black_box(elements)));
    });
    let mut copied = SharedArray::<f64, _>::zeros(None, elements.len()).expect("room in /dev/shm");
    let copied = copied.view_mut().into_slice().expect("C order");
    copy(elements, copied);
    assert_eq!(copied, elements);
    group.bench_function(BenchmarkId::new("memcpy", &shape), |bencher| {
        bencher.iter(|| copy(black_box(elements), black_box(&mut *copied)));
    });
}

/// Prints which share of the rows each tier settles.
fn print_tiers(n_rows: usize, n_columns: usize) {
    for data in DATA {
        let rows =
            Array2::from_shape_fn((n_rows, n_columns), |(i, j)| (data.element)(i, j, n_columns));
        let mut settled = [0; 3];
        for row in rows.rows() {
            settled[rowfork::tier_of_exact_sum(row.as_slice().expect("C order")) - 1] += 1;
        }
        let shares =
            settled.map(|rows: usize| format!("{:.1} %", 100.0 * rows as f64 / n_rows as f64));
        println!(
            "tiers, {n_columns} columns, {}: {} / {} / {}",
            data.name, shares[0], shares[1], shares[2]
        );
    }
}

criterion_group!(benches, row_sums);
criterion_main!(benches);
