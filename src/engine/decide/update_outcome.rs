//! What a failed call in place has left behind: which rows are new, and which rows may be either.
//! Pure.
//!
//! An update that fails has changed some rows of the caller's own array. The caller can only go on
//! if it knows which. Called by the supervisor once no worker of the call lives, or once one of
//! them is given up.

use std::ops::Range;

use crate::engine::control::ClaimState;
use crate::engine::ranges::joined;
use crate::error::Error;

/// `cause` with the account of the rows; `cause` by itself where no row was touched.
///
/// `units` are rows and what became of them, after saved rows were put back:
///
/// | state | its rows |
/// |---|---|
/// | `Done` | are new |
/// | `Free` | are as before: they were put back, or never begun |
/// | `Claimed` | may be torn: a worker was at them, and they could not be put back |
/// | `Retired` | are in other units, or have failed and were put back |
/// | `Corrupt` | nobody knows, and the same holds for all other rows |
///
/// The ranges in the error are joined where they touch, in order, and half-open.
pub(crate) fn update_outcome(
    n_rows: usize,
    units: &[(Range<usize>, ClaimState)],
    cause: Error,
) -> Error {
    let rows_in = |wanted: fn(&ClaimState) -> bool| {
        joined(
            units.iter().filter(|(_, state)| wanted(state)).map(|(rows, _)| rows.clone()).collect(),
        )
    };
    // Either tells: a word that is corrupt now, or an error which says that one was.
    let overwritten = matches!(cause, Error::ControlCorrupted { .. })
        || units.iter().any(|(_, state)| *state == ClaimState::Corrupt);
    let (updated, torn) = if overwritten {
        (Vec::new(), joined(std::iter::once(0..n_rows).collect()))
    } else {
        (
            rows_in(|state| matches!(state, ClaimState::Done(_))),
            rows_in(|state| matches!(state, ClaimState::Claimed(_))),
        )
    };
    // Nothing was touched: the error need not speak of rows, and the array is as it was.
    if updated.is_empty() && torn.is_empty() {
        return cause;
    }
    Error::UpdateInterrupted { cause: Box::new(cause), updated, torn }
}

#[cfg(test)]
mod tests {
    use ClaimState::{Claimed, Corrupt, Done, Free, Retired};

    use super::*;
    use crate::engine::control::Owner;

    const OWNER: Owner = Owner { slot: 0, generation: 0 };

    /// Four blocks of ten rows and two pieces of the second, and what the error says of them.
    fn account(states: [ClaimState; 6], cause: Error) -> String {
        let rows = [0..10, 10..20, 20..30, 30..40, 10..13, 13..20];
        update_outcome(40, &rows.into_iter().zip(states).collect::<Vec<_>>(), cause).to_string()
    }

    #[test]
    fn rows_that_are_done_are_new_and_rows_put_back_are_not() {
        // The first block is done and the second was divided: 10..13 is new, 13..20 was put back.
        let told =
            account([Done(OWNER), Retired, Free, Free, Done(OWNER), Free], Error::InsideWorker);
        assert!(told.contains("rows 0..13 are updated, all others"), "{told}");
        let told =
            account([Free, Retired, Free, Done(OWNER), Free, Done(OWNER)], Error::InsideWorker);
        assert!(told.contains("rows 13..20, 30..40 are updated, all others"), "{told}");
    }

    /// `Claimed` is left over where the array could not be written to.
    #[test]
    fn of_what_could_not_be_put_back_nothing_is_known() {
        let told = account(
            [Free, Done(OWNER), Claimed(OWNER), Claimed(OWNER), Retired, Retired],
            Error::InsideWorker,
        );
        assert!(told.contains("rows 10..20 are updated, 20..40 may be"), "{told}");
    }

    /// By a word, or by the error alone.
    #[test]
    fn where_words_were_overwritten_none_is_believed() {
        for (last, cause) in
            [(Corrupt, Error::InsideWorker), (Done(OWNER), Error::ControlCorrupted { block: 3 })]
        {
            let told = account([Done(OWNER), Done(OWNER), Free, Free, Free, last], cause);
            assert!(told.contains("rows none are updated, 0..40 may be"), "{told}");
        }
    }

    /// Nothing done, nothing torn: `cause` comes back as it is.
    #[test]
    fn an_error_before_any_row_was_touched_is_that_error() {
        assert_eq!(account([Free; 6], Error::InsideWorker), Error::InsideWorker.to_string());
    }
}
