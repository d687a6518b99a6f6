//! An update in place whose workers are killed at any instant, from outside, ends as if
//! undisturbed; and where it ends with an error, every row is what the error says. Every time is
//! random: that of the kill, and so what the worker was at: saving rows, changing them, publishing
//! them.

use std::time::Duration;

use ndarray::{Ix1, Ix2};
use rowfork::{Error, Report, RowMut, SharedArray, fork};

use crate::support::disturbance::{Disturbance, Random, disturbed_from_outside};
use crate::support::isolated::isolated;

/// 4 MB; a row is 2 KiB, of which 16 are saved at a time.
const N_ROWS: usize = 2000;
const N_COLUMNS: usize = 256;

const HARM: Disturbance =
    Disturbance { pause: (Duration::from_micros(200), Duration::from_millis(3)), stop_one_in: 0 };

fn old(row: usize, column: usize) -> f64 {
    (row * 31 + column * 7) as f64 * 0.1
}

/// Not what comes of updating twice.
fn new(x: f64) -> f64 {
    x.mul_add(3.0, 1.0)
}

/// Puts every row back to what it was.
fn renew(m: &mut SharedArray<f64, Ix2>) {
    m.view_mut().indexed_iter_mut().for_each(|((row, column), x)| *x = old(row, column));
}

fn update(
    m: &mut SharedArray<f64, Ix2>,
    round: usize,
    failing: impl Fn(usize) -> bool,
) -> rowfork::Result<Report> {
    let block_rows = [25, 100, N_ROWS][round / 6 % 3];
    let options =
        fork().workers(1 + round % 3).guard(round.is_multiple_of(2)).block_rows(block_rows);
    options.update_rows(m, |row: &mut RowMut<'_, f64, Ix1>| {
        let half = row.len() / 2;
        row.iter_mut().take(half).for_each(|x| *x = new(*x));
        if failing(row.index()) {
            return Err("no data");
        }
        row.iter_mut().skip(half).for_each(|x| *x = new(*x));
        Ok(())
    })
}

/// Whether all elements of a row are what it was, or what it is to be.
fn row_is(m: &SharedArray<f64, Ix2>, row: usize, is_new: bool) -> bool {
    let right = |column| if is_new { new(old(row, column)) } else { old(row, column) };
    m.view().row(row).iter().enumerate().all(|(column, x)| x.to_bits() == right(column).to_bits())
}

#[test]
fn an_update_whose_workers_are_killed_is_as_if_undisturbed() {
    isolated(|| {
        let mut m =
            SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), |(i, j)| old(i, j)).unwrap();
        let ((deaths, disturbed), sent) =
            disturbed_from_outside(HARM, u64::from(std::process::id()), || {
                let (mut deaths, mut disturbed) = (0, 0);
                for round in 0..300 {
                    renew(&mut m);
                    let report = update(&mut m, round, |_| false)
                        .unwrap_or_else(|error| panic!("round {round}: {error}"));
                    let wrong = (0..N_ROWS).find(|&row| !row_is(&m, row, true));
                    assert_eq!(wrong, None, "round {round}: {report}");
                    deaths += report.deaths.len();
                    disturbed += usize::from(report.rerun_rows > 0);
                }
                (deaths, disturbed)
            });
        println!(
            "FIGURE {} kills sent, {deaths} deaths seen; {disturbed} of 300 updates ran rows again",
            sent.kills
        );
        assert!(
            disturbed >= 30,
            "only {disturbed} updates lost a worker in a block: the test did not disturb"
        );
    });
}

#[test]
fn an_update_that_fails_among_kills_says_what_every_row_is() {
    isolated(|| {
        let mut m =
            SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), |(i, j)| old(i, j)).unwrap();
        let mut random = Random(u64::from(std::process::id()) | 1);
        let (interrupted, sent) =
            disturbed_from_outside(HARM, u64::from(std::process::id()), || {
                let mut interrupted = 0;
                for round in 0..200 {
                    renew(&mut m);
                    let failing = [random.count(N_ROWS), random.count(N_ROWS)];
                    let lowest = failing[0].min(failing[1]);
                    let error = update(&mut m, round, |row| failing.contains(&row)).unwrap_err();
                    let what = format!("round {round}, rows {failing:?} fail: {error}");
                    let (source, updated) = match error {
                        Error::UpdateInterrupted { cause: source, updated, torn, .. } => {
                            assert!(torn.is_empty(), "{what}");
                            interrupted += 1;
                            (*source, updated)
                        }
                        plain => (plain, Vec::new()),
                    };
                    assert!(
                        matches!(source, Error::KernelFailed { row, .. } if row == lowest),
                        "{what}"
                    );
                    for row in 0..N_ROWS {
                        let is_new = updated.iter().any(|rows| rows.contains(&row));
                        assert!(
                            row_is(&m, row, is_new),
                            "row {row} is not {}, {what}",
                            if is_new { "new" } else { "old" }
                        );
                    }
                }
                interrupted
            });
        println!(
            "FIGURE {} kills sent, {interrupted} of 200 failed updates had touched rows",
            sent.kills
        );
        assert!(interrupted >= 100, "{interrupted}");
    });
}
