//! A `.npy` file on its way to a disk: room first, name last, so that a full disk is known before the work and nobody ever
//! sees half of a file.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ndarray::Dimension;

use super::{Element, SharedArray};
use crate::error::{Error, Result};
use crate::failpoints;
use crate::segment::{self, os};
use crate::sys::{file, limits};

/// A `.npy` file that is going to be written, byte for byte the one that `np.save` would write: the room on its disk is
/// taken when it is made, its name when it is whole. Dropped before, or killed, it leaves nothing behind. (On a file system that has
/// no nameless files it is called `.rowfork-PID-N.tmp` meanwhile, as it is for an instant where it replaces another file;
/// [`sweep_drafts`] removes what a kill has left of these.)
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sums.npy");
/// use rowfork::{NpyDraft, SharedArray};
///
/// let m = SharedArray::from_shape_fn(None, (1000, 8), |(i, j)| (i * j) as f64)?;
/// let draft = NpyDraft::create::<f64>(&path, &[1000])?; // a full disk is an error here,
/// let sums = rowfork::fork().row_sums(&m)?; // not after an hour of work
/// draft.write(&sums)?;
/// assert!(path.exists());
/// # Ok::<(), rowfork::Error>(())
/// ```
#[derive(Debug)]
pub struct NpyDraft {
    file: File,
    target: PathBuf,
    /// The name that it has already, where a file cannot be nameless.
    visible: Option<Visible>,
    descr: &'static str,
    shape: Vec<usize>,
    /// Bytes of the whole file.
    need: u64,
}

/// A name that goes with its owner, unless what it names has been renamed by then.
#[derive(Debug)]
struct Visible(PathBuf);

impl Drop for Visible {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // after the rename there is none
    }
}

impl NpyDraft {
    /// For an array of `shape`, at `path` in the end.
    ///
    /// # Errors
    /// [`DiskFull`](Error::DiskFull), [`FileSizeLimit`](Error::FileSizeLimit),
    /// [`NotAFile`](Error::NotAFile) if a directory, a device or a fifo stands at `path`,
    /// [`ShapeOverflow`](Error::ShapeOverflow), [`Os`](Error::Os).
    pub fn create<A: Element>(path: impl AsRef<Path>, shape: &[usize]) -> Result<Self> {
        let target = path.as_ref();
        check_target(target)?;
        let overflow = || Error::ShapeOverflow { shape: shape.to_vec(), element_bytes: size_of::<A>() };
        let data = segment::data_bytes(shape, size_of::<A>()).ok_or_else(overflow)?;
        let need = (segment::npy_file_header(A::DESCR, shape).len() + data) as u64;
        let limit = limits::file_size().map_err(os("read the file size limit for", target))?;
        if need > limit {
            return Err(Error::FileSizeLimit { need, limit });
        }
        let (file, visible) = open_beside(target)?;
        let draft = Self { file, target: target.to_owned(), visible, descr: A::DESCR, shape: shape.to_vec(), need };
        // Says that it is alive. Where there are no locks nobody finds it dead.
        let _ = draft.file.try_lock();
        match file::allocate(&draft.file, 0, need) {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(draft.failed(error)),
            _ => Ok(draft),
        }
    }

    /// Writes `array` and gives the file its name. A file of that name is replaced, in one go. So is a symbolic link; what it
    /// leads to stays as it was.
    ///
    /// # Errors
    /// [`WrongShape`](Error::WrongShape) and [`WrongDtype`](Error::WrongDtype) for an array that the draft was not made for;
    /// [`DiskFull`](Error::DiskFull) where room cannot be taken ahead, [`Os`](Error::Os). What was there stays as it was.
    pub fn write<A: Element, D: Dimension>(self, array: &SharedArray<A, D>) -> Result<()> {
        if A::DESCR != self.descr {
            return Err(Error::WrongDtype { path: self.target, expected: self.descr, found: A::DESCR.to_owned() });
        }
        if array.shape() != self.shape {
            return Err(Error::WrongShape { what: "array", expected: self.shape, found: array.shape().to_vec() });
        }
        let header = segment::npy_file_header(A::DESCR, array.shape());
        let data = bytemuck::cast_slice(array.as_slice());
        let write = |bytes: &[u8], at: usize| self.file.write_all_at(bytes, at as u64);
        write(&header, 0).and_then(|()| write(data, header.len())).map_err(|error| self.failed(error))?;
        self.named()
    }

    /// The last act.
    fn named(self) -> Result<()> {
        let replace = os("replace", &self.target);
        if let Some(visible) = self.visible {
            return std::fs::rename(&visible.0, &self.target).map_err(replace);
        }
        match file::link(&self.file, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            answer => return answer.map_err(os("name", &self.target)),
        }
        let ((), visible) = named_beside(&self.target, |path| file::link(&self.file, path))?;
        std::fs::rename(&visible.0, &self.target).map_err(replace)
    }

    fn failed(&self, error: io::Error) -> Error {
        if error.kind() != io::ErrorKind::StorageFull {
            return os("write", &self.target)(error);
        }
        let had = self.file.metadata().map_or(0, |meta| meta.blocks() * 512);
        let available = file::room(&self.file).map_or(0, |room| room.available).saturating_add(had);
        Error::DiskFull { path: self.target.clone(), need: self.need, available }
    }
}

/// Refuses what must not be replaced: who says `/dev/null` does not mean a file of that name.
fn check_target(target: &Path) -> Result<()> {
    match std::fs::metadata(target) {
        Ok(meta) if !meta.is_file() => {
            Err(Error::NotAFile { path: target.to_owned(), kind: segment::kind_name(meta.file_type()) })
        }
        _ => Ok(()), // none, or a link that leads nowhere
    }
}

/// A file on the same file system as `target`, nameless if that is possible.
fn open_beside(target: &Path) -> Result<(File, Option<Visible>)> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match nameless(directory) {
        Ok(file) => return Ok((file, None)),
        Err(error) if file::cannot_be_nameless(&error) => {}
        Err(error) => return Err(os("make a file in", directory)(error)),
    }
    let options = || OpenOptions::new().write(true).create_new(true).to_owned();
    let (file, visible) = named_beside(target, |path| options().open(path))?;
    Ok((file, Some(visible)))
}

/// Without `/proc` it could not be named later.
fn nameless(directory: &Path) -> io::Result<File> {
    if failpoints::is_on("no nameless drafts") || !Path::new("/proc/self/fd").exists() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file::open_nameless(directory, 0o666) // less what the umask takes, as for every file
}

/// Does to a name beside `target` that nobody has what `attempt` does.
fn named_beside<T>(target: &Path, attempt: impl Fn(&Path) -> io::Result<T>) -> Result<(T, Visible)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed); // only has to differ
        let path = target.with_file_name(format!("{PREFIX}{}-{count}{SUFFIX}", std::process::id()));
        match attempt(&path) {
            Ok(made) => return Ok((made, Visible(path))),
            // Of a program with our id, killed before or in another container.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(os("make a draft of", target)(error)),
        }
    }
}

const PREFIX: &str = ".rowfork-";
const SUFFIX: &str = ".tmp";

/// Removes from `directory` the drafts of this user whose programs were killed (see [`NpyDraft`]). Says which.
///
/// # Errors
/// [`Os`](Error::Os) if the directory cannot be read.
pub fn sweep_drafts(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let directory = directory.as_ref();
    let entries = std::fs::read_dir(directory).map_err(os("read", directory))?;
    let is_draft = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    };
    let drafts = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_draft);
    Ok(drafts.filter(|path| remove_if_dead(path)).collect())
}

/// Whoever writes a draft holds its lock.
fn remove_if_dead(path: &Path) -> bool {
    let Ok(file) = file::open_existing(path, false) else { return false };
    let Ok(meta) = file.metadata() else { return false };
    let same = |there: Metadata| (there.dev(), there.ino()) == (meta.dev(), meta.ino());
    meta.is_file()
        && meta.uid() == nix::unistd::geteuid().as_raw()
        && file.try_lock().is_ok()
        && std::fs::symlink_metadata(path).is_ok_and(same)
        && std::fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Ix1;

    fn names(directory: &Path) -> Vec<String> {
        let names =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_draft_has_its_room_and_no_name_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        let array = SharedArray::<f64, Ix1>::zeros(None, 100_000).unwrap();
        let draft = NpyDraft::create::<f64>(&target, &[100_000]).unwrap();
        assert!(draft.file.metadata().unwrap().blocks() * 512 >= 800_000);
        assert_eq!(names(dir.path()), [""; 0]);
        draft.write(&array).unwrap();
        assert_eq!(names(dir.path()), ["a.npy"]);
        NpyDraft::create::<f64>(&target, &[100_000]).unwrap().write(&array).unwrap();
        assert_eq!(names(dir.path()), ["a.npy"], "replaced");
    }

    #[test]
    fn a_draft_for_another_array_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let array = SharedArray::<f64, Ix1>::zeros(None, 10).unwrap();
        let draft = |shape: &[usize]| NpyDraft::create::<f64>(dir.path().join("a.npy"), shape).unwrap();
        assert!(matches!(draft(&[11]).write(&array), Err(Error::WrongShape { .. })));
        let draft = NpyDraft::create::<f32>(dir.path().join("a.npy"), &[10]).unwrap();
        assert!(matches!(draft.write(&array), Err(Error::WrongDtype { .. })));
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        for (target, expected) in [(dir.path().to_owned(), "directory"), (dir.path().join("link"), "device")] {
            match NpyDraft::create::<f64>(target, &[10]) {
                Err(Error::NotAFile { kind, .. }) => assert_eq!(kind, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn dead_drafts_are_swept_and_live_ones_and_others_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        let ((), alive) = named_beside(&target, |path| {
            let file = File::create_new(path)?;
            file.lock()?;
            std::mem::forget(file);
            Ok(())
        })
        .unwrap();
        let dead = dir.path().join(".rowfork-1-0.tmp");
        for path in [&dead, &dir.path().join("rowfork-1-0.tmp")] {
            std::fs::write(path, "x").unwrap();
        }
        assert_eq!(sweep_drafts(dir.path()).unwrap(), [dead]);
        assert!(alive.0.exists());
        assert_eq!(names(dir.path()).len(), 2);
    }
}
