//! A bar on standard error while work lasts, where that is a terminal: of a call's rows, or of
//! steps.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rowfork::Progress;

use crate::text;

/// Work that takes no longer needs no bar.
const SHOW_AFTER: Duration = Duration::from_millis(400);

/// A bar over the rows of a call, which appears once that has lasted.
#[derive(Debug)]
pub(crate) struct RowBar {
    row_bytes: u64,
    quiet: bool,
    drawn: OnceCell<ProgressBar>,
}

impl RowBar {
    pub(crate) fn new(row_bytes: u64, quiet: bool) -> Self {
        Self { row_bytes, quiet, drawn: OnceCell::new() }
    }

    /// How far the work is.
    pub(crate) fn show(&self, progress: &Progress) {
        if self.quiet || (self.drawn.get().is_none() && progress.elapsed < SHOW_AFTER) {
            return;
        }
        let bar =
            self.drawn.get_or_init(|| new_bar(progress.rows_total as u64, "{human_len} rows"));
        let rate = progress.rows_per_second() * self.row_bytes as f64;
        bar.set_message(rate_and_rest(rate, progress.remaining()));
        bar.set_position(progress.rows_done as u64);
    }
}

impl Drop for RowBar {
    fn drop(&mut self) {
        if let Some(bar) = self.drawn.get() {
            bar.finish_and_clear();
        }
    }
}

/// A bar over the bytes of a file that several threads read. It too appears only once that has
/// lasted.
#[derive(Debug)]
pub(crate) struct ByteBar {
    bar: ProgressBar,
    start: Instant,
    read: AtomicU64,
}

impl ByteBar {
    pub(crate) fn new(n_bytes: u64, quiet: bool) -> Self {
        let bar =
            if quiet { ProgressBar::hidden() } else { new_bar(n_bytes, "{binary_total_bytes}") };
        Self { bar, start: Instant::now(), read: AtomicU64::new(0) }
    }

    /// Counts bytes that were read.
    pub(crate) fn more(&self, bytes: usize) {
        let read = self.read.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let elapsed = self.start.elapsed();
        if elapsed < SHOW_AFTER || self.bar.is_hidden() {
            return;
        }
        let rate = read as f64 / elapsed.as_secs_f64();
        let rest = self.bar.length().unwrap_or(read).saturating_sub(read) as f64 / rate;
        self.bar.set_message(rate_and_rest(rate, Duration::try_from_secs_f64(rest).ok()));
        self.bar.set_position(read);
    }
}

impl Drop for ByteBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes per second, and the time left if that is known.
fn rate_and_rest(rate: f64, left: Option<Duration>) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes per second, rounded"
    )]
    let rate = text::bytes(rate as u64);
    left.map_or_else(|| format!("{rate}/s"), |left| format!("{rate}/s, {} left", seconds(left)))
}

/// A bar. It is hidden by itself where standard error is no terminal, and not drawn before it has a
/// position.
fn new_bar(len: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template(&format!("{{wide_bar}} {{percent:>3}} % of {what}, {{msg}}"));
    bar.with_style(style.expect("a template that is tested"))
}

/// A bar of named steps, whose number may turn out later. It is drawn when a step begins and never
/// in between, so that no step has to share the machine with it.
#[derive(Debug)]
pub(crate) struct Steps(ProgressBar);

impl Steps {
    pub(crate) fn new(quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style =
            ProgressStyle::with_template("{bar:30} {msg}").expect("a template that is tested");
        Self(ProgressBar::with_draw_target(Some(0), target).with_style(style))
    }

    /// Announces `n` more steps.
    pub(crate) fn more(&self, n: usize) {
        self.0.inc_length(n as u64);
    }

    /// The next step begins.
    pub(crate) fn next(&mut self, what: &'static str) {
        self.0.set_message(what);
        self.0.inc(1);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Whole seconds, as people write them.
fn seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs().saturating_add(1))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        new_bar(10, "{human_len} rows").finish_and_clear();
        new_bar(10, "{binary_total_bytes}").finish_and_clear();
        Steps::new(false).next("a step");
        assert_eq!(seconds(Duration::from_millis(61_500)), "1m 2s");
    }
}
