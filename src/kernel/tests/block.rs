//! Claims about the block entry: many rows at once, and the caller's floating-point environment.

use super::data::{self, KINDS, Random};
use super::{kernels, oracle, refined_by};
use crate::exact_sum;
use crate::sys::fpu;

fn bits(sums: &[f64]) -> Vec<u64> {
    sums.iter().map(|sum| sum.to_bits()).collect()
}

#[test]
fn every_shape_of_block_gives_the_sum_of_each_row() {
    for n_columns in (0..=130).chain([255, 256, 257, 1_000]) {
        // Neighbours of different kinds, so that a group of rows has some that are proved and some that are not; the
        // order differs from one column count to the next.
        let mut random = Random::new(n_columns as u64);
        let mut rows = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..70 {
            let (_, kind) = KINDS[random.below(KINDS.len())];
            let row = kind(n_columns, &mut random);
            expected.push(oracle::exact_sum(&row));
            rows.extend(row);
        }
        for kernel in kernels() {
            for n_rows in 0..=70 {
                // A sentinel on either side of the output, and in it.
                let mut out = vec![-7.0; n_rows + 2];
                kernel.row_sums(&rows[..n_rows * n_columns], n_columns, &mut out[1..=n_rows]);
                assert_eq!(
                    bits(&out[1..=n_rows]),
                    bits(&expected[..n_rows]),
                    "{n_rows} x {n_columns} on {}",
                    kernel.isa().name()
                );
                assert_eq!((out[0], out[n_rows + 1]), (-7.0, -7.0), "{n_rows} x {n_columns}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "rows x columns")]
fn a_block_of_the_wrong_length_is_refused() {
    crate::kernel::Kernel::get().row_sums(&[1.0; 7], 2, &mut [0.0; 4]);
}

#[test]
fn ordinary_blocks_never_leave_tier_one() {
    let kinds: [(&str, data::Kind); 4] = [
        ("uniform", data::uniform),
        ("centred", data::centred),
        ("z-scored", data::z_scored),
        ("prices", data::prices),
    ];
    for (name, kind) in kinds {
        for n_columns in [1, 2, 3, 8, 50, 128, 500, 1_024] {
            let mut random = Random::new(n_columns as u64);
            let n_rows = 200_000 / n_columns.max(100);
            let rows: Vec<f64> = (0..n_rows).flat_map(|_| kind(n_columns, &mut random)).collect();
            for kernel in kernels() {
                let mut out = vec![0.0; n_rows];
                let refined = refined_by(|| kernel.row_sums(&rows, n_columns, &mut out));
                assert_eq!(refined, 0, "{name}, {n_rows} x {n_columns} on {}", kernel.isa().name());
            }
        }
    }
}

#[test]
fn the_count_of_refined_rows_sees_them() {
    // Else the test above could not fail.
    let tie = [1.0, 2f64.powi(-53), 2f64.powi(-200)];
    for kernel in kernels() {
        assert_eq!(refined_by(|| kernel.row_sums(&tie.repeat(20), 3, &mut [0.0; 20])), 20);
    }
}

#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
#[test]
fn a_worker_can_take_the_default_control_word_for_good() {
    let ((), after) = fpu::under(0x1f80 | 0x8040, fpu::set_default);
    assert_eq!(after & !0x3f, 0x1f80);
}
