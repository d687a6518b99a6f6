//! Where an array is, or is to be: a file, or a segment as `shm:NAME`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::{MapValueParser, OsStringValueParser, TypedValueParser, ValueParserFactory};

/// What may be said where an array is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    File(PathBuf),
    Segment(String),
}

/// What stands before the name of a segment.
const SEGMENT: &str = "shm:";

impl From<OsString> for Location {
    /// A path need not be text, a segment's name is. (A file of such a name is `./shm:x`.)
    fn from(text: OsString) -> Self {
        match text.to_str().and_then(|text| text.strip_prefix(SEGMENT)) {
            Some(name) => Self::Segment(name.to_owned()),
            None => Self::File(text.into()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Segment(name) => write!(f, "{SEGMENT}{name}"),
        }
    }
}

impl ValueParserFactory for Location {
    type Parser = MapValueParser<OsStringValueParser, fn(OsString) -> Self>;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().map(Self::from)
    }
}

/// A segment's name, with or without what tells it from a file.
pub(crate) fn bare_name(text: &str) -> &str {
    text.strip_prefix(SEGMENT).unwrap_or(text)
}
