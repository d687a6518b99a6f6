//! A bar on standard error while work lasts, where that is a terminal.

use std::cell::OnceCell;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rowfork::Progress;

use crate::text;

/// What takes no longer needs no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar that appears once the work has lasted.
#[derive(Debug)]
pub(crate) struct Bar {
    row_bytes: u64,
    quiet: bool,
    drawn: OnceCell<ProgressBar>,
}

impl Bar {
    pub(crate) fn new(row_bytes: u64, quiet: bool) -> Self {
        Self { row_bytes, quiet, drawn: OnceCell::new() }
    }

    /// How far the work is.
    pub(crate) fn show(&self, progress: &Progress) {
        if self.quiet || (self.drawn.get().is_none() && progress.elapsed < PATIENCE) {
            return;
        }
        let bar = self.drawn.get_or_init(|| new_bar(progress.rows_total as u64));
        bar.set_position(progress.rows_done as u64);
        let rate = progress.rows_per_second() * self.row_bytes as f64;
        let left = progress.remaining().map_or(String::new(), |left| format!(", {} left", seconds(left)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes per second, rounded")]
        bar.set_message(format!("{}/s{left}", text::bytes(rate as u64)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.drawn.get() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(n_rows: u64) -> ProgressBar {
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(n_rows), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3} % of {human_len} rows, {msg}");
    bar.with_style(style.expect("a template that is tested"))
}

/// Whole seconds, as people write them.
fn seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs().saturating_add(1))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one() {
        new_bar(10).finish_and_clear();
        assert_eq!(seconds(Duration::from_millis(61_500)), "1m 2s");
    }
}
