//! How the figures are measured: in pairs, in turns.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::time::Instant;

use ndarray::Ix2;
use rowfork::SharedArray;

/// Quadruples A B B A: drift of the machine cancels within each.
const QUADRUPLES: usize = 51;

pub(crate) const COLUMNS: usize = 1024;

pub(crate) fn seconds(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Median and quartiles of the paired ratios time(A) / time(B), and the medians of both.
pub(crate) fn abba(name: &str, a: &mut dyn FnMut(), b: &mut dyn FnMut()) {
    let (mut ratios, mut all_a, mut all_b) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..QUADRUPLES {
        let (a1, b1, b2, a2) = (seconds(a), seconds(b), seconds(b), seconds(a));
        ratios.push((a1 + a2) / (b1 + b2));
        all_a.extend([a1, a2]);
        all_b.extend([b1, b2]);
    }
    let quartile = |values: &mut Vec<f64>, which: usize| {
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) * which / 4]
    };
    println!(
        "{name:44} {:.3} (quartiles {:.3} to {:.3})   {:.3} ms against {:.3} ms",
        quartile(&mut ratios, 2),
        quartile(&mut ratios, 1),
        quartile(&mut ratios, 3),
        quartile(&mut all_a, 2) * 1e3,
        quartile(&mut all_b, 2) * 1e3
    );
}

/// The size of the matrices.
pub(crate) fn mib() -> usize {
    std::env::var("ROWFORK_FIGURES_MIB").map_or(1024, |mib| mib.parse().expect("a number of MiB"))
}

/// Has all arrays made from now on in 2 MiB or in 4 KiB pages.
pub(crate) fn use_pages(huge: bool) {
    #[allow(unsafe_code, reason = "the switch is an environment variable")]
    // SAFETY: the tests of this file are run alone, as their header says: no other thread reads the
    // environment.
    unsafe {
        std::env::set_var("ROWFORK_HUGE_PAGES", if huge { "always" } else { "never" });
    }
}

/// A matrix of [`COLUMNS`] columns in 2 MiB or in 4 KiB pages.
pub(crate) fn small_or_huge(huge: bool, mib: usize) -> SharedArray<f64, Ix2> {
    use_pages(huge);
    let m = SharedArray::from_shape_fn(None, (mib * 128, COLUMNS), |(i, j)| {
        ((i * 7 + j * 13) % 1009) as f64 - 500.3
    });
    m.expect("room in /dev/shm")
}
