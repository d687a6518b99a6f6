//! Listing, removing, and sweeping up after programs that were killed. Acts on descriptors and inodes, never on what
//! a name happens to point at; everything in `/dev/shm` that is not a segment of this user is left alone.

use crate::error::Result;

/// todo
///
/// # Errors
/// todo
pub fn sweep() -> Result<Vec<String>> {
    Ok(Vec::new())
}
