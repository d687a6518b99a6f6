//! Taking a name: whether it is free, once what killed programs have left is removed, and giving it
//! to a file. Called by birth and by `publish`.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Once;

use super::name::{is_live, open_regular, os, our_uid, path, validated};
use super::parallel::in_original_process;
use super::sweep;
use crate::error::{Error, Result};
use crate::sys::file;

/// Whether an array could be given this name now: the name is valid, and nothing stands there, once
/// what killed programs have left is [swept](super::sweep()). This is for a caller that wants to
/// know before the work rather than after. Another process may take the name in between, so the
/// making of the array asks again.
///
/// ```
/// use rowfork::{Error, segment};
/// assert!(matches!(segment::check_free("a/b"), Err(Error::InvalidName { .. })));
/// ```
///
/// # Errors
/// [`InvalidName`](Error::InvalidName); [`NameInUse`](Error::NameInUse) if anything at all stands
/// there, whoever owns it; [`Os`](Error::Os).
pub fn check_free(name: &str) -> Result<()> {
    let name = validated(name)?;
    sweep_once();
    in_use(name)?.map_or(Ok(()), Err)
}

/// Sweeps once per process; a second thread waits until that is done. A forked child never sweeps
/// here: if another thread of its parent was sweeping at the fork, the child would wait for ever.
fn sweep_once() {
    static SWEPT: Once = Once::new();
    if in_original_process() {
        // A failed sweep is no reason not to take a name.
        SWEPT.call_once(|| drop(sweep::sweep()));
    }
}

/// The `NameInUse` error for `name`; `None` if nothing stands there (any more).
///
/// `live` in the error tells whether a process is attached, so that the message can say what helps:
/// another name, or `segment::remove`. It is `None` for a file of another user, which is not
/// opened, and for one that cannot be opened.
pub(super) fn in_use(name: &str) -> Result<Option<Error>> {
    let path = path(name);
    let owner_uid = match std::fs::symlink_metadata(&path) {
        Ok(meta) => meta.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(os("look up", &path)(error)),
    };
    let live = match (owner_uid == our_uid()).then(|| open_regular(name, false)) {
        Some(Ok((file, _))) => Some(is_live(&file)),
        Some(Err(Error::NameNotFound { .. })) => return Ok(None),
        // A directory, a link or a fifo: nobody can be attached to it.
        Some(Err(Error::NotRegular { .. })) => Some(false),
        None | Some(Err(_)) => None,
    };
    Ok(Some(Error::NameInUse { name: name.to_owned(), owner_uid, live }))
}

/// Names the file. A name that is taken is an error of its own, `NameInUse`.
pub(super) fn link(file: &File, name: &str) -> Result<()> {
    loop {
        match file::link(file, &path(name)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(os("name", &path(name))(error)),
        }
        // The name was taken, and may be free again by now: then the next round tries once more.
        if let Some(error) = in_use(name)? {
            return Err(error);
        }
    }
}
