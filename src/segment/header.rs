//! The `.npy` header: what we write (version 1.0, data at byte 4096) and what NumPy may have written.
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. Pure: no file, no memory map.

use crate::error::HeaderError;

/// Where data start in every segment that rowfork makes: on a page of their own.
pub(crate) const DATA_OFFSET: usize = 4096;
/// The longest header that is read. NumPy itself refuses more than 10,000 bytes unless told otherwise.
pub(super) const MAX_HEADER: u64 = 1 << 20;
/// As much of a file as is needed to learn how long its header is, in any version.
pub(super) const PRELUDE: usize = 12;

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
pub(super) fn write(descr: &str, shape: &[usize]) -> [u8; DATA_OFFSET] {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A single axis keeps its comma: `(3)` is a number to Python, not a tuple.
    let axes = lengths.join(", ") + if shape.len() == 1 { "," } else { "" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let mut page = [b' '; DATA_OFFSET];
    page[..6].copy_from_slice(MAGIC);
    page[6..8].copy_from_slice(&[1, 0]);
    page[8..10].copy_from_slice(&4086_u16.to_le_bytes());
    page[10..10 + text.len()].copy_from_slice(text.as_bytes());
    page[DATA_OFFSET - 1] = b'\n';
    page
}
const _: () = assert!(DATA_OFFSET - 10 == 4086);

/// Where the header's text starts and ends, from the first bytes of a file.
pub(super) fn extent(prelude: &[u8], file_bytes: u64) -> Result<std::ops::Range<usize>, HeaderError> {
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
pub(super) fn parse(text: &[u8], data_offset: usize) -> Result<Header, HeaderError> {
    if let Some(at) = text.iter().position(|b| !b.is_ascii()) {
        return Err(HeaderError::NotAscii { byte: text[at], at });
    }
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
        if !reader.take(b',') {
            reader.expect(b'}', "',' or '}'")?;
            break;
        }
    }
    reader.end()?;
    let descr = descr.ok_or(HeaderError::MissingKey { key: "descr" })?;
    let fortran_order = fortran_order.ok_or(HeaderError::MissingKey { key: "fortran_order" })?;
    let shape = shape.ok_or(HeaderError::MissingKey { key: "shape" })?;
    match descr.as_bytes() {
        [b'|' | b'<' | b'>' | b'=', b'O', ..] | [b'O', ..] => return Err(HeaderError::ObjectDtype { descr }),
        [b'>', ..] => return Err(HeaderError::BigEndian { descr }),
        _ => {}
    }
    if fortran_order { Err(HeaderError::FortranOrder) } else { Ok(Header { descr, shape, data_offset }) }
}

impl Header {
    /// The axis lengths, and the number of data bytes for elements of `element_bytes`, if it fits the address space. Axes of length 0 are
    /// left out of the check as they are in ndarray's: the others must fit even so.
    pub(super) fn size(&self, element_bytes: usize) -> Result<(Vec<usize>, usize), HeaderError> {
        let overflow = || HeaderError::ShapeOverflow { shape: self.shape.clone(), element_bytes };
        let axes: Vec<usize> =
            self.shape.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>().map_err(|_| overflow())?;
        let bytes = data_bytes(&axes, element_bytes).ok_or_else(overflow)?;
        Ok((axes, bytes))
    }
}

/// Bytes of an array, `None` if it and a header do not fit the address space together, or if it has more axes than
/// NumPy knows.
pub(crate) fn data_bytes(shape: &[usize], element_bytes: usize) -> Option<usize> {
    if shape.len() > 64 {
        return None;
    }
    let spanned = shape.iter().filter(|&&n| n != 0).try_fold(element_bytes, |bytes, &n| bytes.checked_mul(n))?;
    // Twice the largest header: mapping adds a huge page of slack for alignment.
    isize::try_from(spanned.checked_add(8 << 20)?).ok()?;
    Some(if shape.contains(&0) { 0 } else { spanned })
}

/// A cursor over the dictionary: exactly the literals that NumPy writes, with any spacing that Python allows.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed<T>(&self, expected: &'static str) -> Result<T, HeaderError> {
        Err(HeaderError::Malformed { at: self.at, expected })
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), HeaderError> {
        if self.take(byte) { Ok(()) } else { self.malformed(expected) }
    }

    fn end(&mut self) -> Result<(), HeaderError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.malformed("the end of the header") }
    }

    /// The run of bytes from here on that satisfy `wanted`, as text.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|&b| !wanted(b)).unwrap_or(rest.len());
        self.at += len;
        // ASCII was checked before anything else.
        std::str::from_utf8(&rest[..len]).unwrap_or_default()
    }

    fn string(&mut self) -> Result<&'a str, HeaderError> {
        self.skip_space();
        let Some(&quote @ (b'\'' | b'"')) = self.text.get(self.at) else { return self.malformed("a string") };
        self.at += 1;
        let string = self.run(|b| b != quote && b != b'\\' && b != b'\n');
        if self.text.get(self.at) != Some(&quote) {
            return self.malformed("the end of the string");
        }
        self.at += 1;
        Ok(string)
    }

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
    fn shape(&mut self) -> Result<Vec<u64>, HeaderError> {
        self.expect(b'(', "'('")?;
        let mut shape = Vec::new();
        loop {
            if self.take(b')') {
                return Ok(shape);
            }
            let start = self.at;
            let digits = self.run(|b| b.is_ascii_digit());
            let Ok(length) = digits.parse() else {
                return Err(HeaderError::Malformed { at: start, expected: "an axis length" });
            };
            self.at += usize::from(self.text.get(self.at) == Some(&b'L'));
            shape.push(length);
            if !self.take(b',') {
                self.expect(b')', "',' or ')'")?;
                // `(3)` is a number to Python, not a tuple.
                return if shape.len() == 1 { self.malformed("',' after a single axis") } else { Ok(shape) };
            }
        }
    }

    /// A string, or the list of fields of a structured dtype as it stands.
    fn descr(&mut self) -> Result<String, HeaderError> {
        self.skip_space();
        if self.text.get(self.at) != Some(&b'[') {
            return self.string().map(str::to_owned);
        }
        let (start, mut depth) = (self.at, 0_usize);
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\'' | b'"' => {
                    self.string()?;
                    continue;
                }
                b'[' | b'(' => depth += 1,
                b']' | b')' => depth -= 1,
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
