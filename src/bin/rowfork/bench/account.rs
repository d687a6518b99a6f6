//! What was measured, as a table, and what follows from it in words. Pure.

use std::time::Duration;

use super::contest::{Contest, Way, Who};
use crate::text;

/// What a call costs that has next to nothing to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dispatch {
    pub(super) fork: Duration,
    pub(super) hot: Duration,
    pub(super) parked: Duration,
}

/// All that was measured.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) shape: [usize; 2],
    /// What lay in `/dev/shm` at the most.
    pub(super) peak_bytes: u64,
    pub(super) contest: Contest,
    pub(super) placing: Duration,
    pub(super) dispatch: Dispatch,
}

/// Rule of thumb: with less than this of what they could be, several workers do not pay.
const WORTH_IT: f64 = 0.8;

impl Account {
    /// The whole of it.
    pub(super) fn lines(&self) -> Vec<String> {
        let [n_rows, n_columns] = self.shape;
        let (rounds, bytes) = (self.contest.rounds, text::bytes(self.bytes()));
        let mut lines = vec![format!(
            "{n_rows} rows of {n_columns} doubles, {bytes}; medians of {rounds} rounds; at most {} of /dev/shm in use",
            text::bytes(self.peak_bytes)
        )];
        let header = ["", "TIME", "GB/S", "OF CEILING"].map(str::to_owned);
        let ways = self.contest.ways.iter().map(|way| {
            let rate = self.rate(way.time);
            [name(way), time(way.time), format!("{rate:.1}"), percent(rate / self.ceiling())]
        });
        let placing = [
            "placing: a copy in a segment".to_owned(),
            time(self.placing),
            self.placed(),
            String::new(),
        ];
        let Dispatch { fork, hot, parked } = self.dispatch;
        let calls = [("fork mode", fork), ("a pool, hot", hot), ("a pool, parked", parked)].map(
            |(who, cost)| [format!("a tiny call: {who}"), time(cost), String::new(), String::new()],
        );
        let rows: Vec<_> =
            std::iter::once(header).chain(ways).chain([placing]).chain(calls).collect();
        lines.extend(text::table(&rows, &[1, 2, 3]));
        lines.push(self.closing());
        lines
    }

    fn bytes(&self) -> u64 {
        let [n_rows, n_columns] = self.shape;
        (n_rows * n_columns * size_of::<f64>()) as u64
    }

    /// Of the matrix's bytes, in GB/s.
    fn rate(&self, time: Duration) -> f64 {
        self.bytes() as f64 / 1e9 / time.as_secs_f64().max(1e-9)
    }

    fn placed(&self) -> String {
        format!("{:.1}", self.rate(self.placing))
    }

    /// The best rate at which the bytes are read. Mostly it is that of the threads that only read.
    /// If another way is faster its rate is the ceiling, since no way can be above the ceiling.
    fn ceiling(&self) -> f64 {
        self.contest.ways.iter().map(|way| self.rate(way.time)).fold(f64::MIN_POSITIVE, f64::max)
    }

    /// Whether all workers pay.
    fn closing(&self) -> String {
        let of = |who| self.contest.ways.iter().filter(move |way| way.who == who);
        let all = of(Who::Pool).map(|way| way.n).max().unwrap_or(1);
        let alone_and_all =
            |who| (of(who).find(|way| way.n == 1), of(who).find(|way| way.n == all));
        let speed_up = |who| match alone_and_all(who) {
            (Some(one), Some(all)) => one.time.as_secs_f64() / all.time.as_secs_f64().max(1e-9),
            _ => 1.0,
        };
        let best =
            of(Who::Fork).chain(of(Who::Pool)).map(|way| self.rate(way.time)).fold(0.0, f64::max);
        in_words(all, [speed_up(Who::Fork), speed_up(Who::Pool)], best / self.ceiling())
    }
}

/// What the speed-ups of fork mode and of a pool mean. `share` is the better rate of the two over
/// the ceiling.
fn in_words(n: usize, [fork, pool]: [f64; 2], share: f64) -> String {
    if n == 1 {
        return "One core is usable here: a second worker would not pay. Workers isolate all the same.".to_owned();
    }
    let workers = if n == 2 { "Two workers".to_owned() } else { format!("All {n} workers") };
    let efficiency = |speed_up: f64| percent(speed_up / n as f64);
    let measured = format!(
        "are {fork:.2} times as fast as one by fork mode ({} efficient), {pool:.2} times by a pool ({})",
        efficiency(fork),
        efficiency(pool)
    );
    let worth = |speed_up: f64| speed_up / n as f64 >= WORTH_IT;
    let verdict = match (worth(fork), worth(pool)) {
        (true, true) => "they pay here.".to_owned(),
        (false, true) => {
            "they pay here by a pool; of fork mode the start costs too much (--size says of what)."
                .to_owned()
        }
        (true, false) => "they pay here by fork mode.".to_owned(),
        (false, false) if share >= WORTH_IT => {
            format!(
                "fewer would do, since memory is what limits them ({} of the ceiling).",
                percent(share)
            )
        }
        (false, false) => {
            "they do not pay here (less than 80 %): too small a --size, or cores that others use."
                .to_owned()
        }
    };
    format!("{workers} {measured}: {verdict}")
}

fn name(&Way { who, n, .. }: &Way) -> String {
    let several = if n == 1 { "" } else { "s" };
    match who {
        Who::Readers => format!("reading: {n} thread{several}"),
        Who::Threads => format!("exact sums: {n} thread{several}"),
        Who::Fork => format!("exact sums: fork mode, {n} worker{several}"),
        Who::Pool => format!("exact sums: a pool, {n} worker{several}"),
        Who::Serial => "plain sums: ndarray, serial".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1000.0 { format!("{us:.1} us") } else { format!("{:.2} ms", us / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: usize, ms: &[(Who, usize, u64)]) -> Account {
        let ways = ms
            .iter()
            .map(|&(who, n, ms)| Way { who, n, time: Duration::from_millis(ms) })
            .collect();
        let [fork, hot, parked] = [400, 2, 30].map(Duration::from_micros);
        Account {
            shape: [125_000 * n, 1000],
            peak_bytes: 3 << 30,
            contest: Contest { ways, rounds: 7 },
            placing: Duration::from_millis(250),
            dispatch: Dispatch { fork, hot, parked },
        }
    }

    #[test]
    fn the_table_says_what_each_way_makes_of_the_ceiling() {
        let ways = [
            (Who::Readers, 1, 50),
            (Who::Readers, 2, 25),
            (Who::Fork, 1, 52),
            (Who::Fork, 2, 28),
            (Who::Pool, 1, 50),
            (Who::Pool, 2, 26),
            (Who::Serial, 1, 100),
        ];
        let lines = account(1, &ways).lines();
        let expected = [
            "125000 rows of 1000 doubles, 953.67 MiB; medians of 7 rounds; at most 3.00 GiB of /dev/shm in use",
            "                                       TIME  GB/S  OF CEILING",
            "reading: 1 thread                  50.00 ms  20.0        50 %",
            "reading: 2 threads                 25.00 ms  40.0       100 %",
            "exact sums: fork mode, 1 worker    52.00 ms  19.2        48 %",
            "exact sums: fork mode, 2 workers   28.00 ms  35.7        89 %",
            "exact sums: a pool, 1 worker       50.00 ms  20.0        50 %",
            "exact sums: a pool, 2 workers      26.00 ms  38.5        96 %",
            "plain sums: ndarray, serial       100.00 ms  10.0        25 %",
            "placing: a copy in a segment      250.00 ms   4.0",
            "a tiny call: fork mode             400.0 us",
            "a tiny call: a pool, hot             2.0 us",
            "a tiny call: a pool, parked         30.0 us",
            "Two workers are 1.86 times as fast as one by fork mode (93 % efficient), 1.92 times by a pool (96 %): they pay here.",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn whether_workers_pay_is_said_with_the_reason() {
        let ends = |words: String, end: &str| assert!(words.ends_with(end), "{words}");
        ends(in_words(8, [6.4, 7.0], 0.9), "they pay here.");
        ends(in_words(8, [6.3, 7.0], 0.9), "(--size says of what).");
        ends(in_words(8, [7.0, 1.0], 0.9), "they pay here by fork mode.");
        ends(in_words(8, [3.0, 3.1], 0.95), "memory is what limits them (95 % of the ceiling).");
        ends(in_words(8, [3.0, 3.1], 0.5), "or cores that others use.");
        assert!(in_words(8, [3.0, 3.1], 0.5).starts_with("All 8 workers are 3.00 times"));
        ends(in_words(1, [1.0, 1.0], 1.0), "Workers isolate all the same.");
        assert!(
            account(1, &[(Who::Readers, 1, 10), (Who::Pool, 1, 10)])
                .closing()
                .starts_with("One core")
        );
    }
}
