//! How the figures are measured: in pairs, in turns.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::{OsStr, OsString};
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

const HUGE_PAGES: &str = "ROWFORK_HUGE_PAGES";

/// Has arrays made in 2 MiB or in 4 KiB pages while it is there. Its drop gives the environment
/// variable the value back that it had, for the next test of the process.
pub(crate) struct Pages {
    before: Option<OsString>,
}

impl Pages {
    #[must_use]
    pub(crate) fn are_huge(huge: bool) -> Self {
        let before = std::env::var_os(HUGE_PAGES);
        set_pages(Some(if huge { "always" } else { "never" }.as_ref()));
        Self { before }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        set_pages(self.before.as_deref());
    }
}

#[allow(unsafe_code, reason = "the switch is an environment variable")]
fn set_pages(value: Option<&OsStr>) {
    match value {
        // SAFETY: `cargo measure` runs one test at a time: no other thread reads the environment.
        Some(value) => unsafe { std::env::set_var(HUGE_PAGES, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(HUGE_PAGES) },
    }
}

/// A matrix of [`COLUMNS`] columns in 2 MiB or in 4 KiB pages, and what has all arrays made so that
/// follow it.
#[must_use]
pub(crate) fn small_or_huge(huge: bool, mib: usize) -> (Pages, SharedArray<f64, Ix2>) {
    let pages = Pages::are_huge(huge);
    let m = SharedArray::from_shape_fn(None, (mib * 128, COLUMNS), |(i, j)| {
        ((i * 7 + j * 13) % 1009) as f64 - 500.3
    });
    (pages, m.expect("room in /dev/shm"))
}
