//! What protection costs, and what a death costs. Prints, asserts no times:
//! `cargo measure figures_faults` on a quiet machine.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use ndarray::{Array1, Zip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowfork::{Fork, SharedArray, fork};

use crate::support::isolated;
use crate::support::timing::{COLUMNS, abba, mib, seconds, small_or_huge};

fn with(guard: bool) -> Fork<'static> {
    fork().workers(2).guard(guard)
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn a_guarded_call_against_one_without() {
    let (_pages, m) = small_or_huge(true, mib());
    println!("{} MiB of {COLUMNS} columns, {:?}", m.len() >> 17, m.pages().unwrap());
    let values = RefCell::new(SharedArray::<f64, _>::zeros(None, m.n_rows()).unwrap());
    let map = |guard| {
        with(guard).map_rows_into(&m, &mut values.borrow_mut(), |row| row.sum()).unwrap();
    };
    map(false);
    let expected = values.borrow().to_owned();
    map(true);
    assert_eq!(values.borrow().view(), expected);
    abba("map_rows, rate of guarded to not", &mut || map(false), &mut || map(true));

    let fold = |guard| {
        with(guard)
            .fold_rows_array(
                &m,
                &Array1::zeros(COLUMNS),
                |sums, row| *sums += &row,
                |sums, others| *sums += others,
            )
            .unwrap();
    };
    abba("fold_rows_array, rate of guarded to not", &mut || fold(false), &mut || fold(true));

    let rows = RefCell::new(SharedArray::<f64, _>::zeros(None, (m.n_rows(), COLUMNS)).unwrap());
    let transform = |guard| {
        let mut rows = rows.borrow_mut();
        let outcome = with(guard).transform_rows_into(&m, COLUMNS, &mut rows, |row, out| {
            Zip::from(out).and(&row).for_each(|out, &x| *out = 2.0 * x + 1.0);
        });
        outcome.unwrap();
    };
    abba("transform_rows, rate of guarded to not", &mut || transform(false), &mut || {
        transform(true);
    });

    let blocks = |guard| {
        let mut rows = rows.borrow_mut();
        let outcome = with(guard).map_blocks_into(&m, COLUMNS, &mut rows, |block, out| {
            Zip::from(out).and(&*block).for_each(|out, &x| *out = 2.0 * x + 1.0);
        });
        outcome.unwrap();
    };
    abba("map_blocks, rate of guarded to not", &mut || blocks(false), &mut || blocks(true));

    let update = |guard| {
        with(guard)
            .update_rows(&mut rows.borrow_mut(), |row| row.mapv_inplace(|x| 0.5 * x + 1.0))
            .unwrap();
    };
    abba("update_rows, rate of guarded to not", &mut || update(false), &mut || update(true));
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn a_call_whose_worker_is_killed_against_one_undisturbed() {
    let (_pages, m) = small_or_huge(true, mib());
    let sums = RefCell::new(SharedArray::<f64, _>::zeros(None, m.n_rows()).unwrap());
    let undisturbed = || {
        fork().workers(2).row_sums_into(&m, &mut sums.borrow_mut()).unwrap();
    };
    undisturbed();
    let expected = sums.borrow().to_owned();
    let half = Duration::from_secs_f64(
        (0..5).map(|_| seconds(&mut &undisturbed)).fold(f64::MAX, f64::min) / 2.0,
    );
    let hits = Cell::new(0);
    let killed = || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(half);
                if let Some(&worker) = isolated::children().first() {
                    let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
                }
            });
            let report = fork().workers(2).row_sums_into(&m, &mut sums.borrow_mut()).unwrap();
            hits.set(hits.get() + report.deaths.len());
        });
    };
    abba(
        "row_sums, rate with a worker killed half-way to undisturbed",
        &mut &undisturbed,
        &mut &killed,
    );
    assert_eq!(sums.borrow().view(), expected);
    println!("{} workers killed", hits.get());
}
