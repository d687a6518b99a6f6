//! The parser of `.npy` headers alone, `src/segment/header.rs` as it stands: no input makes it panic, and what it takes it has
//! understood, since what it read is written again and read as the same.
#![no_main]
// A part of rowfork that names its imports as rowfork does.
#![allow(dead_code, clippy::doc_markdown, reason = "the file has more than is tried here")]

#[path = "../../../src/segment/header.rs"]
mod header;

/// Where the file looks for its errors.
mod error {
    pub(crate) use rowfork::HeaderError;
}

use libfuzzer_sys::fuzz_target;

use self::error::HeaderError;
use self::header::{DATA_OFFSET, Header, MAX_HEADER, PRELUDE};

/// What rowfork writes, and how many bytes each takes.
const WRITTEN: [(&str, usize); 11] = [
    ("<f8", 8),
    ("<f4", 4),
    ("|i1", 1),
    ("<i2", 2),
    ("<i4", 4),
    ("<i8", 8),
    ("|u1", 1),
    ("<u2", 2),
    ("<u4", 4),
    ("<u8", 8),
    ("|b1", 1),
];

fuzz_target!(|bytes: &[u8]| {
    // As a file, and as the text of one: of the first most have no length that fits.
    if let Ok(header) = of_file(bytes) {
        check(&header);
    }
    match header::parse(bytes, DATA_OFFSET) {
        Ok(header) => {
            check(&header);
            // Spaces fill the text up to the data.
            assert_eq!(header::parse(&[bytes, b" \n"].concat(), DATA_OFFSET).as_ref(), Ok(&header));
        }
        Err(error) => tell(&error),
    }
});

/// What `NpyFile::read` does, on bytes.
fn of_file(bytes: &[u8]) -> Result<Header, HeaderError> {
    let prelude = &bytes[..bytes.len().min(PRELUDE)];
    let text = header::extent(prelude, bytes.len() as u64).inspect_err(tell)?;
    assert!(
        text.end <= bytes.len() && text.len() as u64 <= MAX_HEADER,
        "{text:?} of {} bytes",
        bytes.len()
    );
    header::parse(&bytes[text.clone()], text.end).inspect_err(tell)
}

/// An error is a line for people, whatever a stranger has written into the file.
fn tell(error: &HeaderError) {
    let line = error.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

/// What was taken can be had: its size is the product of its axes, and written again it is the same.
fn check(header: &Header) {
    for (descr, element_bytes) in WRITTEN {
        let (axes, bytes) = match header.size(element_bytes) {
            Ok(size) => size,
            Err(error) => {
                tell(&error);
                continue;
            }
        };
        let product = axes
            .iter()
            .try_fold(element_bytes as u128, |product, &n| product.checked_mul(n as u128));
        assert!(
            axes.contains(&0) || product == Some(bytes as u128),
            "{axes:?} is not {bytes} bytes"
        );
        assert!(!axes.contains(&0) || bytes == 0, "{axes:?} has bytes");
        assert!(header.data_offset + bytes <= isize::MAX.unsigned_abs(), "{bytes} bytes");
        assert!(axes.iter().map(|&n| n as u64).eq(header.shape.iter().copied()), "{axes:?}");
        // A descr of another type: only the axes are its own.
        for (written, unit) in
            [(header::of_file(descr, &axes), 64), (header::of_segment(descr, &axes), DATA_OFFSET)]
        {
            assert!(written.len().is_multiple_of(unit), "{} bytes", written.len());
            let again = of_file(&written);
            let same = Header {
                descr: descr.to_owned(),
                shape: header.shape.clone(),
                data_offset: written.len(),
            };
            assert_eq!(again, Ok(same), "{:?}", String::from_utf8_lossy(&written));
        }
    }
}
