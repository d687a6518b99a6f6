//! `row_sums` of every element type against sums in integers of any size: exact, and rounded once
//! where it is rounded.

use ndarray::{Array2, Ix2, Slice};
use num_bigint::{BigInt, BigUint, Sign};
use rowfork::{Bool, Element, Error, SharedArray, Summand, fork};

use crate::support::isolated::isolated;

/// The least positive `f32` is 2^-149: in this unit every `f32` is an integer.
const UNIT: i32 = -149;

fn in_units(x: f32) -> BigInt {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 23) & 0xff, bits & 0x7f_ffff);
    let magnitude = match exponent {
        0 => BigInt::from(fraction),
        _ => BigInt::from(fraction | 0x80_0000) << (exponent - 1),
    };
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

/// The `f32` nearest to so many units, of two equally near ones the even.
fn rounded(units: &BigInt) -> f32 {
    let magnitude = units.magnitude();
    let excess = magnitude.bits().saturating_sub(24);
    let mut kept = magnitude >> excess;
    let rest = magnitude - (&kept << excess);
    let half = if excess == 0 { BigUint::ZERO } else { BigUint::from(1_u8) << (excess - 1) };
    if excess > 0 && (rest > half || (rest == half && kept.bit(0))) {
        kept += 1_u8;
    }
    let kept = f64::from(u32::try_from(kept).unwrap());
    // Exact: at most 25 bits, within the range of a double; beyond that of an f32 it is infinite.
    #[allow(clippy::cast_possible_truncation, reason = "exact, or infinite as it should be")]
    let nearest = (kept * 2_f64.powi(i32::try_from(excess).unwrap() + UNIT)) as f32;
    if units.sign() == Sign::Minus { -nearest } else { nearest }
}

fn oracle(row: &[f32]) -> f32 {
    rounded(&row.iter().map(|&x| in_units(x)).sum())
}

/// The sums of `rows` by forked workers have the bits expected, from whichever side a row is read.
fn sums_are<A: Summand>(rows: &Array2<A>, expected: &[A::Sum], what: &str) {
    let same = |sums: &[A::Sum], how: &str| {
        assert_eq!(sums.len(), expected.len(), "{what}, {how}");
        for (row, (sum, expected)) in sums.iter().zip(expected).enumerate() {
            let same_bits = bytemuck::bytes_of(sum) == bytemuck::bytes_of(expected);
            assert!(same_bits, "{what}, {how}: row {row} has {sum:?}, not {expected:?}");
        }
    };
    let m = SharedArray::copy_from(None, rows).unwrap();
    for workers in [1, 2, 5] {
        same(fork().workers(workers).row_sums(&m).unwrap().as_slice(), "as they lie");
    }
    let turned = m.columns(Slice::new(0, None, -1)).unwrap();
    same(fork().workers(2).row_sums(turned).unwrap().as_slice(), "turned round, so gathered");
}

fn f32_sums_are_nearest(rows: &Array2<f32>, what: &str) {
    let expected: Vec<f32> = rows.outer_iter().map(|row| oracle(&row.to_vec())).collect();
    sums_are(rows, &expected, what);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn rows<A: Element>(&mut self, shape: (usize, usize), value: impl Fn(u64) -> A) -> Array2<A> {
        Array2::from_shape_simple_fn(shape, || value(self.next()))
    }
}

/// Any finite `f32`.
#[allow(clippy::cast_possible_truncation, reason = "any 32 bits")]
fn any_f32(word: u64) -> f32 {
    let x = f32::from_bits(word as u32);
    if x.is_finite() { x } else { f32::from_bits(word as u32 & 0x007f_ffff) }
}

#[test]
fn the_oracle_rounds_to_the_nearest_f32_and_ties_to_even() {
    assert_eq!(oracle(&[0.5, 0.25]), 0.75);
    assert_eq!(oracle(&[16_777_216.0, 1.0]), 16_777_216.0);
    assert_eq!(oracle(&[16_777_216.0, 1.0, 1.0]), 16_777_218.0);
    assert_eq!(oracle(&[16_777_216.0, 3.0]), 16_777_220.0);
    assert_eq!(oracle(&[f32::MAX, f32::MAX]), f32::INFINITY);
    assert_eq!(oracle(&[-1e-45, 3e-45]).to_bits(), 1e-45_f32.to_bits());
}

#[test]
fn f32_sums_of_like_magnitudes_are_the_nearest() {
    isolated(|| {
        let mut random = Random(1);
        for n_columns in [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000] {
            let rows = random.rows((65, n_columns), |word| (word >> 40) as f32 / 1024.0 - 8192.0);
            f32_sums_are_nearest(&rows, &format!("{n_columns} columns"));
        }
    });
}

#[test]
fn exact_kernel_f32_sums_of_any_finite_values_are_the_nearest() {
    isolated(|| {
        let mut random = Random(2);
        for n_columns in [2, 3, 5, 8, 16, 17, 100, 1000] {
            f32_sums_are_nearest(
                &random.rows((65, n_columns), any_f32),
                &format!("{n_columns} columns"),
            );
        }
    });
}

#[test]
fn exact_kernel_f32_sums_are_rounded_once_and_not_as_doubles() {
    isolated(|| {
        // 1 + 2^-24 is halfway between two f32; 2^-80 decides, and a double cannot hold it beside
        // 1.
        let (one, half_ulp, little) = (1.0_f32, 2_f32.powi(-24), 2_f32.powi(-80));
        let rows = ndarray::array![
            [one, half_ulp, little, 0.0],
            [one, half_ulp, -little, 0.0],
            [-one, -half_ulp, -little, 0.0],
            [one, half_ulp, 0.0, 0.0],
            [1.0 + 2.0 * half_ulp, half_ulp, -little, 0.0],
            [little, half_ulp, one, 0.0],
        ];
        f32_sums_are_nearest(&rows, "rounded once");
    });
}

#[test]
fn exact_kernel_f32_sums_survive_cancellation() {
    isolated(|| {
        let big = 2_f32.powi(100);
        let mut rows = Array2::zeros((40, 50));
        for (i, mut row) in rows.outer_iter_mut().enumerate() {
            let n = row.len();
            row[i % n] = big;
            row[(i * 7 + 3) % n] += 1.5;
            row[(i * 11 + 5) % n] -= big;
            row[(i * 13 + 1) % n] += 2_f32.powi(-120);
        }
        f32_sums_are_nearest(&rows, "2^100 - 2^100 + 1.5");
    });
}

#[test]
fn exact_kernel_f32_sums_beyond_f32_on_the_way_are_finite() {
    isolated(|| {
        let rows = ndarray::array![
            [f32::MAX, f32::MAX, -f32::MAX, -f32::MAX, 1.0],
            [f32::MAX, f32::MAX, 0.0, -f32::MAX, 0.0]
        ];
        f32_sums_are_nearest(&rows, "MAX + MAX - MAX - MAX + 1");
        let rows = ndarray::array![
            [f32::MAX, f32::MAX],
            [-f32::MAX, -f32::MAX],
            [f32::MAX, f32::MAX / 2_f32.powi(25)]
        ];
        f32_sums_are_nearest(&rows, "beyond the range");
    });
}

#[test]
fn f32_sums_with_infinities_and_nans_are_those_of_python() {
    isolated(|| {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let m = SharedArray::copy_from(
            None,
            &ndarray::array![[inf, 1.0], [-inf, 1.0], [nan, 1.0], [inf, -inf], [inf, nan]],
        );
        let sums = fork().workers(2).row_sums(&m.unwrap()).unwrap();
        let sums = sums.as_slice();
        assert_eq!(sums[..2], [inf, -inf]);
        assert!(sums[2..].iter().all(|sum| sum.is_nan()), "{sums:?}");
    });
}

#[test]
#[allow(clippy::cast_possible_truncation, reason = "small numbers, exact in f32")]
fn exact_kernel_the_zeros_of_f32_sums_are_those_of_f64_sums() {
    isolated(|| {
        let rows = ndarray::array![[0.0, 0.0], [-0.0, -0.0], [0.0, -0.0], [1.5, -1.5], [-1.5, 1.5]];
        let wide = SharedArray::copy_from(None, &rows).unwrap();
        let narrow = SharedArray::copy_from(None, &rows.mapv(|x: f64| x as f32)).unwrap();
        let wide = fork().workers(2).row_sums(&wide).unwrap();
        let narrow = fork().workers(2).row_sums(&narrow).unwrap();
        let wide: Vec<u32> = wide.as_slice().iter().map(|&sum| (sum as f32).to_bits()).collect();
        let narrow: Vec<u32> = narrow.as_slice().iter().map(|sum| sum.to_bits()).collect();
        assert_eq!(narrow, wide);
    });
}

#[test]
fn integer_sums_are_exact_over_the_whole_range() {
    isolated(|| {
        macro_rules! check {
            ($($type:ty => $sum:ty),+) => {$(
                let mut random = Random(3);
                for n_columns in [
                    0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 255, 256, 257, 258, 1000,
                    70_000,
                ] {
                    let n_rows = if n_columns > 1000 { 2 } else { 66 };
                    #[allow(
                        clippy::cast_possible_truncation,
                        clippy::cast_possible_wrap,
                        reason = "any bits will do"
                    )]
                    let random_rows = random.rows((n_rows, n_columns), |word| word as $type);
                    let least = Array2::from_elem((n_rows, n_columns), <$type>::MIN);
                    let most = Array2::from_elem((n_rows, n_columns), <$type>::MAX);
                    for (rows, what) in
                        [(random_rows, "random"), (least, "least"), (most, "most")]
                    {
                        let exact = |row: ndarray::ArrayView1<'_, $type>| {
                            row.iter().map(|&x| i128::from(x)).sum::<i128>()
                        };
                        let expected: Vec<$sum> =
                            rows.outer_iter().map(|row| exact(row).try_into().unwrap()).collect();
                        let name = stringify!($type);
                        let what = format!("{n_columns} columns of {what} {name}");
                        sums_are(&rows, &expected, &what);
                    }
                }
            )+};
        }
        check!(i8 => i64, i16 => i64, i32 => i64, u8 => u64, u16 => u64, u32 => u64);
    });
}

#[test]
fn sums_of_the_widest_integers_are_exact_past_the_range_midway() {
    isolated(|| {
        let (most, least) = (i64::MAX, i64::MIN);
        let rows = ndarray::array![
            [most, most, least, least, 1],
            [least, -1, 1, 0, 0],
            [most, 1, -1, 0, 0],
            [least, least, most, 1, most]
        ];
        sums_are(&rows, &[-1, least, most, -1], "i64");
        let mut random = Random(4);
        for n_columns in [1, 2, 8, 31, 32, 33, 100, 257] {
            let rows = random.rows((65, n_columns), |word| (word >> 9).cast_signed() - (1 << 54));
            let expected: Vec<i64> = rows.outer_iter().map(|row| row.sum()).collect();
            sums_are(&rows, &expected, "i64");
            let rows = random.rows((65, n_columns), |word| word >> 9);
            let expected: Vec<u64> = rows.outer_iter().map(|row| row.sum()).collect();
            sums_are(&rows, &expected, "u64");
        }
        sums_are(
            &ndarray::array![[u64::MAX - 3, 1, 2], [0, 0, u64::MAX]],
            &[u64::MAX, u64::MAX],
            "u64",
        );
    });
}

#[test]
fn a_sum_that_does_not_fit_has_its_lowest_row_and_exact_value() {
    isolated(|| {
        let mut m = SharedArray::<i64, Ix2>::zeros(None, (3000, 3)).unwrap();
        for row in [1500, 1501, 2999] {
            m.view_mut()[[row, 0]] = i64::MIN;
            m.view_mut()[[row, 2]] = -5;
        }
        let backwards = |workers| {
            let part =
                m.rows(Slice::new(0, None, -1)).unwrap().columns(Slice::new(0, None, 2)).unwrap();
            fork().workers(workers).row_sums(part)
        };
        let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
        for workers in [1, 2, 5] {
            for (outcome, lowest) in
                [(fork().workers(workers).row_sums(&m), 1500), (backwards(workers), 0)]
            {
                match outcome.unwrap_err() {
                    Error::SumOverflow {
                        row, sum, dtype: "int64", min: least, max: most, ..
                    } => {
                        assert_eq!((row, sum), (lowest, min - 5));
                        assert_eq!((least, most), (min, max));
                    }
                    other => panic!("{other}"),
                }
            }
            assert!(fork().workers(workers).row_sums(m.rows(..1500).unwrap()).is_ok());
        }
        let wide = SharedArray::copy_from(None, &ndarray::array![[0, 1], [u64::MAX, 1]]).unwrap();
        let error = fork().workers(2).row_sums(&wide).unwrap_err();
        let text = "the sum of row 1 is 18446744073709551616, beyond the range of uint64 (0 to \
                    18446744073709551615)";
        assert_eq!(error.to_string(), text);
    });
}

#[test]
fn the_sum_of_truth_values_is_how_many_are_true() {
    isolated(|| {
        let mut random = Random(5);
        for n_columns in [0, 1, 7, 31, 32, 33, 255, 256, 257, 1000, 70_000] {
            let rows = random.rows((5, n_columns), |word| Bool::from(word % 3 == 0));
            let expected: Vec<u64> = rows
                .outer_iter()
                .map(|row| row.iter().filter(|x| x.get()).count() as u64)
                .collect();
            sums_are(&rows, &expected, &format!("{n_columns} truth values"));
        }
    });
}

#[test]
fn every_axis_but_the_first_is_summed_over() {
    isolated(|| {
        let images = SharedArray::from_shape_fn(None, (70, 5, 6, 7), |(n, i, j, k)| {
            u8::try_from((n * 31 + i * 17 + j * 5 + k) % 256).unwrap()
        });
        let images = images.unwrap();
        let expected: Vec<u64> = images
            .view()
            .outer_iter()
            .map(|image| image.iter().map(|&x| u64::from(x)).sum())
            .collect();
        assert_eq!(fork().workers(2).row_sums(&images).unwrap().as_slice(), expected);
    });
}
