//! Numbers as text: the shortest digits that read back the same, one a line.

use std::fmt::Debug;
use std::io::{self, BufWriter, Write};

/// Writes them to standard output.
pub(crate) fn write_lines<A: Debug>(values: &[A]) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    // As `Debug` has it, large and small ones have an exponent: `1e300` and not 301 digits.
    values.iter().try_for_each(|value| writeln!(out, "{value:?}"))?;
    out.flush()
}

/// Bytes as people read them: `1.5 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// As a terminal can be trusted with: what files hold, and what they are called, may be anything, and long.
pub(crate) fn on_one_line(text: &str) -> String {
    const LONGEST: usize = 1000;
    let escaped = text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] });
    let mut line: String = escaped.take(LONGEST).collect();
    if text.len() > LONGEST {
        line.push_str(" ...");
    }
    line
}

/// Cells in columns; those of the given numbers are set to the right.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], to_the_right: &[usize]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if to_the_right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_file_is_called_the_line_is_one_and_not_endless() {
        assert_eq!(on_one_line("a\nb\u{1b}[31m.npy: é"), "a\\nb\\u{1b}[31m.npy: é");
        let long = on_one_line(&"x".repeat(1 << 20));
        assert!(long.len() < 1100 && long.ends_with(" ..."), "{}", long.len());
    }
}
