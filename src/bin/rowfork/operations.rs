//! What can be asked of rows. A new one is an entry of `operations!`, which makes [`OPERATIONS`].

use bytemuck::Zeroable;
use ndarray::{Ix1, Ix2};
use rowfork::{
    CancelToken, Element, Error, Executor, Policy, Pool, Report, SharedArray, Summand, broadcast,
    exact_row_dots, exact_row_means, fast_row_sums,
};

use crate::args::{Form, Kind, OnPoison, RowArgs};
use crate::deliver::Answer;
use crate::element::with_element;
use crate::failure::Failure;
use crate::gather::{Verdict, gathered, listed};
use crate::input::{self, Matrix, Part};
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
}

/// Calls a method on whichever executor was asked for.
macro_rules! on_workers {
    ($workers:ident, $method:ident($($argument:expr),+)) => {
        match &$workers.pool {
            None => $workers.told(rowfork::fork()).$method($($argument),+),
            Some(pool) => $workers.told(pool.call()).$method($($argument),+),
        }
        .map_err(Failure::from)
    };
}

/// The function that does an operation on a matrix whose elements NumPy calls `dtype`, from the
/// operation's elements, the library's method, the same as a function on a slice of rows, and
/// whether the operation takes a vector. On columns that no stride expresses, workers gather the
/// rows first.
macro_rules! way {
    ($elements:ident, $method:ident, $on_slices:expr) => {
        |args, dtype| {
            with_element!($elements, dtype, A => answer::<A, _>(args, |workers, part, values| match &part.listed {
                None => on_workers!(workers, $method(part.selection, values)),
                Some(columns) => on_workers!(workers, map_blocks_into(
                    (part.selection, broadcast(columns)), (), values,
                    |(block, columns), out| gathered::<A, _, _>(&block, &columns, out, $on_slices)
                ))
                .map_err(|failure| of_overflow(failure, workers, part, columns)),
            }))
        }
    };
    ($elements:ident, $method:ident, $on_slices:expr, $with:literal) => {
        |args, dtype| {
            let vector = args.with.as_ref().map(input::vector).expect("clap asks for it")?;
            with_element!($elements, dtype, A => answer::<A, _>(args, |workers, part, values| match &part.listed {
                None => on_workers!(workers, $method(part.selection, vector.as_slice(), values)),
                Some(columns) => {
                    // The library's own check, on a matrix of no rows.
                    let no_rows = SharedArray::<f64, _>::zeros(None, Ix2(0, columns.len()))?;
                    rowfork::fork().$method(&no_rows, vector.as_slice(), &mut SharedArray::zeros(None, 0)?)?;
                    on_workers!(workers, map_blocks_into(
                        (part.selection, broadcast(columns), broadcast(&vector)), (), values,
                        |(block, columns, vector), out| {
                            let vector = vector.as_slice().expect("all of an array");
                            gathered::<A, _, _>(&block, &columns, out, |rows, _, values| $on_slices(rows, vector, values))
                        }
                    ))
                }
            }))
        }
    };
}

/// Makes the table of operations, and the choice of the function that does one. The table has no
/// functions: what only describes the command would otherwise compile all operations.
macro_rules! operations {
    ($($name:literal: $about:literal, $elements:ident, $method:ident, $on_slices:expr $(, $with:literal)?;)+) => {
        /// All there are.
        pub(crate) const OPERATIONS: &[Operation] = &[
            $(Operation { name: $name, about: $about, with: operations!(@option $($with)?) }),+
        ];

        fn way_of(operation: &Operation) -> fn(&RowArgs, &str) -> Result<(), Failure> {
            match operation.name {
                $($name => way!($elements, $method, $on_slices $(, $with)?),)+
                other => unreachable!("{other} is not in the table"),
            }
        }
    };
    (@option) => { None };
    (@option $with:literal) => { Some($with) };
}

operations! {
    "sum": "The exact sum of each row, rounded once",
        any, row_sums_into, <A as Summand>::sum_rows;
    "sum-fast": "The plain sum of each row, in a fixed order",
        f64, row_sums_fast_into, fast_row_sums;
    "mean": "The exact mean of each row, rounded once",
        f64, row_means_into, exact_row_means;
    "dot": "The exact dot product of each row and a vector, rounded once",
        f64, row_dot_into, exact_row_dots, "FILE.npy or shm:NAME: a value per column used";
}

/// Does what was asked for, from the file to the answer.
pub(crate) fn run(operation: &Operation, args: &RowArgs) -> Result<(), Failure> {
    let done = input::info(&args.input)
        .map_err(Failure::from)
        .and_then(|info| way_of(operation)(args, &info.dtype));
    match args.report {
        Some(Form::Json) => done.map_err(Failure::into_json),
        _ => done,
    }
}

/// The workers of a call, and its options.
struct Workers<'a> {
    args: &'a RowArgs,
    bar: &'a RowBar,
    token: Option<&'a CancelToken>,
    /// Those that are there before the call, if they were asked for.
    pool: Option<Pool>,
}

impl<'a> Workers<'a> {
    fn new(
        args: &'a RowArgs,
        bar: &'a RowBar,
        token: Option<&'a CancelToken>,
    ) -> rowfork::Result<Self> {
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
    work: impl Fn(&Workers<'_>, &Part<'_, A>, &mut SharedArray<T, Ix1>) -> Result<Report, Failure>,
) -> Result<(), Failure> {
    let matrix = Matrix::<A>::open(&args.input)?;
    let part = matrix.part(args.rows.as_ref(), args.columns.as_ref())?;
    let mut answer = Answer::prepare(args.output.as_ref(), part.selection.n_rows())?;
    let bar = RowBar::new((part.selection.shape()[1] * size_of::<A>()) as u64, args.quiet);
    let report = signals::while_noting(|token| {
        let done = work(&Workers::new(args, &bar, token)?, &part, answer.values());
        done.map_err(|failure| of_the_input(failure, part.first_row))
    })?;
    drop(bar);
    answer.deliver()?;
    let about = About { args, way: matrix.way(), first_row: part.first_row };
    match args.report {
        Some(form) => report::tell(form, &about, &report),
        None if args.quiet => {}
        None => report::warn(&about, &report),
    }
    Ok(())
}

/// The library's error for a sum that a kernel on listed columns could not store: such a kernel can
/// name neither the row nor the sum. Workers look for the row, from the failed block on, and copy
/// it, since this process looks at no element of the input; the library then sums the copy.
fn of_overflow<A: Summand>(
    failure: Failure,
    workers: &Workers<'_>,
    part: &Part<'_, A>,
    columns: &SharedArray<u64, Ix1>,
) -> Failure {
    let Failure::Library(Error::KernelFailed { row: first, .. }) = failure else { return failure };
    let search = || -> Result<(), Failure> {
        let from = part.selection.rows(first..)?;
        let found = on_workers!(
            workers,
            map_rows((from, broadcast(columns)), |(row, columns)| {
                let row: Vec<A> = listed(&row, &columns).collect();
                let mut sum = [A::Sum::zeroed()];
                A::sum_rows(&row, row.len(), &mut sum).verdict().map(|()| sum[0])
            })
        );
        let Err(Failure::Library(Error::KernelFailed { row, .. })) = found else {
            return found.map(drop);
        };
        let row = first + row;
        let copied = on_workers!(
            workers,
            transform_rows(
                (part.selection.rows(row..=row)?, broadcast(columns)),
                columns.len(),
                |(row, columns), out| {
                    out.iter_mut()
                        .zip(listed(&row, &columns))
                        .for_each(|(out, value)| *out = value);
                }
            )
        )?;
        rowfork::fork()
            .row_sums(&*copied)
            .map(drop)
            .map_err(|error| of_the_input(error.into(), row))
    };
    // Without an error the input has changed meanwhile: then the kernel's words have to do.
    search().err().unwrap_or(failure)
}

/// A failure that names rows, which count from the first that was asked for, with their places in
/// the input.
fn of_the_input(failure: Failure, first_row: usize) -> Failure {
    let Failure::Library(mut error) = failure else { return failure };
    match &mut error {
        Error::SumOverflow { row, .. }
        | Error::KernelFailed { row, .. }
        | Error::KernelPanicked { row, .. } => {
            *row += first_row;
        }
        Error::PoisonedRows { rows, .. } => {
            for failed in rows {
                failed.row += first_row;
            }
        }
        _ => {}
    }
    Failure::Library(error)
}
