//! Which columns, or rows, as `cut -f` takes them: `6-`, `2,4,7-9`, `-3`, from 1.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use ndarray::Slice;

/// What was asked for, before it is known how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List(Vec<ColumnRange>);

/// First and last, from 1; to the end without a last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ColumnRange {
    first: usize,
    last: Option<usize>,
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

fn part(text: &str) -> Result<ColumnRange, String> {
    let number = |digits: &str| match digits.parse() {
        Ok(0) => Err("the first is 1, not 0".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("{text:?} is no number and no range; write 6-, 2,4,7-9 or -3")),
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, Some(number(text)?)),
        Some(("", "")) => return Err("a range has an end: 6-, -3 or 7-9".to_owned()),
        Some(("", last)) => (1, Some(number(last)?)),
        Some((first, "")) => (number(first)?, None),
        Some((first, last)) => (number(first)?, Some(number(last)?)),
    };
    match last {
        Some(last) if last < first => Err(format!("{text:?} ends before it begins")),
        _ => Ok(ColumnRange { first, last }),
    }
}

/// Which columns or rows were asked for, once their number is known: in order, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// What a start, an end and a step say.
    Slice(Slice),
    /// What needs a list: indices from 0.
    Indices(Vec<usize>),
}

impl List {
    /// Which of `n` columns or rows the list names, as `cut` does it: in ascending order, whatever
    /// the order of the list.
    ///
    /// # Errors
    /// The number of the first one that does not exist.
    pub(crate) fn of(&self, n: usize) -> Result<Chosen, usize> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for part in &self.0 {
            // `1-` of none are none.
            let end = part.last.unwrap_or(n.max(part.first - 1));
            if end > n {
                return Err(part.last.unwrap_or(part.first));
            }
            ranges.push(part.first - 1..end);
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(before) if range.start <= before.end => before.end = before.end.max(range.end),
                _ => joined.push(range),
            }
        }
        if let [range] = &*joined {
            return Ok(Chosen::Slice(Slice::from(range.clone())));
        }
        let indices: Vec<usize> = joined.into_iter().flatten().collect();
        Ok(evenly_spaced(&indices).map_or(Chosen::Indices(indices), Chosen::Slice))
    }
}

fn evenly_spaced(indices: &[usize]) -> Option<Slice> {
    let (&[first, second, ..], &last) = (indices, indices.last()?) else { return None };
    let step = second - first;
    let even = indices.windows(2).all(|pair| pair[1] - pair[0] == step);
    let [first, end, step] = [first, last + 1, step].map(|index| isize::try_from(index).ok());
    even.then_some(Slice { start: first?, end: Some(end?), step: step? })
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ColumnRange { first, last }) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match last {
                None => write!(f, "{comma}{first}-")?,
                Some(last) if last == first => write!(f, "{comma}{first}")?,
                Some(last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, n: usize) -> Chosen {
        text.parse::<List>().unwrap().of(n).unwrap()
    }

    fn range(range: Range<usize>) -> Chosen {
        Chosen::Slice(Slice::from(range))
    }

    #[test]
    fn lists_are_those_of_cut() {
        assert_eq!(chosen("6-", 9), range(5..9));
        assert_eq!(chosen("-3", 9), range(0..3));
        assert_eq!(chosen("7", 9), range(6..7));
        assert_eq!(chosen("2,4,7-9", 9), Chosen::Indices(vec![1, 3, 6, 7, 8]));
        assert_eq!(
            chosen("7-9,4,2,8", 9),
            Chosen::Indices(vec![1, 3, 6, 7, 8]),
            "in their own order, none twice"
        );
        assert_eq!(chosen("4-5,1-3,2", 9), range(0..5));
        assert_eq!(chosen("1,3,5", 9), Chosen::Slice(Slice { start: 0, end: Some(5), step: 2 }));
        assert_eq!(chosen("9-", 9), range(8..9));
        assert_eq!(chosen("1-", 0), range(0..0));
    }

    #[test]
    fn what_there_is_not_is_named() {
        for (text, n, missing) in [
            ("10", 9, 10),
            ("3-10", 9, 10),
            ("12-", 9, 12),
            ("1,12", 9, 12),
            ("2-", 0, 2),
            ("1", 0, 1),
        ] {
            assert_eq!(text.parse::<List>().unwrap().of(n), Err(missing), "{text} of {n}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for text in ["", "a", "0", "1,,2", "-", "5-3", "1-2-3", "-0", "1.5", "99999999999999999999"]
        {
            assert!(text.parse::<List>().is_err(), "{text}");
        }
    }
}
