//! Every operation, over every executor, element type, dimension, number of workers and form, gives
//! bit for bit what a plain loop over an ordinary ndarray gives.
//!
//! [`table`] walks one table of cases, and each operation has one function that is called for every
//! case. A failure names the executor, the type, the shape, the number of workers and the form.
//! Each test asserts the number of calls that it made, so no part of the table is lost unseen.

mod case;
#[path = "../../support/executors.rs"]
mod executors;
#[path = "../../support/isolated.rs"]
mod isolated;
mod table;
#[path = "../../support/value.rs"]
mod value;

mod blocks;
mod fold;
mod map;
mod means;
mod sums;
mod tasks;
mod transform;
mod update;

use self::isolated::isolated;
