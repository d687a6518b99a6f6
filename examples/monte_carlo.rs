//! Tasks without an input: pi from random points. Each task seeds a generator of its own with its
//! number, so the answer is the same for any number of workers.
//!
//! cargo run --release --example `monte_carlo` -- [--tasks N] [--points N] [--workers N]

mod support;

use support::{Options, timed};

/// `SplitMix64` (Steele, Lea and Flood 2014): a counter that steps by an odd constant, its bits
/// mixed. Small, quick, any seed is a good one; not for secrets.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to but not 1: the 53 highest bits, as many as a double holds.
    fn next_unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How many of `n_points` points of the unit square lie in the quarter circle.
fn hits(task: usize, n_points: usize) -> u64 {
    // The seed is mixed once, so that the counters of neighbouring tasks start far apart.
    let mut random = SplitMix64(SplitMix64(task as u64).next());
    (0..n_points).filter(|_| random.next_unit().powi(2) + random.next_unit().powi(2) < 1.0).count()
        as u64
}

fn main() -> Result<(), rowfork::Error> {
    let usage = "monte_carlo [--tasks N] [--points N] [--workers N]";
    let options = Options::from_args(usage, &["--tasks", "--points", "--workers"]);
    let (n_tasks, n_points) = (options.count("--tasks", 1000), options.count("--points", 100_000));
    let n_workers = options.count("--workers", 4);

    // What a task returns must follow from its number alone: it may run in any worker, and again if
    // a worker dies.
    let (seconds, by_many) = timed(|| {
        rowfork::fork().workers(n_workers).run_tasks(n_tasks, |task| hits(task, n_points))
    });
    let (seconds_alone, by_one) =
        timed(|| rowfork::fork().workers(1).run_tasks(n_tasks, |task| hits(task, n_points)));
    let (by_many, by_one) = (by_many?, by_one?);

    let in_circle: u64 = by_many.view().sum();
    let total = n_tasks as f64 * n_points as f64;
    let (pi, sigma) =
        (4.0 * in_circle as f64 / total, (std::f64::consts::PI * 0.858_407 / total).sqrt());
    println!("pi is {pi:.6}, give or take {sigma:.6} ({n_tasks} tasks of {n_points} points)");
    assert!((pi - std::f64::consts::PI).abs() < 5.0 * sigma, "five standard errors off");

    assert_eq!(by_many.as_slice(), by_one.as_slice());
    println!("1 worker and {n_workers}: the same bits ({seconds_alone:.3} s and {seconds:.3} s)");
    print!("{}", by_many.report());
    Ok(())
}
