//! Numbers as text: the shortest digits that read back the same, one a line; bytes as people write
//! them; tables.

use std::fmt::Debug;
use std::io::{self, BufWriter, Write};

/// Writes a line to standard error. If that is closed the line is lost, and the command goes on:
/// the answer counts.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes values to standard output, one a line.
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

/// Text that is safe to send to a terminal: without control characters, and not too long. What
/// files hold, and what they are called, may be anything.
pub(crate) fn on_one_line(text: &str) -> String {
    const LONGEST: usize = 1000;
    let escaped = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] });
    let mut line: String = escaped.take(LONGEST).collect();
    if text.len() > LONGEST && line.chars().count() == LONGEST {
        line.push_str(" ...");
    }
    line
}

/// Bytes as people write them: `1GiB`, `1G` and `1024MiB` are one number, `200MB` are 200 million.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    if unit == "ib" {
        return Err("no such unit: 512MiB, 1GiB".to_owned());
    }
    let (power, base) = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => (0, 1),
        letter => (
            1 + ["k", "m", "g", "t"]
                .into_iter()
                .position(|known| known == letter)
                .ok_or("no such unit: 512MiB, 1GiB")?,
            if unit.len() == 2 { 1000 } else { 1024_u64 },
        ),
    };
    let n: u64 = digits.parse().map_err(|_| "no number of bytes: write 512MiB, 1GiB or 200MB")?;
    let all = (0..power).try_fold(n, |n, _| n.checked_mul(base));
    all.ok_or_else(|| "more than an address can say".to_owned())
}

/// Cells in columns; those of the given numbers are set to the right.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], to_the_right: &[usize]) -> Vec<String> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if to_the_right.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
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

    #[test]
    fn bytes_are_read_as_people_write_them() {
        let read = [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("3k", 3 << 10),
            ("512MiB", 512 << 20),
            ("1 GiB", 1 << 30),
        ];
        for (text, n) in
            read.into_iter().chain([("2G", 2 << 30), ("200MB", 200_000_000), ("1TiB", 1 << 40)])
        {
            assert_eq!(parse_bytes(text), Ok(n), "{text}");
        }
        for text in [
            "",
            "MiB",
            "17ib",
            "1.5GiB",
            "-1",
            "1x",
            "1MiBB",
            "99999999999999999999",
            "99999999TiB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
