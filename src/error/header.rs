//! What can be wrong with the header of a `.npy` file.

use std::fmt;

/// What is wrong with a `.npy` header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file does not start with the magic bytes of the format.
    #[error("not a .npy file: {}", Beginning(.found))]
    BadMagic {
        /// The first bytes, at most 6.
        found: Vec<u8>,
    },
    /// A version of the format that does not exist yet.
    #[error("format version {major}.{minor}; 1.0, 2.0 and 3.0 are known")]
    BadVersion {
        /// The major version found.
        major: u8,
        /// The minor version found.
        minor: u8,
    },
    /// A header longer than any sensible one, so that it is not even read.
    #[error("header of {len} bytes; at most {limit} are accepted")]
    TooLong {
        /// The length that the file claims.
        len: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The file ends inside its header.
    #[error("the header ends at byte {end}, but the file has {file_bytes} bytes")]
    BeyondFile {
        /// Where the header should end.
        end: u64,
        /// The length of the file.
        file_bytes: u64,
    },
    /// A byte that no header of a plain array contains.
    #[error("byte {byte:#04x} at header offset {at} is not ASCII")]
    NotAscii {
        /// The byte.
        byte: u8,
        /// Its offset in the header's text.
        at: usize,
    },
    /// The header is not the Python dictionary that it should be.
    #[error("malformed header at offset {at}: {expected} expected")]
    Malformed {
        /// Offset in the header's text.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A key is not there.
    #[error("the header has no key {key:?}")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A key that the format does not have.
    #[error("unknown header key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key is there twice.
    #[error("header key {key:?} is there twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The array is stored column by column.
    #[error("stored in Fortran order; save it in C order (numpy.ascontiguousarray)")]
    FortranOrder,
    /// The elements have the other byte order.
    #[error("dtype {descr:?} is big endian; save it as little endian (array.astype('{}'))", .descr.replace('>', "<"))]
    BigEndian {
        /// The `descr` found.
        descr: String,
    },
    /// The elements are pickled Python objects.
    #[error("dtype {descr:?} holds Python objects, not numbers; save it with a numeric dtype")]
    ObjectDtype {
        /// The `descr` found.
        descr: String,
    },
    /// The shape's number of bytes does not fit the address space.
    #[error("shape {shape:?} with {element_bytes}-byte elements exceeds the address space")]
    ShapeOverflow {
        /// The shape found.
        shape: Vec<u64>,
        /// Bytes per element.
        element_bytes: usize,
    },
    /// The data do not start at a multiple of the element's alignment.
    #[error("data start at byte {data_offset}, not at a multiple of {align}")]
    Misaligned {
        /// Where they start.
        data_offset: usize,
        /// The alignment needed.
        align: usize,
    },
    /// A `.npy` file, but not one that rowfork made.
    #[error(
        "data start at byte {data_offset}, in a rowfork segment at {expected}: some other program made this file"
    )]
    NotSegment {
        /// Where they start.
        data_offset: usize,
        /// Where they start in a segment.
        expected: usize,
    },
}

/// What a file that is no `.npy` file begins with, in words.
struct Beginning<'a>(&'a [u8]);

impl fmt::Display for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("it is empty"),
            bytes => {
                write!(f, "it starts with \"{}\", not with \"\\x93NUMPY\"", bytes.escape_ascii())
            }
        }
    }
}
