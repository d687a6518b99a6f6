//! The sums alone, without memory or processes in the way: one thread, rows that stay in the
//! second-level cache. Prints, asserts no times. For each set of instructions, on a quiet machine:
//! `ROWFORK_ISA=avx2 cargo measure figures_kernels`

use std::hint::black_box;
use std::time::Instant;

use rowfork::Summand;

/// Bytes of rows: twice a first-level cache and more, and less than any second-level one.
const BYTES: usize = 192 << 10;

/// The best of many: what the processor can do, not what it does when others use it.
const TRIES: usize = 300;

const COLUMNS: [usize; 12] = [2, 4, 8, 10, 16, 32, 64, 100, 128, 256, 1024, 4096];

fn best(mut work: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| time()).fold(f64::INFINITY, f64::min)
}

/// The clock, by a chain of exclusive ors and multiplications, which take one cycle and three on
/// all processors of this kind. (Multiplications alone the compiler would gather.)
fn hertz() -> f64 {
    let n = 200_000;
    let factor = black_box(0x9e37_79b9_7f4a_7c15_u64);
    let seconds = best(|| {
        black_box((0..n).fold(black_box(1_u64), |x, _| (x ^ factor).wrapping_mul(factor)));
    });
    4.0 * f64::from(n) / seconds
}

/// In `0..1`.
fn uniform(i: usize) -> f64 {
    (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64
        / 2_f64.powi(64)
}

/// One line of the table: GB/s by number of columns.
fn rates<A: Summand>(name: &str, element: impl Fn(usize) -> A) -> Vec<f64> {
    let rates = COLUMNS.map(|n_columns| {
        let n_rows = BYTES / size_of::<A>() / n_columns;
        let rows: Vec<A> = (0..n_rows * n_columns).map(&element).collect();
        let mut sums = vec![<A::Sum as bytemuck::Zeroable>::zeroed(); n_rows];
        let seconds = best(|| {
            A::sum_rows(black_box(&rows), n_columns, black_box(&mut sums)).expect("they fit");
        });
        size_of_val(&rows[..]) as f64 / seconds / 1e9
    });
    println!("{name:20}{}", rates.map(|rate| format!("{rate:7.1}")).concat());
    rates.to_vec()
}

#[test]
#[ignore = "needs a quiet machine"]
fn rates_in_the_cache() {
    let isa = std::env::var("ROWFORK_ISA").unwrap_or("the best instructions".into());
    println!("{isa}, one thread, {} KiB of rows, GB/s by number of columns", BYTES >> 10);
    println!("{:20}{}", "", COLUMNS.map(|n| format!("{n:7}")).concat());
    let uniform_rates = rates("f64 uniform", uniform);
    rates("f64 centred", |i| uniform(i) - 0.5);
    rates("f64 prices", |i| (1e4 * uniform(i)).round() / 100.0);
    rates("f64 of all scales", |i| (uniform(i) - 0.5) * (100.0 * uniform(i + 1)).exp2());
    #[allow(clippy::cast_possible_truncation, reason = "any float will do")]
    rates("f32 uniform", |i| uniform(i) as f32);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "any integer will do"
    )]
    {
        rates("i64", |i| i as i64);
        rates("i32", |i| i as i32);
        rates("i16", |i| i as i16);
        rates("u8", |i| i as u8);
    }
    let hertz = hertz();
    let cycles = uniform_rates.iter().map(|rate| format!("{:7.2}", hertz * 8.0 / (rate * 1e9)));
    println!("{:20}{}", "cycles per f64", cycles.collect::<String>());
    println!("(at {:.2} GHz)", hertz / 1e9);
}
