//! The `.npy` header: what we write (version 1.0, data at byte 4096) and what NumPy may have
//! written. Pure: no file, no memory map.
//!
//! The format is that of
//! [numpy.lib.format](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html),
//! first proposed in [NEP 1](https://numpy.org/neps/nep-0001-npy-format.html) (Robert Kern, "A
//! Simple File Format for NumPy Arrays", 2007). A file begins with a magic string, a version and
//! the length of the text that follows. The text is a Python literal, a dictionary of three keys,
//! padded with spaces and ended by a newline. The data come right after it.
//!
//! | bytes of a segment | what |
//! |---|---|
//! | 0..6 | magic, `\x93NUMPY` |
//! | 6..8 | version, `1 0` |
//! | 8..10 | length of the text with its newline, 4086, little endian |
//! | 10..4095 | the dictionary and spaces |
//! | 4095 | newline |
//! | 4096.. | the elements: little endian, C order, without gaps |

use crate::error::HeaderError;

/// Where data start in every segment that rowfork makes, in bytes. They lie on a page of their own,
/// so the first element is aligned for anything, and 2 MiB pages of the mapping are 2 MiB pages of
/// the file.
pub(crate) const DATA_OFFSET: usize = 4096;
/// The longest header that is read, in bytes. NumPy itself refuses more than 10,000 bytes unless
/// told otherwise. Without a limit a file could have 4 GiB allocated by its claim alone.
pub(super) const MAX_HEADER: u64 = 1 << 20;
/// As many bytes of a file as are needed to learn how long its header is, in any version: 6 of
/// magic, 2 of version, 2 or 4 of length.
pub(super) const PRELUDE: usize = 12;

/// What every `.npy` file begins with.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// What a header says. Nothing in it has been checked against the file's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The element type, as NumPy spells it: `<f8`.
    pub(crate) descr: String,
    /// Axis lengths.
    pub(crate) shape: Vec<u64>,
    /// Where data start in the file, in bytes.
    pub(crate) data_offset: usize,
}

/// The header of a segment: all of its first page.
///
/// The longest text there is, of 64 axes of 20 digits each, takes less than half of the page, so
/// `spaces` cannot underflow.
pub(super) fn of_segment(descr: &str, shape: &[usize]) -> Vec<u8> {
    let text = dictionary(descr, shape);
    let spaces = DATA_OFFSET - PREFIX - text.len() - 1;
    with_prefix(&(text + &" ".repeat(spaces)))
}

/// The header of a file on disk, byte for byte as `np.save` writes it. Axis 0 has room to grow to
/// 21 digits (`GROWTH_AXIS_MAX_DIGITS` in NumPy, so that a program that appends rows can write the
/// header anew in place). Then come spaces up to a multiple of 64, and 64 of them where it is one
/// already.
pub(crate) fn of_file(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut text = dictionary(descr, shape);
    if let Some(rows) = shape.first() {
        text += &" ".repeat(21 - rows.to_string().len());
    }
    let spaces = 64 - (PREFIX + text.len() + 1) % 64;
    with_prefix(&(text + &" ".repeat(spaces)))
}

/// The length in bytes of what stands before the text in version 1.0: magic, version, length.
const PREFIX: usize = 10;

/// The text of a header, without padding. Keys, order, blanks and the last comma are NumPy's, so
/// the result is what NumPy would have written.
fn dictionary(descr: &str, shape: &[usize]) -> String {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A single axis keeps its comma: `(3)` is a number to Python, not a tuple.
    let axes = lengths.join(", ") + if shape.len() == 1 { "," } else { "" };
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}")
}

/// Puts magic, version and length before the text, and a newline after it. The length counts the
/// newline.
fn with_prefix(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len() + 1).expect("a header of ours is at most a page");
    [MAGIC.as_slice(), &[1, 0], &len.to_le_bytes(), text.as_bytes(), b"\n"].concat()
}

/// Where the header's text starts and ends in the file, from its first bytes (at most [`PRELUDE`]).
/// The end is where the data start.
///
/// Version 1.0 has a length of 2 bytes, version 2.0 one of 4, for headers beyond 64 KiB; 3.0 is 2.0
/// with UTF-8 text, which NumPy writes for field names that are not Latin-1. All are little endian.
///
/// # Errors
/// `BadMagic`, `BadVersion`, `TooLong`; `BeyondFile` if the header would end after `file_bytes`.
pub(super) fn extent(
    prelude: &[u8],
    file_bytes: u64,
) -> Result<std::ops::Range<usize>, HeaderError> {
    if !prelude.starts_with(MAGIC) {
        return Err(HeaderError::BadMagic { found: prelude[..prelude.len().min(6)].to_vec() });
    }
    let cut = |end: u64| HeaderError::BeyondFile { end, file_bytes };
    let &[major, minor] = prelude.get(6..8).and_then(|v| v.first_chunk()).ok_or(cut(10))?;
    let (start, len) = match (major, minor) {
        (1, 0) => {
            let len: &[u8; 2] = prelude.get(8..10).and_then(|v| v.first_chunk()).ok_or(cut(10))?;
            (10, u64::from(u16::from_le_bytes(*len)))
        }
        (2 | 3, 0) => {
            let len: &[u8; 4] = prelude.get(8..12).and_then(|v| v.first_chunk()).ok_or(cut(12))?;
            (12, u64::from(u32::from_le_bytes(*len)))
        }
        (major, minor) => return Err(HeaderError::BadVersion { major, minor }),
    };
    if len > MAX_HEADER {
        return Err(HeaderError::TooLong { len, limit: MAX_HEADER });
    }
    if start + len > file_bytes {
        return Err(cut(start + len));
    }
    // Both fit: `len` is at most MAX_HEADER.
    let [start, len] = [start, len].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(start..start + len)
}

/// Parses the header's text; data start at `data_offset`.
///
/// Python would evaluate the literal. Here a small grammar is read instead: a dictionary with
/// exactly the three keys, in any order, each once. What Python would take and NumPy never writes
/// (a key twice, escape sequences, other literals) is refused, since its meaning is not certain.
///
/// # Errors
/// A variant of its own for each thing that can be wrong, with the place or the text of it.
pub(super) fn parse(text: &[u8], data_offset: usize) -> Result<Header, HeaderError> {
    if let Some(at) = text.iter().position(|b| !b.is_ascii()) {
        return Err(HeaderError::NotAscii { byte: text[at], at });
    }
    // From here on a byte is a character, and every index is a boundary of the text.
    let mut reader = Reader { text, at: 0 };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    reader.expect(b'{', "'{'")?;
    while !reader.take(b'}') {
        let key = reader.string()?;
        reader.expect(b':', "':'")?;
        let again = match key {
            "descr" => descr.replace(reader.descr()?).is_some(),
            "fortran_order" => fortran_order.replace(reader.boolean()?).is_some(),
            "shape" => shape.replace(reader.shape()?).is_some(),
            _ => return Err(HeaderError::UnknownKey { key: key.to_owned() }),
        };
        if again {
            return Err(HeaderError::DuplicateKey { key: key.to_owned() });
        }
        // The last comma is optional, as in Python; between two keys it is not.
        if !reader.take(b',') {
            reader.expect(b'}', "',' or '}'")?;
            break;
        }
    }
    reader.end()?;
    let descr = descr.ok_or(HeaderError::MissingKey { key: "descr" })?;
    let fortran_order = fortran_order.ok_or(HeaderError::MissingKey { key: "fortran_order" })?;
    let shape = shape.ok_or(HeaderError::MissingKey { key: "shape" })?;
    // `O` marks pickled Python objects: their bytes mean nothing outside of the process that wrote
    // them.
    match descr.as_bytes() {
        [b'|' | b'<' | b'>' | b'=', b'O', ..] | [b'O', ..] => {
            return Err(HeaderError::ObjectDtype { descr });
        }
        [b'>', ..] => return Err(HeaderError::BigEndian { descr }),
        _ => {}
    }
    if fortran_order {
        Err(HeaderError::FortranOrder)
    } else {
        Ok(Header { descr, shape, data_offset })
    }
}

impl Header {
    /// The axis lengths, and the number of data bytes for elements of `element_bytes`, if that fits
    /// the address space. Axes of length 0 are left out of the check as they are in ndarray's: the
    /// other axes must fit even so.
    pub(super) fn size(&self, element_bytes: usize) -> Result<(Vec<usize>, usize), HeaderError> {
        let overflow = || HeaderError::ShapeOverflow { shape: self.shape.clone(), element_bytes };
        let axes: Vec<usize> = self
            .shape
            .iter()
            .map(|&n| usize::try_from(n))
            .collect::<Result<_, _>>()
            .map_err(|_| overflow())?;
        let bytes = data_bytes(&axes, element_bytes).ok_or_else(overflow)?;
        Ok((axes, bytes))
    }
}

/// The number of bytes of an array's data; `None` if the array and a header do not fit the address
/// space together, or if it has more axes than NumPy knows (64 since NumPy 2, 32 before).
///
/// An array without axes has one element. One with an axis of length 0 has none, and needs 0 bytes.
pub(crate) fn data_bytes(shape: &[usize], element_bytes: usize) -> Option<usize> {
    if shape.len() > 64 {
        return None;
    }
    let spanned = shape
        .iter()
        .filter(|&&n| n != 0)
        .try_fold(element_bytes, |bytes, &n| bytes.checked_mul(n))?;
    // 8 MiB are more than the largest header (1 MiB) and the huge page that a mapping takes in
    // addition to be aligned. `isize`, because no slice and no allocation in Rust may be longer.
    isize::try_from(spanned.checked_add(8 << 20)?).ok()?;
    Some(if shape.contains(&0) { 0 } else { spanned })
}

/// A cursor over the dictionary. It reads exactly the literals that NumPy writes, with any spacing
/// that Python allows. Each method leaves it after what it has read.
struct Reader<'a> {
    /// The whole text, ASCII.
    text: &'a [u8],
    /// The next byte to be read; at most the length of the text.
    at: usize,
}

impl<'a> Reader<'a> {
    /// The error that says where something else was expected.
    fn malformed<T>(&self, expected: &'static str) -> Result<T, HeaderError> {
        Err(HeaderError::Malformed { at: self.at, expected })
    }

    /// Python's blanks between tokens: inside of brackets newlines count, too, and 0x0c is a form
    /// feed.
    fn skip_space(&mut self) {
        while self
            .text
            .get(self.at)
            .is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c))
        {
            self.at += 1;
        }
    }

    /// Takes `byte` if it comes next, blanks aside. Returns whether it did.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, which must come next.
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), HeaderError> {
        if self.take(byte) { Ok(()) } else { self.malformed(expected) }
    }

    /// Nothing but blanks may be left.
    fn end(&mut self) -> Result<(), HeaderError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.malformed("the end of the header") }
    }

    /// The run of bytes from here on that satisfy `wanted`, as text; it may be empty.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|&b| !wanted(b)).unwrap_or(rest.len());
        self.at += len;
        // ASCII was checked before anything else.
        std::str::from_utf8(&rest[..len]).unwrap_or_default()
    }

    /// A string in single or double quotes, without them. Escape sequences are refused: NumPy
    /// writes none.
    fn string(&mut self) -> Result<&'a str, HeaderError> {
        self.skip_space();
        let Some(&quote @ (b'\'' | b'"')) = self.text.get(self.at) else {
            return self.malformed("a string");
        };
        self.at += 1;
        // NumPy writes no control characters there. As they are refused, code that prints what was
        // read cannot be made to steer a terminal.
        let string = self.run(|b| b != quote && b != b'\\' && !b.is_ascii_control());
        if self.text.get(self.at) != Some(&quote) {
            return self.malformed("the end of the string");
        }
        self.at += 1;
        Ok(string)
    }

    /// `True` or `False`. A longer word that begins so is neither.
    fn boolean(&mut self) -> Result<bool, HeaderError> {
        self.skip_space();
        let start = self.at;
        match self.run(|b| b.is_ascii_alphanumeric() || b == b'_') {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err(HeaderError::Malformed { at: start, expected: "True or False" }),
        }
    }

    /// A tuple of lengths: `()`, `(3,)`, `(3, 4)`. Python 2 wrote `3L`.
    ///
    /// A length that does not fit 64 bits is malformed here; whether it fits the address space is
    /// for [`Header::size`].
    fn shape(&mut self) -> Result<Vec<u64>, HeaderError> {
        self.expect(b'(', "'('")?;
        let mut shape = Vec::new();
        loop {
            if self.take(b')') {
                return Ok(shape);
            }
            let start = self.at;
            let digits = self.run(|b| b.is_ascii_digit());
            // With a zero before it a number is none to Python 3, and octal to Python 2. An empty
            // run, where a sign or a second comma stands, parses to nothing.
            let Some(length) =
                digits.parse().ok().filter(|_| digits == "0" || !digits.starts_with('0'))
            else {
                return Err(HeaderError::Malformed { at: start, expected: "an axis length" });
            };
            self.at += usize::from(self.text.get(self.at) == Some(&b'L'));
            shape.push(length);
            if !self.take(b',') {
                self.expect(b')', "',' or ')'")?;
                // `(3)` is a number to Python, not a tuple.
                return if shape.len() == 1 {
                    self.malformed("',' after a single axis")
                } else {
                    Ok(shape)
                };
            }
        }
    }

    /// A string, or the list of fields of a structured dtype as it stands. Such a list is not
    /// understood any further: no element type of rowfork has that spelling, so the error can show
    /// it whole.
    fn descr(&mut self) -> Result<String, HeaderError> {
        self.skip_space();
        if self.text.get(self.at) != Some(&b'[') {
            return self.string().map(str::to_owned);
        }
        let (start, mut depth) = (self.at, 0_usize);
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                // Brackets inside of a string are part of a field's name.
                b'\'' | b'"' => {
                    self.string()?;
                    continue;
                }
                b'[' | b'(' => depth += 1,
                // `depth` is at least 1 here: the function returns when it becomes 0.
                b']' | b')' => depth -= 1,
                _ if byte.is_ascii_control() => return self.malformed("a printable character"),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(String::from_utf8_lossy(&self.text[start..self.at]).into_owned());
            }
        }
        self.malformed("']'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::HeaderError::{
        BadMagic, BadVersion, BeyondFile, BigEndian, DuplicateKey, FortranOrder, Malformed,
        MissingKey, NotAscii, ObjectDtype, TooLong, UnknownKey,
    };
    use proptest::prelude::*;

    /// Parses a text that claims that its data start at byte 128.
    fn parsed(text: &str) -> Result<Header, HeaderError> {
        parse(text.as_bytes(), 128)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for shape in [&[][..], &[0], &[7], &[3, 4], &[0, 0], &[1 << 40, 1, 5]] {
            let page = of_segment("<f8", shape);
            let text = extent(&page[..PRELUDE], 4096).unwrap();
            assert_eq!(text, 10..DATA_OFFSET);
            let shape = shape.iter().map(|&n| n as u64).collect();
            let expected = Header { descr: "<f8".to_owned(), shape, data_offset: DATA_OFFSET };
            assert_eq!(parse(&page[text.clone()], text.end), Ok(expected));
        }
    }

    // The call itself is the test: it would panic if the text did not fit the page.
    #[test]
    fn the_largest_header_fits_its_page() {
        of_segment("<f8", &[usize::MAX; 64]);
        assert_eq!(data_bytes(&[1; 64], 8), Some(8));
        assert_eq!(data_bytes(&[1; 65], 8), None);
    }

    #[test]
    fn any_order_and_spacing_of_the_keys_is_read() {
        let expected = Header { descr: "<f8".to_owned(), shape: vec![3, 4], data_offset: 128 };
        // The fourth has lengths as Python 2 wrote them.
        for text in [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{'shape':(3,4),'fortran_order':False,'descr':'<f8'}",
            "  {\t\"descr\" :\n\"<f8\" , 'shape': ( 3 , 4 , ) ,'fortran_order': False}\n",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 4L), }\n",
        ] {
            assert_eq!(parsed(text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn every_malformed_header_is_told_apart() {
        let malformed = |text: &str| matches!(parsed(text), Err(Malformed { .. }));
        // Each text leaves the grammar at another place.
        for text in [
            "",
            "{",
            "[]",
            "{'descr'",
            "{'descr': }",
            "{'descr': '<f8'",
            "{'descr': '<f8'; 'shape': ()}",
            "{'descr': '<f8, 'shape': (3,)}",
            "{'descr': '\\x3cf8', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': Falsehood, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': 3}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3 4)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 04)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (010L,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} x",
            "{'descr': [('x', '<f8'), 'fortran_order': False, 'shape': (3,)}",
        ] {
            assert!(malformed(text), "{text}: {:?}", parsed(text));
        }
    }

    #[test]
    fn every_refused_header_is_told_apart() {
        let rest = "'fortran_order': False, 'shape': (3,)";
        let descr = |descr: &str| parsed(&format!("{{'descr': {descr}, {rest}}}"));
        assert_eq!(parsed(&format!("{{{rest}}}")), Err(MissingKey { key: "descr" }));
        assert_eq!(
            parsed("{'descr': '<f8', 'shape': (3,)}"),
            Err(MissingKey { key: "fortran_order" })
        );
        assert_eq!(
            parsed("{'descr': '<f8', 'fortran_order': False}"),
            Err(MissingKey { key: "shape" })
        );
        assert_eq!(
            parsed(&format!("{{'colour': 1, {rest}}}")),
            Err(UnknownKey { key: "colour".to_owned() })
        );
        assert_eq!(
            parsed("{'shape': (), 'shape': ()}"),
            Err(DuplicateKey { key: "shape".to_owned() })
        );
        assert_eq!(
            parsed("{'descr': '<f8', 'fortran_order': True, 'shape': (3, 4)}"),
            Err(FortranOrder)
        );
        assert_eq!(descr("'>f8'"), Err(BigEndian { descr: ">f8".to_owned() }));
        assert_eq!(descr("'|O'"), Err(ObjectDtype { descr: "|O".to_owned() }));
        assert_eq!(descr("'<é'"), Err(NotAscii { byte: 0xc3, at: 12 }));
        assert_eq!(
            // The bracket in the name `y]` must not end the list.
            descr("[('x', '<f8'), ('y]', '<i4', (2,))]").unwrap().descr,
            "[('x', '<f8'), ('y]', '<i4', (2,))]"
        );
    }

    // What a header says ends up in error messages, and so on a terminal. Control characters must
    // not get that far.
    #[test]
    fn nothing_that_is_read_moves_the_cursor_of_a_terminal() {
        let rest = "'fortran_order': False, 'shape': (3,)";
        for text in [
            "'>f8\x16'",
            "'>f8\r'",
            "\"<f8\x1b[2J\"",
            "'\0'",
            "[('x',\x1b[2J '<f8')]",
            "[('x\x7f', '<f8')]",
        ] {
            let found = parsed(&format!("{{'descr': {text}, {rest}}}"));
            assert!(matches!(found, Err(Malformed { .. })), "{text:?}: {found:?}");
        }
        let key = parsed(&format!("{{'descr\x1b': '<f8', {rest}}}"));
        assert!(matches!(key, Err(Malformed { .. })), "{key:?}");
    }

    #[test]
    fn the_prelude_is_checked_against_the_file() {
        let prelude = |version: [u8; 2], len: &[u8]| [MAGIC, &version[..], len].concat();
        assert_eq!(extent(b"", 0), Err(BadMagic { found: vec![] }));
        assert_eq!(
            extent(b"PK\x03\x04aaaaaaaa", 99),
            Err(BadMagic { found: b"PK\x03\x04aa".to_vec() })
        );
        assert_eq!(extent(MAGIC, 6), Err(BeyondFile { end: 10, file_bytes: 6 }));
        assert_eq!(
            extent(&prelude([2, 0], &[1, 0]), 10),
            Err(BeyondFile { end: 12, file_bytes: 10 })
        );
        assert_eq!(extent(&prelude([4, 0], &[0; 4]), 99), Err(BadVersion { major: 4, minor: 0 }));
        assert_eq!(extent(&prelude([1, 1], &[0; 4]), 99), Err(BadVersion { major: 1, minor: 1 }));
        assert_eq!(
            extent(&prelude([1, 0], &[118, 0, 0, 0]), 127),
            Err(BeyondFile { end: 128, file_bytes: 127 })
        );
        assert_eq!(extent(&prelude([1, 0], &[118, 0, 0, 0]), 128), Ok(10..128));
        assert_eq!(extent(&prelude([3, 0], &[116, 0, 0, 0]), 128), Ok(12..128));
        // The file claims to be as long as its header says, so only the limit on headers refuses
        // it.
        let len = u64::from(u32::MAX);
        assert_eq!(
            extent(&prelude([2, 0], &[255; 4]), u64::MAX),
            Err(TooLong { len, limit: MAX_HEADER })
        );
    }

    #[test]
    fn sizes_beyond_the_address_space_are_refused() {
        let size = |shape: &[u64]| {
            Header { descr: String::new(), shape: shape.to_vec(), data_offset: 0 }.size(8)
        };
        assert_eq!(size(&[3, 4]), Ok((vec![3, 4], 96)));
        assert_eq!(size(&[]), Ok((vec![], 8)));
        assert_eq!(size(&[0, 1 << 40]), Ok((vec![0, 1 << 40], 0)));
        // The last one has no elements, but its other axis is too long for any array.
        for shape in [&[u64::MAX][..], &[1 << 60], &[1 << 31, 1 << 31], &[0, 1 << 61]] {
            assert_eq!(
                size(shape),
                Err(HeaderError::ShapeOverflow { shape: shape.to_vec(), element_bytes: 8 }),
                "{shape:?}"
            );
        }
    }

    // Letters and signs of the grammar, so that many texts get far into the parser, and pure noise.
    proptest! {
        #[test]
        fn no_bytes_whatever_make_the_parser_panic(
            mut text in "[{}()\\[\\]',:\" 0-9LTrueFalsdhpo_<f8\n\\\\]{0,80}", noise: Vec<u8>, claimed: u64,
        ) {
            let _ = extent(&noise, claimed);
            let _ = parse(&noise, 10);
            let _ = parse(text.as_bytes(), 10);
            text.insert_str(0, "{'descr': '<f8', 'shape': (");
            let _ = parse(text.as_bytes(), 10);
        }
    }
}
