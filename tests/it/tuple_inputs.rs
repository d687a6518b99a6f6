//! Several inputs at once: the rows of a tuple are taken together, whatever their types, dimensions
//! and layouts.

#![allow(clippy::many_single_char_names, reason = "inputs have letters")]

use ndarray::{Array1, Array2, ArrayViewMut, Axis, Ix0, Ix1, Ix2, Ix3, Ix4, IxDyn, Slice};
use rowfork::{Bool, Row, Rows, SharedArray};

use crate::support::executors::{Executors, Place};
use crate::support::isolated::isolated;
use crate::support::value::{Value, dim_of, hash, values};

const WORKERS: [usize; 3] = [1, 2, 5];

fn shared<A: Value, D: ndarray::Dimension>(shape: &[usize]) -> SharedArray<A, D> {
    SharedArray::copy_from(None, &values::<A, D>(dim_of(shape))).unwrap()
}

/// Every operation on `input`, of `n_rows` rows, whose rows and blocks `hash_of` and `hashes_of`
/// make words of; `expected` are those of a plain loop.
fn every_operation<I: Rows + Copy>(
    executors: &Executors,
    what: &str,
    input: I,
    expected: &[u64],
    hash_of: impl Fn(I::Row) -> u64 + Copy + 'static,
    hashes_of: impl Fn(I::Block) -> Vec<u64> + Copy + 'static,
) {
    let n_rows = expected.len();
    let each = Array1::from(expected.to_vec());
    for (place, workers) in
        Place::ALL.into_iter().flat_map(|place| WORKERS.map(|workers| (place, workers)))
    {
        let call = || executors.at(place).workers(workers);
        let what = format!("{what}, {n_rows} rows, {place}, {workers} workers");
        let mapped = call().map_rows(input, hash_of).unwrap();
        assert_eq!(mapped.view(), each, "map_rows of {what}");
        let mut out = SharedArray::zeros(None, n_rows).unwrap();
        call().map_rows_into(input, &mut out, move |row| Ok::<_, String>(hash_of(row))).unwrap();
        assert_eq!(out.view(), each, "map_rows_into of {what}");
        let transformed =
            call().transform_rows(input, 3, move |row, out: &mut ArrayViewMut<'_, u64, Ix1>| {
                out.fill(hash_of(row));
            });
        assert!(
            transformed.unwrap().view().axis_iter(Axis(1)).all(|column| column == each),
            "transform_rows of {what}"
        );
        let blocks = call().block_rows(7).map_blocks(
            input,
            (),
            move |block, out: &mut ArrayViewMut<'_, u64, Ix1>| {
                out.assign(&Array1::from(hashes_of(block)));
            },
        );
        assert_eq!(blocks.unwrap().view(), each, "map_blocks of {what}");
        let mut array =
            SharedArray::from_shape_fn(None, (n_rows, 2), |(i, j)| (i * 2 + j) as u64).unwrap();
        let updated: Array2<u64> = array.to_owned() + each.view().insert_axis(Axis(1));
        call()
            .update_rows_with(&mut array, input, move |row, input| *row += hash_of(input))
            .unwrap();
        assert_eq!(array.view(), updated, "update_rows_with of {what}");
        // Not commutative, but associative.
        let take_in = |f: &mut [u64; 2], g: &[u64; 2]| {
            *f = [f[0].wrapping_mul(g[0]), f[1].wrapping_mul(g[0]).wrapping_add(g[1])];
        };
        let mut serial = [1, 0];
        for &hash in expected {
            take_in(&mut serial, &[hash, 1]);
        }
        let folded = call()
            .fold_rows(input, [1, 0], move |f, row| take_in(f, &[hash_of(row), 1]), take_in)
            .unwrap();
        assert_eq!(*folded, serial, "fold_rows of {what}");
        let zero = Array1::<u64>::zeros(2);
        let folded = call().fold_rows_array(
            input,
            &zero,
            move |sum, row| sum[1] ^= hash_of(row),
            |sum, other| sum[1] ^= other[1],
        );
        assert_eq!(
            folded.unwrap().view()[1],
            expected.iter().fold(0, |sum, hash| sum ^ hash),
            "fold_rows_array of {what}"
        );
    }
}

/// The words of all parts as one; the order of the parts matters. The addition in `every_operation`
/// must not overflow.
fn joined(hashes: &[u64]) -> u64 {
    hashes.iter().fold(1, |joined: u64, hash| joined.wrapping_mul(31).wrapping_add(*hash)) >> 1
}

/// The word of a row of each of these views, serially.
macro_rules! serially {
    ($($view:expr),+) => {{
        let n_rows = [$($view.len_of(Axis(0))),+];
        assert!(n_rows.iter().all(|&n| n == n_rows[0]));
        (0..n_rows[0])
            .map(|i| joined(&[$(hash(i, &$view.index_axis(Axis(0), i))),+]))
            .collect::<Vec<u64>>()
    }};
}

macro_rules! hash_of {
    ($($part:ident),+) => { |($($part),+)| joined(&[$(hash($part.index(), &$part)),+]) };
}

macro_rules! hashes_of {
    ($first:ident $(, $part:ident)*) => {
        |($first, $($part),*)| {
            let rows = $first.row_range();
            $(assert_eq!($part.row_range(), rows);)*
            let at = |index: usize| {
                let i = index - rows.start;
                joined(&[
                    hash(index, &$first.index_axis(Axis(0), i))
                    $(, hash(index, &$part.index_axis(Axis(0), i)))*
                ])
            };
            rows.clone().map(at).collect()
        }
    };
}

/// What nests in a tuple.
type Ends<'a> = (Row<'a, u8, Ix0>, Row<'a, f32, Ix0>);

#[test]
fn two_to_four_inputs_of_any_types_and_dimensions_go_together() {
    isolated(|| {
        let executors = Executors::new(5);
        for n in [0, 1, 64, 65, 1025] {
            let a: SharedArray<f64, Ix2> = shared(&[n, 3]);
            let b: SharedArray<u8, Ix3> = shared(&[n, 2, 2]);
            let c: SharedArray<i64, Ix1> = shared(&[n]);
            let d: SharedArray<f32, Ix4> = shared(&[n, 1, 2, 2]);
            let e: SharedArray<Bool, IxDyn> = shared(&[n, 5]);
            let expected = serially!(a.view(), b.view());
            every_operation(
                &executors,
                "2 inputs",
                (&a, &b),
                &expected,
                hash_of!(a, b),
                hashes_of!(a, b),
            );
            let expected = serially!(c.view(), e.view(), a.view());
            every_operation(
                &executors,
                "3 inputs",
                (&c, &e, &a),
                &expected,
                hash_of!(c, e, a),
                hashes_of!(c, e, a),
            );
            let expected = serially!(d.view(), c.view(), b.view(), a.view());
            every_operation(
                &executors,
                "4 inputs",
                (&d, &c, &b, &a),
                &expected,
                hash_of!(d, c, b, a),
                hashes_of!(d, c, b, a),
            );
        }
    });
}

#[test]
fn an_input_may_be_there_twice_and_beside_parts_of_itself() {
    isolated(|| {
        let executors = Executors::new(5);
        let a: SharedArray<f64, Ix2> = shared(&[130, 6]);
        let backwards = a.rows(Slice::new(0, None, -1)).unwrap().columns(1..3).unwrap();
        let expected = serially!(a.view(), backwards.view(), a.view());
        every_operation(
            &executors,
            "itself",
            (&a, backwards, &a),
            &expected,
            hash_of!(a, b, c),
            hashes_of!(a, b, c),
        );
    });
}

#[test]
fn parts_of_as_many_rows_go_together_from_arrays_of_other_sizes() {
    isolated(|| {
        let executors = Executors::new(5);
        let long: SharedArray<u8, Ix3> = shared(&[100, 3, 4]);
        let short: SharedArray<i64, Ix1> = shared(&[40]);
        let (every_third, some) =
            (long.rows(Slice::new(10, Some(70), 3)).unwrap(), short.rows(-20..).unwrap());
        let expected = serially!(every_third.view(), some.view());
        every_operation(
            &executors,
            "parts",
            (every_third, some),
            &expected,
            hash_of!(a, b),
            hashes_of!(a, b),
        );
    });
}

#[test]
fn tuples_nest() {
    isolated(|| {
        let (a, b, c): (SharedArray<f64, Ix2>, SharedArray<u8, Ix1>, SharedArray<f32, Ix1>) =
            (shared(&[70, 2]), shared(&[70]), shared(&[70]));
        let expected = serially!(a.view(), b.view(), c.view());
        let executors = Executors::new(5);
        let kernel = |(a, (b, c)): (Row<'_, f64, Ix1>, Ends<'_>)| {
            joined(&[hash(a.index(), &a), hash(b.index(), &b), hash(c.index(), &c)])
        };
        for (place, workers) in
            Place::ALL.into_iter().flat_map(|place| WORKERS.map(|workers| (place, workers)))
        {
            let nested = executors.at(place).workers(workers).map_rows((&a, (&b, &c)), kernel);
            assert_eq!(nested.unwrap().as_slice(), expected, "{place}, {workers} workers");
        }
    });
}
