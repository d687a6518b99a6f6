//! What a failed call in place has left behind: which rows are new, and of which nobody knows. Pure.
//!
//! Called by the executors once no worker of the call lives.

use std::ops::Range;

use crate::blocks::RowBlocks;
use crate::control::{ClaimState, Owner};
use crate::error::Error;

/// `source` with the account of the rows; by itself where no row was touched.
///
/// `row_at` is the row that the owner of an unfinished block was at; untrusted. Rows before it in the block are done, and
/// rows after it not begun. Where words are found overwritten none is believed.
pub(crate) fn interrupted(
    blocks: &RowBlocks,
    states: &[ClaimState],
    row_at: impl Fn(usize, Owner) -> Option<usize>,
    source: Error,
) -> Error {
    let (mut updated, mut torn) = (Vec::new(), Vec::new());
    if matches!(source, Error::ControlCorrupted { .. }) || states.contains(&ClaimState::Corrupt) {
        torn.push(0..blocks.n_rows());
    } else {
        for (block, &state) in (0..).map_while(|index| blocks.get(index)).zip(states) {
            let rows = block.rows();
            match state {
                ClaimState::Done => updated.push(rows),
                ClaimState::Claimed(owner) => match row_at(block.index(), owner).filter(|row| rows.contains(row)) {
                    Some(row) => {
                        updated.push(rows.start..row);
                        torn.push(row..row + 1);
                    }
                    None => torn.push(rows),
                },
                ClaimState::Free | ClaimState::Corrupt => {}
            }
        }
    }
    let (updated, torn) = (joined(updated), joined(torn));
    if updated.is_empty() && torn.is_empty() {
        return source;
    }
    Error::UpdateInterrupted { source: Box::new(source), updated, torn }
}

/// Ranges in order, without empty ones, and those that touch made one.
fn joined(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use ClaimState::{Claimed, Corrupt, Done, Free};

    use super::*;

    const OWNER: Owner = Owner { slot: 0, generation: 0 };

    /// Four blocks of ten rows, and what is said of them in words.
    fn account(states: [ClaimState; 4], row_at: Option<usize>, source: Error) -> String {
        interrupted(&RowBlocks::with_block_rows(40, 10), &states, |_, _| row_at, source).to_string()
    }

    #[test]
    fn rows_before_the_one_that_was_running_are_new_and_rows_after_it_are_not() {
        let told = account([Done, Done, Claimed(OWNER), Free], Some(23), Error::InsideWorker);
        assert!(told.contains("rows 0..23 are updated, 23..24 may be half updated"), "{told}");
        let told = account([Claimed(OWNER), Free, Free, Done], Some(0), Error::InsideWorker);
        assert!(told.contains("rows 30..40 are updated, 0..1 may be"), "{told}");
    }

    #[test]
    fn of_a_block_whose_row_is_not_known_nothing_is_known() {
        for row_at in [None, Some(9), Some(usize::MAX)] {
            let told = account([Free, Done, Claimed(OWNER), Claimed(OWNER)], row_at, Error::InsideWorker);
            assert!(told.contains("rows 10..20 are updated, 20..40 may be"), "{told}");
        }
    }

    #[test]
    fn where_words_were_overwritten_none_is_believed() {
        for (last, source) in [(Corrupt, Error::InsideWorker), (Done, Error::ControlCorrupted { block: 3 })] {
            let told = account([Done, Done, Free, last], None, source);
            assert!(told.contains("rows none are updated, 0..40 may be"), "{told}");
        }
    }

    #[test]
    fn an_error_before_any_row_was_touched_is_that_error() {
        assert_eq!(account([Free; 4], None, Error::InsideWorker), Error::InsideWorker.to_string());
    }
}
