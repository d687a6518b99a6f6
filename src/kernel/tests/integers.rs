//! Claims about rows of integers, and of bytes that are counted.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::data::Random;
use super::kernels;
use crate::kernel::integers::Integer;
use crate::kernel::{ExactSum, Kernels, Overflow};

/// What the tests need of an element type beside its sum.
trait Extreme: Integer + ExactSum<Sum = <Self as Integer>::Sum> + Into<BigInt> {
    const LEAST: Self;
    const MOST: Self;

    /// Any of its values, from so many random bits.
    fn from_bits(bits: u64) -> Self;
    fn sum_to_big(sum: <Self as Integer>::Sum) -> BigInt;
    fn big_to_sum(sum: &BigInt) -> Option<<Self as Integer>::Sum>;
}

macro_rules! extreme {
    ($($type:ty),*) => {$(
        impl Extreme for $type {
            const LEAST: Self = Self::MIN;
            const MOST: Self = Self::MAX;

            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any of the bits")]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }

            fn sum_to_big(sum: <Self as Integer>::Sum) -> BigInt {
                sum.into()
            }

            fn big_to_sum(sum: &BigInt) -> Option<<Self as Integer>::Sum> {
                sum.try_into().ok()
            }
        }
    )*};
}

extreme!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Sums `row` by every kernel at several alignments, alone and between other rows; the oracle is
/// one big integer.
#[track_caller]
fn check<X: Extreme>(what: &str, row: &[X]) {
    let exact: BigInt = row.iter().map(|x| (*x).into()).sum();
    let nought = X::big_to_sum(&BigInt::ZERO).expect("zero fits");
    for kernel in kernels() {
        let about = format!("{what}, {} terms on {}", row.len(), kernel.isa().name());
        let expected = match X::big_to_sum(&exact) {
            Some(_) => Ok(exact.clone()),
            None => Err(i128::try_from(&exact).expect("at most 2^63 times 2^64")),
        };
        let mut shifted = vec![X::MOST; row.len() + 8];
        for alignment in [0, 1, 3, 7] {
            let row_here = &mut shifted[alignment..][..row.len()];
            row_here.copy_from_slice(row);
            let mut sums = [nought];
            let done = X::row_sums(kernel, row_here, row.len(), &mut sums);
            let got = done
                .map(|()| X::sum_to_big(sums[0]))
                .map_err(|overflow| (overflow.row, overflow.sum));
            assert_eq!(got, expected.clone().map_err(|sum| (0, sum)), "{about}, at {alignment}");
        }
        // Between rows whose sums, if anything leaked from one to the other, would betray it.
        let (ones, zeros) = (vec![X::from_bits(1); row.len()], vec![X::from_bits(0); row.len()]);
        let rows = [&ones, &zeros, row, &ones].concat();
        let mut sums = [nought; 4];
        let done = X::row_sums(kernel, &rows, row.len(), &mut sums);
        let [first, second, third, last] = sums.map(X::sum_to_big);
        assert_eq!((first, second), (row.len().into(), BigInt::ZERO), "{about}, between others");
        match expected {
            Ok(sum) => {
                assert_eq!(
                    (done, third, last),
                    (Ok(()), sum, row.len().into()),
                    "{about}, between others"
                );
            }
            Err(sum) => {
                assert_eq!(done, Err(Overflow { row: 2, sum }), "{about}, between others");
                assert_eq!(
                    (third, last),
                    (BigInt::ZERO, BigInt::ZERO),
                    "{about}: what follows is left alone"
                );
            }
        }
    }
}

/// Rows of every kind that is ordinary, or might overflow something.
fn kinds<X: Extreme>(n: usize, random: &mut Random) -> [(&'static str, Vec<X>); 7] {
    let make = |f: &mut dyn FnMut(usize) -> X| (0..n).map(f).collect();
    [
        ("least", make(&mut |_| X::LEAST)),
        ("most", make(&mut |_| X::MOST)),
        ("most and least", make(&mut |i| if i % 2 == 0 { X::MOST } else { X::LEAST })),
        ("least, then most", make(&mut |i| if i < n / 2 { X::LEAST } else { X::MOST })),
        ("most, then least", make(&mut |i| if i < n.div_ceil(2) { X::MOST } else { X::LEAST })),
        ("any", make(&mut |_| X::from_bits(random.bits()))),
        ("ones of either sign", make(&mut |_| X::from_bits([1, u64::MAX][random.below(2)]))),
    ]
}

fn every_kind_and_length<X: Extreme>() {
    let mut random = Random::new(1);
    // The last are past the blocks of 2^16 terms.
    for n in (0..=130).chain([255, 256, 257, 1_000, 65_535, 65_536, 65_537, 200_000]) {
        for (name, row) in kinds::<X>(n, &mut random) {
            check(&format!("{name}, {}", std::any::type_name::<X>()), &row);
        }
    }
}

#[test]
fn the_sum_is_exact_for_every_type_kind_length_and_alignment() {
    every_kind_and_length::<i8>();
    every_kind_and_length::<u8>();
    every_kind_and_length::<i16>();
    every_kind_and_length::<u16>();
    every_kind_and_length::<i32>();
    every_kind_and_length::<u32>();
    every_kind_and_length::<i64>();
    every_kind_and_length::<u64>();
}

/// Rows of any terms, so that what leaks from one to the next shows, in all numbers that fill
/// groups of rows or do not; the sums lie between others that must stay.
fn every_shape<X: Extreme>() {
    let mut random = Random::new(3);
    let columns = (0..=130).chain([255, 256, 257, 1_000]);
    for (n_columns, small) in columns.flat_map(|n| [(n, true), (n, false)]) {
        let term = |random: &mut Random| match random.below(4) {
            0 => X::LEAST,
            1 => X::MOST,
            _ => X::from_bits(random.bits()),
        };
        let rows: Vec<X> = (0..70 * n_columns)
            .map(|_| if small { X::from_bits(random.bits() >> 11) } else { term(&mut random) })
            .collect();
        let exact: Vec<BigInt> = (0..70)
            .map(|i| rows[i * n_columns..][..n_columns].iter().map(|x| (*x).into()).sum())
            .collect();
        for kernel in kernels() {
            for n_rows in 0..=70 {
                let about = || format!("{n_rows} x {n_columns} on {}", kernel.isa().name());
                let guard = X::big_to_sum(&BigInt::from(77)).expect("fits");
                let mut sums = [guard; 72];
                let done = X::row_sums(
                    kernel,
                    &rows[..n_rows * n_columns],
                    n_columns,
                    &mut sums[1..=n_rows],
                );
                let n_fit =
                    exact[..n_rows].iter().take_while(|sum| X::big_to_sum(sum).is_some()).count();
                let expected = match exact[..n_rows].get(n_fit) {
                    Some(sum) => {
                        Err(Overflow { row: n_fit, sum: sum.try_into().expect("fits 128 bits") })
                    }
                    None => Ok(()),
                };
                assert_eq!(done, expected, "{}", about());
                let got = sums.map(X::sum_to_big);
                assert_eq!(got[1..=n_fit], exact[..n_fit], "{}", about());
                let others = got[..1].iter().chain(&got[1 + n_fit..]);
                assert!(
                    others.eq(vec![&BigInt::from(77); 72 - n_fit]),
                    "{}: what is not summed is left alone",
                    about()
                );
            }
        }
    }
}

#[test]
fn every_shape_of_block_gives_the_sum_of_each_row() {
    every_shape::<i8>();
    every_shape::<u8>();
    every_shape::<i16>();
    every_shape::<u16>();
    every_shape::<i32>();
    every_shape::<u32>();
    every_shape::<i64>();
    every_shape::<u64>();
}

#[test]
fn blocks_of_small_terms_do_not_overflow() {
    // 2^24 terms, and some, for each of the lanes that a vector may have.
    let n = (1 << 24) + 1_000;
    let kernel = Kernels::get();
    let (mut signed, mut unsigned) = ([0], [0]);
    kernel.integer_row_sums(&vec![i8::MIN; n], n, &mut signed).expect("fits");
    kernel.integer_row_sums(&vec![u8::MAX; n], n, &mut unsigned).expect("fits");
    assert_eq!((signed, unsigned), ([-128 * ((1 << 24) + 1_000)], [255 * ((1 << 24) + 1_000)]));
}

#[test]
fn overflow_begins_just_past_the_largest_and_the_smallest_sum() {
    for n in 2..=40 {
        for at in 0..n {
            let row = |first: i64, last: i64| {
                let mut row = vec![0; n];
                row[at] = last;
                row[(at + 1) % n] = first;
                row
            };
            for (first, last, sum) in [
                (i64::MAX, 0, Ok(i64::MAX)),
                (i64::MAX, 1, Err(1_i128 << 63)),
                (i64::MIN, 0, Ok(i64::MIN)),
                (i64::MIN, -1, Err(-(1_i128 << 63) - 1)),
            ] {
                let row = row(first, last);
                check("edge", &row);
                let mut sums = [0];
                let done = i64::row_sums(Kernels::get(), &row, n, &mut sums);
                assert_eq!(done.map(|()| sums[0]), sum.map_err(|sum| Overflow { row: 0, sum }));
            }
            let mut row = vec![0; n];
            row[at] = u64::MAX;
            check("edge", &row);
            row[(at + 1) % n] = 1;
            check("edge", &row);
            let done = u64::row_sums(Kernels::get(), &row, n, &mut [0]);
            assert_eq!(done, Err(Overflow { row: 0, sum: 1 << 64 }));
        }
    }
}

#[test]
fn overflow_on_the_way_does_not_matter() {
    for n in (2..=40).chain([1_000]) {
        let mut row = vec![i64::MAX; n];
        row.extend(vec![-i64::MAX; n]);
        row.extend([7, i64::MIN]);
        check("up and down", &row);
        row.reverse();
        check("down and up", &row);
        let mut sums = [0];
        i64::row_sums(Kernels::get(), &row, row.len(), &mut sums).expect("fits");
        assert_eq!(sums, [i64::MIN + 7]);
    }
}

#[test]
fn the_first_row_that_does_not_fit_is_named() {
    for kernel in kernels() {
        let mut rows = vec![1_u64; 300];
        rows[150] = u64::MAX;
        rows[200] = u64::MAX;
        let mut sums = [77; 100];
        assert_eq!(
            u64::row_sums(kernel, &rows, 3, &mut sums),
            Err(Overflow { row: 50, sum: (1 << 64) + 1 })
        );
        assert_eq!((&sums[..50], &sums[50..]), ([3; 50].as_slice(), [77; 50].as_slice()));
    }
}

#[test]
fn rows_of_no_columns_have_the_sum_zero() {
    let mut sums = [7; 3];
    i16::row_sums(Kernels::get(), &[], 0, &mut sums).expect("fits");
    assert_eq!(sums, [0; 3]);
    let mut counts = [7; 3];
    Kernels::get().row_counts(&[], 0, &mut counts);
    assert_eq!(counts, [0; 3]);
}

#[test]
#[should_panic(expected = "rows x columns")]
fn a_block_of_the_wrong_length_is_refused() {
    let _ = Kernels::get().integer_row_sums(&[1_u8; 7], 2, &mut [0; 4]);
}

#[test]
#[should_panic(expected = "rows x columns")]
fn a_block_of_the_wrong_length_is_not_counted() {
    Kernels::get().row_counts(&[1_u8; 7], 2, &mut [0; 4]);
}

#[test]
fn every_byte_but_zero_is_counted_once() {
    let mut random = Random::new(2);
    for n_columns in (1..=130).chain([255, 256, 257, 1_000, 100_000]) {
        let n_rows = if n_columns <= 1_000 { 70 } else { 3 };
        for density in [0, 1, 128, 256] {
            let byte = |random: &mut Random| {
                let is_set = random.below(256) < density;
                if is_set { u8::try_from(1 + random.below(255)).expect("a byte") } else { 0 }
            };
            let rows: Vec<u8> = (0..n_rows * n_columns).map(|_| byte(&mut random)).collect();
            let expected: Vec<u64> = rows
                .chunks(n_columns)
                .map(|row| row.iter().filter(|x| **x != 0).count() as u64)
                .collect();
            for kernel in kernels() {
                for n in 0..=n_rows {
                    let mut counts = vec![7; n + 2];
                    kernel.row_counts(&rows[..n * n_columns], n_columns, &mut counts[1..=n]);
                    let about = || format!("{n} x {n_columns} on {}", kernel.isa().name());
                    assert_eq!(counts[1..=n], expected[..n], "{}", about());
                    assert_eq!((counts[0], counts[n + 1]), (7, 7), "{}", about());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_summed_right(row in prop::collection::vec(any::<u8>(), 0..500)) {
        check("any", &row);
        check("any", &row.iter().map(|x| x.cast_signed()).collect::<Vec<_>>());
    }

    #[test]
    fn any_words_are_summed_right(row in prop::collection::vec(any::<i16>(), 0..500)) {
        check("any", &row);
        check("any", &row.iter().map(|x| x.cast_unsigned()).collect::<Vec<_>>());
    }

    #[test]
    fn any_double_words_are_summed_right(row in prop::collection::vec(any::<i32>(), 0..200)) {
        check("any", &row);
        check("any", &row.iter().map(|x| x.cast_unsigned()).collect::<Vec<_>>());
    }

    #[test]
    fn any_quad_words_are_summed_right(row in prop::collection::vec(any::<i64>(), 0..200)) {
        check("any", &row);
        check("any", &row.iter().map(|x| x.cast_unsigned()).collect::<Vec<_>>());
    }
}
