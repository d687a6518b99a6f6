//! A thousand calls of every operation while somebody kills, stops and continues their workers, and
//! while their time runs out or they are cancelled: no wrong bit, no hang, nothing left behind, and
//! no innocent row poisoned.
//!
//! `ROWFORK_TEST_ROUNDS` makes it longer, `ROWFORK_TEST_SEED` another one.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges of rows, of which there may be one"
)]

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use ndarray::{Array1, Axis, Ix2};
use rowfork::{CancelToken, EarlyEnd, Error, Fork, Policy, Report, Row, RowMut, SharedArray, fork};

use crate::support::disturbance::{Disturbance, Random, Sent, disturbed_from_outside};
use crate::support::isolated::isolated_without_others;

/// None of our values.
const FILL: f64 = -1234.5;

/// No row takes a thousandth of it, so only who is stopped is overdue.
const STALL_LIMIT: Duration = Duration::from_millis(250);

/// What is left of a call that takes longer is a hang.
const HANG: Duration = Duration::from_secs(20);

const OPERATIONS: [&str; 11] = [
    "map_rows",
    "map_rows_into",
    "row_sums",
    "row_sums of integers",
    "transform_rows",
    "map_blocks",
    "run_tasks",
    "update_rows",
    "update_rows_with",
    "fold_rows",
    "fold_rows_array",
];

fn is_in(ranges: &[Range<usize>], row: usize) -> bool {
    ranges.iter().any(|rows| rows.contains(&row))
}

/// Slow on some rows: a call lasts long enough to be hit.
fn dawdle(row: usize, every: usize) {
    if row.is_multiple_of(every) {
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// What the kernels make of a row: depends on every bit of it and on its index.
fn digest(index: usize, row: impl IntoIterator<Item = f64>) -> f64 {
    row.into_iter().fold(index as f64 + 0.25, |sum, x| sum.mul_add(0.75, x.sqrt()))
}

fn add_up<'a>(sums: impl IntoIterator<Item = &'a mut f64>, row: impl IntoIterator<Item = f64>) {
    sums.into_iter().zip(row).for_each(|(sum, x)| *sum += x);
}

/// One call.
struct Call {
    seed: u64,
    round: u64,
    operation: &'static str,
    m: SharedArray<f64, Ix2>,
    every: usize,
    workers: usize,
    block_rows: Option<usize>,
    guard: bool,
    fills: bool,
    deadline: Option<Duration>,
    cancel_after: Option<Duration>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            round,
            operation,
            workers,
            block_rows,
            guard,
            fills,
            deadline,
            cancel_after,
            ..
        } = self;
        write!(
            f,
            "seed {seed}, round {round}: {operation} of {:?}, {workers} workers, \
             block_rows {block_rows:?}, \
             guard {guard}, fill {fills}, deadline {deadline:?}, cancelled after {cancel_after:?}",
            self.m.shape()
        )
    }
}

/// What came of all calls.
#[derive(Default)]
struct Tally {
    deaths: usize,
    rerun_rows: usize,
    early_ends: usize,
    missing_rows: usize,
    errors: usize,
    interrupted_updates: usize,
    longest: Duration,
}

impl Call {
    fn random(seed: u64, round: u64) -> Self {
        let mut random = Random(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ (round + 1).wrapping_mul(0xd134_2543_de82_ef95)
                | 1,
        );
        (0..10).for_each(|_| _ = random.below(2));
        let operation = random.pick(&OPERATIONS);
        let wide = operation.starts_with("row_sums")
            || operation.starts_with("update") && random.one_in(2);
        let (rows, columns) = if wide {
            (1 + random.count(600), 1 + random.count(2000))
        } else {
            (1 + random.count(200), 1 + random.count(6))
        };
        let m = SharedArray::from_shape_fn(None, (rows, columns), |(i, j)| {
            ((i * 31 + j * 7) % 1009) as f64 * 0.1
        })
        .unwrap();
        let limit = |random: &mut Random| Duration::from_micros(random.below(12_000));
        Self {
            seed,
            round,
            operation,
            m,
            every: 1 + random.count(8),
            workers: random.pick(&[1, 2, 3, 5]),
            block_rows: random.pick(&[None, None, Some(1), Some(10), Some(rows)]),
            guard: random.one_in(2),
            fills: !random.one_in(3),
            deadline: random.one_in(7).then(|| limit(&mut random)),
            cancel_after: random.one_in(7).then(|| limit(&mut random)),
        }
    }

    fn run(&self, tally: &mut Tally) {
        let token = CancelToken::new().unwrap();
        let mut options = fork().workers(self.workers).guard(self.guard).stall_limit(STALL_LIMIT);
        if let Some(block_rows) = self.block_rows {
            options = options.block_rows(block_rows);
        }
        if let Some(deadline) = self.deadline {
            options = options.deadline(deadline);
        }
        if self.fills {
            options = options.policy(Policy::fill(if self.operation.ends_with("integers") {
                -1234.0
            } else {
                FILL
            }));
        }
        let options = options.cancel_token(&token);
        let began = Instant::now();
        std::thread::scope(|scope| {
            if let Some(after) = self.cancel_after {
                let token = token.clone();
                scope.spawn(move || {
                    std::thread::sleep(after);
                    token.cancel();
                });
            }
            self.call(&options, tally);
        });
        tally.longest = tally.longest.max(began.elapsed());
        assert!(began.elapsed() < HANG, "{self}: {:?}", began.elapsed());
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each operation")]
    fn call(&self, options: &Fork<'_>, tally: &mut Tally) {
        let (m, every) = (&self.m, self.every);
        let slow = |row: &Row<'_, f64, ndarray::Ix1>| dawdle(row.index(), every);
        let kernel = |row: Row<'_, f64, ndarray::Ix1>| {
            slow(&row);
            digest(row.index(), row.iter().copied())
        };
        let digests = || -> Vec<f64> {
            m.view()
                .outer_iter()
                .enumerate()
                .map(|(index, row)| digest(index, row.iter().copied()))
                .collect()
        };
        match self.operation {
            "map_rows" => {
                let mapped = options.map_rows(m, kernel).map(rowfork::Output::into_parts);
                self.check(
                    tally,
                    mapped.map(|(out, report)| (out.view().to_vec(), report)),
                    digests(),
                    1,
                );
            }
            "map_rows_into" => {
                let mut out = SharedArray::<f64, _>::zeros(None, m.shape()[0]).unwrap();
                let mapped = options.map_rows_into(m, &mut out, kernel);
                self.check(tally, mapped.map(|report| (out.view().to_vec(), report)), digests(), 1);
            }
            "row_sums" => {
                let summed = options.row_sums(m).map(rowfork::Output::into_parts);
                let expected = m
                    .view()
                    .outer_iter()
                    .map(|row| rowfork::exact_sum(row.as_slice().unwrap()))
                    .collect();
                self.check(
                    tally,
                    summed.map(|(out, report)| (out.view().to_vec(), report)),
                    expected,
                    1,
                );
            }
            "row_sums of integers" => {
                let integer =
                    |i: usize, j: usize| i32::try_from((i * 31 + j * 7) % 1009).unwrap() - 500;
                let dim = (m.shape()[0], m.shape()[1]);
                let integers =
                    SharedArray::from_shape_fn(None, dim, |(i, j)| integer(i, j)).unwrap();
                let sum = |i| (0..dim.1).map(|j| f64::from(integer(i, j))).sum();
                let summed = options.row_sums(&integers).map(rowfork::Output::into_parts);
                let summed = summed.map(|(out, report)| {
                    let missing = report.missing_rows.clone();
                    let value = |(row, &x): (usize, &i64)| match (is_in(&missing, row), x) {
                        (true, -1234) => FILL,
                        (true, _) => panic!("{self}: row {row} is missing and holds {x}"),
                        (false, x) => x as f64,
                    };
                    (out.view().iter().enumerate().map(value).collect(), report)
                });
                self.check(tally, summed, (0..dim.0).map(sum).collect(), 1);
            }
            "transform_rows" => {
                let transformed = options.transform_rows(m, 2, |row, out| {
                    out[0] = row.index() as f64;
                    slow(&row);
                    out[1] = digest(row.index(), row.iter().copied());
                });
                let expected = digests()
                    .into_iter()
                    .enumerate()
                    .flat_map(|(row, x)| [row as f64, x])
                    .collect();
                let transformed = transformed.map(rowfork::Output::into_parts);
                self.check(
                    tally,
                    transformed.map(|(out, report)| (out.view().iter().copied().collect(), report)),
                    expected,
                    2,
                );
            }
            "map_blocks" => {
                let mapped = options.map_blocks(m, (), |block, out| {
                    for ((index, row), out) in
                        block.row_range().zip(block.axis_iter(Axis(0))).zip(out.iter_mut())
                    {
                        dawdle(index, every);
                        *out = digest(index, row.iter().copied());
                    }
                });
                let mapped = mapped.map(rowfork::Output::into_parts);
                self.check(
                    tally,
                    mapped.map(|(out, report)| (out.view().to_vec(), report)),
                    digests(),
                    1,
                );
            }
            "run_tasks" => {
                let view = m.view();
                let ran = options.run_tasks(m.shape()[0], |task| {
                    dawdle(task, every);
                    digest(task, view.row(task).iter().copied())
                });
                let ran = ran.map(rowfork::Output::into_parts);
                self.check(
                    tally,
                    ran.map(|(out, report)| (out.view().to_vec(), report)),
                    digests(),
                    1,
                );
            }
            "update_rows" => {
                let mut array = SharedArray::copy_from(None, &m.view()).unwrap();
                let updated =
                    options.update_rows(&mut array, |row: &mut RowMut<'_, f64, ndarray::Ix1>| {
                        let index = row.index();
                        let half = row.len() / 2;
                        row.iter_mut().take(half).for_each(|x| *x = x.mul_add(3.0, 1.0));
                        dawdle(index, every);
                        row.iter_mut().skip(half).for_each(|x| *x = x.mul_add(3.0, 1.0));
                    });
                let expected: Vec<f64> = m.view().iter().map(|x| x.mul_add(3.0, 1.0)).collect();
                self.check_update(tally, &array, updated, expected);
            }
            "update_rows_with" => {
                let mut array = SharedArray::copy_from(None, &m.view()).unwrap();
                let updated = options.update_rows_with(&mut array, m, |row, other| {
                    dawdle(row.index(), every);
                    row.zip_mut_with(&other, |x, y| *x = x.mul_add(2.0, y + 0.5));
                });
                let expected: Vec<f64> = m.view().iter().map(|x| x.mul_add(2.0, x + 0.5)).collect();
                self.check_update(tally, &array, updated, expected);
            }
            "fold_rows" => {
                let folded = options.fold_rows(
                    m,
                    0.0,
                    |sum, row| {
                        slow(&row);
                        *sum += digest(row.index(), row.iter().copied());
                    },
                    |sum, other| *sum += other,
                );
                let digests = digests();
                let expected = |missing: &[Range<usize>]| {
                    self.folded(
                        missing,
                        0.0,
                        |sum, row| *sum += digests[row],
                        |sum, other| *sum += other,
                    )
                };
                let folded = folded.map(rowfork::Output::into_parts);
                self.check_fold(
                    tally,
                    folded.map(|(sum, report)| (vec![sum], report)),
                    |missing| vec![expected(missing)],
                );
            }
            "fold_rows_array" => {
                let zeros = Array1::<f64>::zeros(m.shape()[1]);
                let folded = options.fold_rows_array(
                    m,
                    &zeros,
                    |sums, row| {
                        slow(&row);
                        add_up(sums.iter_mut(), row.iter().copied());
                    },
                    |sums, others| add_up(sums.iter_mut(), others.iter().copied()),
                );
                let fold = |sums: &mut Vec<f64>, row: usize| {
                    add_up(sums, m.view().row(row).iter().copied());
                };
                let expected = |missing: &[Range<usize>]| {
                    self.folded(missing, zeros.to_vec(), fold, |sums, others| {
                        add_up(sums, others.iter().copied());
                    })
                };
                let folded = folded.map(rowfork::Output::into_parts);
                self.check_fold(
                    tally,
                    folded.map(|(sums, report)| (sums.view().to_vec(), report)),
                    expected,
                );
            }
            other => panic!("{other}"),
        }
    }

    /// A fold by a plain loop, in the groups that are documented, without the rows that are
    /// missing.
    fn folded<T: Clone>(
        &self,
        missing: &[Range<usize>],
        identity: T,
        fold: impl Fn(&mut T, usize),
        combine: impl Fn(&mut T, &T),
    ) -> T {
        let n_rows = self.m.shape()[0];
        let rows: Vec<usize> = (0..n_rows).collect();
        let groups = rows.chunks(n_rows.div_ceil(64)).map(|group| {
            let mut accumulator = identity.clone();
            group
                .iter()
                .filter(|&&row| !is_in(missing, row))
                .for_each(|&row| fold(&mut accumulator, row));
            accumulator
        });
        groups
            .reduce(|mut whole, group| {
                combine(&mut whole, &group);
                whole
            })
            .unwrap()
    }

    /// The call has ended early, or it has no reason to be an error or to lack anything.
    fn check_end(&self, tally: &mut Tally, ended: &Result<&Report, &Error>) {
        match ended {
            Ok(report) => {
                assert!(
                    report.failed_rows.is_empty(),
                    "{self}: innocent rows were poisoned: {report}"
                );
                let may_be_early = match report.ended_early {
                    None => report.missing_rows.is_empty(),
                    Some(EarlyEnd::Deadline) => self.fills && self.deadline.is_some(),
                    Some(EarlyEnd::Cancelled) => self.fills && self.cancel_after.is_some(),
                    Some(other) => panic!("{self}: {other:?}"),
                };
                assert!(may_be_early, "{self}: {report}");
                tally.deaths += report.deaths.len();
                tally.rerun_rows += report.rerun_rows;
                tally.early_ends += usize::from(report.ended_early.is_some());
                tally.missing_rows += report.missing_rows.iter().map(Range::len).sum::<usize>();
            }
            Err(error) => {
                let source = if let Error::UpdateInterrupted { cause: source, .. } = error {
                    source
                } else {
                    *error
                };
                let may_be = match source {
                    Error::DeadlineExceeded { .. } => !self.fills && self.deadline.is_some(),
                    Error::Cancelled { .. } => !self.fills && self.cancel_after.is_some(),
                    _ => false,
                };
                assert!(may_be, "{self}: {error}");
                tally.errors += 1;
                tally.interrupted_updates +=
                    usize::from(matches!(error, Error::UpdateInterrupted { .. }));
            }
        }
    }

    /// Rows that are not missing are right, the others hold the fill value.
    fn check(
        &self,
        tally: &mut Tally,
        ended: rowfork::Result<(Vec<f64>, Report)>,
        expected: Vec<f64>,
        width: usize,
    ) {
        self.check_end(tally, &ended.as_ref().map(|(_, report)| report));
        let Ok((values, report)) = ended else { return };
        assert_eq!(values.len(), expected.len(), "{self}");
        for (at, (x, right)) in values.iter().zip(expected).enumerate() {
            let row = at / width;
            let right = if is_in(&report.missing_rows, row) { FILL } else { right };
            assert_eq!(
                x.to_bits(),
                right.to_bits(),
                "{self}: row {row}: {x}, not {right}: {report}"
            );
        }
    }

    /// The same in place; and after an error every row is what it says.
    fn check_update(
        &self,
        tally: &mut Tally,
        array: &SharedArray<f64, Ix2>,
        ended: rowfork::Result<Report>,
        expected: Vec<f64>,
    ) {
        let values: Vec<f64> = array.view().iter().copied().collect();
        let width = array.shape()[1];
        let error = match ended {
            // What was not run is as it was; nothing fails here.
            Ok(report) => {
                let old = self.m.view();
                let right = |(at, new): (usize, &f64)| {
                    if is_in(&report.missing_rows, at / width) {
                        old[[at / width, at % width]]
                    } else {
                        *new
                    }
                };
                let expected: Vec<f64> = expected.iter().enumerate().map(right).collect();
                self.check_end(tally, &Ok(&report));
                assert!(
                    values.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits()),
                    "{self}: {report}"
                );
                return;
            }
            Err(error) => error,
        };
        self.check_end(tally, &Err(&error));
        let updated = match &error {
            Error::UpdateInterrupted { updated, torn, .. } => {
                assert!(torn.is_empty(), "{self}: {error}");
                updated.clone()
            }
            _ => Vec::new(),
        };
        for (at, ((x, old), new)) in values.iter().zip(self.m.view()).zip(expected).enumerate() {
            let right = if is_in(&updated, at / width) { new } else { *old };
            assert_eq!(x.to_bits(), right.to_bits(), "{self}: row {}: {error}", at / width);
        }
    }

    fn check_fold(
        &self,
        tally: &mut Tally,
        ended: rowfork::Result<(Vec<f64>, Report)>,
        expected: impl Fn(&[Range<usize>]) -> Vec<f64>,
    ) {
        self.check_end(tally, &ended.as_ref().map(|(_, report)| report));
        let Ok((values, report)) = ended else { return };
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&expected(&report.missing_rows)), "{self}: {report}");
    }
}

fn from_environment(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn a_thousand_calls_under_kills_stops_and_limits_are_right() {
    isolated_without_others(|| {
        let rounds = from_environment("ROWFORK_TEST_ROUNDS").unwrap_or(1000);
        let seed =
            from_environment("ROWFORK_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        // Shared ones: stacks of threads that are gone are kept for others.
        let n_mappings = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines()
                .filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.ends_with('s')))
                .count()
        };
        Call::random(seed, 0).run(&mut Tally::default());
        let before = n_mappings();
        let harm = Disturbance {
            pause: (Duration::from_millis(1), Duration::from_millis(12)),
            stop_one_in: 4,
        };
        let began = Instant::now();
        let (tally, Sent { kills, stops, continues }) = disturbed_from_outside(harm, seed, || {
            let mut tally = Tally::default();
            (0..rounds).for_each(|round| Call::random(seed, round).run(&mut tally));
            tally
        });
        let Tally {
            deaths,
            rerun_rows,
            early_ends,
            missing_rows,
            errors,
            interrupted_updates,
            longest,
        } = tally;
        println!(
            "FIGURE {rounds} calls in {:.1} s, the longest {longest:?} (seed {seed}): {kills} \
             kills, \
             {stops} stops and {continues} continues sent; {deaths} deaths seen, {rerun_rows} rows \
             re-run, {early_ends} early ends with {missing_rows} rows missing, {errors} errors of \
             time, {interrupted_updates} of them interrupted updates",
            began.elapsed().as_secs_f64()
        );
        assert_eq!(n_mappings(), before, "shared mappings");
        assert!(deaths as u64 >= rounds / 20 && kills > 0 && stops > 0, "the test did not disturb");
    });
}
