//! `dispatch/<impl>/<case>`: what it costs to have next to nothing done by others. Every answer is
//! checked before it is timed.
//!
//! | case | |
//! |---|---|
//! | `one_block_hot` | a call of one block, right after the last |
//! | `one_block_parked` | the same 2 ms later, when all have gone to sleep |
//! | `row_sums_1000x10` | exact sums; a pool has the caller do them, as its users have it |
//! | `row_sums_1000x10_by_workers` | the same by workers all the same |
//! | `map_rows_1000x10` | a function of the user's, which workers always run, into an output that is there |
//! | `map_rows_1000x10_new` | the same with an output made by the call |
//! | `one_block_hot_heap` | `one_block_hot` of a caller with 4 GiB of private heap in small pages |
//!
//! A pool and fork mode have two workers, rayon two threads. In test mode (`cargo bench -- --test`)
//! the heap is small.

mod rivals;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::parallel::prelude::*;
use ndarray::{Array1, ArrayView1, ArrayView2, Axis, Ix1, Ix2};
use rivals::{Heap, ndarray_serial, rayon_ndarray};
use rowfork::{Fork, Pool, SharedArray, fork};

type Group<'c> = BenchmarkGroup<'c, WallTime>;

/// Who, and what.
type Id = [&'static str; 2];

const WORKERS: usize = 2;

/// By then everybody sleeps.
const PAUSE: Duration = Duration::from_millis(2);

const HEAP: usize = 4 << 30;
const TEST_HEAP: usize = 16 << 20;

/// A matrix whose sums are exact in any order.
struct Job {
    matrix: SharedArray<f64, Ix2>,
    sums: SharedArray<f64, Ix1>,
    expected: Array1<f64>,
}

impl Job {
    fn new(n_rows: usize) -> Self {
        let matrix = SharedArray::from_shape_fn(None, (n_rows, 10), |(i, j)| (7 * i + j) as f64);
        let matrix = matrix.expect("room in /dev/shm");
        let expected = matrix.view().sum_axis(Axis(1));
        Self { matrix, sums: SharedArray::zeros(None, n_rows).expect("room in /dev/shm"), expected }
    }

    /// Benches one way to the sums, once they are right.
    fn bench(&mut self, group: &mut Group<'_>, id: Id, work: impl Fn(&Matrix, &mut Sums)) {
        self.check(id, &work);
        let Self { matrix, sums, .. } = self;
        group.bench_function(BenchmarkId::new(id[0], id[1]), |bencher| {
            bencher.iter(|| work(black_box(matrix), black_box(&mut *sums)));
        });
    }

    /// The same for calls each of which comes when all have gone to sleep.
    fn bench_parked(&mut self, group: &mut Group<'_>, id: Id, work: impl Fn(&Matrix, &mut Sums)) {
        self.check(id, &work);
        let Self { matrix, sums, .. } = self;
        let mut once = || {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            work(black_box(matrix), black_box(&mut *sums));
            start.elapsed()
        };
        group.bench_function(BenchmarkId::new(id[0], id[1]), |bencher| {
            bencher.iter_custom(|n| (0..n).map(|_| once()).sum());
        });
    }

    /// The same for what makes its own output.
    fn bench_new<T>(
        &self,
        group: &mut Group<'_>,
        id: Id,
        work: impl Fn(&Matrix) -> T,
        view: impl Fn(&T) -> ArrayView1<'_, f64>,
    ) {
        assert_eq!(view(&work(&self.matrix)), self.expected, "{id:?}");
        group.bench_function(BenchmarkId::new(id[0], id[1]), |bencher| {
            bencher.iter(|| work(black_box(&self.matrix)));
        });
    }

    fn check(&mut self, id: Id, work: &impl Fn(&Matrix, &mut Sums)) {
        self.sums.view_mut().fill(f64::NAN);
        work(&self.matrix, &mut self.sums);
        assert_eq!(self.sums.view(), self.expected, "{id:?}");
    }
}

type Matrix = SharedArray<f64, Ix2>;
type Sums = SharedArray<f64, Ix1>;

fn by_pool(pool: &Pool) -> impl Fn(&Matrix, &mut Sums) {
    |matrix, sums| drop(pool.row_sums_into(matrix, sums).expect("sums"))
}

fn by_fork(matrix: &Matrix, sums: &mut Sums) {
    forked().row_sums_into(matrix, sums).expect("sums");
}

/// What a rival of slices and views does.
fn by(sum: rivals::Sum) -> impl Fn(&Matrix, &mut Sums) {
    move |matrix, sums| sum(&matrix.view(), sums.view_mut().into_slice().expect("C order"))
}

/// The sums by one thread that is there already.
fn by_a_thread(threads: &rayon::ThreadPool) -> impl Fn(&Matrix, &mut Sums) {
    |matrix, sums| threads.install(|| by(ndarray_serial)(matrix, sums))
}

fn forked() -> Fork<'static> {
    fork().workers(WORKERS)
}

fn pool(inline: bool) -> Pool {
    let builder = Pool::builder().workers(WORKERS);
    if inline { builder } else { builder.inline_below(0) }.build().expect("a pool")
}

fn dispatch(criterion: &mut Criterion) {
    let testing = std::env::args().any(|argument| argument == "--test");
    // Before there are other threads, and more to copy.
    let (inline, workers) = (pool(true), pool(false));
    let threads = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build().expect("threads");
    let mut group = criterion.benchmark_group("dispatch");

    let mut tiny = Job::new(8);
    let report = workers.row_sums_into(&tiny.matrix, &mut tiny.sums).expect("sums");
    assert_eq!((report.blocks, report.inline), (1, false));
    let id = |who| [who, "one_block_hot"];
    tiny.bench(&mut group, id("pool"), by_pool(&workers));
    tiny.bench(&mut group, id("fork"), by_fork);
    tiny.bench(&mut group, id("rayon"), by_a_thread(&threads));
    let id = |who| [who, "one_block_parked"];
    tiny.bench_parked(&mut group, id("pool"), by_pool(&workers));
    tiny.bench_parked(&mut group, id("fork"), by_fork);
    tiny.bench_parked(&mut group, id("rayon"), by_a_thread(&threads));

    thousand_rows(&mut group, &inline, &workers, &threads);
    drop((inline, workers));
    with_a_heap(&mut group, &mut tiny, if testing { TEST_HEAP } else { HEAP });
    group.finish();
}

fn thousand_rows(
    group: &mut Group<'_>,
    inline: &Pool,
    workers: &Pool,
    threads: &rayon::ThreadPool,
) {
    let mut job = Job::new(1000);
    let report = inline.row_sums_into(&job.matrix, &mut job.sums).expect("sums");
    assert!(report.inline);
    let rayon =
        |matrix: &Matrix, sums: &mut Sums| threads.install(|| by(rayon_ndarray)(matrix, sums));
    let id = |who| [who, "row_sums_1000x10"];
    job.bench(group, id("ndarray_serial"), by(ndarray_serial));
    job.bench(group, id("pool"), by_pool(inline));
    job.bench(group, id("fork"), by_fork);
    job.bench(group, id("rayon"), rayon);
    job.bench(group, ["pool", "row_sums_1000x10_by_workers"], by_pool(workers));

    let id = |who| [who, "map_rows_1000x10"];
    job.bench(group, id("ndarray_serial"), by(ndarray_serial));
    job.bench(group, id("pool"), |matrix, sums| {
        drop(inline.map_rows_into(matrix, sums, |row| row.sum()).expect("sums"));
    });
    job.bench(group, id("fork"), |matrix, sums| {
        drop(forked().map_rows_into(matrix, sums, |row| row.sum()).expect("sums"));
    });
    job.bench(group, id("rayon"), rayon);

    let id = |who| [who, "map_rows_1000x10_new"];
    let serial = |matrix: &Matrix| matrix.view().map_axis(Axis(1), |row| row.sum());
    job.bench_new(group, id("ndarray_serial"), serial, |sums| sums.view());
    job.bench_new(
        group,
        id("pool"),
        |matrix| inline.map_rows(matrix, |row| row.sum()).expect("sums"),
        |sums| sums.view(),
    );
    job.bench_new(
        group,
        id("fork"),
        |matrix| forked().map_rows(matrix, |row| row.sum()).expect("sums"),
        |sums| sums.view(),
    );
    let rayon = |matrix: &Matrix| threads.install(|| collected(&matrix.view()));
    job.bench_new(group, id("rayon"), rayon, |sums| ArrayView1::from(sums));
}

fn collected(rows: &ArrayView2<'_, f64>) -> Vec<f64> {
    rows.axis_iter(Axis(0)).into_par_iter().map(|row| row.sum()).collect()
}

fn with_a_heap(group: &mut Group<'_>, tiny: &mut Job, len: usize) {
    let _heap = match Heap::new(len) {
        Ok(heap) => heap,
        Err(reason) => return println!("SKIPPED: dispatch/*/one_block_hot_heap: {reason}"),
    };
    // Made now: its workers are copies of a program with that heap.
    let pool = pool(false);
    let id = |who| [who, "one_block_hot_heap"];
    tiny.bench(group, id("pool"), by_pool(&pool));
    tiny.bench(group, id("fork"), by_fork);
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
