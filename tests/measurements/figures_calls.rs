//! What a call costs: fork mode against the same kernel by threads over the same segment, with 2
//! MiB and with 4 KiB pages, and the cost of a call on next to no data. Prints, asserts no times:
//! `cargo measure figures_calls` on a quiet machine.

use ndarray::{Ix1, Ix2};
use rayon::prelude::*;
use rowfork::{SharedArray, fork};

use crate::support::timing::{COLUMNS, abba, mib, seconds, small_or_huge};

const CHUNK_ROWS: usize = 32; // 256 KiB, as the blocks of the forked workers

fn by_threads(m: &SharedArray<f64, Ix2>, sums: &mut [f64]) {
    let chunks = m.as_slice().par_chunks(CHUNK_ROWS * COLUMNS);
    chunks
        .zip(sums.par_chunks_mut(CHUNK_ROWS))
        .for_each(|(rows, sums)| rowfork::exact_row_sums(rows, COLUMNS, sums));
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn fork_mode_against_threads() {
    let mib = mib();
    for huge in [true, false] {
        let (_pages, m) = small_or_huge(huge, mib);
        println!("{mib} MiB of {COLUMNS} columns, {:?}", m.pages().unwrap());
        let mut forked = SharedArray::<f64, Ix1>::zeros(None, m.n_rows()).unwrap();
        let mut sums = vec![0.0; m.n_rows()];
        by_threads(&m, &mut sums);
        fork().row_sums_into(&m, &mut forked).unwrap();
        assert_eq!(forked.as_slice(), sums);
        let mut again = sums.clone();
        let mut by_fork = || {
            fork().row_sums_into(&m, &mut forked).unwrap();
        };
        abba("control: threads / threads", &mut || by_threads(&m, &mut sums), &mut || {
            by_threads(&m, &mut again);
        });
        abba(
            "rate of fork mode, of that of threads",
            &mut || by_threads(&m, &mut sums),
            &mut by_fork,
        );
        abba("with an output made by the call", &mut || by_threads(&m, &mut sums), &mut || {
            fork().row_sums(&m).unwrap();
        });
        let mut by_rayon = || {
            let rows = m.view();
            let rows = rows.axis_iter(ndarray::Axis(0));
            again
                .par_iter_mut()
                .zip(ndarray::parallel::prelude::IntoParallelIterator::into_par_iter(rows))
                .for_each(|(sum, row)| *sum = row.sum());
        };
        abba("rate of fork mode, of rayon + ndarray", &mut by_rayon, &mut || {
            fork().row_sums(&m).unwrap();
        });
    }
}

#[test]
#[ignore = "needs a quiet machine"]
fn the_cost_of_a_call() {
    let m = SharedArray::from_shape_fn(None, (1000, 10), |(i, j)| (i * j) as f64).unwrap();
    let mut sums = SharedArray::<f64, _>::zeros(None, 1000).unwrap();
    let mut median = |workers: usize| {
        let mut times: Vec<f64> = (0..1001)
            .map(|_| seconds(&mut || drop(fork().workers(workers).row_sums_into(&m, &mut sums))))
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e6
    };
    println!(
        "1,000 x 10, median of 1,001 calls: {:.0} us with 1 worker, {:.0} us with 2",
        median(1),
        median(2)
    );
    let ballast = vec![1u8; 1 << 30];
    println!(
        "the same with 1 GiB of private heap:  {:.0} us with 1 worker, {:.0} us with 2",
        median(1),
        median(2)
    );
    assert_eq!(std::hint::black_box(&ballast)[12_345], 1);
    drop(ballast);
    let mut serial = vec![0.0; 1000];
    let mut times: Vec<f64> = (0..1001)
        .map(|_| seconds(&mut || rowfork::exact_row_sums(m.as_slice(), 10, &mut serial)))
        .collect();
    times.sort_by(f64::total_cmp);
    println!("the sums themselves, in the caller:   {:.1} us", times[500] * 1e6);
}

#[test]
#[ignore = "needs a quiet machine"]
fn two_workers_on_a_function_that_computes() {
    let m = SharedArray::from_shape_fn(None, (4000, 16), |(i, j)| (i + j) as f64).unwrap();
    let (mut by_one, mut by_two) =
        (SharedArray::zeros(None, 4000).unwrap(), SharedArray::zeros(None, 4000).unwrap());
    let kernel =
        |row: rowfork::Row<'_, f64, Ix1>| (0..2000).fold(0.5, |x: f64, _| (x + row.sum()).sin());
    let run = |workers, out: &mut SharedArray<f64, Ix1>| {
        drop(fork().workers(workers).map_rows_into(&m, out, kernel));
    };
    run(1, &mut by_one);
    run(2, &mut by_two);
    assert_eq!(by_one.as_slice(), by_two.as_slice());
    abba("one worker's time to two workers'", &mut || run(1, &mut by_one), &mut || {
        run(2, &mut by_two);
    });
}
