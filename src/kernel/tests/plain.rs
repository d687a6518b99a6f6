//! Claims about the plain sum: the order that is documented, bit by bit.

use super::data::{KINDS, Random};
use super::{bits, kernels};
use crate::fast_sum;

/// The documented order, in so many words.
fn in_order(row: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    let mut left = row;
    for some in [16, 8, 4, 2, 1] {
        while left.len() >= some {
            for i in 0..some {
                lanes[i] += left[i];
            }
            left = &left[some..];
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    if lanes[0].is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { lanes[0] }
}

#[test]
fn every_kernel_adds_in_the_documented_order() {
    for (k, (name, kind)) in KINDS.iter().enumerate() {
        let mut random = Random::new(500 + k as u64);
        for n in (0..=130).chain([1_000, 10_000]) {
            let rows: Vec<f64> = (0..11).flat_map(|_| kind(n, &mut random)).collect();
            let expected: Vec<f64> =
                if n == 0 { vec![0.0; 11] } else { rows.chunks(n).map(in_order).collect() };
            for kernel in kernels() {
                let mut sums = [-7.0; 11];
                kernel.row_plain_sums(&rows, n, &mut sums);
                assert_eq!(
                    bits(&sums),
                    bits(&expected),
                    "{name}, {n} columns on {}",
                    kernel.isa().name()
                );
            }
            assert_eq!(fast_sum(&rows[..n]).to_bits(), expected[0].to_bits(), "{name}, {n} terms");
        }
    }
}
