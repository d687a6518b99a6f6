//! [`Segment`]: the handle of an open, mapped, locked segment: its memory, its file, its name.
//!
//! `array` holds one in every shared array. The handle knows bytes only; what the elements are, and
//! which of them may be borrowed when, is for the array.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::claim_name::{check_free, link};
use super::header::DATA_OFFSET;
use super::mapping::Mapped;
use super::metadata::{BLOCK, LASTING, STICKY, VOLATILE, has_memory, is_volatile};
use super::name::{self, os};
use super::reserve::Pages;
use super::{preflight, registry};
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};

/// An open, mapped, locked segment. As long as it lives no sweep takes the file.
#[derive(Debug)]
pub(crate) struct Segment {
    /// A number that no other segment of this process has or had. The workers of a pool know a
    /// segment by it.
    id: u64,
    /// The memory, header included.
    mapping: Mapped,
    /// The open file. Its `flock` says "in use", so it stays open for life.
    file: File,
    /// The name under `/dev/shm`, without a slash; `None` while it is nameless.
    name: Option<String>,
    /// Where it lies, if it is a file that was mapped by its path.
    file_path: Option<PathBuf>,
    /// The process that made it, if this handle is the maker's. The drop in any other process
    /// unlinks nothing.
    maker: Option<u32>,
    /// Where the data begin in the file, in bytes: 4096, but for files that others have made.
    data_offset: usize,
    /// Which pages the maker got; `None` if somebody else made it.
    pages: Option<Pages>,
    /// Whether all of it had memory when it was made or attached to. The file system's own count
    /// decides, and not every file system counts. Where it was not so, a lack of memory later
    /// proves nothing.
    had_memory: bool,
    /// Whether a process that does not die may still write to it.
    abandoned: AtomicBool,
}

impl Segment {
    /// A segment that this process has just made. Its drop removes the name, unless it lasts.
    pub(super) fn made_here(
        file: File,
        mapping: Mapped,
        name: Option<String>,
        pages: Pages,
    ) -> Self {
        let mut segment = Self::mapped(file, mapping, name, DATA_OFFSET);
        (segment.maker, segment.pages) = (Some(std::process::id()), Some(pages));
        segment
    }

    /// A segment that somebody else made. Nothing that is done with it here removes it.
    pub(super) fn attached(file: File, mapping: Mapped, name: String, data_offset: usize) -> Self {
        Self::mapped(file, mapping, Some(name), data_offset)
    }

    /// A file that was mapped by its path, and so has no name under `/dev/shm`.
    pub(super) fn of_file(file: File, mapping: Mapped, path: PathBuf, data_offset: usize) -> Self {
        let mut segment = Self::mapped(file, mapping, None, data_offset);
        // On a disk a hole is zeros, and its file system has to answer for what it loses.
        (segment.file_path, segment.had_memory) = (Some(path), false);
        segment
    }

    /// What all three have in common.
    fn mapped(file: File, mapping: Mapped, name: Option<String>, data_offset: usize) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let len = mapping.map().len() as u64;
        let had_memory = file.metadata().is_ok_and(|meta| has_memory(&meta, len));
        let abandoned = AtomicBool::new(false);
        // Relaxed: only the number itself matters.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            mapping,
            file,
            name,
            file_path: None,
            maker: None,
            data_offset,
            pages: None,
            had_memory,
            abandoned,
        }
    }

    /// The number that tells it from every other segment that this process has or had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The name, without a slash; `None` until published.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What error messages call it: a path, or `/dev/shm/(nameless)`.
    pub(crate) fn path(&self) -> PathBuf {
        match (&self.file_path, self.name()) {
            (Some(path), _) => path.clone(),
            (None, name) => name::path(name.unwrap_or("(nameless)")),
        }
    }

    /// How long the mapping is, in bytes, header included.
    pub(crate) fn len(&self) -> usize {
        self.mapping.map().len()
    }

    /// The address of the first data byte. For an array without elements that is the end of the
    /// mapping.
    pub(crate) fn data(&self) -> NonNull<u8> {
        self.mapping.at(self.data_offset)
    }

    /// The open file, and where in it the data start. A worker that writes by system call takes
    /// this way, and not the mapping, which may be read-only.
    pub(crate) fn data_in_file(&self) -> (&File, u64) {
        (&self.file, self.data_offset as u64)
    }

    /// Address of the mapping, the header's first byte.
    pub(crate) fn address(&self) -> usize {
        self.mapping.map().address()
    }

    /// Which pages its maker got; `None` if somebody else made it.
    pub(crate) fn pages(&self) -> Option<Pages> {
        self.pages
    }

    /// `Truncated` if somebody has cut the file since, `HolesPunched` if it has lost memory that it
    /// had: by a hole, or because it was cut and made longer again. Memory that was touched since
    /// is there again, and is not told from memory that was always there.
    ///
    /// The answer is `Abandoned` if a worker that did not die may yet write to it.
    ///
    /// A call looks at its arrays in this way before and after. A cut that is not noticed would end
    /// in a SIGBUS, or in rows of zeros that nobody computed.
    ///
    /// See [fstat(2)](https://man7.org/linux/man-pages/man2/fstat.2.html).
    pub(crate) fn check_length(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Error::Abandoned { path: self.path() });
        }
        let meta = self.file.metadata().map_err(os("examine", &self.path()))?;
        let expected = self.mapping.map().len() as u64;
        if is_on(Failpoint::NoLengthCheck) {
            return Ok(());
        }
        if meta.len() < expected {
            return Err(Error::Truncated { path: self.path(), expected, actual: meta.len() });
        }
        if self.had_memory && !has_memory(&meta, expected) {
            return Err(Error::HolesPunched {
                path: self.path(),
                expected,
                actual: meta.blocks() * BLOCK,
            });
        }
        Ok(())
    }

    /// Whether nobody but this process and its workers can reach it: it was made here, has no name,
    /// and was not abandoned.
    pub(crate) fn is_private(&self) -> bool {
        self.name.is_none() && self.maker.is_some() && !self.abandoned.load(Ordering::Relaxed)
    }

    /// The open file. A pool sends its descriptor to workers that have not mapped the segment yet.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// From now on no call takes it: a process that does not die may still write to it.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether this process may write as far as the end of it. The limit on file sizes counts
    /// inside of a file, too, and the answer to a write beyond it is a signal.
    pub(crate) fn check_writable(&self) -> Result<()> {
        preflight::check_file_size_limit(self.mapping.map().len() as u64)
    }

    /// Writes data bytes at `offset` (in bytes, header not counted) by way of the file, so that a
    /// segment that somebody cuts at this very moment is no SIGBUS for the caller.
    ///
    /// The caller of an operation writes fill values and restored rows in this way. A worker may
    /// store through its mapping: its death costs a block and not the program.
    ///
    /// See [pwrite(2)](https://man7.org/linux/man-pages/man2/pwrite.2.html).
    pub(crate) fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_length()?;
        let at = (self.data_offset + offset) as u64;
        let end = at + bytes.len() as u64;
        debug_assert!(end <= self.mapping.map().len() as u64, "beyond the array");
        // The limit may have been lowered since birth, and counts inside of a file, too.
        preflight::check_file_size_limit(end)?;
        self.file.write_all_at(bytes, at).map_err(os("write to", &self.path()))?;
        self.check_length() // cut in between, it is longer again, and not what it was
    }

    /// Whether it had a name that does not lead to it any more: somebody else has removed it (`rm`,
    /// or logind's `RemoveIPC` at the last logout), and perhaps put another file in its place. A
    /// nameless segment has no name that could be gone.
    pub(crate) fn name_is_gone(&self) -> bool {
        let leads_here =
            |name: &String| self.file.metadata().is_ok_and(|meta| name::leads_to(name, &meta));
        self.name.as_ref().is_some_and(|name| !leads_here(name))
    }

    /// Gives a nameless segment its name. It stays volatile.
    ///
    /// If this fails, the segment stays nameless and usable: its mode means nothing without a name.
    ///
    /// # Errors
    /// `AlreadyNamed`, `InvalidName`, `NameInUse`; `Os` if the system has no way to name such a
    /// file, or if its memory belongs to a file on a disk.
    pub(crate) fn publish(&mut self, name: &str) -> Result<()> {
        if let Some(name) = &self.name {
            return Err(Error::AlreadyNamed { name: name.clone() });
        }
        let name = name::validated(name)?;
        check_free(name)?;
        let path = name::path(name);
        if let Some(elsewhere) = &self.file_path {
            let no_segment = format!("its memory are the pages of {}", elsewhere.display());
            return Err(os("name", &path)(io::Error::new(
                io::ErrorKind::CrossesDevices,
                no_segment,
            )));
        }
        // The mode comes first: a segment that has a name must be marked for the sweep. Done after
        // the naming, a SIGKILL in between would leave a file that no sweep removes.
        self.file
            .set_permissions(Permissions::from_mode(VOLATILE))
            .map_err(os("change the mode of", &path))?;
        link(&self.file, name)?;
        self.mapping.relabel(name::label(Some(name)));
        self.name = Some(name.to_owned());
        Ok(())
    }

    /// Lets a named segment outlive its maker. A segment that is not volatile lasts already, and
    /// may be somebody else's: its mode is left alone.
    ///
    /// # Errors
    /// `Nameless`; `Os`.
    pub(crate) fn persist(&mut self) -> Result<()> {
        if self.name.is_none() {
            return Err(Error::Nameless);
        }
        if !is_volatile(&self.file.metadata().map_err(os("examine", &self.path()))?) {
            return Ok(());
        }
        self.file
            .set_permissions(Permissions::from_mode(LASTING))
            .map_err(os("change the mode of", &self.path()))
    }
}

impl Drop for Segment {
    /// The maker's handle takes the name away, unless the segment was made to last: the file's mode
    /// says so, whoever changed it. A forked child has another pid, so its copy removes nothing. A
    /// name that leads elsewhere by now is not ours.
    fn drop(&mut self) {
        if self.mapping.is_ours() {
            // Observers hear of it while the mapping is still there: the fields are dropped after
            // this body.
            registry::tell_that_it_is_gone(self.id);
        }
        let Some(name) = &self.name else { return };
        if self.maker != Some(std::process::id()) && !is_on(Failpoint::AnyProcessRemovesName) {
            return;
        }
        let Ok(meta) = self.file.metadata() else { return };
        if meta.mode() & STICKY != 0 && !self.name_is_gone() {
            let _ = std::fs::remove_file(name::path(name));
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "looks at a mapping")]
mod tests {
    use super::*;
    use crate::segment::birth;
    use crate::sys::file;

    // Lengths on both sides of a small page and of a huge page, where rounding could be wrong.
    #[test]
    fn all_of_a_segment_of_any_length_and_pages_has_memory_at_birth() {
        for bytes in [0, 1, 4096, 4097, (2 << 20) - 4096, 2 << 20, (4 << 20) - 4095, 9 << 20] {
            let segment = birth(None, "|u1", 1, &[bytes], None).unwrap();
            assert!(segment.had_memory, "{bytes} bytes");
            segment.check_length().unwrap();
        }
    }

    #[test]
    fn a_hole_of_one_page_is_seen_until_touched_in_any_page_size() {
        for bytes in [100_000, 8 << 20] {
            let segment = birth(None, "|u1", 1, &[bytes], None).unwrap();
            let start = bytes as u64 / 2 / 4096 * 4096;
            // A page in the middle, away from the header and from the last page.
            file::punch(&segment.file, &(start..start + 4096)).unwrap();
            let expected = 4096 + bytes as u64;
            match segment.check_length().unwrap_err() {
                Error::HolesPunched { expected: found, actual, .. } => {
                    assert_eq!(found, expected);
                    assert_eq!(actual, expected.next_multiple_of(4096) - 4096);
                }
                other => panic!("{other}"),
            }
            segment.write_at(0, &[1]).unwrap_err();
            // Past the check, which refuses by now: the write gives the hole its memory back.
            segment.file.write_all_at(&[1], start).unwrap();
            segment.check_length().unwrap();
        }
    }

    #[test]
    fn what_is_written_through_the_file_is_seen_in_the_mapping() {
        let segment = birth(None, "|u1", 1, &[10], None).unwrap();
        segment.write_at(7, &[1, 2, 3]).unwrap();
        // SAFETY: ten data bytes are mapped, and nobody writes to them now.
        let data = unsafe { std::slice::from_raw_parts(segment.data().as_ptr(), 10) };
        assert_eq!(data, [0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        // One byte short of what is mapped.
        segment.file.set_len(4096 + 9).unwrap();
        assert!(matches!(segment.write_at(0, &[1]), Err(Error::Truncated { actual: 4105, .. })));
        assert_eq!(segment.file.metadata().unwrap().len(), 4105);
    }

    #[test]
    fn a_name_is_gone_when_nothing_or_another_file_stands_there() {
        let name = format!("rft-gone-{}", std::process::id());
        let mut segment = birth(None, "<f8", 8, &[3], None).unwrap();
        assert!(!segment.name_is_gone(), "it has none that could be gone");
        segment.publish(&name).unwrap();
        assert!(!segment.name_is_gone());
        std::fs::remove_file(name::path(&name)).unwrap();
        assert!(segment.name_is_gone());
        std::fs::write(name::path(&name), "another's").unwrap();
        assert!(segment.name_is_gone());
        drop(segment);
        assert_eq!(std::fs::read(name::path(&name)).unwrap(), b"another's");
        std::fs::remove_file(name::path(&name)).unwrap();
    }
}
