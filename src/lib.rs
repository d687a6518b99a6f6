//! rowfork places an ndarray in a shared-memory segment, forks workers over its rows, and lets them
//! write into a shared output without copying anything: threads' speed, processes' isolation.
//!
//! - [`SharedArray`] is an ndarray that lives in a segment: a `.npy` file under `/dev/shm`, which
//!   NumPy maps as it is. It has any number of dimensions and any [element type](#element-types); a
//!   row is index `i` of axis 0, so that a row of an n x height x width stack is an image.
//! - [`fork()`] makes calls whose workers live for that one call. The functions that they run,
//!   called kernels, are closures and may capture anything.
//! - [`Pool`] makes calls on workers that are there already, in microseconds. Its kernels capture
//!   nothing: what they need goes with the rows, as [`param`] and [`broadcast`].
//! - [`Executor`] is what both have in common: the operations, and the options of a call.
//! - [`Output`] is a result with its [`Report`]; [`Error`] is everything that can go wrong, by name
//!   and number.
//! - [`segment`] lists, removes and sweeps segments; from a shell, the command `rowfork` does
//!   (feature `cli`).
//! - The arithmetic of the built-in operations can be used without workers: [`exact_sum`],
//!   [`exact_row_sums`], [`exact_mean`], [`exact_dot`], [`exact_weighted_mean`], [`fast_sum`].
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (1000, 16), |(i, j)| (i + j) as f64 / 10.0)?;
//!
//! // The correctly rounded sum of each row: the same bits for any number of workers.
//! let sums = rowfork::fork().row_sums(&m)?;
//! assert_eq!(sums.view()[0], 12.0);
//!
//! // Any function of a row, with captures; a kernel may return a Result.
//! let limit = 100.0;
//! let rest = rowfork::fork().workers(4).map_rows(&m, |row| {
//!     let sum = row.sum();
//!     if sum.is_finite() { Ok(limit - sum) } else { Err("not a number") }
//! })?;
//! println!("{}", rest.report());
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! # Which operation for which job
//!
//! | operation | you have | you get | use it for |
//! |---|---|---|---|
//! | [`map_rows`](Executor::map_rows) | rows | a value per row | norms, scores, tests, a model's prediction |
//! | [`row_sums`](Executor::row_sums) | rows | the exact sum of each | totals and means that must not depend on the machine; counting `true` |
//! | [`row_means`](Executor::row_means), [`row_weighted_means`](Executor::row_weighted_means) | rows of `f64` (and weights) | the exact mean of each | averages, scores, indices that must not depend on the machine |
//! | [`row_dot`](Executor::row_dot) | rows of `f64` and a vector | their exact dot product | matrix times vector, portfolios, linear models |
//! | [`row_sums_fast`](Executor::row_sums_fast) | rows of `f64` | the plain sum of each, in a fixed order | sums where rounding does not matter |
//! | [`transform_rows`](Executor::transform_rows) | rows | a row per row, of any shape and type | softmax, ranks, moving windows, thumbnails, several values per row |
//! | [`map_blocks`](Executor::map_blocks) | rows | the same, for many rows at once | matrix products, ndarray's operations along an axis |
//! | [`update_rows`](Executor::update_rows) | an array of your own | the array, changed in place | clipping, scaling, filling, when there is no room for a second array |
//! | [`update_rows_with`](Executor::update_rows_with) | the same, and rows of other arrays | the same | `y += a * x`, dividing rows by their totals |
//! | [`fold_rows`](Executor::fold_rows) | rows | one value | least and largest, counts, the best row |
//! | [`fold_rows_array`](Executor::fold_rows_array) | rows | one array | column sums and means, histograms, X<sup>T</sup>X |
//! | [`run_tasks`](Executor::run_tasks) | a number of tasks | a value per task | simulations, files to read, parameters to try |
//!
//! Each has a form that ends in `_into`, which fills an array that is there already (one with a
//! name, or that of the last call); `update_rows` needs none. Where the table says rows, the input
//! is any of [`Rows`]: an array, [a part of one](#some-rows-some-columns), or [several
//! together](#several-inputs). Recipes for what is not in the table (ranks, z-scores, medians,
//! correlations, masks) are in `docs/COOKBOOK.md`, and the programs in `examples/` are there to be
//! changed.
//!
//! | in Python | here |
//! |---|---|
//! | `shared_memory.SharedMemory` and `np.ndarray(..., buffer=shm.buf)` | [`SharedArray`]: memory and array in one |
//! | `np.load(path, mmap_mode="r")` | [`SharedArray::map_npy_file`]: a file is an input where it lies |
//! | `np.lib.format.open_memmap(path, mode="w+", ...)` | [`NpyDraft`]: an output is a file from the start, and has its name when it is whole |
//! | `Pool(4).map(f, m)`, `np.apply_along_axis(f, 1, m)` | `fork().workers(4)` and [`map_rows`](Executor::map_rows) or [`transform_rows`](Executor::transform_rows) |
//! | `Pool(4).map(f, range(n))`, joblib's `Parallel` | [`run_tasks`](Executor::run_tasks) |
//! | `starmap` over `zip(a, b)` | [several inputs](#several-inputs) |
//! | `m.sum(axis=1)` | [`row_sums`](Executor::row_sums), exact; [`row_sums_fast`](Executor::row_sums_fast), rounded at every addition as there |
//! | `m.mean(axis=1)` | [`row_means`](Executor::row_means) |
//! | `m @ v` | [`row_dot`](Executor::row_dot); `m @ n`: [`map_blocks`](#map_blocks-many-rows-at-once) |
//! | `np.average(m, axis=1, weights=w)` | [`row_weighted_means`](Executor::row_weighted_means) |
//! | `math.fsum(x)`; `[math.fsum(row) for row in m]` | [`exact_sum`]; [`row_sums`](Executor::row_sums) |
//! | `functools.reduce` over the results | [`fold_rows`](Executor::fold_rows) |
//! | `initializer=`, `global` tables, arguments that are pickled | captures: a forked worker has what the closure has; in a [`Pool`] [`PoolBuilder::init`], [`broadcast`], [`param`] |
//! | `with Pool(4) as pool:` around many calls | [`Pool`], which is dropped in the end |
//! | `maxtasksperchild=` | [`PoolBuilder::calls_per_worker`] |
//! | an exception in a worker | an [`Error`] that names the row |
//! | `BrokenProcessPool`, a pool that waits for ever for a worker that died | nothing: its rows are [run again](#when-rows-go-wrong) |
//! | `result.get(timeout=60)`, joblib's `timeout=` | [`deadline`](Executor::deadline), which ends the workers, too; [`stall_limit`](Executor::stall_limit) for a row |
//! | `return_exceptions=True` | [`Policy::fill`] and [`Output::missing_rows`] |
//! | `pool.terminate()`, ^C | [`CancelToken`]; [`check_interrupt`](Executor::check_interrupt) |
//!
//! ## `map_rows`: a value per row
//! The kernel gets a [`Row`], an ndarray view that knows its [`index`](Row::index). What it returns
//! is the element type of the result.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i * j) as f64)?;
//! let weights: Vec<f64> = (0..100).map(f64::from).collect();
//!
//! let scores = rowfork::fork().map_rows(&m, |row| weights[row.index()] * row.dot(&row).sqrt())?;
//! assert_eq!(scores.shape(), [100]);
//! assert_eq!(scores.view()[2], 2.0 * 20f64.sqrt());
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `row_sums`: exact sums
//! The number nearest the true sum, whatever is added to what; integers are summed as `i64` or
//! `u64`, and what does not fit is an error ([`Summand`]).
//!
//! ```
//! use ndarray::array;
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::copy_from(None, &array![[1e16, 1.0, -1e16], [0.1, 0.2, 0.3]])?;
//! assert_eq!(rowfork::fork().row_sums(&m)?.as_slice(), [1.0, 0.6]);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `transform_rows`: a row per row
//! Say how wide the rows of the output are (or what shape they have), and write to the one that the
//! kernel is given. Its element type follows from what is written.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
//! let shares = rowfork::fork().transform_rows(&m, 3, |row, out| {
//!     let total = row.sum();
//!     for (share, x) in out.iter_mut().zip(row) {
//!         *share = (x / total) as f32;
//!     }
//! })?;
//! assert_eq!(shares.view()[[1, 2]], 0.5);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `map_blocks`: many rows at once
//! The kernel gets a [`Block`] of rows on end, as a view of as many dimensions as the array, and
//! the block of the output to fill.
//!
//! ```
//! use ndarray::array;
//! use rowfork::SharedArray;
//!
//! let points = SharedArray::from_shape_fn(None, (1000, 2), |(i, j)| (i * (j + 1)) as f64)?;
//! let quarter_turn = array![[0.0, 1.0], [-1.0, 0.0]];
//! let turned = rowfork::fork().map_blocks(&points, 2, |block, out| out.assign(&block.dot(&quarter_turn)))?;
//! assert_eq!(turned.view().row(7), array![-14.0, 7.0]);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `update_rows`: in place
//! The kernel gets a [`RowMut`]. Rows are saved before they are changed: what a worker that dies
//! has left half changed is put back and run again. If the call fails, the error says which rows
//! are new, and all others are untouched.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let mut m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f32)?;
//! let report = rowfork::fork().update_rows(&mut m, |row| {
//!     row.mapv_inplace(|x| x.min(50.0));
//!     *row /= 50.0;
//! })?;
//! assert_eq!((m.view()[[25, 0]], m.view()[[99, 2]], report.rows), (0.5, 1.0, 100));
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `fold_rows`: one value
//! What an accumulator begins with, how a row enters it, how one accumulator enters another. It is
//! any plain data ([`Pod`](bytemuck::Pod)). The result has the same bits for any number of workers.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| i as f64 - (10 * j) as f64)?;
//! let least_and_largest = rowfork::fork().fold_rows(
//!     &m,
//!     [f64::INFINITY, f64::NEG_INFINITY],
//!     |range, row| *range = row.fold(*range, |[least, largest], &x| [least.min(x), largest.max(x)]),
//!     |range, other| *range = [range[0].min(other[0]), range[1].max(other[1])],
//! )?;
//! assert_eq!(*least_and_largest, [-20.0, 99.0]);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `fold_rows_array`: one array
//! The same with accumulators that are arrays, of the shape of the one to begin with.
//!
//! ```
//! use ndarray::{Array1, array};
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i * j) as f64)?;
//! let sums = rowfork::fork().fold_rows_array(
//!     &m,
//!     &Array1::zeros(3),
//!     |sums, row| *sums += &row,
//!     |sums, others| *sums += others,
//! )?;
//! assert_eq!(&sums.view() / 100.0, array![0.0, 49.5, 99.0]);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## `run_tasks`: no input
//! The kernel gets the number of its task. Let random numbers follow from it (see the example
//! `monte_carlo`), and the result is the same for any number of workers.
//!
//! ```
//! let areas = rowfork::fork().run_tasks(10, |task| std::f64::consts::PI * (task as f64).powi(2))?;
//! assert_eq!(areas.view()[1], std::f64::consts::PI);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## Several inputs
//! A tuple of up to nine inputs is an input: the kernel gets a tuple of rows. They need as many
//! rows, and may differ in all else. A row of a vector has one element, its [`value`](Row::value).
//! The `&output` of one call is an input of the next.
//!
//! ```
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
//! let counts = SharedArray::from_shape_fn(None, (100, 3), |(_, j)| j as u8)?;
//! let largest = rowfork::fork().map_rows(&m, |row| row.fold(0.0, |a: f64, &b| a.max(b)))?;
//!
//! let scaled = rowfork::fork().map_rows((&m, &counts, &largest), |(row, counts, largest)| {
//!     row.iter().zip(&counts).map(|(x, &n)| x * f64::from(n)).sum::<f64>() / largest.value()
//! })?;
//! assert_eq!(scaled.view()[2], (3.0 + 2.0 * 4.0) / 4.0);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## Some rows, some columns
//! [`rows`](SharedArray::rows), [`columns`](SharedArray::columns) and
//! [`slice_axis`](SharedArray::slice_axis) take a range, or an ndarray [`Slice`](ndarray::Slice)
//! with a step, and give a [`Selection`]: an input, without a copy.
//!
//! ```
//! use ndarray::Slice;
//! use rowfork::SharedArray;
//!
//! let m = SharedArray::from_shape_fn(None, (100, 6), |(i, j)| (i * 6 + j) as f64)?;
//! let even_columns = m.rows(10..20)?.columns(Slice::new(0, None, 2))?;
//! let sums = rowfork::fork().row_sums(even_columns)?;
//! assert_eq!(sums.as_slice()[0], 60.0 + 62.0 + 64.0);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! ## What is the same for every row
//! A [`param`] is a value, a [`broadcast`] a shared array of which the kernel gets a view, each
//! with every row. A closure of fork mode may as well capture them; a kernel of a [`Pool`] has no
//! other way.
//!
//! ```
//! use rowfork::{Pool, SharedArray, broadcast, param};
//!
//! let pool = Pool::builder().workers(2).build()?;
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i * j) as f64)?;
//! let table = SharedArray::from_shape_fn(None, 10, |i| i as f64 * 100.0)?;
//!
//! fn score((row, table, [scale, limit]): (rowfork::Row<'_, f64, ndarray::Ix1>, ndarray::ArrayView1<'_, f64>, [f64; 2])) -> f64 {
//!     (row.sum() * scale).min(limit) + table[row.index() % 10]
//! }
//! let scores = pool.map_rows((&m, broadcast(&table), param([0.5, 20.0])), score)?;
//! assert_eq!((scores[1], scores[57]), (101.5, 720.0));
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! # Element types
//! `f64`, `f32`, `i8` to `i64`, `u8` to `u64`, and [`Bool`], which is NumPy's `bool`: see
//! [`Element`]. A kernel may return a plain `bool`, and a `usize`, which becomes a `u64`. It may
//! not return a tuple, a `Vec` or a `String`: several numbers per row are a row of
//! [`transform_rows`](Executor::transform_rows).
//!
//! # Kernels and errors
//! A kernel returns what the operation wants (a value, or nothing where it writes to what it is
//! given), or a `Result` of that with any error that can be displayed. An `Err` or a panic ends the
//! call with an error that names the row, the lowest one that failed. A worker that dies (a fault
//! in C code, a kill, `exit`) costs no result: its rows are run again, and only a row that is fatal
//! to every worker ends the call. Inputs that do not fit each other are refused before any worker
//! begins.
//!
//! ```
//! use rowfork::{Error, SharedArray};
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| i as f64 - j as f64)?;
//! let roots = rowfork::fork().map_rows(&m, |row| {
//!     let sum = row.sum();
//!     // Where no other line tells the error's type, say it.
//!     if sum >= 0.0 { Ok(sum.sqrt()) } else { Err(format!("no root of {sum}")) }
//! });
//! match roots {
//!     Err(Error::KernelFailed { row: 0, message, .. }) => assert_eq!(message, "no root of -3"),
//!     other => panic!("{other:?}"),
//! }
//!
//! // A kernel that only has `?` to say it:
//! let parsed = rowfork::fork().run_tasks(3, |task| {
//!     let digits = format!("{task}5");
//!     Ok::<f64, std::num::ParseFloatError>(digits.parse::<f64>()? + 1.0)
//! })?;
//! assert_eq!(parsed.as_slice(), [6.0, 16.0, 26.0]);
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! Print an [`Error`] with `{}`, which is whole sentences with the way out; a `main` that returns
//! it prints `{:?}`, which is the variant and its numbers.
//!
//! # When rows go wrong
//! | option | what it is for |
//! |---|---|
//! | [`policy`](Executor::policy) | [`Policy::fill`]: go on without rows that cannot be had, and say which |
//! | [`guard`](Executor::guard) | kernels that call C: no stray write meets a result |
//! | [`stall_limit`](Executor::stall_limit) | rows that may hang: the row is found out |
//! | [`deadline`](Executor::deadline) | the time for the whole call; there is none by default |
//! | [`cancel_token`](Executor::cancel_token), [`check_interrupt`](Executor::check_interrupt) | ending the call from elsewhere, from a signal handler, from Python |
//! | [`retries`](Executor::retries) | how often a row that kills is tried again |
//!
//! ```
//! use rowfork::{DeathCause, Policy, SharedArray};
//!
//! let m = SharedArray::from_shape_fn(None, (100, 3), |(i, j)| (i + j) as f64)?;
//! let sums = rowfork::fork().guard(true).policy(Policy::fill(-1.0)).map_rows(&m, |row| {
//!     if row.index() == 7 {
//!         std::process::abort(); // as a C library may
//!     }
//!     row.sum()
//! })?;
//! assert_eq!((sums[6], sums[7], sums[8]), (21.0, -1.0, 27.0));
//! assert_eq!(sums.missing_rows(), [7..8]);
//!
//! let failed = &sums.report().failed_rows[0];
//! assert_eq!((failed.row, &failed.cause, failed.attempts), (7, &DeathCause::Signalled(6), 3));
//! # Ok::<(), rowfork::Error>(())
//! ```
//!
//! What happens when, how a row is found, and where it ends: `docs/FAULTS.md`.
//!
//! # What a kernel may do
//! A forked worker is a copy of the calling thread alone, as it is at the call, or for a [`Pool`]
//! as it was when that was made. Arithmetic, allocation, reading what was captured, calling C, and
//! threads of its own are fine. Not fine: printing, logging, or any lock, pool or runtime that
//! other threads of the caller use (a lock held at the fork is held for ever in the worker), and
//! relying on changes to captured values (they stay in the worker). `docs/FAULTS.md` has the table,
//! under "Fork safety"; in a program of several threads set a
//! [`stall_limit`](Executor::stall_limit) or a [`deadline`](Executor::deadline), and a kernel that
//! hangs all the same is an error. A kernel must be a pure function of its row, its captures and
//! the row's index: a row is run again when its worker dies. Every shared array but the output of
//! the call is read-only in a worker, and with [`guard`](Executor::guard) that is, too.
//!
//! # Environment
//! | variable | values | read |
//! |---|---|---|
//! | `ROWFORK_ISA` | `scalar`, `avx2` or `avx512`: the instructions of the exact and plain sums, means and dot products. Without it, or with a name that is unknown or that the processor does not have, the best there are. The bits never depend on it. | once per process, when one of them is first used |
//! | `ROWFORK_HUGE_PAGES` | `never` forbids pages of 2 MiB, to measure what they are worth; anything else is as without it | when an array is made |
//!
//! # Platform
//! Linux 5.4, little endian, 64 bits. See the README for what is less on older kernels and in small
//! containers.
#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(target_os = "linux"))]
compile_error!("rowfork runs on Linux only: it is built on /dev/shm, pidfd and MADV_COLLAPSE");
#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!(
    "rowfork needs a 64-bit little-endian machine: its segments are little-endian .npy files mapped as they are"
);

mod array;
mod engine;
mod error;
mod executor;
#[cfg(not(feature = "failpoints"))]
mod failpoints;
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub mod failpoints;
mod kernel;
mod rows;
pub mod segment;
mod sys;

pub use {bytemuck, ndarray};

pub use array::{
    Bool, Element, FillValue, MappedArray, NpyDraft, SegmentName, Selection, SharedArray,
    sweep_drafts,
};
pub use engine::cancel::CancelToken;
pub use engine::policy::Policy;
pub use engine::report::{
    BlockTimes, EarlyEnd, Output, Progress, Report, Warning, WorkerDeath, WorkerReport,
};
pub use error::{DeathCause, Error, ErrorKind, FailedRow, HeaderError, Result};
pub use executor::Executor;
pub use executor::fork::{Fork, PerCall, fork};
pub use executor::mode::{KernelFor, Mode};
pub use executor::pool::{Persistent, Pool, PoolBuilder, PoolCall, PoolStats};
pub use kernel::{
    exact_dot, exact_mean, exact_row_dots, exact_row_means, exact_sum, exact_weighted_mean,
    fast_row_sums, fast_sum,
};
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub use kernel::{instructions, tier_of_exact_sum};
pub use rows::{
    Block, Broadcast, KernelReturn, Param, Row, RowMut, Rows, Summand, Tasks, broadcast,
    exact_row_sums, param, tasks,
};

/// Compiles and runs the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles and runs the recipes.
#[cfg(doctest)]
#[doc = include_str!("../docs/COOKBOOK.md")]
struct Cookbook;

/// Compiles and runs the programs of what is said about faults.
#[cfg(doctest)]
#[doc = include_str!("../docs/FAULTS.md")]
struct Faults;

/// What must not compile, beside what does.
#[cfg(doctest)]
#[doc = include_str!("../tests/compile_fail/README.md")]
struct MustNotCompile;
