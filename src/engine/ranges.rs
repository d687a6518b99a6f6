//! Lists of row ranges in order, for reports, fills and the rows of an interrupted update. Pure.

use std::ops::Range;

/// The same rows in order, without empty ranges. Ranges that overlap or touch become one.
pub(crate) fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The rows below `n_rows` that are in none of `joined`, which must be the result of [`joined`].
pub(crate) fn complement(joined: &[Range<usize>], n_rows: usize) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(joined.iter().map(|range| range.end));
    let ends = joined.iter().map(|range| range.start).chain([n_rows]);
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
}

/// How many rows there are in `joined`, which must be the result of [`joined`]: overlaps would
/// count twice.
pub(crate) fn count(joined: &[Range<usize>]) -> usize {
    joined.iter().map(Range::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_or_overlaps_is_one() {
        assert_eq!(joined(vec![8..9, 0..3, 5..5, 3..5, 4..6]), [0..6, 8..9]);
        assert!(joined(vec![]).is_empty());
    }

    #[test]
    fn the_complement_is_what_is_left() {
        assert_eq!(complement(&[2..3, 5..7], 10), [0..2, 3..5, 7..10]);
        assert_eq!(complement(&[], 4), vec![0..4]);
        assert!(complement(&[0..2, 2..4], 4).is_empty());
        assert_eq!(count(&[2..3, 5..7]), 3);
    }
}
