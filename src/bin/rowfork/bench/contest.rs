//! All ways to the same sums over the same bytes. Each way is checked before it is timed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ndarray::{Ix1, Ix2, Zip};
use rayon::prelude::*;
use rowfork::{CancelToken, Executor, Pool, SharedArray};

use crate::failure::Failure;
use crate::progress::Steps;
use crate::signals;

/// The least number of rounds, so that there is a median.
const LEAST_ROUNDS: usize = 5;
/// The most rounds: more would change nothing.
const MOST_ROUNDS: usize = 51;
/// Between the two, as many rounds as fit in this time.
const TIME_FOR_ROUNDS: Duration = Duration::from_secs(6);

/// How many bytes of rows a thread sums at a time: as many as the largest blocks of the workers
/// have, and fewer for a small matrix.
const CHUNK_BYTES: usize = 4 << 20;
const LEAST_CHUNK_BYTES: usize = 64 << 10;

/// Which threads or processes compute the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Threads, which read every byte and no more.
    Readers,
    /// Threads, with exact sums.
    Threads,
    /// Workers forked for the call, with exact sums.
    Fork,
    /// Workers of a pool, with exact sums.
    Pool,
    /// This thread, with ndarray's plain sums.
    Serial,
}

/// A way to the sums, and how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) who: Who,
    /// How many threads or workers.
    pub(super) n: usize,
    pub(super) time: Duration,
}

/// What the contest has found.
#[derive(Debug, Clone)]
pub(super) struct Contest {
    pub(super) ways: Vec<Way>,
    pub(super) rounds: usize,
}

/// The workers that are there before a call, so that making them costs the call nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'p> {
    pool: &'p Pool,
    workers: usize,
}

impl<'p> Caller<'p> {
    pub(super) fn with(pool: &'p Pool) -> Self {
        Self { pool, workers: pool.stats().workers }
    }
}

/// A matrix, its sums as the last way has left them, and its sums as they have to be.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) matrix: SharedArray<f64, Ix2>,
    sums: SharedArray<f64, Ix1>,
    exact: SharedArray<f64, Ix1>,
    /// The sum of all elements' bits.
    bits: u64,
    bits_read: u64,
}

impl Workload {
    pub(super) fn new([n_rows, n_columns]: [usize; 2]) -> Result<Self, Failure> {
        let matrix = SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| {
            element((i * n_columns + j) as u64)
        })?;
        // Summed row by row, which takes another path through the kernel than many rows at once.
        let row = |i: usize| rowfork::exact_sum(&matrix.as_slice()[i * n_columns..][..n_columns]);
        let exact = SharedArray::from_shape_fn(None, n_rows, row)?;
        let bits =
            matrix.as_slice().par_iter().map(|x| x.to_bits()).reduce(|| 0, u64::wrapping_add);
        Ok(Self { matrix, sums: SharedArray::zeros(None, n_rows)?, exact, bits, bits_read: 0 })
    }

    /// Times all ways, in turn, round by round.
    pub(super) fn contest(
        &mut self,
        caller: &Caller<'_>,
        steps: &mut Steps,
    ) -> Result<Contest, Failure> {
        let ways = ways(rayon::current_num_threads(), caller.workers);
        steps.more(ways.len() + LEAST_ROUNDS);
        for &(who, n) in &ways {
            steps.next("checking");
            self.check(who, n, caller)?;
        }
        let start = Instant::now();
        let mut times = vec![Vec::new(); ways.len()];
        let mut rounds = LEAST_ROUNDS;
        let mut round = 0;
        while round < rounds {
            steps.next("summing");
            for (&(who, n), times) in ways.iter().zip(&mut times) {
                times.push(timed(|| self.go(who, n, caller))?);
            }
            round += 1;
            if round == 1 {
                rounds = rounds_of(start.elapsed());
                steps.more(rounds - LEAST_ROUNDS);
            }
        }
        let way = |(&(who, n), times): (&(Who, usize), &mut Vec<Duration>)| Way {
            who,
            n,
            time: median(times),
        };
        Ok(Contest { ways: ways.iter().zip(&mut times).map(way).collect(), rounds })
    }

    fn go(&mut self, who: Who, n: usize, caller: &Caller<'_>) -> Result<(), Failure> {
        match who {
            Who::Readers => self.bits_read = black_box(read(self.matrix.as_slice(), n)),
            Who::Threads => self.by_threads(n),
            Who::Serial => self.by_ndarray(),
            Who::Fork => self.by_fork(n)?,
            Who::Pool => self.by_pool(caller, n)?,
        }
        Ok(())
    }

    fn by_threads(&mut self, n: usize) {
        let n_columns = self.matrix.view().ncols();
        let rows = self.matrix.as_slice();
        let sums = self.sums.view_mut().into_slice().expect("a vector of its own");
        if n == 1 {
            return rowfork::exact_row_sums(rows, n_columns, sums);
        }
        let chunk_rows = (chunk_bytes(size_of_val(rows)) / (n_columns * size_of::<f64>())).max(1);
        rows.par_chunks(chunk_rows * n_columns)
            .zip(sums.par_chunks_mut(chunk_rows))
            .for_each(|(rows, sums)| rowfork::exact_row_sums(rows, n_columns, sums));
    }

    fn by_ndarray(&mut self) {
        Zip::from(self.sums.view_mut())
            .and(self.matrix.view().rows())
            .for_each(|sum, row| *sum = row.sum());
    }

    pub(super) fn by_fork(&mut self, workers: usize) -> Result<(), Failure> {
        let long = self.is_long();
        let Self { matrix, sums, .. } = self;
        signals::while_noting(|token| {
            told(rowfork::fork().workers(workers), token.filter(|_| long))
                .row_sums_into(&*matrix, sums)
                .map(drop)
        })
    }

    pub(super) fn by_pool(&mut self, caller: &Caller<'_>, workers: usize) -> Result<(), Failure> {
        let long = self.is_long();
        let Self { matrix, sums, .. } = self;
        signals::while_noting(|token| {
            told(caller.pool.call().workers(workers), token.filter(|_| long))
                .row_sums_into(&*matrix, sums)
                .map(drop)
        })
    }

    /// Whether a call lasts long enough to be cancelled. Looking whether it is cancelled takes a
    /// system call, which takes as long as a small call.
    fn is_long(&self) -> bool {
        size_of_val(self.matrix.as_slice()) > LEAST_CHUNK_BYTES
    }

    fn check(&mut self, who: Who, n: usize, caller: &Caller<'_>) -> Result<(), Failure> {
        match who {
            Who::Readers => {
                self.go(who, n, caller)?;
                if self.bits_read == self.bits { Ok(()) } else { Err(is_wrong("reading")) }
            }
            Who::Serial => {
                self.go(who, n, caller)?;
                // The elements are not negative, so this bounds the rounding errors.
                let error = f64::EPSILON * self.matrix.view().ncols() as f64;
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= error * b;
                let right = self.sums.as_slice().iter().zip(self.exact.as_slice()).all(close);
                if right { Ok(()) } else { Err(is_wrong("a plain sum")) }
            }
            Who::Threads | Who::Fork | Who::Pool => {
                self.check_exact("an exact sum", |job| job.go(who, n, caller))
            }
        }
    }

    /// Checks that `work` writes all sums, right to the last bit.
    pub(super) fn check_exact(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.sums.view_mut().fill(f64::NAN);
        work(self)?;
        if self.sums.as_slice() == self.exact.as_slice() { Ok(()) } else { Err(is_wrong(what)) }
    }
}

/// The failure of a way whose sums are wrong.
pub(super) fn is_wrong(what: &str) -> Failure {
    Failure::Said(format!(
        "{what} gave a wrong answer: see whether memory is sound (memtest86), and report it if it is"
    ))
}

/// Each way with one thread or worker, and with all where there are several.
fn ways(threads: usize, workers: usize) -> Vec<(Who, usize)> {
    let mut ways = Vec::new();
    for (who, all) in [
        (Who::Readers, threads),
        (Who::Threads, threads),
        (Who::Fork, workers),
        (Who::Pool, workers),
    ] {
        ways.extend([1, all].map(|n| (who, n)));
    }
    ways.push((Who::Serial, 1));
    ways.dedup();
    ways
}

/// How many rounds there is time for, when the first has taken this long: an odd number.
fn rounds_of(first: Duration) -> usize {
    let fit = TIME_FOR_ROUNDS.as_nanos() / first.as_nanos().max(1);
    usize::try_from(fit).unwrap_or(MOST_ROUNDS).clamp(LEAST_ROUNDS, MOST_ROUNDS) | 1
}

fn told<'a, M>(executor: Executor<'a, M>, token: Option<&CancelToken>) -> Executor<'a, M> {
    token.into_iter().fold(executor, Executor::cancel_token)
}

/// How long `work` takes, if it does not fail.
pub(super) fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// The median. Of an even number of times, the longer of the two in the middle.
pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn chunk_bytes(bytes: usize) -> usize {
    (bytes / 16).clamp(LEAST_CHUNK_BYTES, CHUNK_BYTES)
}

/// The wrapping sum of all elements' bits, by this thread or by all threads: next to no work beside
/// the reading.
fn read(elements: &[f64], threads: usize) -> u64 {
    let words: &[u64] = bytemuck::cast_slice(elements);
    if threads == 1 {
        return read_here(words);
    }
    let chunks = words.par_chunks(chunk_bytes(size_of_val(words)) / size_of::<u64>());
    chunks.map(read_here).reduce(|| 0, u64::wrapping_add)
}

/// Wrapping additions of integers may be done in any order, so the compiler uses vectors, several
/// at a time. A loop that is cut into lanes by hand it compiles lane by lane.
fn read_here(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// An element from 0 to 1 with all bits in use, different at every index (SplitMix64).
fn element(index: u64) -> f64 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_reads_all_whatever_is_left_over() {
        for n in [0, 1, 15, 16, 17, 100_000] {
            let elements: Vec<f64> = (0..n).map(element).collect();
            let plain = elements.iter().fold(0_u64, |sum, x| sum.wrapping_add(x.to_bits()));
            assert_eq!((read(&elements, 1), read(&elements, 2)), (plain, plain), "{n}");
        }
    }

    #[test]
    fn nobody_is_asked_twice() {
        assert_eq!(ways(2, 3).len(), 9);
        assert_eq!(ways(2, 3)[4..6], [(Who::Fork, 1), (Who::Fork, 3)]);
        assert_eq!(
            ways(1, 1),
            [Who::Readers, Who::Threads, Who::Fork, Who::Pool, Who::Serial].map(|who| (who, 1))
        );
    }

    #[test]
    fn rounds_are_odd_and_as_many_as_there_is_time_for() {
        for (ms, rounds) in [(0, 51), (100, 51), (200, 31), (300, 21), (2000, 5), (100_000, 5)] {
            assert_eq!(rounds_of(Duration::from_millis(ms)), rounds, "{ms} ms");
        }
    }

    #[test]
    fn an_answer_that_is_wrong_is_not_timed() {
        let mut job = Workload::new([10, 7]).unwrap();
        assert!(job.check_exact("nothing", |_| Ok(())).is_err());
        let threads = |job: &mut Workload| {
            job.by_threads(2);
            Ok(())
        };
        job.check_exact("threads", threads).unwrap();
        let spoilt = |job: &mut Workload| {
            threads(job)?;
            job.sums.view_mut()[9] += 1e-15;
            Ok(())
        };
        assert!(job.check_exact("spoilt", spoilt).is_err());
    }

    #[test]
    fn elements_are_between_0_and_1() {
        assert!((0..1000).map(element).all(|x| (0.0..1.0).contains(&x)));
        assert!(element(1) != element(2));
    }
}
