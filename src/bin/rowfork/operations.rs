//! What can be asked of rows. A new one is a line in [`OPERATIONS`].

use ndarray::{Ix1, Ix2};
use rowfork::{CancelToken, Element, Executor, Policy, Pool, Report, Selection, SharedArray};

use crate::args::{Kind, OnPoison, RowArgs};
use crate::deliver::Place;
use crate::failure::Failure;
use crate::input::{Matrix, Part, Source, bare};
use crate::progress::RowBar;
use crate::report::{self, About};
use crate::signals;

/// A value of each row.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The library's name of it, with dashes.
    pub(crate) name: &'static str,
    /// What it gives, on a line.
    pub(crate) about: &'static str,
    /// What it takes beside the matrix, if anything.
    pub(crate) with: Option<&'static str>,
    /// Does it on a matrix whose elements NumPy calls so.
    run: fn(&RowArgs, &str) -> Result<(), Failure>,
}

/// Does something with the type of an element by NumPy's name of it: of `any`, or of `f64`, which leaves it to the library to
/// refuse all others.
macro_rules! with_element {
    (f64, $dtype:ident, $A:ident => $work:expr) => {{
        type $A = f64;
        let _ = $dtype;
        $work
    }};
    (any, $dtype:ident, $A:ident => $work:expr) => {
        with_element!($dtype, $A => $work,
            "f4" f32, "i1" i8, "i2" i16, "i4" i32, "i8" i64, "u1" u8, "u2" u16, "u4" u32, "u8" u64, "b1" rowfork::Bool)
    };
    ($dtype:ident, $A:ident => $work:expr, $($descr:literal $type:ty),+) => {
        match bare($dtype) {
            $($descr => {
                type $A = $type;
                $work
            })+
            _ => with_element!(f64, $dtype, $A => $work),
        }
    };
}
pub(crate) use with_element;

/// Calls a method on whichever executor was asked for.
macro_rules! on_workers {
    ($workers:ident, $method:ident($($argument:expr),+)) => {
        match &$workers.pool {
            None => $workers.told(rowfork::fork()).$method($($argument),+),
            Some(pool) => $workers.told(pool.call()).$method($($argument),+),
        }
    };
}

/// Name, elements, the library's method, and what it gives; with what it takes beside the matrix, if anything.
macro_rules! operation {
    ($name:literal, $elements:ident, $method:ident, $about:literal) => {
        Operation {
            name: $name,
            about: $about,
            with: None,
            run: |args, dtype| {
                with_element!($elements, dtype, A => answer::<A, _>(args, |workers, rows, values| {
                    on_workers!(workers, $method(rows, values))
                }))
            },
        }
    };
    ($name:literal, $elements:ident, $method:ident, $about:literal, $with:literal) => {
        Operation {
            name: $name,
            about: $about,
            with: Some($with),
            run: |args, dtype| {
                let vector = args.with.as_ref().map(Source::vector).transpose()?.unwrap_or_default();
                with_element!($elements, dtype, A => answer::<A, _>(args, |workers, rows, values| {
                    on_workers!(workers, $method(rows, &vector, values))
                }))
            },
        }
    };
}

/// All there are.
pub(crate) const OPERATIONS: &[Operation] = &[
    operation!("sum", any, row_sums_into, "The exact sum of each row, rounded once"),
    operation!("sum-fast", f64, row_sums_fast_into, "The plain sum of each row, in a fixed order"),
    operation!("mean", f64, row_means_into, "The exact mean of each row, rounded once"),
    operation!(
        "dot",
        f64,
        row_dot_into,
        "The exact dot product of each row and a vector, rounded once",
        "The vector: FILE.npy or shm:NAME, a value per column"
    ),
];

/// Does what was asked for, from the file to the answer.
pub(crate) fn run(operation: &Operation, args: &RowArgs) -> Result<(), Failure> {
    let info = args.input.info()?;
    (operation.run)(args, &info.dtype)
}

/// The workers of a call, and what they are told.
struct Workers<'a> {
    args: &'a RowArgs,
    bar: &'a RowBar,
    token: Option<&'a CancelToken>,
    /// Those that are there before the call, if they were asked for.
    pool: Option<Pool>,
}

impl<'a> Workers<'a> {
    fn new(args: &'a RowArgs, bar: &'a RowBar, token: Option<&'a CancelToken>) -> rowfork::Result<Self> {
        let pool = (args.executor == Kind::Pool).then(|| {
            let builder = Pool::builder().inline_below(0);
            args.workers.into_iter().fold(builder, rowfork::PoolBuilder::workers).build()
        });
        Ok(Self { args, bar, token, pool: pool.transpose()? })
    }

    /// The options of the command line.
    fn told<M>(&self, executor: Executor<'a, M>) -> Executor<'a, M> {
        let Self { args, bar, token, .. } = *self;
        let mut told = executor.progress(|progress| bar.show(progress));
        told = args.workers.into_iter().fold(told, Executor::workers);
        told = args.deadline.into_iter().fold(told, Executor::deadline);
        told = args.stall.into_iter().fold(told, Executor::stall_limit);
        told = args.retries.into_iter().fold(told, Executor::retries);
        told = token.into_iter().fold(told, Executor::cancel_token);
        match args.on_poison {
            OnPoison::Fail => told,
            OnPoison::Nan => told.policy(Policy::fill(f64::NAN)),
        }
    }
}

/// A value of each row, delivered where it was asked for.
fn answer<A: Element, T: Element>(
    args: &RowArgs,
    work: impl Fn(&Workers<'_>, Selection<'_, A, Ix2>, &mut SharedArray<T, Ix1>) -> rowfork::Result<Report>,
) -> Result<(), Failure> {
    let matrix = Matrix::<A>::open(&args.input)?;
    let Part { selection, listed } = matrix.part(args.rows.as_ref(), args.columns.as_ref())?;
    let place = Place::prepare::<T>(args.output.as_ref(), selection.n_rows())?;
    let mut values = SharedArray::zeros(None, selection.n_rows())?;
    let bar = RowBar::new((selection.shape()[1] * size_of::<A>()) as u64, args.quiet);
    let report = signals::while_running(|token| {
        let workers = Workers::new(args, &bar, token)?;
        match listed {
            None => work(&workers, selection, &mut values),
            Some(columns) => work(&workers, (&gathered(&workers, selection, &columns)?).into(), &mut values),
        }
    })?;
    drop(bar);
    say(args, matrix.way(), &report);
    place.deliver(values)
}

/// A copy of columns that no stride expresses.
fn gathered<A: Element>(
    workers: &Workers<'_>,
    rows: Selection<'_, A, Ix2>,
    columns: &[usize],
) -> rowfork::Result<SharedArray<A, Ix2>> {
    let copied =
        workers.told(rowfork::fork()).policy(Policy::Fail).transform_rows(rows, columns.len(), |row, out| {
            for (to, &from) in out.iter_mut().zip(columns) {
                *to = row[from];
            }
        })?;
    Ok(copied.into_inner())
}

/// What was asked to be said of the call, and what must be.
fn say(args: &RowArgs, way: &'static str, report: &Report) {
    if let Some(form) = args.report {
        report::tell(form, &About { args, way }, report);
    } else if !args.quiet {
        report::warn(report);
    }
}
