//! `rowfork doctor`: what this machine has to offer, whether that is good, and what to do where it
//! is not.
//!
//! Facts are gathered (`facts`), judged without a further look at anything (`findings`), and said.

mod facts;
mod findings;

use std::io::{self, Write};

use self::facts::Facts;
use self::findings::{Finding, Verdict, findings};
use crate::failure::Failure;
use crate::text;

/// Says it all on standard output; what is bad is a failure.
pub(crate) fn run() -> Result<(), Failure> {
    let findings = findings(&Facts::gather());
    let mut out = io::stdout().lock();
    for line in lines(&findings) {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    if bad { Err(Failure::Told) } else { Ok(()) }
}

/// A line for each finding, and one below it with what to do, if there is anything.
fn lines(findings: &[Finding]) -> Vec<String> {
    let row = |finding: &Finding| {
        [finding.verdict.word().to_owned(), finding.what.to_owned(), finding.is.clone()]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    let advice = findings
        .iter()
        .map(|finding| finding.advice.as_ref().map(|advice| format!("      -> {advice}")));
    text::table(&rows, &[])
        .into_iter()
        .zip(advice)
        .flat_map(|(line, advice)| [Some(line), advice])
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_is_not_good() {
        let found = [
            Finding { what: "cores", is: "8".to_owned(), verdict: Verdict::Good, advice: None },
            Finding {
                what: "/dev/shm",
                is: "64 KiB".to_owned(),
                verdict: Verdict::Bad,
                advice: Some("enlarge it".to_owned()),
            },
        ];
        assert_eq!(
            lines(&found),
            ["good  cores     8", "bad   /dev/shm  64 KiB", "      -> enlarge it"]
        );
    }
}
