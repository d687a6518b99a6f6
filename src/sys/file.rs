//! Files in shared memory: what `std::fs` lacks. Called by `segment` and by the drafts of `array`;
//! knows nothing of names or layouts. (`std` already has `fchmod`, `flock`, `ftruncate`, `pread`
//! and `unlink` as methods of `File` and `fs`.)

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::Whence;

/// Opens a file without a name in `dir`, readable and writable (`O_TMPFILE`, Linux 3.11). Nothing
/// can open it by a path until [`link`] names it, and a process that is killed before leaves no
/// file.
///
/// The umask takes bits from `mode`, as for every new file.
///
/// See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub(crate) fn open_nameless(dir: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(mode).custom_flags(libc::O_TMPFILE).open(dir)
}

/// Whether a file lies in memory, as those in `/dev/shm` do, and not on a disk. An error counts as
/// a disk.
///
/// See [statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html).
pub(crate) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

/// Whether the answer to [`open_nameless`] says that there are no such files here, rather than that
/// this one could not be made.
///
/// `EOPNOTSUPP` comes from a file system without them, `EISDIR` and `ENOENT` from a kernel before
/// 3.11, which takes the flag for something else. An error without an errno is made by the caller,
/// where there is no `/proc` by which to name such a file.
pub(crate) fn cannot_be_nameless(error: &io::Error) -> bool {
    use libc::{EINVAL, EISDIR, ENOENT, ENOSYS, EOPNOTSUPP};
    matches!(error.raw_os_error(), None | Some(EOPNOTSUPP | EISDIR | EINVAL | ENOENT | ENOSYS))
}

/// Opens what stands at `path`. A symbolic link is not followed but refused (`ELOOP`): in a
/// directory that everybody may write to it could lead anywhere. A fifo is not waited for; the
/// caller looks at the kind of the file afterwards.
///
/// See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub(crate) fn open_existing(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Whether a path leads to the very file that `meta` describes, links not followed. Device and
/// inode decide, since the name alone may have gone to another file. As long as somebody holds the
/// file open its inode number is given to no other.
///
/// See [lstat(2)](https://man7.org/linux/man-pages/man2/lstat.2.html).
pub(crate) fn leads_to(path: &Path, meta: &Metadata) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
}

/// Gives every page of the range memory of its own, or `ENOSPC` with nothing changed.
///
/// Without this a full tmpfs would answer the first store to a page with SIGBUS. A range of no
/// bytes is `EINVAL`; one beyond what `off_t` can say is `EOVERFLOW`. A file that is shorter than
/// the range becomes longer.
///
/// See [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html).
pub(crate) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (to_off(offset)?, to_off(len)?);
    loop {
        match nix::fcntl::fallocate(file, FallocateFlags::empty(), offset, len) {
            // The whole range is asked for again: tmpfs has undone what it had allocated.
            Err(Errno::EINTR) => {}
            answer => return answer.map_err(io::Error::from),
        }
    }
}

/// Takes the shared lock, and waits for whoever holds the exclusive one.
///
/// The lock belongs to the open file, not to the process: a forked worker holds its parent's, and
/// the last of them to close the file lets go of it.
///
/// See [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html).
pub(crate) fn lock_shared(file: &File) -> io::Result<()> {
    loop {
        match file.lock_shared() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// The holes in a range of a file, in order. On tmpfs, memory that is allocated but was never
/// written or read counts as a hole.
///
/// The look moves the offset of the open file. Segments are read and written at offsets of their
/// own (`pread`, `pwrite`), so nothing depends on it.
pub(crate) fn holes(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let start = seek(file, at, Whence::SeekHole)?.unwrap_or(range.end).min(range.end);
        let end = if start < range.end { seek(file, start, Whence::SeekData)? } else { None };
        at = end.unwrap_or(range.end).min(range.end);
        if start < at {
            found.push(start..at);
        }
    }
    Ok(found)
}

/// Where the next hole or the next data begin at or after `offset`; `None` if there are none up to
/// the end of the file. (The end of the file counts as a hole, so `None` is the answer for data
/// alone, or for an offset beyond the end.)
///
/// See [lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html).
fn seek(file: &File, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
    match nix::unistd::lseek(file, to_off(offset)?, whence) {
        Ok(at) => u64::try_from(at).map(Some).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the memory of a range away: it reads as zeros from then on, and the file keeps its length.
/// `FALLOC_FL_KEEP_SIZE` is no choice here, since the kernel refuses to punch without it.
///
/// See [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html).
pub(crate) fn punch(file: &File, range: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(nix::fcntl::fallocate(file, flags, to_off(range.start)?, to_off(range.end - range.start)?)?)
}

/// Gives an open file without a name the name `path`, in one atomic step; `EEXIST` if that name is
/// taken, by a dangling link, too. So nobody ever sees the name without the whole file.
///
/// See [linkat(2)](https://man7.org/linux/man-pages/man2/linkat.2.html).
pub(crate) fn link(file: &File, path: &Path) -> io::Result<()> {
    let by_proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    match nix::unistd::linkat(
        AT_FDCWD,
        by_proc.as_str(),
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    ) {
        // There is no /proc here. Linux 6.10 lets the maker of a file link it by descriptor;
        // before, only root may.
        Err(Errno::ENOENT) => {
            nix::unistd::linkat(file, "", AT_FDCWD, path, AtFlags::AT_EMPTY_PATH)?;
        }
        answer => answer?,
    }
    Ok(())
}

/// The right to change which bytes of a file have memory: an exclusive lock on its first byte that
/// belongs to the open file (`F_OFD_SETLKW`), apart from its `flock`. Its drop lets go of it, and
/// so does the end of the descriptor.
///
/// The `flock` cannot serve for this, since it says "in use" and is shared by all who are attached.
/// A traditional record lock cannot either: two threads of one process would both get it, and any
/// `close` of the same file in this process would end it.
#[derive(Debug)]
pub(crate) struct FillLock<'a>(&'a File);

impl<'a> FillLock<'a> {
    /// Waits until nobody else has the right. `file` must be open for writing, or the answer is
    /// `EBADF`.
    pub(crate) fn take(file: &'a File) -> io::Result<Self> {
        set_first_byte_lock(file, libc::F_WRLCK)?;
        Ok(Self(file))
    }
}

impl Drop for FillLock<'_> {
    fn drop(&mut self) {
        let _ = set_first_byte_lock(self.0, libc::F_UNLCK); // or it goes with the descriptor
    }
}

/// Sets or ends the lock on byte 0. An interrupted wait is taken up again.
///
/// See [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html).
fn set_first_byte_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    let kind = libc::c_short::try_from(kind).map_err(io::Error::other)?;
    let whence = libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    let lock = libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 1, l_pid: 0 };
    loop {
        match nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_OFD_SETLKW(&lock)) {
            Err(Errno::EINTR) => {}
            answer => return answer.map(|_| ()).map_err(io::Error::from),
        }
    }
}

/// The space that a file system has, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreeSpace {
    /// What an unprivileged user may still take.
    pub(crate) available: u64,
    /// The size of the file system; 0 means that it has no limit.
    pub(crate) total: u64,
}

/// The free space of the file system that holds `file`. It is a moment's answer: others take and
/// give back, so the reservation itself has the last word.
///
/// See [statvfs(3)](https://man7.org/linux/man-pages/man3/statvfs.3.html).
pub(crate) fn free_space(file: &File) -> io::Result<FreeSpace> {
    let stat = nix::sys::statvfs::fstatvfs(file)?;
    let unit = stat.fragment_size();
    Ok(FreeSpace {
        available: stat.blocks_available().saturating_mul(unit),
        total: stat.blocks().saturating_mul(unit),
    })
}

fn to_off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| Errno::EOVERFLOW.into())
}
