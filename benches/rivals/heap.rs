//! Private memory of the caller's own, in small pages: what a fork copies the page tables of.
#![allow(unsafe_code, reason = "plain mmap")]

use std::ptr::NonNull;

/// A program's worth of private memory, all of it touched, in pages of 4 KiB. Make it before the
/// pool.
#[derive(Debug)]
pub(crate) struct Heap {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Heap {
    /// So many bytes; why not, where memory has no room for them.
    pub(crate) fn new(len: usize) -> Result<Self, String> {
        let available = available();
        if available / 4 * 3 < len {
            return Err(format!(
                "{} MiB of private heap, where {} MiB are available",
                len >> 20,
                available >> 20
            ));
        }
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(format!(
                "{} MiB of private heap: {}",
                len >> 20,
                std::io::Error::last_os_error()
            ));
        }
        let heap = Self { start: NonNull::new(start).expect("not at 0"), len };
        // SAFETY: advice on the mapping just made.
        assert_eq!(unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) }, 0);
        // SAFETY: just mapped, known to nobody else.
        unsafe { start.cast::<u8>().write_bytes(1, len) };
        Ok(heap)
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` has made, to which there is no reference.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr(), self.len) };
        assert_eq!(unmapped, 0);
    }
}

/// Bytes that can be had without pushing others out; all of them if nobody knows.
fn available() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse().ok()).map_or(usize::MAX, |kib: usize| kib << 10)
}
