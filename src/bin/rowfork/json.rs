//! What reports and failures have in common for programs that read them.

use rowfork::FailedRow;
use serde_json::{Value, json};

/// A row that was fatal to its workers.
pub(crate) fn failed_row(failed: &FailedRow) -> Value {
    json!({ "row": failed.row, "cause": failed.cause.to_string(), "attempts": failed.attempts })
}
