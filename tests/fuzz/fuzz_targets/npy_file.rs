//! Whole files by way of the public face: what `NpyInfo::of_file` says, `SharedArray::map_npy_file` maps and
//! `SharedArray::from_npy_file` copies is the same, lies within the file, and written again reads as the same.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ndarray::IxDyn;
use rowfork::segment::NpyInfo;
use rowfork::{Bool, Element, Error, HeaderError, SharedArray, bytemuck};
use rustix::fs::MemfdFlags;

fuzz_target!(|bytes: &[u8]| {
    try_file(bytes);
    try_file(&with_prefix(bytes));
});

/// A file around a header's text, which ends with the first line, so that its length is right without luck.
fn with_prefix(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1);
    let (text, data) = bytes.split_at(end.min(usize::from(u16::MAX)));
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &len, text, data].concat()
}

fn try_file(bytes: &[u8]) {
    let memory =
        rustix::fs::memfd_create("rowfork-fuzz", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("room for it");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let info = match NpyInfo::of_file(&path) {
        Ok(info) => info,
        Err(error) => {
            tell(&error);
            // SAFETY: nobody else knows the file.
            let mapped = unsafe { SharedArray::<f64, IxDyn>::map_npy_file(&path) };
            assert_eq!(mapped.unwrap_err().to_string(), error.to_string());
            return;
        }
    };
    assert_eq!(info.bytes, bytes.len() as u64);
    assert!(info.data_offset <= bytes.len(), "{info:?}");
    let taken = [
        read::<f64>(&path, bytes, &info),
        read::<f32>(&path, bytes, &info),
        read::<i8>(&path, bytes, &info),
        read::<i16>(&path, bytes, &info),
        read::<i32>(&path, bytes, &info),
        read::<i64>(&path, bytes, &info),
        read::<u8>(&path, bytes, &info),
        read::<u16>(&path, bytes, &info),
        read::<u32>(&path, bytes, &info),
        read::<u64>(&path, bytes, &info),
        read::<Bool>(&path, bytes, &info),
    ];
    assert!(taken.iter().filter(|&&taken| taken).count() <= 1, "of two types: {info:?}");
}

/// Reads a file as elements of one type, in both ways; whether it could be.
fn read<A: Element>(path: &Path, bytes: &[u8], info: &NpyInfo) -> bool {
    // SAFETY: nobody else knows the file.
    let mapped = match unsafe { SharedArray::<A, IxDyn>::map_npy_file(path) } {
        Ok(mapped) => Some(mapped),
        Err(Error::Npy { cause: HeaderError::Misaligned { .. }, .. }) => None,
        Err(error) => {
            tell(&error);
            return false;
        }
    };
    let copied =
        SharedArray::<A, IxDyn>::from_npy_file(None, path).expect("what is taken can be copied");
    assert!(copied.shape().iter().map(|&n| n as u64).eq(info.shape.iter().copied()), "{info:?}");
    let data = as_bytes(copied.as_slice());
    assert_eq!(data, &bytes[info.data_offset..info.data_offset + data.len()], "{info:?}");
    if let Some(mapped) = mapped {
        assert_eq!(mapped.shape(), copied.shape(), "{info:?}");
        assert_eq!(as_bytes(mapped.as_slice()), data, "{info:?}");
    }
    let written = draft();
    copied.write_npy(written).expect("room for it");
    let again =
        SharedArray::<A, IxDyn>::from_npy_file(None, written).expect("what is written is read");
    std::fs::remove_file(written).expect("it was there");
    assert_eq!(again.shape(), copied.shape(), "{info:?}");
    assert_eq!(as_bytes(again.as_slice()), data, "{info:?}");
    true
}

fn as_bytes<A: Element>(elements: &[A]) -> &[u8] {
    bytemuck::cast_slice(elements)
}

/// An error is a line for people, whatever a stranger has written into the file.
fn tell(error: &Error) {
    let line = error.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

/// Where arrays are written again.
fn draft() -> &'static Path {
    static DRAFT: OnceLock<PathBuf> = OnceLock::new();
    DRAFT.get_or_init(|| {
        std::env::temp_dir().join(format!("rowfork-fuzz-{}.npy", std::process::id()))
    })
}
