//! Claims about the block entry: many rows at once.

use super::data::{self, KINDS, Random};
use super::{bits, kernels, oracle, refined_by};
use crate::kernel::Kernels;
use crate::kernel::dispatch::Isa;

#[test]
fn every_shape_of_block_gives_the_sum_of_each_row() {
    for n_columns in (0..=130).chain([255, 256, 257, 1_000]) {
        // Neighbours of different kinds, so that a group of rows has some that are proved and some
        // that are not; the order differs from one column count to the next.
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
fn large_blocks_of_short_rows_are_stored_whole_wherever_they_go() {
    // From half a MiB on results are stored past the caches, if their place is on a multiple of a
    // vector.
    for n_columns in [1, 2, 8, 33, 64, 128, 129] {
        let mut random = Random::new(n_columns as u64);
        let n_rows = (600 << 10) / (n_columns * size_of::<f64>());
        let rows: Vec<f64> = (0..n_rows * n_columns).map(|_| random.unit() - 0.5).collect();
        let singles: Vec<f32> =
            (0..2 * n_rows * n_columns).map(|_| data::single(random.unit() - 0.5)).collect();
        for kernel in kernels() {
            let expected: Vec<f64> =
                rows.chunks_exact(n_columns).map(|row| kernel.sum(row)).collect();
            let mut expected_singles = vec![0.0; 2 * n_rows];
            for (row, sum) in singles.chunks_exact(n_columns).zip(&mut expected_singles) {
                kernel.row_sums_f32(row, n_columns, std::slice::from_mut(sum));
            }
            for place in 0..9 {
                let what =
                    format!("{n_rows} x {n_columns}, {place} off on {}", kernel.isa().name());
                let mut out = vec![-7.0; n_rows + 10];
                kernel.row_sums(&rows, n_columns, &mut out[place..][..n_rows]);
                assert_eq!(bits(&out[place..][..n_rows]), bits(&expected), "{what}");
                assert!(
                    out[..place].iter().chain(&out[place + n_rows..]).all(|x| *x == -7.0),
                    "{what}"
                );
                let mut out = vec![-7.0; 2 * n_rows + 10];
                kernel.row_sums_f32(&singles, n_columns, &mut out[place..][..2 * n_rows]);
                assert!(out[place..][..2 * n_rows] == expected_singles, "{what}");
                assert!(
                    out[..place].iter().chain(&out[place + 2 * n_rows..]).all(|x| *x == -7.0),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn the_environment_names_the_instructions_of_this_process() {
    // What runs these tests once for each of them relies on it, and so on knowing its name.
    let named = std::env::var("ROWFORK_ISA").unwrap_or_default();
    if named.is_empty() {
        return;
    }
    let isa = Isa::ALL
        .iter()
        .find(|isa| isa.name() == named)
        .expect("ROWFORK_ISA to be one that there is");
    // One that this processor lacks is no mistake: then it is the best.
    assert_eq!(Kernels::get().isa(), Kernels::new(*isa).unwrap_or(Kernels::choose("")).isa());
}

#[test]
fn the_instructions_can_be_named_and_are_else_the_best() {
    for kernel in kernels() {
        assert_eq!(Kernels::choose(kernel.isa().name()).isa(), kernel.isa());
    }
    let best = kernels().last().map(Kernels::isa);
    assert_eq!(Some(Kernels::choose("").isa()), best);
    assert_eq!(Some(Kernels::choose("mmx").isa()), best);
}

#[test]
#[should_panic(expected = "rows x columns")]
fn a_block_of_the_wrong_length_is_refused() {
    Kernels::get().row_sums(&[1.0; 7], 2, &mut [0.0; 4]);
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
