//! Listing, removing, and sweeping up after programs that were killed. Acts on descriptors and
//! inodes, never on what a name happens to point at; everything in `/dev/shm` that is not a segment
//! by its layout is left alone.
//!
//! A sweep removes a file only if all of this holds:
//!
//! - it is a regular file of our effective user, of mode 01600 exactly;
//! - it has a `.npy` header, and its data start at byte 4096;
//! - nobody is attached: its exclusive lock is won at once;
//! - the name still leads to the inode that was locked.
//!
//! The memory of a removed segment stays until the last process lets go of it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::header::DATA_OFFSET;
use super::metadata::is_volatile;
use super::name::{self, SHM_DIR, os};
use super::npy::NpyFile;
use crate::error::{Error, HeaderError, Result};
use crate::sys::procfs;

/// What stands in `/dev/shm` under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The name, without a slash.
    pub name: String,
    /// Length of the file in bytes, header included.
    pub bytes: u64,
    /// Axis lengths.
    pub shape: Vec<u64>,
    /// The element type as NumPy spells it.
    pub dtype: String,
    /// Who owns it.
    pub owner_uid: u32,
    /// Whether it goes with its maker. If not, it was made to last.
    pub volatile: bool,
    /// Whether some process is attached.
    pub live: bool,
    /// When it was made, where the kernel remembers that (on `/dev/shm` from Linux 6.6 on), or else
    /// last written to by system call or cut.
    pub made: SystemTime,
    /// The processes that have it mapped, NumPy's too, in order of their ids; empty until [looked
    /// for](find_processes). Those of other users show only to root.
    pub processes: Vec<u32>,
    /// Device and inode, by which `/proc` names what a process has mapped.
    file: (u64, u64),
}

/// What stands in `/dev/shm` under `name`, if it is a segment that rowfork made. The processes that
/// have it mapped are listed, too.
///
/// # Errors
/// [`InvalidName`](crate::Error::InvalidName), [`NameNotFound`](crate::Error::NameNotFound),
/// [`NotRegular`](crate::Error::NotRegular), [`NotOurs`](crate::Error::NotOurs);
/// [`Npy`](crate::Error::Npy) if it is somebody else's file.
pub fn info(name: &str) -> Result<SegmentInfo> {
    let name = name::validated(name)?;
    let npy = open_segment(name)?;
    let live = name::is_live(&npy.file);
    let mut found = [SegmentInfo { live, ..described(name, npy) }];
    find_processes(&mut found);
    let [info] = found;
    Ok(info)
}

/// Looks through `/proc` for the processes that have these segments mapped, once for all of them.
///
/// ```
/// use rowfork::segment;
/// let name = format!("rowfork-doc-processes-{}", std::process::id());
/// let m = rowfork::SharedArray::<f64, _>::zeros(&name, 10)?;
/// let mut found = segment::list()?;
/// segment::find_processes(&mut found);
/// assert_eq!(found.iter().find(|s| s.name == name).unwrap().processes, [std::process::id()]);
/// # Ok::<(), rowfork::Error>(())
/// ```
pub fn find_processes(segments: &mut [SegmentInfo]) {
    for segment in &mut *segments {
        segment.processes.clear();
    }
    for pid in procfs::process_ids() {
        let mapped = procfs::mapped_files(pid);
        for segment in segments.iter_mut().filter(|segment| mapped.contains(&segment.file)) {
            segment.processes.push(pid);
        }
    }
}

/// All segments that this process may read, sorted by name: regular `.npy` files in `/dev/shm`
/// whose data start at byte 4096. What NumPy or others made is not among them.
///
/// ```
/// let name = format!("rowfork-doc-list-{}", std::process::id());
/// let m = rowfork::SharedArray::<f64, _>::zeros(name.as_str(), (3, 4))?;
/// let found = rowfork::segment::list()?.into_iter().find(|s| s.name == name).unwrap();
/// assert_eq!((found.shape, found.volatile, found.live), (vec![3, 4], true, true));
/// # Ok::<(), rowfork::Error>(())
/// ```
///
/// # Errors
/// [`Os`](crate::Error::Os) if `/dev/shm` cannot be read.
pub fn list() -> Result<Vec<SegmentInfo>> {
    let mut found: Vec<SegmentInfo> = names()?.iter().filter_map(|name| examine(name)).collect();
    // This is `name::is_live` for all segments at a time, so that the pauses add up once and not
    // for each. A segment that is found free in any look is free; one that is gone by now is left
    // out.
    for _ in 1..name::LOOKS {
        if found.iter().any(|info| info.live) {
            std::thread::sleep(name::BETWEEN_LOOKS);
        }
        found.retain_mut(|info| !info.live || examine(&info.name).map(|now| *info = now).is_some());
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What stands there, with one look at the lock; `None` if that is no segment that we may read.
fn examine(name: &str) -> Option<SegmentInfo> {
    let npy = open_segment(name).ok()?;
    let live = name::is_locked(&npy.file);
    Some(SegmentInfo { live, ..described(name, npy) })
}

/// What can be said without a look at the lock.
fn described(name: &str, npy: NpyFile) -> SegmentInfo {
    let NpyFile { header, meta, .. } = npy;
    SegmentInfo {
        name: name.to_owned(),
        bytes: meta.size(),
        owner_uid: meta.uid(),
        volatile: is_volatile(&meta),
        live: false,
        made: meta.created().or_else(|_| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
        processes: Vec::new(),
        file: (meta.dev(), meta.ino()),
        dtype: header.descr,
        shape: header.shape,
    }
}

/// Removes a segment of this user that no process is attached to, volatile or lasting.
///
/// ```
/// let name = format!("rowfork-doc-remove-{}", std::process::id());
/// let mut m = rowfork::SharedArray::<f64, _>::zeros(name.as_str(), (3, 4))?;
/// m.persist()?;
/// assert!(matches!(rowfork::segment::remove(&name), Err(rowfork::Error::InUse { .. })));
/// drop(m);
/// rowfork::segment::remove(&name)?;
/// # Ok::<(), rowfork::Error>(())
/// ```
///
/// # Errors
/// [`InUse`](crate::Error::InUse) if a process is attached;
/// [`NameNotFound`](crate::Error::NameNotFound), [`InvalidName`](crate::Error::InvalidName),
/// [`NotRegular`](crate::Error::NotRegular), [`NotOurs`](crate::Error::NotOurs);
/// [`Npy`](crate::Error::Npy) if it is not a segment that rowfork made.
pub fn remove(name: &str) -> Result<()> {
    let name = name::validated(name)?;
    let npy = open_segment(name)?;
    let (owner_uid, our_uid) = (npy.meta.uid(), name::our_uid());
    if owner_uid != our_uid {
        return Err(Error::NotOurs { name: name.to_owned(), owner_uid, our_uid });
    }
    if name::is_live(&npy.file) {
        return Err(Error::InUse { name: name.to_owned() });
    }
    match unlink_unused(name, &npy) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::InUse { name: name.to_owned() }),
        Err(error) => Err(error),
    }
}

/// Removes what killed programs left behind: dead volatile segments of this user. Says which.
///
/// Runs by itself before a process (but for a worker) gives its first name. Lasting segments, those
/// in use, those of other users, and everything that is not a rowfork segment are never touched.
///
/// # Errors
/// [`Os`](crate::Error::Os) if `/dev/shm` cannot be read.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = names()?;
    swept.retain(|name| {
        let ours =
            |meta: &Metadata| meta.is_file() && meta.uid() == name::our_uid() && is_volatile(meta);
        // Most files are not ours, and are not even opened. What the name led to is asked again of
        // the open file below.
        if !std::fs::symlink_metadata(name::path(name)).is_ok_and(|meta| ours(&meta)) {
            return false;
        }
        // Other programs' files of the same mode are told apart by their header.
        let Ok(npy) = open_segment(name) else { return false };
        ours(&npy.meta) && unlink_unused(name, &npy).unwrap_or(false)
    });
    Ok(swept)
}

/// Unlinks `name` if it still leads to this file and nobody is attached. The lock is held over the
/// unlink, and a process that attaches looks at the name again once it has the lock. So nobody
/// attaches to a file that is being removed.
///
/// Returns `false` if the file is in use.
///
/// See [flock(2)](https://man7.org/linux/man-pages/man2/flock.2.html) and
/// [unlink(2)](https://man7.org/linux/man-pages/man2/unlink.2.html).
fn unlink_unused(name: &str, npy: &NpyFile) -> Result<bool> {
    if npy.file.try_lock().is_err() {
        return Ok(false);
    }
    if !name::leads_to(name, &npy.meta) {
        return Err(Error::NameNotFound { name: name.to_owned() });
    }
    std::fs::remove_file(&npy.path).map_err(os("remove", &npy.path))?;
    Ok(true)
}

/// Opens what is a segment by its layout.
fn open_segment(name: &str) -> Result<NpyFile> {
    let npy = NpyFile::open_name(name, false)?;
    let data_offset = npy.header.data_offset;
    if data_offset == DATA_OFFSET {
        return Ok(npy);
    }
    Err(Error::Npy {
        path: npy.path,
        cause: HeaderError::NotSegment { data_offset, expected: DATA_OFFSET },
    })
}

/// All names in `/dev/shm` that can be a segment's.
fn names() -> Result<Vec<String>> {
    let dir = Path::new(SHM_DIR);
    let entries = std::fs::read_dir(dir).map_err(os("read", dir))?;
    // An entry that cannot be read any more, or whose name is not text, is not ours.
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::birth;

    #[test]
    fn what_took_the_place_of_a_dead_segment_stays() {
        let name = format!("rft-sweep-{}", std::process::id());
        let path = name::path(&name);
        let segment = birth(Some(&name), "<f8", 8, &[3], None).unwrap();
        // Held open, as a sweep would hold it, while its name goes to another file.
        let npy = open_segment(&name).unwrap();
        drop(segment);
        std::fs::write(&path, "another's").unwrap();
        // Another test's child may hold the lock for an instant.
        while matches!(unlink_unused(&name, &npy), Ok(false)) {
            std::thread::yield_now();
        }
        assert!(matches!(unlink_unused(&name, &npy), Err(Error::NameNotFound { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
        std::fs::remove_file(path).unwrap();
    }
}
