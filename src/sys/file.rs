//! Files in shared memory: what `std::fs` lacks. Called by `segment` only; knows nothing of names or layouts.
//! (`std` already has `fchmod`, `flock`, `ftruncate`, `pread` and `unlink` as methods of `File` and `fs`.)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags};

/// Opens a file without a name in `dir`, readable and writable by this user only (`O_TMPFILE`, Linux 3.11).
pub(crate) fn open_nameless(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir)
}

/// Opens what is there: a link is not followed (`ELOOP`), a fifo is not waited for.
pub(crate) fn open_existing(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Gives every page of the range memory of its own, or `ENOSPC` with nothing changed.
pub(crate) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (to_off(offset)?, to_off(len)?);
    loop {
        match nix::fcntl::fallocate(file, FallocateFlags::empty(), offset, len) {
            Err(Errno::EINTR) => {}
            answer => return answer.map_err(io::Error::from),
        }
    }
}

/// Takes the shared lock, waiting for whoever holds the exclusive one.
pub(crate) fn lock_shared(file: &File) -> io::Result<()> {
    loop {
        match file.lock_shared() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// Where the first hole at or after `offset` is; the end of the file counts as one.
pub(crate) fn first_hole(file: &File, offset: u64) -> io::Result<u64> {
    let at = nix::unistd::lseek(file, to_off(offset)?, nix::unistd::Whence::SeekHole)?;
    u64::try_from(at).map_err(io::Error::other)
}

/// Gives an open file without a name the name `path`; `EEXIST` if that is taken. Atomic.
pub(crate) fn link(file: &File, path: &Path) -> io::Result<()> {
    let by_proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    match nix::unistd::linkat(AT_FDCWD, by_proc.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        // No /proc here. Linux 6.10 lets the maker of a file link it by descriptor; before, only root.
        Err(Errno::ENOENT) => nix::unistd::linkat(file, "", AT_FDCWD, path, AtFlags::AT_EMPTY_PATH)?,
        answer => answer?,
    }
    Ok(())
}

/// What a file system has room for, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// What an unprivileged user may still take.
    pub(crate) available: u64,
    /// In all; 0 means that there is no limit.
    pub(crate) total: u64,
}

/// The room on the file system that holds `file`.
pub(crate) fn room(file: &File) -> io::Result<Room> {
    let stat = nix::sys::statvfs::fstatvfs(file)?;
    let unit = stat.fragment_size();
    Ok(Room { available: stat.blocks_available().saturating_mul(unit), total: stat.blocks().saturating_mul(unit) })
}

fn to_off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| Errno::EOVERFLOW.into())
}
