//! One runner and one oracle try every instruction set this machine has, and every tier, on the
//! same rows.
//!
//! Bits are compared, never values: +0.0 is not -0.0 here, and there is one NaN.

mod block;
mod certificate;
#[cfg(target_arch = "x86_64")]
mod control_word;
mod data;
mod data_f32;
mod integers;
mod means;
mod oracle;
mod plain;
mod single;
mod single_precision;

use std::cell::Cell;

use super::dispatch::Isa;
use super::{Kernels, single_precision as floats, superaccumulator};

thread_local! {
    /// How many rows this thread has sent below tier one; see [`count_refined`].
    static REFINED: Cell<usize> = const { Cell::new(0) };
}

/// Counts rows that tier one could not vouch for.
pub(super) fn count_refined(rows: usize) {
    REFINED.set(REFINED.get() + rows);
}

/// How many rows `work` sends below tier one.
fn refined_by(work: impl FnOnce()) -> usize {
    let before = REFINED.get();
    work();
    REFINED.get() - before
}

/// Every kernel this machine can run.
fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::ALL.iter().copied().filter_map(Kernels::new)
}

fn bits(sums: &[f64]) -> Vec<u64> {
    sums.iter().map(|sum| sum.to_bits()).collect()
}

/// The same for floats: by every kernel at every alignment, alone and among other rows, and by
/// every tier alone.
#[track_caller]
fn check_f32(what: &str, row: &[f32]) {
    let expected = oracle::exact_sum_f32(row);
    let agree = |sum: f32, by: &str, kernel: Kernels| {
        assert_eq!(
            sum.to_bits(),
            expected.to_bits(),
            "{what}, {} terms, {by} on {}: {sum:e}, not {expected:e}",
            row.len(),
            kernel.isa().name(),
        );
    };
    let mut shifted = vec![0.0; row.len() + 16];
    for alignment in 0..16 {
        let row_here = &mut shifted[alignment..][..row.len()];
        row_here.copy_from_slice(row);
        for kernel in kernels() {
            let mut sum = [-7.0];
            kernel.row_sums_f32(row_here, row.len(), &mut sum);
            agree(sum[0], "row_sums", kernel);
        }
    }
    for kernel in kernels() {
        let mut sums = [-7.0; 9];
        kernel.row_sums_f32(&row.repeat(9), row.len(), &mut sums);
        for sum in sums {
            agree(sum, "row_sums of nine", kernel);
        }
        for (tier, name) in [(1, "tier one"), (2, "tier two")] {
            if let Some(sum) = kernel.tier_f32(tier, row) {
                agree(sum, name, kernel);
            }
        }
        if row.iter().all(|x| x.is_finite()) {
            agree(floats::sum_finite(row), "tier three", kernel);
        }
    }
}

/// Sums `row` by every kernel at every alignment, and by every tier alone; all must agree with the
/// oracle.
#[track_caller]
fn check(what: &str, row: &[f64]) {
    let expected = oracle::exact_sum(row);
    let agree = |sum: f64, by: &str, kernel: Kernels| {
        assert_eq!(
            sum.to_bits(),
            expected.to_bits(),
            "{what}, {} terms, {by} on {}: {sum:e}, not {expected:e}",
            row.len(),
            kernel.isa().name(),
        );
    };
    let mut shifted = vec![0.0; row.len() + 8];
    for alignment in 0..8 {
        let row_here = &mut shifted[alignment..][..row.len()];
        row_here.copy_from_slice(row);
        for kernel in kernels() {
            agree(kernel.sum(row_here), "sum", kernel);
        }
        if row.len() <= 130 {
            // And among others, at that alignment.
            let mut nine = vec![0.0; 9 * row.len() + 8];
            let nine = &mut nine[alignment..][..9 * row.len()];
            nine.copy_from_slice(&row.repeat(9));
            for kernel in kernels() {
                let mut sums = [-7.0; 9];
                kernel.row_sums(nine, row.len(), &mut sums);
                for sum in sums {
                    agree(sum, "row_sums of nine", kernel);
                }
            }
        }
    }
    for kernel in kernels() {
        for (tier, name) in [(1, "tier one"), (2, "tier two")] {
            if let Some(sum) = kernel.tier(tier, row) {
                agree(sum, name, kernel);
            }
        }
        if row.iter().all(|x| x.is_finite()) {
            agree(superaccumulator::sum_finite(row), "tier three", kernel);
        }
    }
}
