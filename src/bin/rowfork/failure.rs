//! [`Failure`]: how a command ends that did not do what it was asked to. It prints one line that
//! says what went wrong and what to do about it, and sets an exit code.

use std::io;
use std::process::ExitCode;

use rowfork::{Error, HeaderError};

use crate::json;
use crate::text;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library says why.
    Library(Error),
    /// The command says why, and what to do.
    Said(String),
    /// The same for a program that reads standard error.
    Json(serde_json::Value),
    /// The arguments make no sense together.
    Usage(String),
    /// What is wrong has been said.
    Told,
    /// Somebody has pressed ^C, or sent the like: leave with this exit code.
    Interrupted(u8),
    /// Nobody takes what is written to standard output.
    Output(io::Error),
}

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a command that was not understood. Clap's own.
const NOT_UNDERSTOOD: u8 = 2;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Says it on standard error, on one line.
    pub(crate) fn tell(self) -> ExitCode {
        let (line, code) = match self {
            // The user who has pressed ^C knows why.
            Self::Interrupted(code) => return ExitCode::from(code),
            Self::Told => return ExitCode::from(FAILED),
            // `| head` has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Output(error) => (format!("standard output: {error}"), FAILED),
            Self::Usage(text) => (format!("{text} (rowfork --help)"), NOT_UNDERSTOOD),
            Self::Json(value) => {
                text::tell(&value.to_string());
                return ExitCode::from(FAILED);
            }
            Self::Said(text) => (text, FAILED),
            Self::Library(error) => (with_advice(&error), FAILED),
        };
        text::tell(&format!("rowfork: {}", text::on_one_line(&line)));
        ExitCode::from(code)
    }

    /// The failure for a program that reads standard error: the line, and the rows that were fatal
    /// to their workers.
    pub(crate) fn into_json(self) -> Self {
        let failed = match &self {
            Self::Library(Error::PoisonedRows { rows, .. }) => {
                rows.iter().map(json::failed_row).collect()
            }
            _ => Vec::new(),
        };
        let line = match self {
            Self::Library(error) => with_advice(&error),
            Self::Said(line) => line,
            other => return other,
        };
        Self::Json(serde_json::json!({ "error": text::on_one_line(&line), "failed_rows": failed }))
    }

    /// Prints each failure. An error if there was one.
    pub(crate) fn tell_all(failures: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let mut told = Ok(());
        for failure in failures {
            failure.tell();
            told = Err(Self::Told);
        }
        told
    }
}

/// The library's message, with what to do where the message does not say so itself. Messages about
/// the library's options are put in the words of the command line.
fn with_advice(error: &Error) -> String {
    match error {
        Error::DeadlineExceeded { limit, rows_done, rows_total, .. } => format!(
            "--deadline {limit:?} was over with {rows_done} of {rows_total} rows done; give it longer, keep those that are done \
             with --on-poison nan, or find a row that hangs with --stall"
        ),
        Error::PoisonedRows { rows, .. } => {
            let all: Vec<String> = rows.iter().take(SHOWN).map(ToString::to_string).collect();
            let more =
                if rows.len() > SHOWN { format!("; {} in all", rows.len()) } else { String::new() };
            format!(
                "{}{more}; --on-poison nan goes on without such rows (which count from 0)",
                all.join("; ")
            )
        }
        Error::UnfitFill { dtype, .. } => {
            format!(
                "--on-poison nan: the output is of dtype {dtype:?}, which has no NaN; leave it out"
            )
        }
        _ => match advice(error) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        },
    }
}

/// How many rows an error names.
const SHOWN: usize = 5;

fn advice(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::InvalidName { .. } => "a name is what stands after /dev/shm/, as in shm:prices",
        Error::NameInUse { .. } => "rowfork info NAME says what it is",
        Error::NameNotFound { .. } => "rowfork ls lists those that are there",
        Error::NotRegular { .. } | Error::NotAFile { .. } => {
            "name a .npy file, or a segment as shm:NAME"
        }
        Error::InUse { .. } => "rowfork info NAME says by which",
        Error::Truncated { .. } => "it was cut, or not written to its end: make it again",
        Error::DiskFull { .. } => "make room, or write elsewhere",
        Error::WrongDimension { shape, .. } if shape.len() > 2 => {
            "reshape it, as in numpy: a.reshape(len(a), -1)"
        }
        Error::WrongDimension { expected: 2, .. } => {
            "a single row is a matrix as well, in numpy: a.reshape(1, -1)"
        }
        Error::WrongDimension { .. } => "a vector is wanted, in numpy: a.reshape(-1)",
        Error::WrongDtype { found, .. } if found.contains('c') => {
            "take a part of it, as in numpy: a.real"
        }
        Error::WrongDtype { .. } => "convert it, as in numpy: a.astype('<f8')",
        Error::SumOverflow { .. } => {
            "rows count from 0; sums of doubles have no end: in numpy, a.astype('<f8')"
        }
        Error::NotOurs { .. } => "its owner can give leave (chmod), or be asked for a copy",
        Error::WrongShape { .. } => {
            "as many elements are needed as there are columns (rowfork info shows shapes)"
        }
        Error::Npy { cause, .. } => return of_header(cause),
        // Segments, and answers in the making, lie there.
        Error::Os { subject, .. } if subject.starts_with("/dev/shm") => {
            "rowfork doctor says what is wrong with /dev/shm"
        }
        Error::Os { cause, .. } => return of_system(cause),
        _ => return None,
    })
}

fn of_header(error: &HeaderError) -> Option<&'static str> {
    Some(match error {
        HeaderError::BadMagic { .. } => "save it with numpy.save",
        HeaderError::BadVersion { .. } | HeaderError::TooLong { .. } => {
            "save it again with numpy.save"
        }
        HeaderError::BeyondFile { .. } => "it was cut, or not written to its end: make it again",
        HeaderError::NotSegment { .. } => "remove it as any file: rm /dev/shm/NAME",
        HeaderError::FortranOrder
        | HeaderError::BigEndian { .. }
        | HeaderError::ObjectDtype { .. } => return None,
        _ => "it is damaged: save it again with numpy.save",
    })
}

fn of_system(error: &io::Error) -> Option<&'static str> {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return Some("raise the limit on open files: ulimit -n");
    }
    Some(match error.kind() {
        io::ErrorKind::NotFound => "check the path and its directory (a segment is shm:NAME)",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and its directory",
        io::ErrorKind::ReadOnlyFilesystem => "write elsewhere",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or write elsewhere"
        }
        _ => return None,
    })
}
