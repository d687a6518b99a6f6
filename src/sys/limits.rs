//! The limits that this process runs under.

use std::io;

use nix::sys::resource::{Resource, getrlimit};

/// The largest file that this process may make (`RLIMIT_FSIZE`), in bytes. Beyond it the kernel does not answer with
/// an error but with the signal SIGXFSZ, so it has to be asked for first.
pub(crate) fn file_size() -> io::Result<u64> {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    Ok(soft)
}
