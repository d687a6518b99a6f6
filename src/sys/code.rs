//! Where this process has code, from `/proc/self/maps`.

use std::ops::Range;

/// The executable address ranges of this process at this moment; `None` without `/proc`.
pub(crate) fn executable_ranges() -> Option<Vec<Range<usize>>> {
    Some(executable_in(&std::fs::read_to_string("/proc/self/maps").ok()?))
}

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
