//! Where this process has code, from `/proc/self/maps`.
//!
//! A pool notes these ranges when it forks its zygote. A function that a later call hands over is
//! accepted only if it lies in one of them: code that was loaded since is not there in the workers,
//! and a jump to its address would run something else.

use std::ops::Range;

/// The executable address ranges of this process at this moment, half-open and in order of their
/// addresses; `None` without `/proc`.
///
/// See [`proc_pid_maps(5)`](https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html).
pub(crate) fn executable_ranges() -> Option<Vec<Range<usize>>> {
    Some(executable_in(&std::fs::read_to_string("/proc/self/maps").ok()?))
}

/// Reads lines of the form `start-end perms offset device inode path`. The addresses are
/// hexadecimal, and the third letter of `perms` is `x` where code may run. A line of another form
/// is skipped.
fn executable_in(maps: &str) -> Vec<Range<usize>> {
    let range = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        let executable = rest.as_bytes().get(2) == Some(&b'x');
        Some(address(start)?..address(end)?).filter(|_| executable)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_data() {
        let maps = "1000-2000 r-xp 00000000 00:00 0 /bin/x\n2000-3000 rw-p 0 0:0 0\n7f00-8f00 --xp 00000000 00:00 0";
        assert_eq!(executable_in(maps), [0x1000..0x2000, 0x7f00..0x8f00]);
        let here = executable_ranges().unwrap();
        let has = |address: usize| here.iter().any(|range| range.contains(&address));
        assert!(has(executable_ranges as *const () as usize));
        assert!(!has((&raw const here).addr()));
    }
}
