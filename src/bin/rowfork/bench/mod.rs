//! `rowfork bench`: what this machine does, in some 10 s and one table.
//!
//! It sums one matrix of doubles in a segment in every way in turn (`contest`), times calls of next
//! to nothing, and times placing. Then it prints the table and what follows from it (`account`).

mod account;
mod contest;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rowfork::{Pool, SharedArray, segment};

use self::account::{Account, Dispatch};
use self::contest::{Caller, Workload, median, timed};
use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::progress::Steps;
use crate::signals;
use crate::text;

/// What `--help` says below the options.
pub(crate) const HELP: &str = "\
Example: rowfork bench --size 1GiB
Measured, each the median of several rounds in which all take turns: reading all bytes
(the ceiling), exact row sums by threads, by forked workers and by a pool, by one and by
all of them, and plain sums by ndarray; a call of next to nothing; placing. Every answer
is checked. It takes some 10 s and twice --size of /dev/shm, all of which is given back.";

/// The size of the matrix by default: larger than any cache.
const DEFAULT_BYTES: u64 = 512 << 20;

/// The least size of the matrix: a smaller one is done before all workers are at it.
const LEAST_BYTES: u64 = 1 << 20;

/// How many calls of next to nothing there are for each median.
const HOT_CALLS: usize = 1001;
const COLD_CALLS: usize = 101;
/// How long to pause before a cold call: by then the workers of a pool sleep.
const PAUSE: Duration = Duration::from_millis(2);
/// How many placings there are for the median. A placing takes long, so there are fewer.
const PLACINGS: usize = 5;

/// Measures, and prints the table on standard output.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let shape = shape(args.size, args.columns.get(), segment::capacity()?.bytes)?;
    // The pool is made while there are no threads and little to copy. The workers are to do small
    // calls, too.
    let pool = signals::while_noting(|_| Pool::builder().inline_below(0).build())?;
    let mut steps = Steps::new(args.quiet);
    steps.more(1 + 1 + PLACINGS + 3);
    steps.next("making a matrix");
    let mut job = Workload::new(shape)?;
    let contest = job.contest(&Caller::with(&pool), &mut steps)?;
    let placing = placing(&job, &mut steps)?;
    let dispatch = dispatch(&Caller::with(&pool), &mut steps)?;
    drop(steps);
    let account = Account {
        shape,
        peak_bytes: peak_bytes(shape).unwrap_or(u64::MAX),
        contest,
        placing,
        dispatch,
    };
    let mut out = io::stdout().lock();
    for line in account.lines() {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Rows and columns of about so many bytes, if all that is made of them fits.
fn shape(size: Option<u64>, n_columns: u32, room: u64) -> Result<[usize; 2], Failure> {
    if size.is_some_and(|size| size < LEAST_BYTES) {
        return Err(Failure::Said(
            "of less than 1MiB nothing could be said; choose a larger --size".to_owned(),
        ));
    }
    let size = size.unwrap_or(DEFAULT_BYTES.min(room / 4)); // even where that is next to nothing
    let n_rows = (size / (u64::from(n_columns) * size_of::<f64>() as u64)).max(1);
    let shape = [usize::try_from(n_rows).unwrap_or(usize::MAX), n_columns as usize];
    match peak_bytes(shape) {
        Some(peak) if peak <= room => Ok(shape),
        peak => Err(Failure::Said(format!(
            "{n_rows} rows of {n_columns} columns take {} at the most, and there is room for {}; choose a smaller --size, or see \
             rowfork doctor",
            peak.map_or("more than an address can say".to_owned(), text::bytes),
            text::bytes(room)
        ))),
    }
}

/// What lies in `/dev/shm` at the most: the matrix, a second when it is placed, the sums and what
/// they have to be.
fn peak_bytes([n_rows, n_columns]: [usize; 2]) -> Option<u64> {
    /// Headers, pages begun, what calls are made with.
    const MORE: usize = 64 << 10;
    let elements = n_rows.checked_mul(n_columns)?.checked_add(n_rows)?.checked_mul(2)?;
    elements.checked_mul(size_of::<f64>())?.checked_add(MORE)?.try_into().ok()
}

/// The time to copy the matrix into a segment of its own.
fn placing(job: &Workload, steps: &mut Steps) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for round in 0..=PLACINGS {
        steps.next("placing");
        let start = Instant::now();
        let placed = SharedArray::copy_from(None, &job.matrix.view())?;
        let time = start.elapsed();
        // The first makes room in the caches of the kernel, and is looked at.
        if round > 0 {
            times.push(time);
        } else if placed.as_slice() != job.matrix.as_slice() {
            return Err(contest::is_wrong("placing"));
        }
    }
    Ok(median(&mut times))
}

fn dispatch(caller: &Caller<'_>, steps: &mut Steps) -> Result<Dispatch, Failure> {
    let mut tiny = Workload::new([8, 10])?;
    steps.next("calls by fork mode");
    let fork = tiny.calls(COLD_CALLS, Duration::ZERO, |job| job.by_fork(1))?;
    steps.next("calls on a pool");
    let hot = tiny.calls(HOT_CALLS, Duration::ZERO, |job| job.by_pool(caller, 1))?;
    steps.next("calls on a pool that sleeps");
    let parked = tiny.calls(COLD_CALLS, PAUSE, |job| job.by_pool(caller, 1))?;
    Ok(Dispatch { fork, hot, parked })
}

impl Workload {
    /// The median of so many calls, each after a pause; the answer is looked at once before.
    fn calls(
        &mut self,
        n: usize,
        pause: Duration,
        call: impl Fn(&mut Self) -> Result<(), Failure>,
    ) -> Result<Duration, Failure> {
        self.check_exact("a small call", &call)?;
        let once = |_| {
            std::thread::sleep(pause);
            timed(|| call(self))
        };
        let mut times = (0..n).map(once).collect::<Result<Vec<_>, _>>()?;
        Ok(median(&mut times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_matrix_is_at_most_a_quarter_of_the_room_unless_told() {
        assert_eq!(shape(None, 1024, 1 << 40).unwrap(), [65_536, 1024]);
        assert_eq!(shape(None, 1024, 64 * MIB).unwrap(), [2048, 1024]);
        assert_eq!(shape(Some(MIB), 100, 64 * MIB).unwrap(), [1310, 100]);
        assert_eq!(shape(Some(MIB), 1 << 20, 64 * MIB).unwrap(), [1, 1 << 20], "one row at least");
        assert!(shape(Some(MIB - 1), 100, 64 * MIB).is_err());
    }

    #[test]
    fn what_does_not_fit_twice_is_refused_in_words() {
        for (size, n_columns, room) in
            [(40 * MIB, 1024, 64 * MIB), (u64::MAX, 1, u64::MAX), (MIB, u32::MAX, MIB)]
        {
            let Err(Failure::Said(text)) = shape(Some(size), n_columns, room) else {
                panic!("{size} fits {room}")
            };
            assert!(text.contains("choose a smaller --size"), "{text}");
        }
    }
}
