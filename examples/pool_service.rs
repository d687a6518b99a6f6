//! A service: several threads answer requests of all kinds over matrices that come and go, by one
//! pool. One kind of request now and then kills the worker that has it. Every answer is checked
//! against ndarray in this thread.
//!
//! cargo run --release --example `pool_service` -- [--threads N] [--seconds N] [--workers N]

mod support;

use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, Axis, Ix1, Ix2, array};
use rowfork::{Policy, Pool, Row, SharedArray, broadcast, param};
use support::Options;

type Result<T> = std::result::Result<T, rowfork::Error>;

/// `SplitMix64`: small, quick, not for secrets.
struct Random(u64);

impl Random {
    /// From 0 up to but not `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("below a usize")
    }
}

/// No row is this one.
const NONE: u64 = u64::MAX;

/// One request in so many that are served by `rough_sum` has a row that kills.
const KILLS: usize = 40;

const N_COLUMNS: usize = 48;

/// A function that ends its process on some rows, as a C library's failed assertion does.
fn rough_sum((row, bad): (Row<'_, f64, Ix1>, u64)) -> f64 {
    if row.index() as u64 == bad {
        std::process::abort();
    }
    row.sum()
}

/// What every request may use.
struct Service<'p> {
    pool: &'p Pool,
    weights: SharedArray<f64, Ix2>,
}

/// A kind of request: makes one up, and answers it. The time that the call took.
type Serve = fn(&Service<'_>, &mut Random) -> Result<Duration>;

const KINDS: [(&str, Serve); 7] = [
    ("exact sums, small", |service, random| sums(service, random, 200)),
    ("exact sums, large", |service, random| sums(service, random, 20_000)),
    ("norms", norms),
    ("scores by weights", scores),
    ("scaled rows", scaled),
    ("changed in place", changed),
    ("rough sums", rough_sums),
];

/// Whole numbers, so that sums are the same in any order, in so many rows at most.
fn some_rows(random: &mut Random, most: usize) -> Result<SharedArray<f64, Ix2>> {
    let (n_rows, seed) = (random.below(most) + 1, random.below(1000));
    SharedArray::from_shape_fn(None, (n_rows, N_COLUMNS), |(i, j)| {
        ((i * 7 + j * 13 + seed) % 1009) as f64
    })
}

/// How long a call takes, and what it gives.
fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let start = Instant::now();
    let answer = call()?;
    Ok((start.elapsed(), answer))
}

fn sums(service: &Service<'_>, random: &mut Random, most: usize) -> Result<Duration> {
    let m = some_rows(random, most)?;
    let (time, sums) = timed(|| service.pool.row_sums(&m))?;
    assert_eq!(sums.view(), m.view().sum_axis(Axis(1)));
    Ok(time)
}

fn norms(service: &Service<'_>, random: &mut Random) -> Result<Duration> {
    let m = some_rows(random, 2000)?;
    let (time, norms) = timed(|| service.pool.map_rows(&m, |row| row.dot(&row).sqrt()))?;
    assert_eq!(norms.view(), m.view().map_axis(Axis(1), |row| row.dot(&row).sqrt()));
    Ok(time)
}

fn scores(service: &Service<'_>, random: &mut Random) -> Result<Duration> {
    let (m, weights) = (some_rows(random, 2000)?, &service.weights);
    let call = || {
        service.pool.map_rows((&m, broadcast(weights)), |(row, weights)| weights.row(0).dot(&row))
    };
    let (time, scores) = timed(call)?;
    assert_eq!(scores.view(), m.view().dot(&weights.view().row(0)));
    Ok(time)
}

fn scaled(service: &Service<'_>, random: &mut Random) -> Result<Duration> {
    let (m, scale) = (some_rows(random, 1000)?, random.below(100) as f64);
    let scaled = || {
        service.pool.transform_rows((&m, param(scale)), N_COLUMNS, |(row, scale), out| {
            out.zip_mut_with(&row, |out, x| *out = scale * x);
        })
    };
    let (time, scaled) = timed(scaled)?;
    assert_eq!(scaled.view(), m.view().map(|x| scale * x));
    Ok(time)
}

fn changed(service: &Service<'_>, random: &mut Random) -> Result<Duration> {
    let mut m = some_rows(random, 1000)?;
    let expected: Array2<f64> = m.view().map(|x| 2.0 * x + 1.0);
    let (time, _) =
        timed(|| service.pool.update_rows(&mut m, |row| row.mapv_inplace(|x| 2.0 * x + 1.0)))?;
    assert_eq!(m.view(), expected);
    Ok(time)
}

fn rough_sums(service: &Service<'_>, random: &mut Random) -> Result<Duration> {
    let m = some_rows(random, 1000)?;
    let kills = random.below(KILLS) == 0;
    let bad = if kills { random.below(m.n_rows()) as u64 } else { NONE };
    // One death poisons the row: no other process kills here.
    let careful = service.pool.call().retries(0).policy(Policy::fill(-1));
    let (time, sums) = timed(|| careful.map_rows((&m, param(bad)), rough_sum))?;
    let mut expected: Array1<f64> = m.view().sum_axis(Axis(1));
    if let Some(sum) = usize::try_from(bad).ok().and_then(|bad| expected.get_mut(bad)) {
        *sum = -1.0;
    }
    assert_eq!(sums.view(), expected);
    assert_eq!(sums.report().failed_rows.len(), usize::from(kills));
    Ok(time)
}

/// Answers requests until it is time; the times of each kind.
fn serve(service: &Service<'_>, seed: u64, end: Instant) -> Result<[Vec<Duration>; KINDS.len()]> {
    let (mut random, mut times) = (Random(seed), KINDS.map(|_| Vec::new()));
    while Instant::now() < end {
        let kind = random.below(KINDS.len());
        times[kind].push(KINDS[kind].1(service, &mut random)?);
    }
    Ok(times)
}

fn main() -> Result<()> {
    let usage = "pool_service [--threads N] [--seconds N] [--workers N]";
    let options = Options::from_args(usage, &["--threads", "--seconds", "--workers"]);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let (n_threads, n_workers) = (options.count("--threads", 4), options.count("--workers", cores));
    let seconds = options.count("--seconds", 2);

    // First of all, while there is one thread and little to copy.
    let pool = Pool::builder().workers(n_workers).build()?;
    let weights = array![0.0, 1.0, 2.0, 3.0];
    let weights =
        SharedArray::from_shape_fn(None, (1, N_COLUMNS), |(_, j)| weights[j % weights.len()])?;
    let service = Service { pool: &pool, weights };

    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let served = std::thread::scope(|scope| {
        let service = &service;
        let threads: Vec<_> = (0..n_threads)
            .map(|thread| scope.spawn(move || serve(service, thread as u64, end)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("an answer was wrong"))
            .collect::<Result<Vec<_>>>()
    })?;

    println!(
        "{n_threads} threads, {n_workers} workers, {seconds} s; the times include the wait for one's turn"
    );
    println!(
        "{:<20} {:>8} {:>9} {:>10} {:>10}",
        "request", "calls", "calls/s", "p50, us", "p99, us"
    );
    let mut total = 0;
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        let mut times: Vec<Duration> =
            served.iter().flat_map(|times| &times[kind]).copied().collect();
        times.sort();
        let at = |percent: usize| {
            times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
        };
        let [p50, p99] = [50, 99].map(|percent| at(percent).as_secs_f64() * 1e6);
        println!(
            "{name:<20} {:>8} {:>9.0} {p50:>10.1} {p99:>10.1}",
            times.len(),
            times.len() as f64 / seconds as f64
        );
        total += times.len();
    }
    println!("{total} requests, every answer checked");
    let stats = pool.stats();
    println!(
        "{} calls on {} workers, {} of them hot; {} by the calling thread; {} workers died and were replaced; {} arrays mapped",
        stats.calls,
        stats.workers,
        stats.hot_calls,
        stats.inline_calls,
        stats.deaths,
        stats.mapped_arrays
    );
    Ok(())
}
