//! Large and long shapes. Those that every machine can bear run with the others; the rest are
//! ignored by default: `cargo measure large` prints their figures.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rowfork::{Error, SharedArray, fork};

use crate::support::isolated::{self, isolated};
use crate::support::shared::SharedWord;

/// Bytes of memory that the kernel would give without swapping.
fn available_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A matrix of ones in the first column and zeros elsewhere, or `None` (with the reason printed)
/// where there is no room.
fn matrix(n_rows: usize, n_columns: usize) -> Option<SharedArray<f64>> {
    let bytes = (n_rows * n_columns * 8) as u64;
    if available_memory() < bytes + bytes / 4 + (1 << 30) {
        println!(
            "SKIPPED {n_rows} x {n_columns}: {} MiB of memory are too few",
            available_memory() >> 20
        );
        return None;
    }
    match SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| {
        if j == 0 { i as f64 + 1.0 } else { 0.5 }
    }) {
        Ok(matrix) => Some(matrix),
        Err(error @ Error::ShmFull { .. }) => {
            println!("SKIPPED {n_rows} x {n_columns}: {error}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// The sum of row `i` of such a matrix: exact, for these numbers.
fn expected(row: usize, n_columns: usize) -> f64 {
    row as f64 + 1.0 + 0.5 * (n_columns - 1) as f64
}

#[test]
fn one_row_of_100_million_columns_is_summed() {
    isolated(|| {
        let Some(m) = matrix(1, 100_000_000) else { return };
        let sums = fork().workers(2).row_sums(&m).unwrap();
        assert_eq!(sums.view()[0], expected(0, 100_000_000));
    });
}

#[test]
fn ten_million_rows_of_one_column_are_summed() {
    isolated(|| {
        let Some(m) = matrix(10_000_000, 1) else { return };
        let sums = fork().workers(2).row_sums(&m).unwrap();
        assert!(sums.view().iter().enumerate().all(|(row, &sum)| sum == expected(row, 1)));
    });
}

#[test]
#[ignore = "needs 13 GiB"]
fn twelve_gibibytes_are_summed() {
    isolated(|| {
        let (n_rows, n_columns) = (12 << 17, 1024);
        let start = Instant::now();
        let Some(m) = matrix(n_rows, n_columns) else { return };
        let placed = start.elapsed();
        let sums = fork().workers(2).row_sums(&m).unwrap();
        assert!(sums.view().iter().enumerate().all(|(row, &sum)| sum == expected(row, n_columns)));
        println!(
            "FIGURE 12 GiB: placed in {placed:.2?} ({:?}); {}",
            m.pages(),
            sums.report().to_string().lines().next().unwrap_or_default()
        );
        let start = Instant::now();
        drop(m);
        println!("FIGURE 12 GiB: let go in {:.2?}", start.elapsed());
    });
}

#[test]
#[ignore = "needs 10 GiB"]
fn folding_rows_of_a_million_columns_takes_no_private_memory() {
    isolated(|| {
        let (n_rows, n_columns) = (1000, 1_000_000);
        let Some(m) = matrix(n_rows, n_columns) else { return };
        let zeros = ndarray::Array1::zeros(n_columns);
        let folded = fork().workers(2).measure_memory(true).fold_rows_array(
            &m,
            &zeros,
            |sums, row| *sums += &row,
            |sums, others| *sums += others,
        );
        let folded = folded.unwrap();
        assert_eq!(folded.view()[0], 1000.0 * 1001.0 / 2.0);
        assert!(folded.as_slice()[1..].iter().all(|&sum| sum == 500.0));
        let private: Vec<u64> =
            folded.report().workers.iter().map(|worker| worker.private_bytes.unwrap()).collect();
        println!(
            "FIGURE folding 1000 x 1,000,000: private memory of the workers {private:?} bytes; {}",
            folded.report()
        );
        // Less than half an accumulator, one huge page included: shared memory that nobody else has
        // mapped yet counts as private, and of the result's last pages that is so until the caller
        // reads them.
        assert!(private.iter().all(|&bytes| bytes < (1 << 20) + (2 << 20)));
    });
}

#[test]
#[ignore = "needs 2 GiB"]
fn all_processes_together_hold_the_matrix_once() {
    isolated(|| {
        let (n_rows, n_columns) = (4096, 32_768);
        let Some(m) = matrix(n_rows, n_columns) else { return };
        let (waiting, measured) = (SharedWord::new(), SharedWord::new());
        let (proportional, private) = std::thread::scope(|scope| {
            let observer = scope.spawn(|| {
                while waiting.load(Ordering::Acquire) < 2 {
                    std::thread::yield_now();
                }
                let workers: Vec<u32> =
                    isolated::children().into_iter().map(i32::cast_unsigned).collect();
                let own = field("self", "Pss:");
                let proportional = workers.iter().map(|pid| field(pid, "Pss:")).sum::<u64>() + own;
                let private = |pid| field(pid, "Private_Clean:") + field(pid, "Private_Dirty:");
                let private: Vec<u64> = workers.iter().map(private).collect();
                measured.store(1, Ordering::Release);
                (proportional, private)
            });
            // The two last rows go to different workers: each holds its own until both have been
            // measured.
            fork()
                .workers(2)
                .block_rows(1)
                .map_rows(&m, |row| {
                    let sum = row.sum();
                    if row.index() >= n_rows - 2 {
                        waiting.fetch_add(1, Ordering::Release);
                        while measured.load(Ordering::Acquire) == 0 {
                            std::thread::yield_now();
                        }
                    }
                    sum
                })
                .unwrap();
            observer.join().unwrap()
        });
        let data = (n_rows * n_columns * 8 + n_rows * 8) as u64;
        println!(
            "FIGURE 1 GiB, 2 workers: PSS of all processes {} KiB, input + output {} KiB",
            proportional >> 10,
            data >> 10
        );
        println!(
            "FIGURE 1 GiB, 2 workers: private memory of the workers {:?} KiB",
            private.iter().map(|bytes| bytes >> 10).collect::<Vec<_>>()
        );
        assert!(proportional < data + data / 50 + (16 << 20));
        assert!(private.iter().all(|&bytes| bytes < 1 << 20));
    });
}

/// Bytes of a field of a process's `smaps_rollup`.
fn field(pid: impl std::fmt::Display, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
