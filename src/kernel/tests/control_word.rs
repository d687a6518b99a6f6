//! Claims about a caller whose floating-point control register is not at its default.

use super::{bits, kernels, oracle};
use crate::exact_sum;
use crate::sys::fpu;

#[test]
fn the_callers_control_word_changes_no_bit_and_is_given_back() {
    const FTZ_AND_DAZ: u32 = 0x8040;
    let row =
        [f64::from_bits(3), f64::MIN_POSITIVE, -f64::from_bits(1), 1e-310, -f64::MIN_POSITIVE];
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
fn nor_does_it_change_a_bit_of_the_sums_of_floats() {
    let tiny = f32::from_bits(1);
    // Subnormals; a middle and what decides it; and what is left to fixed point.
    let row = [tiny * 3.0, f32::MIN_POSITIVE, -tiny, -f32::MIN_POSITIVE, 1e-40];
    let middle = [1.0, 2f32.powi(-24), 2f32.powi(-60)];
    let wide = [1.0, 2f32.powi(-24), tiny, 1e38, -1e38, 1e20, -1e20];
    let kernels: Vec<_> = kernels().collect();
    for word in [0x8040, 0x2000 | 0x8040, 0x4000, 0x6000].map(|bits| 0x1f80 | bits) {
        for row in [
            row.as_slice(),
            &middle,
            &wide,
            &row.repeat(50),
            &middle.repeat(99),
            &wide.repeat(1_000),
        ] {
            let expected = oracle::exact_sum_f32(row).to_bits();
            for kernel in &kernels {
                let mut out = [0.0; 9];
                let rows = row.repeat(9);
                let ((), after) =
                    fpu::under(word, || kernel.row_sums_f32(&rows, row.len(), &mut out));
                assert_eq!(
                    out.map(f32::to_bits),
                    [expected; 9],
                    "{word:#x} on {}",
                    kernel.isa().name()
                );
                assert_eq!(after & !0x3f, word, "the caller's word comes back");
            }
        }
    }
}

#[test]
fn a_worker_can_take_the_default_control_word_for_good() {
    let ((), after) = fpu::under(0x1f80 | 0x8040, fpu::set_default);
    assert_eq!(after & !0x3f, 0x1f80);
}
