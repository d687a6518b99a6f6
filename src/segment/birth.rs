//! Birth of a segment: nameless first, whole before anybody sees it, named last. An error or a
//! SIGKILL at any instant leaves nothing behind, and no one ever reads a half-made segment.
//!
//! Where a file without a name is impossible (no `O_TMPFILE`, no `/proc`), `Newborn::visible` makes
//! a visible one and takes it away again on every path that does not end in a segment. A SIGKILL in
//! the middle of that leaves a file without a header, which nobody attaches to and no sweep
//! touches.
//!
//! | the maker is killed | what remains |
//! |---|---|
//! | before the name | nothing: the kernel frees a file without a name with its last descriptor |
//! | after it | a complete volatile segment, which a sweep removes when nobody is attached |
//!
//! `docs/SEGMENT.md` has a picture of the whole life of a segment.

use std::fs::{File, Metadata, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use shared_memory::{ShmemConf, ShmemError};

use super::handle::Segment;
use super::header::{self, DATA_OFFSET};
use super::mapping::Mapped;
use super::metadata::{LASTING, VOLATILE};
use super::name::{self, SHM_DIR, os};
use super::reserve::{self, Fill, Pages};
use super::{claim_name, preflight, reserve_in_child, shortage};
use crate::error::{Error, Result};
use crate::sys::file;
use crate::sys::memory::Access;

/// Makes a segment for an array of `shape`, of elements that NumPy calls `descr`, filled by
/// `content` (zeros without).
///
/// The order of the steps is what keeps the promises:
///
/// - All questions come first, so that what can be refused is refused before memory is taken.
/// - The memory is reserved before the array is filled: a full `/dev/shm` is an error here and not
///   a SIGBUS in `content`.
/// - The shared lock is taken before there is a name, so that a sweep never finds the segment
///   unused.
/// - The header is written when the data are complete. A file that is visible too early and half
///   made is `BadMagic` for everybody.
/// - The name comes last.
///
/// # Errors
/// `ShapeOverflow`, `InvalidName`, `NameInUse`; the limits that `preflight` asks for; `ShmFull` if
/// the reservation fails; `Os`; and those of `content`.
pub(crate) fn birth(
    name: Option<&str>,
    descr: &str,
    element_bytes: usize,
    shape: &[usize],
    content: Option<&Fill<'_>>,
) -> Result<Segment> {
    let overflow = || Error::ShapeOverflow { shape: shape.to_vec(), element_bytes };
    // The sum cannot overflow: `data_bytes` has left room for a header.
    let total = header::data_bytes(shape, element_bytes).ok_or_else(overflow)? + DATA_OFFSET;
    let name = name.map(name::validated).transpose()?;
    // A name that is taken is found out before the work; another process may still take it
    // meanwhile, and then `claim_name::link` says so.
    if let Some(name) = name {
        claim_name::check_free(name)?;
    }
    preflight::check_file_size_limit(total as u64)?;
    preflight::check_mapping(total)?;
    let near_limit = preflight::check_memory(total as u64)?;
    let newborn = Newborn::new(name, total)?;
    let file = &newborn.file;
    preflight::check_free_space(file, total as u64)?;
    // The length comes before the mapping: a page beyond the end of a file is a SIGBUS.
    file.set_len(total as u64).map_err(|e| shortage::shm_error(file, total as u64, e))?;
    let len = NonZeroUsize::new(total).ok_or_else(overflow)?;
    let mapping = Mapped::new(file, len, Access::Write, name::label(name))
        .map_err(os("map", Path::new(SHM_DIR)))?;
    file::lock_shared(file).map_err(os("lock", Path::new(SHM_DIR)))?;
    let huge = huge_pages_allowed();
    // The child gives the file all its memory. The parent then finds nothing to allocate, and only
    // fills.
    if let Some(near_limit) = near_limit {
        reserve_in_child::reserve(file, total as u64, near_limit, || {
            reserve::reserve_only(file, &mapping, huge)
        })?;
    }
    let pages = reserve::reserve(file, &mapping, huge, content)?;
    // Through the descriptor, not the mapping: nothing that happens to the file now can be a
    // signal.
    file.write_all_at(&header::of_segment(descr, shape), 0)
        .map_err(os("write to", Path::new(SHM_DIR)))?;
    // From here on only the marking and the naming can fail. The newborn's drop then leaves
    // nothing.
    newborn.named(name, mapping, pages)
}

/// `ROWFORK_HUGE_PAGES=never` forbids huge pages, to measure what they are worth. Any other value
/// allows them.
fn huge_pages_allowed() -> bool {
    std::env::var_os("ROWFORK_HUGE_PAGES").is_none_or(|value| value != "never")
}

/// A file under `/dev/shm` that is not a segment yet. If it is dropped, nothing of it remains.
struct Newborn {
    /// Open to be read and written to.
    file: File,
    /// Its name, if it could not be made without one.
    visible: VisibleName,
}

/// The name that a newborn has already, where a nameless file is impossible. Its drop takes the
/// name away, if it still leads to the file that these metadata describe.
struct VisibleName(Option<(String, Metadata)>);

impl Newborn {
    /// Makes the file, of no length (a visible one is made `total` bytes long at once).
    ///
    /// A nameless file gets its name by way of `/proc/self/fd`, so without that only an array that
    /// stays without a name is made so. If nameless files are refused, an array that needs no name
    /// gets a random one for the instant between its making and the end of this function.
    fn new(name: Option<&str>, total: usize) -> Result<Self> {
        let nameless_works = name.is_none() || Path::new("/proc/self/fd").exists();
        let refused = match nameless_works.then(|| file::open_nameless(Path::new(SHM_DIR), LASTING))
        {
            Some(Ok(file)) => return Ok(Self { file, visible: VisibleName(None) }),
            Some(Err(error)) => error,
            None => io::ErrorKind::Unsupported.into(),
        };
        if !file::cannot_be_nameless(&refused) {
            return Err(os("make a file in", Path::new(SHM_DIR))(refused));
        }
        if let Some(name) = name {
            return Self::visible(name, total);
        }
        let newborn = Self::visible(&random_name(), total)?;
        Ok(Self { file: newborn.file, visible: VisibleName(None) }) // drops the visible name
    }

    /// Makes a file by `O_CREAT | O_EXCL` under its own name, through the `shared_memory` crate.
    ///
    /// The crate makes the file and no more. Its handle maps at an address that is not a multiple
    /// of 2 MiB, so no huge pages could lie there.
    fn visible(name: &str, total: usize) -> Result<Self> {
        let path = name::path(name);
        let failed = |error| os("make", &path)(io_error(error));
        let mut made = loop {
            match ShmemConf::new().os_id(name).size(total).create() {
                Ok(made) => break made,
                // Somebody has the name, or had it for an instant: the look below decides whether
                // to try again.
                Err(ShmemError::MappingIdExists | ShmemError::LinkExists) => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(error) = claim_name::in_use(name)? {
                return Err(error);
            }
        };
        // The handle's drop would unlink by name, in any process that inherited it; our own drop
        // looks at pid and inode first.
        made.set_owner(false);
        drop(made);
        // Between the making and the opening below another process of this user could have put
        // something else there. What is not as it was made is not taken for ours.
        let as_made = |meta: &Metadata| {
            meta.is_file() && meta.uid() == name::our_uid() && meta.len() == total as u64
        };
        let first_seen = std::fs::symlink_metadata(&path).ok().filter(as_made);
        // A umask may have taken our own permissions. The name is ours, so the file is, too.
        let opened = std::fs::set_permissions(&path, Permissions::from_mode(LASTING))
            .map_err(os("change the mode of", &path))
            .and_then(|()| name::open_regular(name, true));
        match opened {
            Ok((file, meta)) if as_made(&meta) => {
                Ok(Self { file, visible: VisibleName(Some((name.to_owned(), meta))) })
            }
            // The file was replaced under our hands: the new one is not ours to remove.
            Ok(_) => Err(claim_name::in_use(name)?
                .unwrap_or_else(|| os("make", &path)(io::ErrorKind::NotFound.into()))),
            Err(error) => {
                drop(VisibleName(first_seen.map(|meta| (name.to_owned(), meta))));
                Err(error)
            }
        }
    }

    /// Gives the file its name, the last act: the segment is whole, marked volatile and locked.
    ///
    /// The mode changes before the name appears (where it does not stand already). A segment that a
    /// sweep can see is thus always marked, and goes with its maker even if that is killed at once.
    fn named(mut self, name: Option<&str>, mapping: Mapped, pages: Pages) -> Result<Segment> {
        if let Some(name) = name {
            let path = name::path(name);
            self.file
                .set_permissions(Permissions::from_mode(VOLATILE))
                .map_err(os("change the mode of", &path))?;
            if self.visible.0.is_none() {
                claim_name::link(&self.file, name)?;
            }
        }
        // From here on the name belongs to the segment, whose own drop removes it.
        self.visible.0 = None;
        Ok(Segment::made_here(self.file, mapping, name.map(str::to_owned), pages))
    }
}

impl Drop for VisibleName {
    fn drop(&mut self) {
        if let Some((name, meta)) = &self.0
            && name::leads_to(name, meta)
        {
            let _ = std::fs::remove_file(name::path(name));
        }
    }
}

/// What the system said, where `shared_memory` passes it on. (The crate has its errno unsigned.)
fn io_error(error: ShmemError) -> io::Error {
    match error {
        ShmemError::MapCreateFailed(errno) | ShmemError::MapOpenFailed(errno) => {
            io::Error::from_raw_os_error(errno.cast_signed())
        }
        other => io::Error::other(other),
    }
}

/// A name of 128 random bits: nobody can be waiting at it. The dot hides it from a plain `ls`, and
/// the process id tells a person where it came from.
fn random_name() -> String {
    let [a, b] = [0, 1].map(|n: u8| RandomState::new().hash_one(n));
    format!(".rowfork-{}-{a:016x}{b:016x}", std::process::id())
}
