//! Claims about a caller whose floating-point control register is not at its default.

use super::{bits, kernels, oracle};
use crate::exact_sum;
use crate::sys::fpu;

#[test]
fn the_callers_control_word_changes_no_bit_and_is_given_back() {
    const FTZ_AND_DAZ: u32 = 0x8040;
    let row = [f64::from_bits(3), f64::MIN_POSITIVE, -f64::from_bits(1), 1e-310, -f64::MIN_POSITIVE];
    let third = [1.0, 2f64.powi(-54), 2f64.powi(-80), 3.0];
    let kernels: Vec<_> = kernels().collect();
    // FTZ and DAZ alone; then with rounding down, up and towards zero.
    for word in [FTZ_AND_DAZ, 0x2000 | FTZ_AND_DAZ, 0x4000, 0x6000].map(|bits| 0x1f80 | bits) {
        for row in [row.as_slice(), &third, &row.repeat(50), &third.repeat(100)] {
            let expected = oracle::exact_sum(row).to_bits();
            for kernel in &kernels {
                let mut out = [0.0; 9];
                let rows = row.repeat(9);
                let (sum, after) = fpu::under(word, || {
                    kernel.row_sums(&rows, row.len(), &mut out);
                    kernel.sum(row)
                });
                assert_eq!(sum.to_bits(), expected, "{word:#x} on {}", kernel.isa().name());
                assert_eq!(bits(&out), vec![expected; 9], "{word:#x} on {}", kernel.isa().name());
                assert_eq!(after & !0x3f, word, "the caller's word comes back");
            }
            let (sum, _) = fpu::under(word, || exact_sum(row));
            assert_eq!(sum.to_bits(), expected, "{word:#x}");
        }
    }
}

#[test]
fn a_worker_can_take_the_default_control_word_for_good() {
    let ((), after) = fpu::under(0x1f80 | 0x8040, fpu::set_default);
    assert_eq!(after & !0x3f, 0x1f80);
}
