//! Names: what may be one, what stands at one, and opening it without following links.
//!
//! Everybody may write to `/dev/shm`, so what stands at a name is not believed: a file is opened
//! first, and what it is gets asked of the open file.

use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::sys::file;

/// Where named shared memory lives on Linux.
///
/// See [`shm_overview(7)`](https://man7.org/linux/man-pages/man7/shm_overview.7.html).
pub(crate) const SHM_DIR: &str = "/dev/shm";

/// The name without the leading slash that `shm_open` asks for, if it can be a file name under
/// `/dev/shm`. A name that passes cannot lead out of the directory. 255 bytes is the limit of the
/// file system (`NAME_MAX`).
///
/// # Errors
/// `InvalidName`, with the reason.
pub(crate) fn validated(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let invalid = |reason| Err(Error::InvalidName { name: name.to_owned(), reason });
    match bare {
        "" => invalid("it is empty"),
        "." | ".." => invalid("it names a directory"),
        _ if bare.contains('/') => invalid("it contains '/'"),
        _ if bare.contains('\0') => invalid("it contains a NUL byte"),
        _ if bare.len() > 255 => invalid("it is longer than 255 bytes"),
        _ => Ok(bare),
    }
}

/// The path of a validated name.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(SHM_DIR).join(name)
}

/// What error messages and the registry call a segment.
pub(super) fn label(name: Option<&str>) -> std::sync::Arc<str> {
    name.map_or_else(|| "a nameless segment".into(), |name| format!("segment {name:?}").into())
}

/// What they call a file that is mapped by its path.
pub(super) fn file_label(path: &Path) -> std::sync::Arc<str> {
    format!("the file {}", path.display()).into()
}

/// Makes `Error::Os` of a failed call on a path. `action` fills the gap in "cannot ... PATH".
pub(crate) fn os(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Os { action, subject: path.display().to_string(), cause }
}

/// Opens the regular file called `name`, and returns it with the metadata of the open file.
///
/// # Errors
/// `NotRegular`, with the kind, for whatever else stands there; `NameNotFound`; `NotOurs` where
/// another user's file does not let us in; `Os`.
pub(super) fn open_regular(name: &str, write: bool) -> Result<(File, Metadata)> {
    let path = path(name);
    let wrong_kind =
        |kind: FileType| Error::NotRegular { name: name.to_owned(), kind: kind_name(kind) };
    let file = match file::open_existing(&path, write) {
        Ok(file) => file,
        Err(error) => {
            // The name is looked at only to find words for the error: why it could not be opened.
            // By now something else may stand there, which does no harm.
            return Err(match std::fs::symlink_metadata(&path) {
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
                    Error::NameNotFound { name: name.to_owned() }
                }
                Ok(meta) if !meta.is_file() => wrong_kind(meta.file_type()),
                Ok(meta)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && meta.uid() != our_uid() =>
                {
                    Error::NotOurs {
                        name: name.to_owned(),
                        owner_uid: meta.uid(),
                        our_uid: our_uid(),
                    }
                }
                _ => os("open", &path)(error),
            });
        }
    };
    // A directory and a fifo can be opened to be read, too.
    let meta = file.metadata().map_err(os("examine", &path))?;
    if meta.is_file() { Ok((file, meta)) } else { Err(wrong_kind(meta.file_type())) }
}

/// The effective user of this process, who owns the files that it makes.
///
/// See [geteuid(2)](https://man7.org/linux/man-pages/man2/geteuid.2.html).
pub(crate) fn our_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Whether some process is attached. Such a process holds the shared lock for life, so the
/// exclusive one is refused.
///
/// A process that only looks takes the exclusive lock for an instant, so one look that finds the
/// file locked may have met another onlooker. Hence as many looks as [`LOOKS`] must find it locked.
pub(super) fn is_live(file: &File) -> bool {
    (0..LOOKS).all(|look| {
        if look > 0 {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        is_locked(file)
    })
}

/// How often a file must be found locked. Three onlookers in turn, each at the very instant of a
/// look, are unlikely; each look more costs a millisecond for every segment that is in use.
pub(super) const LOOKS: u32 = 3;
/// Time enough for another onlooker to let go.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Looks once. The lock is let go of at once, or the look itself would count as a use.
///
/// See [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html).
pub(super) fn is_locked(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(_) => true,
    }
}

/// Whether `name` still leads to the very file that `meta` describes.
pub(super) fn leads_to(name: &str, meta: &Metadata) -> bool {
    let path = path(name);
    file::leads_to(&path, meta)
        || (is_on(Failpoint::CompareNamesNotInodes) && std::fs::symlink_metadata(path).is_ok())
}

/// What stands there instead of a file, in a word.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "device"
    } else {
        "regular file"
    }
}
