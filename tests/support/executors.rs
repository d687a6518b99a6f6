//! Both executors with one face, so that a test is written once and run on both. What one of them
//! alone can do is not here: kernels are those that a pool can run, too.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fmt;
use std::time::Duration;

use ndarray::{
    ArrayRef, ArrayView, ArrayView1, ArrayViewMut, Dimension, IntoDimension, Ix1, RemoveAxis,
};
use rowfork::bytemuck::Pod;
use rowfork::{
    CancelToken, Element, Fork, KernelFor, KernelReturn, Output, PerCall, Persistent, Pool,
    PoolCall, Report, Result, RowMut, Rows, Selection, SharedArray, Summand, fork,
};

type Vector<A> = SharedArray<A, Ix1>;
type Larger<S> = <<S as IntoDimension>::Dim as Dimension>::Larger;

/// A kernel that both executors can run.
pub(crate) trait Kernel: KernelFor<PerCall> + KernelFor<Persistent> {}

impl<K: KernelFor<PerCall> + KernelFor<Persistent>> Kernel for K {}

/// Where a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In workers forked for it.
    Fork,
    /// In the workers of a pool.
    Pool,
    /// On a pool that does what it can in the calling thread.
    Inline,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Fork, Self::Pool, Self::Inline];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Pool => "pool",
            Self::Inline => "pool, inline where it can",
        })
    }
}

/// The executors, made once for many calls.
pub(crate) struct Executors {
    pool: Pool,
    inline: Pool,
}

impl Executors {
    /// With pools of so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let pool = |below| Pool::builder().workers(workers).inline_below(below).build().unwrap();
        Self { pool: pool(0), inline: pool(usize::MAX) }
    }

    pub(crate) fn at(&self, place: Place) -> Either<'_> {
        match place {
            Place::Fork => Either::Fork(fork()),
            Place::Pool => Either::Pool(self.pool.call()),
            Place::Inline => Either::Pool(self.inline.call()),
        }
    }
}

/// A call on one executor or the other.
#[derive(Debug)]
pub(crate) enum Either<'p> {
    Fork(Fork<'p>),
    Pool(PoolCall<'p>),
}

macro_rules! options {
    ($($option:ident($type:ty))+) => {$(
        pub(crate) fn $option(self, value: $type) -> Self {
            match self {
                Self::Fork(fork) => Self::Fork(fork.$option(value)),
                Self::Pool(call) => Self::Pool(call.$option(value)),
            }
        }
    )+};
}

/// Each operation with the signature that it has, and both executors behind it.
macro_rules! operations {
    ($(
        fn $name:ident[$($generics:tt)*]($($argument:ident: $type:ty),* $(,)?) -> $output:ty;
    )+) => {$(
        pub(crate) fn $name<$($generics)*>(&self, $($argument: $type),*) -> Result<$output> {
            match self {
                Self::Fork(fork) => fork.$name($($argument),*),
                Self::Pool(call) => call.$name($($argument),*),
            }
        }
    )+};
}

impl<'p> Either<'p> {
    options! {
        workers(usize)
        block_rows(usize)
        guard(bool)
        measure_memory(bool)
        policy(rowfork::Policy)
        deadline(Duration)
        stall_limit(Duration)
        cancel_token(&CancelToken)
    }

    pub(crate) fn progress(self, callback: impl Fn(&rowfork::Progress) + 'p) -> Self {
        match self {
            Self::Fork(fork) => Self::Fork(fork.progress(callback)),
            Self::Pool(call) => Self::Pool(call.progress(callback)),
        }
    }

    operations! {
        fn map_rows[I: Rows, R: KernelReturn<Value: Element>](
            input: I, kernel: impl Fn(I::Row) -> R + Kernel,
        ) -> Output<Vector<R::Value>>;

        fn map_rows_into[I: Rows, R: KernelReturn<Value: Element>](
            input: I, output: &mut Vector<R::Value>, kernel: impl Fn(I::Row) -> R + Kernel,
        ) -> Report;

        fn transform_rows[T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>](
            input: I,
            row_shape: S,
            kernel: impl Fn(I::Row, &mut ArrayViewMut<'_, T, <Larger<S> as Dimension>::Smaller>) -> R + Kernel,
        ) -> Output<SharedArray<T, Larger<S>>>;

        fn transform_rows_into[T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>](
            input: I,
            row_shape: S,
            output: &mut SharedArray<T, Larger<S>>,
            kernel: impl Fn(I::Row, &mut ArrayViewMut<'_, T, <Larger<S> as Dimension>::Smaller>) -> R + Kernel,
        ) -> Report;

        fn map_blocks[T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>](
            input: I, row_shape: S, kernel: impl Fn(I::Block, &mut ArrayViewMut<'_, T, Larger<S>>) -> R + Kernel,
        ) -> Output<SharedArray<T, Larger<S>>>;

        fn map_blocks_into[T: Element, I: Rows, S: IntoDimension, R: KernelReturn<Value = ()>](
            input: I,
            row_shape: S,
            output: &mut SharedArray<T, Larger<S>>,
            kernel: impl Fn(I::Block, &mut ArrayViewMut<'_, T, Larger<S>>) -> R + Kernel,
        ) -> Report;

        fn update_rows[A: Element, D: RemoveAxis, R: KernelReturn<Value = ()>](
            array: &mut SharedArray<A, D>, kernel: impl Fn(&mut RowMut<'_, A, D::Smaller>) -> R + Kernel,
        ) -> Report;

        fn update_rows_with[A: Element, D: RemoveAxis, I: Rows, R: KernelReturn<Value = ()>](
            array: &mut SharedArray<A, D>,
            inputs: I,
            kernel: impl Fn(&mut RowMut<'_, A, D::Smaller>, I::Row) -> R + Kernel,
        ) -> Report;

        fn fold_rows[I: Rows, T: Pod, R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>](
            input: I,
            identity: T,
            fold: impl Fn(&mut T, I::Row) -> R + Kernel,
            combine: impl Fn(&mut T, &T) -> C + Kernel,
        ) -> Output<T>;

        fn fold_rows_into[I: Rows, T: Pod, R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>](
            input: I,
            identity: T,
            output: &mut T,
            fold: impl Fn(&mut T, I::Row) -> R + Kernel,
            combine: impl Fn(&mut T, &T) -> C + Kernel,
        ) -> Report;

        fn fold_rows_array[
            I: Rows, A: Element, D: Dimension, R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>
        ](
            input: I,
            identity: &ArrayRef<A, D>,
            fold: impl Fn(&mut ArrayViewMut<'_, A, D>, I::Row) -> R + Kernel,
            combine: impl Fn(&mut ArrayViewMut<'_, A, D>, &ArrayView<'_, A, D>) -> C + Kernel,
        ) -> Output<SharedArray<A, D>>;

        fn fold_rows_array_into[
            I: Rows, A: Element, D: Dimension, R: KernelReturn<Value = ()>, C: KernelReturn<Value = ()>
        ](
            input: I,
            identity: &ArrayRef<A, D>,
            output: &mut SharedArray<A, D>,
            fold: impl Fn(&mut ArrayViewMut<'_, A, D>, I::Row) -> R + Kernel,
            combine: impl Fn(&mut ArrayViewMut<'_, A, D>, &ArrayView<'_, A, D>) -> C + Kernel,
        ) -> Report;

        fn run_tasks[R: KernelReturn<Value: Element>](
            n_tasks: usize, task: impl Fn(usize) -> R + Kernel,
        ) -> Output<Vector<R::Value>>;

        fn run_tasks_into[R: KernelReturn<Value: Element>](
            output: &mut Vector<R::Value>, task: impl Fn(usize) -> R + Kernel,
        ) -> Report;

        fn row_sums['s, A: Summand, D: RemoveAxis](
            input: impl Into<Selection<'s, A, D>>,
        ) -> Output<Vector<A::Sum>>;

        fn row_sums_into['s, A: Summand, D: RemoveAxis](
            input: impl Into<Selection<'s, A, D>>, output: &mut Vector<A::Sum>,
        ) -> Report;

        fn row_means['s, D: RemoveAxis](input: impl Into<Selection<'s, f64, D>>) -> Output<Vector<f64>>;

        fn row_means_into['s, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>, output: &mut Vector<f64>,
        ) -> Report;

        fn row_dot['s, 'v, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>, vector: impl Into<ArrayView1<'v, f64>>,
        ) -> Output<Vector<f64>>;

        fn row_dot_into['s, 'v, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>,
            vector: impl Into<ArrayView1<'v, f64>>,
            output: &mut Vector<f64>,
        ) -> Report;

        fn row_weighted_means['s, 'v, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>, weights: impl Into<ArrayView1<'v, f64>>,
        ) -> Output<Vector<f64>>;

        fn row_weighted_means_into['s, 'v, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>,
            weights: impl Into<ArrayView1<'v, f64>>,
            output: &mut Vector<f64>,
        ) -> Report;

        fn row_sums_fast['s, D: RemoveAxis](input: impl Into<Selection<'s, f64, D>>) -> Output<Vector<f64>>;

        fn row_sums_fast_into['s, D: RemoveAxis](
            input: impl Into<Selection<'s, f64, D>>, output: &mut Vector<f64>,
        ) -> Report;
    }
}
