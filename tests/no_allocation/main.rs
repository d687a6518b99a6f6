//! From the fork to its end a worker allocates and frees nothing but what the kernel itself does:
//! the allocator's locks, and whatever a host's own allocator does besides, are nothing to
//! rowfork's code there. Every allocation of this program is counted.
#![allow(unsafe_code, reason = "a counting allocator")]

#[path = "../support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use ndarray::{Array1, ArrayView1, ArrayViewMut1, Ix1, Ix2, Slice, array, s};
use rowfork::{Bool, Error, Fork, Pool, Row, SharedArray, broadcast, fork, param};

use support::isolated::isolated;
use support::shared::SharedWord;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

/// The process whose children are counted; 0 while nothing is.
static PARENT: AtomicU32 = AtomicU32::new(0);
/// What this worker has allocated and freed since it was forked: the parent, whose copy it begins
/// with, does not count.
static OWN: AtomicU64 = AtomicU64::new(0);
/// What all workers have, in memory that they share with the parent.
static ALL: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    /// While an allocation is being reported, which allocates.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

fn count(what: &str) {
    let parent = PARENT.load(Ordering::Relaxed);
    if parent == 0 || std::process::id() == parent || REPORTING.get() {
        return;
    }
    OWN.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a word that stays mapped until PARENT is 0 again.
    let all = unsafe { ALL.load(Ordering::Relaxed).as_ref() }.expect("set before PARENT");
    if all.fetch_add(1, Ordering::Relaxed) < 3 {
        REPORTING.set(true);
        let place = std::backtrace::Backtrace::force_capture();
        let _ = writeln!(std::io::stderr(), "a worker {what}:\n{place}");
        drop(place);
        REPORTING.set(false);
    }
}

// SAFETY: all of it is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count("allocates");
        // SAFETY: as our caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count("allocates zeros");
        // SAFETY: as our caller vouches.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count("reallocates");
        // SAFETY: as our caller vouches.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count("frees");
        // SAFETY: as our caller vouches.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// Allocations of this worker so far.
fn own() -> u64 {
    OWN.load(Ordering::Relaxed)
}

/// Runs a call, and returns what it gives with how often its workers went to the allocator from
/// first to last.
fn counted<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let all = SharedWord::new();
    ALL.store(std::ptr::from_ref(&*all).cast_mut(), Ordering::Relaxed);
    PARENT.store(std::process::id(), Ordering::Relaxed);
    let value = call();
    PARENT.store(0, Ordering::Relaxed);
    (value, all.load(Ordering::Relaxed))
}

fn matrix() -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (1000, 12), |(i, j)| (i + j) as f64).unwrap()
}

/// Several workers, many blocks, and the reading of /proc at the end.
fn three<'a>() -> Fork<'a> {
    fork().workers(3).block_rows(10).measure_memory(true)
}

#[test]
fn an_allocation_of_a_kernel_is_seen() {
    isolated(|| {
        let m = matrix();
        let (counts, all) = counted(|| {
            three()
                .map_rows(&m, |row| {
                    if row.index() == 500 {
                        drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
                    }
                    own()
                })
                .unwrap()
        });
        assert_eq!((*counts.view().iter().max().unwrap(), all), (2, 2), "one made, one freed");
    });
}

#[test]
fn map_rows_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let (counts, all) =
            counted(|| three().map_rows(&m, |row| own() + u64::from(row.sum() < 0.0)).unwrap());
        assert_eq!((counts.view().sum(), all), (0, 0));
    });
}

#[test]
fn map_rows_of_several_inputs_and_columns_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let small = SharedArray::from_shape_fn(None, (1000, 3), |(_, j)| [7_u8, 8, 9][j]).unwrap();
        let numbers = SharedArray::from_shape_fn(None, 1000, |i| i as f32).unwrap();
        let (counts, all) = counted(|| {
            let columns = m.columns(Slice::new(1, None, 3)).unwrap();
            let inputs = (columns, &small, &numbers);
            three()
                .map_rows(inputs, |(_, _, number)| own() + u64::from(number.value() < 0.0))
                .unwrap()
        });
        assert_eq!((counts.view().sum(), all), (0, 0));
    });
}

#[test]
fn transform_rows_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let (counts, all) =
            counted(|| three().transform_rows(&m, 2, |_, out| out.fill(own())).unwrap());
        assert_eq!((counts.view().sum(), all), (0, 0));
    });
}

#[test]
fn map_blocks_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let (counts, all) =
            counted(|| three().map_blocks(&m, 2, |_, out| out.fill(own())).unwrap());
        assert_eq!((counts.view().sum(), all), (0, 0));
    });
}

#[test]
fn row_sums_of_any_elements_and_strides_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let wide = SharedArray::from_shape_fn(None, (300, 5000), |(i, j)| {
            1e300 / (1 + i * j) as f64 - 1e16
        })
        .unwrap();
        let single = SharedArray::from_shape_fn(None, (300, 100), |(i, j)| (i * j) as f32).unwrap();
        let bytes =
            SharedArray::from_shape_fn(
                None,
                (300, 100),
                |(i, _)| if i % 2 == 0 { 250_u8 } else { 3 },
            )
            .unwrap();
        let flags =
            SharedArray::from_shape_fn(None, (300, 100), |(i, j)| Bool::from(i > j)).unwrap();
        let every_third = |n_columns| Slice::new(0, Some(n_columns), 3);
        let counts = [
            counted(|| drop(three().row_sums(&m).unwrap())).1,
            counted(|| drop(three().row_sums(&wide).unwrap())).1,
            counted(|| drop(three().row_sums(&single).unwrap())).1,
            counted(|| drop(three().row_sums(&bytes).unwrap())).1,
            counted(|| drop(three().row_sums(&flags).unwrap())).1,
            counted(|| drop(three().row_sums(m.columns(every_third(12)).unwrap()).unwrap())).1,
            counted(|| drop(three().row_sums(wide.columns(every_third(5000)).unwrap()).unwrap())).1,
            counted(|| drop(three().row_sums(single.columns(every_third(100)).unwrap()).unwrap()))
                .1,
            counted(|| drop(three().row_sums(bytes.columns(every_third(100)).unwrap()).unwrap())).1,
        ];
        assert_eq!(counts, [0; 9]);
    });
}

#[test]
fn means_dots_and_plain_sums_of_any_strides_allocate_nothing() {
    isolated(|| {
        let small = matrix();
        let wide = SharedArray::from_shape_fn(None, (300, 5000), |(i, j)| {
            1e300 / (1 + i * j) as f64 - 1e16
        })
        .unwrap();
        for m in [&small, &wide] {
            let every_third = m.columns(Slice::new(0, None, 3)).unwrap();
            let vector = Array1::from_shape_fn(m.view().ncols(), |j| 1.0 / (j + 1) as f64);
            // Every third element, too: it is copied before there is a worker.
            let thirds = vector.slice(s![..;3]);
            let counts = [
                counted(|| drop(three().row_means(m).unwrap())).1,
                counted(|| drop(three().row_dot(m, &vector).unwrap())).1,
                counted(|| drop(three().row_weighted_means(m, &vector).unwrap())).1,
                counted(|| drop(three().row_sums_fast(m).unwrap())).1,
                counted(|| drop(three().row_means(every_third).unwrap())).1,
                counted(|| drop(three().row_dot(every_third, thirds).unwrap())).1,
                counted(|| drop(three().row_weighted_means(every_third, thirds).unwrap())).1,
                counted(|| drop(three().row_sums_fast(every_third).unwrap())).1,
            ];
            assert_eq!(counts, [0; 8], "{:?}", m.shape());
        }
    });
}

#[test]
fn update_rows_allocates_nothing() {
    isolated(|| {
        let mut m = SharedArray::<u64, _>::zeros(None, (1000, 12)).unwrap();
        let numbers = SharedArray::from_shape_fn(None, 1000, |i| i as u64).unwrap();
        let (_, all) = counted(|| three().update_rows(&mut m, |row| row[0] = own()).unwrap());
        assert_eq!((m.view().sum(), all), (0, 0));
        let (_, all) = counted(|| {
            three().update_rows_with(&mut m, &numbers, |row, _| row[0] = own()).unwrap()
        });
        assert_eq!((m.view().sum(), all), (0, 0));
    });
}

#[test]
fn fold_rows_allocates_nothing() {
    isolated(|| {
        let m = matrix();
        let (sum, all) = counted(|| {
            let combine = |sum: &mut [u64; 2], other: &[u64; 2]| sum[1] += other[0] + own();
            three().fold_rows(&m, [0; 2], |sum, _| sum[0] += own(), combine).unwrap()
        });
        assert_eq!((*sum, all), ([0; 2], 0));
        let (_, all) = counted(|| {
            let add =
                |sums: &mut ArrayViewMut1<'_, f64>, others: &ArrayView1<'_, f64>| *sums += others;
            three().fold_rows_array(&m, &Array1::zeros(12), |sums, row| *sums += &row, add).unwrap()
        });
        assert_eq!(all, 0);
    });
}

#[test]
fn run_tasks_allocates_nothing() {
    isolated(|| {
        let (counts, all) = counted(|| three().run_tasks(1000, |_| own()).unwrap());
        assert_eq!((counts.view().sum(), all), (0, 0));
    });
}

#[test]
fn the_zygote_and_the_workers_of_a_pool_allocate_nothing() {
    isolated(|| {
        let m = matrix();
        let mut updated = SharedArray::<u64, _>::zeros(None, (1000, 12)).unwrap();
        let (failed, all) = counted(|| {
            // Made while it counts: before, its workers would not know.
            let pool = Pool::builder().workers(3).inline_below(0).build().unwrap();
            for _ in 0..3 {
                pool.row_sums(&m).unwrap();
                pool.row_dot(&m, &Array1::ones(12)).unwrap();
                pool.map_rows((&m, param(0.5), broadcast(&m)), |(row, scale, all)| {
                    scale * (row.sum() + all[[1, 1]])
                })
                .unwrap();
                pool.transform_rows(&m, 2, |_, out| out.fill(1.0)).unwrap();
                pool.map_blocks(&m, 2, |_, out| out.fill(1.0)).unwrap();
                pool.call()
                    .measure_memory(true)
                    .update_rows(&mut updated, |row| row[0] += 1)
                    .unwrap();
                pool.fold_rows(&m, 0.0, |sum, row| *sum += row.sum(), |sum, other| *sum += other)
                    .unwrap();
                pool.run_tasks(1000, |task| task as f64).unwrap();
            }
            pool.map_rows(&m, |row| if row.index() == 300 { Err("no") } else { Ok(own() as f64) })
        });
        assert!(matches!(failed.unwrap_err(), Error::KernelFailed { row: 300, .. }));
        assert_eq!(all, 0);
    });
}

#[test]
fn an_allocation_of_a_kernel_of_a_pool_is_seen() {
    isolated(|| {
        let (counts, all) = counted(|| {
            let pool = Pool::builder().workers(3).build().unwrap();
            pool.run_tasks(1000, |task| {
                if task == 500 {
                    drop(std::hint::black_box(Vec::<u8>::with_capacity(100)));
                }
                own()
            })
            .unwrap()
        });
        assert_eq!((*counts.view().iter().max().unwrap(), all), (2, 2), "one made, one freed");
    });
}

#[test]
fn a_kernel_that_fails_is_reported_without_an_allocation() {
    isolated(|| {
        let m = matrix();
        let kernel = |row: Row<'_, f64, Ix1>| if row.index() == 300 { Err("no") } else { Ok(0.0) };
        let (outcome, all) = counted(|| three().map_rows(&m, kernel));
        assert!(matches!(outcome.unwrap_err(), Error::KernelFailed { row: 300, .. }));
        assert_eq!(all, 0);
    });
}

#[test]
fn a_sum_that_does_not_fit_is_reported_without_an_allocation() {
    isolated(|| {
        let m = SharedArray::copy_from(None, &array![[1_i64, 2], [i64::MAX, 1]]).unwrap();
        let (outcome, all) = counted(|| three().row_sums(&m));
        assert!(matches!(outcome.unwrap_err(), Error::SumOverflow { row: 1, .. }));
        assert_eq!(all, 0);
    });
}
