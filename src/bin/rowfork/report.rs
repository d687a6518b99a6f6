//! How a call went, on standard error: for people, or for programs.

use rowfork::{EarlyEnd, Report};
use serde_json::{Value, json};

use crate::args::{Form, Kind, RowArgs};
use crate::json::failed_row;
use crate::text;

/// What is said beside the library's account.
#[derive(Debug)]
pub(crate) struct About<'a> {
    pub(crate) args: &'a RowArgs,
    /// How the input was opened.
    pub(crate) way: &'static str,
    /// Which row of the input the report calls row 0.
    pub(crate) first_row: usize,
}

impl About<'_> {
    fn output(&self) -> String {
        self.args.output.as_ref().map_or_else(|| "standard output".to_owned(), ToString::to_string)
    }

    fn executor(&self) -> &'static str {
        match self.args.executor {
            Kind::Fork => "fork",
            Kind::Pool => "pool",
        }
    }
}

/// Writes the report to standard error.
pub(crate) fn tell(form: Form, about: &About<'_>, report: &Report) {
    match form {
        Form::Text => text::tell(as_text(about, report).trim_end()),
        Form::Json => text::tell(&as_json(about, report).to_string()),
    }
}

/// Warns of what a user has to know who asked for no report: rows that are missing, and names that
/// are gone.
pub(crate) fn warn(about: &About<'_>, report: &Report) {
    let missing: usize = report.missing_rows.iter().map(ExactSizeIterator::len).sum();
    if missing > 0 {
        let first = about.first_row + report.missing_rows[0].start;
        text::tell(&format!(
            "rowfork: warning: {missing} rows are missing and hold nan, the first is row {first} (from 0); --report text says why"
        ));
    }
    for warning in &report.warnings {
        text::tell(&format!("rowfork: warning: {warning}"));
    }
}

fn as_text(about: &About<'_>, report: &Report) -> String {
    let (input, read) = (&about.args.input, text::bytes(report.bytes_read));
    let (output, executor) = (about.output(), about.executor());
    let heading = format!("{input} ({}, {read}) to {output}, executor {executor}", about.way);
    let rows = match about.first_row {
        0 => String::new(),
        first => format!("row 0 of what follows is row {first} of the input\n"),
    };
    format!("{}\n{rows}{report}", text::on_one_line(&heading))
}

fn as_json(about: &About<'_>, report: &Report) -> Value {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let workers = report.workers.iter().map(|worker| {
        json!({ "rows": worker.rows, "blocks": worker.blocks, "busy_seconds": seconds(worker.busy), "wait_seconds": seconds(worker.wait) })
    });
    let deaths = report.deaths.iter().map(|death| {
        json!({ "worker": death.worker, "cause": death.cause.to_string(), "rows": death.rows.as_ref().map(|rows| [rows.start, rows.end]) })
    });
    let failed = report.failed_rows.iter().map(failed_row);
    let missing = report.missing_rows.iter().map(|rows| [rows.start, rows.end]);
    json!({
        "input": about.args.input.to_string(),
        "input_is": about.way,
        "output": about.output(),
        "executor": about.executor(),
        "first_row": about.first_row,
        "rows": report.rows,
        "blocks": report.blocks,
        "seconds": seconds(report.elapsed),
        "bytes_read": report.bytes_read,
        "bytes_written": report.bytes_written,
        "gigabytes_per_second": report.gigabytes_per_second(),
        "efficiency": report.efficiency(),
        "inline": report.inline,
        "workers": workers.collect::<Vec<_>>(),
        "deaths": deaths.collect::<Vec<_>>(),
        "rerun_rows": report.rerun_rows,
        "failed_rows": failed.collect::<Vec<_>>(),
        "missing_rows": missing.collect::<Vec<_>>(),
        "ended_early": report.ended_early.map(|end| match end {
            EarlyEnd::Deadline => "deadline",
            EarlyEnd::Cancelled => "cancelled",
            _ => "other",
        }),
        "warnings": report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
