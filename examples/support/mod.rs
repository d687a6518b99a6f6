//! What the examples share: options from the command line, the memory there is, timing. Nothing of
//! rowfork to learn here.
#![allow(dead_code, reason = "each example uses a part")]

use std::time::Instant;

use nix::sys::signal::{SigHandler, Signal, signal};

/// The command line: options with a value (`--rows 1000`) and at most one plain argument.
pub(crate) struct Options {
    words: Vec<String>,
}

impl Options {
    /// From this program's arguments; says what is possible, and ends, when one is not in `known`
    /// or lacks its value.
    pub(crate) fn from_args(usage: &str, known: &[&str]) -> Self {
        end_with_the_reader();
        let words: Vec<String> = std::env::args().skip(1).collect();
        let is_option = |word: &String| word.starts_with('-');
        let complaint =
            words.iter().enumerate().filter(|(_, word)| is_option(word)).find_map(|(at, word)| {
                let value = words.get(at + 1).filter(|next| !is_option(next));
                match (known.contains(&word.as_str()), value) {
                    (false, _) => Some(format!("{word} is not an option")),
                    (true, None) => Some(format!("{word} needs a value")),
                    (true, Some(_)) => None,
                }
            });
        let options = Self { words };
        let unexpected = options.plain().filter(|_| !usage.contains("FILE"));
        let complaint = complaint.or_else(|| Some(format!("{} is not expected", unexpected?)));
        if let Some(complaint) = complaint {
            eprintln!("{complaint}\nusage: {usage}");
            std::process::exit(2);
        }
        options
    }

    /// The word behind an option.
    pub(crate) fn text(&self, option: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == option)?;
        self.words.get(at + 1).map(String::as_str)
    }

    /// The number behind an option.
    pub(crate) fn number(&self, option: &str) -> Option<usize> {
        let text = self.text(option)?;
        let number = text.replace('_', "").parse();
        Some(number.unwrap_or_else(|_| {
            eprintln!("{option} takes a whole number, not {text:?}");
            std::process::exit(2);
        }))
    }

    /// The number behind an option, which makes no sense as 0; `default` without the option.
    pub(crate) fn count(&self, option: &str, default: usize) -> usize {
        let count = self.number(option).unwrap_or(default);
        if count == 0 {
            eprintln!("{option} takes a number from 1 on");
            std::process::exit(2);
        }
        count
    }

    /// The argument that belongs to no option.
    pub(crate) fn plain(&self) -> Option<&str> {
        let is_value = |at: usize| at > 0 && self.words[at - 1].starts_with('-');
        let at =
            (0..self.words.len()).find(|&at| !self.words[at].starts_with('-') && !is_value(at))?;
        Some(&self.words[at])
    }
}

/// Ends this program quietly when nobody reads what it prints any more (`| head -1`), where Rust
/// would have it panic.
#[allow(unsafe_code, reason = "the disposition of a signal is the process's")]
fn end_with_the_reader() {
    // SAFETY: no other thread yet, and no handler: the default action.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// At most `n_rows` rows of `row_bytes` bytes: fewer, with a notice, where /dev/shm or memory has
/// no room for them. One at least: where there is no room for that, rowfork says so.
pub(crate) fn rows_that_fit(n_rows: usize, row_bytes: usize) -> usize {
    let shm = nix::sys::statvfs::statvfs("/dev/shm")
        .map_or(u64::MAX, |stat| stat.blocks_available() * stat.block_size());
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let memory = available.and_then(|kib| kib.parse().ok()).map_or(u64::MAX, |kib: u64| kib * 1024);
    // Outputs and everybody else want some, too.
    let room = usize::try_from(shm.min(memory)).unwrap_or(usize::MAX) / 10 * 7;
    let fitting = n_rows.min((room / row_bytes.max(1)).max(1));
    if fitting < n_rows {
        println!(
            "notice: {n_rows} rows need {} MiB, {} MiB are free in /dev/shm and {} MiB in memory: {fitting} rows it is",
            n_rows.saturating_mul(row_bytes) >> 20,
            shm >> 20,
            memory >> 20
        );
    }
    fitting
}

/// Seconds that `work` takes, and what it gives.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// The median of five timings of each rival, in turns, so that a slow moment of the machine hits
/// them all.
pub(crate) fn medians<const N: usize>(mut rivals: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..5 {
        for (rival, times) in rivals.iter_mut().zip(&mut times) {
            times.push(timed(rival).0);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// One line of the table: what, how long, how fast.
pub(crate) fn line(what: &str, seconds: f64, bytes: usize, remark: &str) {
    println!(
        "{what:<22} {:>9.3} ms {:>7.1} GB/s   {remark}",
        seconds * 1e3,
        bytes as f64 / seconds / 1e9
    );
}
