//! `run_tasks`: one value per task, without an input. It is `map_rows` over rows that hold nothing
//! but their index.

use ndarray::Ix1;

use super::KernelReturn;
use super::input::tasks;
use super::run::{check, new_output, with_report};
use crate::array::{Element, SharedArray};
use crate::engine::report::{Output, Report};
use crate::error::Result;
use crate::executor::Executor;
use crate::executor::mode::{KernelFor, Mode};

impl<M: Mode> Executor<'_, M> {
    /// Calls `task` with each of 0, 1, ... `n_tasks - 1`, in workers, and gives the values in
    /// order: an array of shape `(n_tasks,)`.
    ///
    /// For what has no matrix to work on: simulations, files to read, parameters to try. The answer
    /// must follow from the task's number alone, not from the worker or the order: seed random
    /// numbers with it, and the result is the same for any number of workers. What is said of rows
    /// in errors and reports is said of tasks. For several values per task use
    /// [`transform_rows`](Self::transform_rows) over a vector of parameters.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows).
    ///
    /// # Fork safety
    /// See [`fork()`](crate::fork()) and [`Pool`](crate::Pool).
    ///
    /// # Examples
    /// ```
    /// let roots = rowfork::fork().run_tasks(10, |task| (task as f64).sqrt())?;
    /// assert_eq!(roots.view()[9], 3.0);
    /// # Ok::<(), rowfork::Error>(())
    /// ```
    pub fn run_tasks<R: KernelReturn<Value: Element>>(
        &self,
        n_tasks: usize,
        task: impl Fn(usize) -> R + KernelFor<M>,
    ) -> Result<Output<SharedArray<R::Value, Ix1>>> {
        check(self, &tasks(n_tasks))?;
        let mut output = new_output(Ix1(n_tasks))?;
        let report = self.run_tasks_into(&mut output, task);
        with_report(output, report)
    }

    /// As [`run_tasks`](Self::run_tasks), into an output that is there already: as many tasks as it
    /// has elements.
    ///
    /// # Errors
    /// As [`map_rows`](Self::map_rows). On an error the output holds the values of some tasks and
    /// what it held before in the others.
    pub fn run_tasks_into<R: KernelReturn<Value: Element>>(
        &self,
        output: &mut SharedArray<R::Value, Ix1>,
        task: impl Fn(usize) -> R + KernelFor<M>,
    ) -> Result<Report> {
        self.map_rows_into(tasks(output.len()), output, task)
    }
}
