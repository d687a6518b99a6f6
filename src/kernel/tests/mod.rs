//! One runner and one oracle try every instruction set this machine has, and every tier, on the same rows.
//!
//! Bits are compared, never values: +0.0 is not -0.0 here, and there is one NaN.

mod block;
#[cfg(target_arch = "x86_64")]
mod control_word;
mod data;
mod oracle;
mod single;

use std::cell::Cell;

use super::dispatch::Isa;
use super::{Kernel, superaccumulator};

thread_local! {
    /// How many rows this thread has sent below tier one; counted by `refine::sum_row`.
    pub(super) static REFINED: Cell<usize> = const { Cell::new(0) };
}

/// How many rows `work` sends below tier one.
fn refined_by(work: impl FnOnce()) -> usize {
    let before = REFINED.get();
    work();
    REFINED.get() - before
}

/// Every kernel this machine can run.
fn kernels() -> impl Iterator<Item = Kernel> {
    Isa::ALL.iter().copied().filter_map(Kernel::new)
}

fn bits(sums: &[f64]) -> Vec<u64> {
    sums.iter().map(|sum| sum.to_bits()).collect()
}

/// Sums `row` by every kernel at every alignment, and by every tier alone; all must agree with the oracle.
#[track_caller]
fn check(what: &str, row: &[f64]) {
    let expected = oracle::exact_sum(row);
    let agree = |sum: f64, by: &str, kernel: Kernel| {
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
