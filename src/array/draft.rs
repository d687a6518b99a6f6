//! A `.npy` file on its way to a disk: room first, name last, so that a full disk is known before
//! the work and nobody ever sees half of a file.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ndarray::{Dimension, IntoDimension};

use super::{Element, SharedArray};
use crate::error::{Error, Result};
use crate::failpoints::{Failpoint, is_on};
use crate::segment::{self, os};
use crate::sys::{file, limits};

/// A `.npy` file in the making: byte for byte the one that `np.save` would write, in the end. It
/// dereferences to an array of zeros whose memory are the pages of that file, to be filled by
/// whatever fills an array: workers write to the file as they work. The room on its disk is taken
/// when it is made, its name when it is [finished](Self::finish); dropped before, or killed, it
/// leaves nothing behind.
///
/// While it is in the making no other process can reach it. A disk error raises SIGBUS in any
/// process that reads or writes the array. Nothing is synchronised, so after a power failure the
/// contents depend on the file system.
///
/// Where a file system cannot take room ahead, the array is a segment, which is copied in the end.
/// Where it has no nameless files, or there is no `/proc`, the file is called `.rowfork-PID-N.tmp`
/// meanwhile, as it is for an instant where it replaces another; [`sweep_drafts`] removes what a
/// kill has left of these.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sums.npy");
/// use rowfork::{NpyDraft, SharedArray};
///
/// let m = SharedArray::from_shape_fn(None, (1000, 8), |(i, j)| (i * j) as f64)?;
/// let mut sums = NpyDraft::create(&path, 1000)?; // a full disk is an error here,
/// rowfork::fork().row_sums_into(&m, &mut sums)?; // not after an hour of work
/// assert!(!path.exists());
/// sums.finish()?;
/// assert!(path.exists());
/// # Ok::<(), rowfork::Error>(())
/// ```
pub struct NpyDraft<A, D> {
    array: SharedArray<A, D>,
    /// The segment whose pages are the file's, if there is one.
    in_place: Option<u64>,
    draft: Draft,
    /// All is in the file but for its name.
    complete: bool,
}

impl<A: Element, D: Dimension> NpyDraft<A, D> {
    /// An array of `shape`, and at `path` in the end.
    ///
    /// # Errors
    /// [`DiskFull`](Error::DiskFull), [`FileSizeLimit`](Error::FileSizeLimit);
    /// [`NotAFile`](Error::NotAFile) if a directory, a device or a fifo stands at `path`;
    /// [`ShapeOverflow`](Error::ShapeOverflow), [`Os`](Error::Os); where the array is a segment,
    /// those of [`zeros`](SharedArray::zeros).
    pub fn create(path: impl AsRef<Path>, shape: impl IntoDimension<Dim = D>) -> Result<Self> {
        let dim = shape.into_dimension();
        let header = segment::npy_file_header(A::DESCR, dim.slice());
        let overflow =
            || Error::ShapeOverflow { shape: dim.slice().to_vec(), element_bytes: size_of::<A>() };
        let need =
            header.len() + segment::data_bytes(dim.slice(), size_of::<A>()).ok_or_else(overflow)?;
        let draft = Draft::create(path.as_ref(), need as u64)?;
        let mapped = if draft.reserve()? {
            draft.write(&header, 0)?;
            segment::map_draft(&draft.file, &draft.target, need, header.len()).ok() // or it cannot be mapped to be written to
        } else {
            None
        };
        let Some(segment) = mapped else {
            return Ok(Self {
                array: SharedArray::zeros(None, dim)?,
                in_place: None,
                draft,
                complete: false,
            });
        };
        Ok(Self {
            in_place: Some(segment.id()),
            array: SharedArray::of_segment(segment, dim),
            draft,
            complete: false,
        })
    }

    /// Whether the file has a name that can be seen while it is in the making.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.draft.visible.is_some()
    }

    /// Everything but the name, so that [`finish`](Self::finish) is a matter of microseconds:
    /// copies the array to the file, where it is none.
    ///
    /// # Errors
    /// [`DiskFull`](Error::DiskFull) where room cannot be taken ahead;
    /// [`Truncated`](Error::Truncated) if somebody has cut the file; [`Os`](Error::Os).
    pub fn complete(&mut self) -> Result<()> {
        self.array.segment().check_length()?;
        // It may have been swapped for another.
        if !self.complete && self.in_place != Some(self.array.segment().id()) {
            self.draft.become_file_of(&self.array)?;
        }
        self.complete = true;
        Ok(())
    }

    /// Gives the file its name. A file of that name is replaced, in one go, by one of the same
    /// permissions. So is a symbolic link; what it leads to stays as it was.
    ///
    /// # Errors
    /// As [`complete`](Self::complete). What was there stays as it was.
    pub fn finish(mut self) -> Result<()> {
        self.complete()?;
        self.draft.named()
    }
}

impl<A, D> Deref for NpyDraft<A, D> {
    type Target = SharedArray<A, D>;

    fn deref(&self) -> &SharedArray<A, D> {
        &self.array
    }
}

impl<A, D> DerefMut for NpyDraft<A, D> {
    fn deref_mut(&mut self) -> &mut SharedArray<A, D> {
        self.complete = false;
        &mut self.array
    }
}

impl<A, D: Dimension> fmt::Debug for NpyDraft<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NpyDraft")
            .field("array", &self.array)
            .field("target", &self.draft.target)
            .finish_non_exhaustive()
    }
}

/// Writes an array that is there already.
pub(super) fn write_npy<A: Element, D: Dimension>(
    array: &SharedArray<A, D>,
    path: &Path,
) -> Result<()> {
    let draft = Draft::create(path, file_bytes(array))?;
    draft.reserve()?;
    draft.write_array(array)?;
    draft.named()
}

/// How long the file of an array is.
fn file_bytes<A: Element, D: Dimension>(array: &SharedArray<A, D>) -> u64 {
    (segment::npy_file_header(A::DESCR, array.shape()).len() + size_of_val(array.as_slice())) as u64
}

fn check_file_size(need: u64, target: &Path) -> Result<()> {
    let limit = limits::file_size().map_err(os("read the file size limit for", target))?;
    if need > limit { Err(Error::FileSizeLimit { need, limit }) } else { Ok(()) }
}

/// A file without its name.
#[derive(Debug)]
struct Draft {
    file: File,
    target: PathBuf,
    /// The name that it has already, where a file cannot be nameless.
    visible: Option<VisibleDraft>,
    /// Bytes of the whole file.
    need: u64,
}

/// A name that goes with its owner, unless what it names has been renamed by then.
#[derive(Debug)]
struct VisibleDraft(PathBuf);

impl Drop for VisibleDraft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // after the rename there is none
    }
}

impl Draft {
    /// For a file of so many bytes.
    fn create(target: &Path, need: u64) -> Result<Self> {
        check_target(target)?;
        check_file_size(need, target)?;
        let (file, visible) = open_beside(target)?;
        Ok(Self { file, target: target.to_owned(), visible, need })
    }

    /// Takes the room for all of it, zeros, if the file system can.
    fn reserve(&self) -> Result<bool> {
        let taken = segment::reserve_file(&self.file, self.need, |error| self.failed(error))?;
        Ok(taken && !is_on(Failpoint::NoDraftsInPlace))
    }

    fn write_array<A: Element, D: Dimension>(&self, array: &SharedArray<A, D>) -> Result<()> {
        let header = segment::npy_file_header(A::DESCR, array.shape());
        self.write(&header, 0)?;
        self.write(bytemuck::cast_slice(array.as_slice()), header.len() as u64)
    }

    /// Whatever it was made for.
    fn become_file_of<A: Element, D: Dimension>(
        &mut self,
        array: &SharedArray<A, D>,
    ) -> Result<()> {
        self.need = file_bytes(array);
        check_file_size(self.need, &self.target)?;
        self.file.set_len(self.need).map_err(|error| self.failed(error))?;
        self.write_array(array)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|error| self.failed(error))
    }

    /// The last act.
    fn named(self) -> Result<()> {
        let replace = os("replace", &self.target);
        // What it replaces keeps its permissions, as a file that is written anew does. Before
        // anybody can open it.
        if let Ok(before) = std::fs::metadata(&self.target) {
            let permissions = Permissions::from_mode(before.mode() & 0o777);
            self.file
                .set_permissions(permissions)
                .map_err(os("change the mode of", &self.target))?;
        }
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
        let available =
            file::free_space(&self.file).map_or(0, |space| space.available).saturating_add(had);
        Error::DiskFull { path: self.target.clone(), need: self.need, available }
    }
}

/// Refuses what no file can be called, and what must not be replaced: a caller that says
/// `/dev/null` does not mean a file of that name.
fn check_target(target: &Path) -> Result<()> {
    let ends_in_slash = target.as_os_str().as_bytes().ends_with(b"/");
    if ends_in_slash || target.file_name().is_none() {
        return Err(os("make", target)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a file has a name",
        )));
    }
    match std::fs::metadata(target) {
        Ok(meta) if !meta.is_file() => Err(Error::NotAFile {
            path: target.to_owned(),
            kind: segment::kind_name(meta.file_type()),
        }),
        Ok(meta) if !may_be_replaced(target, &meta) => {
            let not_ours = "another user's, in a directory where only its owner may replace it";
            Err(os("replace", target)(io::Error::new(io::ErrorKind::PermissionDenied, not_ours)))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // or a link that leads nowhere
        Err(error) => Err(os("make", target)(error)),
    }
}

/// In a directory with the sticky bit (`/tmp`) a file is replaced by its owner, the directory's, or
/// root.
fn may_be_replaced(target: &Path, meta: &Metadata) -> bool {
    let us = segment::our_uid();
    let sticky = |directory: Metadata| directory.mode() & 0o1000 != 0 && directory.uid() != us;
    us == 0 || meta.uid() == us || !std::fs::metadata(directory_of(target)).is_ok_and(sticky)
}

fn directory_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file on the same file system as `target`, nameless if that is possible, and locked, which says
/// that it is alive. (Where there are no locks, nobody finds it dead.)
fn open_beside(target: &Path) -> Result<(File, Option<VisibleDraft>)> {
    let directory = directory_of(target);
    match nameless(directory) {
        Ok(file) => {
            let _ = file.try_lock();
            return Ok((file, None));
        }
        Err(error) if file::cannot_be_nameless(&error) => {}
        Err(error) => return Err(os("make a file in", directory)(error)),
    }
    loop {
        let (file, visible) = named_beside(target, |path| File::create_new(path))?;
        let _ = file.try_lock();
        // Between birth and lock somebody may have swept it.
        if file.metadata().is_ok_and(|meta| file::leads_to(&visible.0, &meta)) {
            return Ok((file, Some(visible)));
        }
    }
}

/// Without `/proc` it could not be named later.
fn nameless(directory: &Path) -> io::Result<File> {
    if is_on(Failpoint::NoNamelessDrafts) || !Path::new("/proc/self/fd").exists() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    file::open_nameless(directory, 0o666) // less what the umask takes, as for every file
}

/// Does to a name beside `target` that nobody has what `attempt` does.
fn named_beside<T>(
    target: &Path,
    attempt: impl Fn(&Path) -> io::Result<T>,
) -> Result<(T, VisibleDraft)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed); // only has to differ
        let path = target.with_file_name(format!("{PREFIX}{}-{count}{SUFFIX}", std::process::id()));
        match attempt(&path) {
            Ok(made) => return Ok((made, VisibleDraft(path))),
            // Of a program with our id, killed before or in another container.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(os("make a draft of", target)(error)),
        }
    }
}

const PREFIX: &str = ".rowfork-";
const SUFFIX: &str = ".tmp";

/// Removes from `directory` the drafts of this user whose programs were killed (see [`NpyDraft`]).
/// Says which.
///
/// # Errors
/// [`Os`](Error::Os) if the directory cannot be read.
pub fn sweep_drafts(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let directory = directory.as_ref();
    let entries = std::fs::read_dir(directory).map_err(os("read", directory))?;
    let drafts =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_called_a_draft(path));
    Ok(drafts.filter(|path| remove_if_dead(path)).collect())
}

/// `.rowfork-PID-N.tmp`, and nothing like it.
fn is_called_a_draft(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let numbers = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX))
        .and_then(|rest| rest.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(pid, count)| is_number(pid) && is_number(count))
}

/// The process that writes a draft holds its lock.
fn remove_if_dead(path: &Path) -> bool {
    let Ok(file) = file::open_existing(path, false) else { return false };
    let Ok(meta) = file.metadata() else { return false };
    meta.is_file()
        && meta.uid() == segment::our_uid()
        && file.try_lock().is_ok()
        && file::leads_to(path, &meta)
        && std::fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Ix1;

    fn names(directory: &Path) -> Vec<String> {
        let names = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_draft_has_its_room_and_no_name_until_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        for round in 0..2u8 {
            let mut draft = NpyDraft::<f64, _>::create(&target, 100_000).unwrap();
            assert!(draft.draft.file.metadata().unwrap().blocks() * 512 >= 800_000);
            draft.view_mut()[99_999] = f64::from(round) + 0.5;
            assert_eq!(names(dir.path()).len(), usize::from(round), "replaced in the end");
            draft.finish().unwrap();
            assert_eq!(names(dir.path()), ["a.npy"]);
            let written = SharedArray::<f64, Ix1>::from_npy_file(None, &target).unwrap();
            assert_eq!((written[99_998], written[99_999]), (0.0, f64::from(round) + 0.5));
        }
    }

    #[test]
    fn what_is_put_in_the_arrays_place_is_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        for n in [3, 2, 1000] {
            let mut draft = NpyDraft::create(&target, 3).unwrap();
            *draft = SharedArray::from_shape_fn(None, n, |i| i as f64).unwrap();
            draft.finish().unwrap();
            let written = SharedArray::<f64, Ix1>::from_npy_file(None, &target).unwrap();
            assert!(
                written.len() == n
                    && written.as_slice().iter().enumerate().all(|(i, &x)| x == i as f64)
            );
            assert_eq!(std::fs::metadata(&target).unwrap().len(), 128 + 8 * n as u64);
        }
    }

    #[test]
    fn the_pages_of_a_file_cannot_be_published_as_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        let mut draft = NpyDraft::<f64, _>::create(&target, 3).unwrap();
        let mode = draft.draft.file.metadata().unwrap().mode();
        assert!(matches!(
            draft.publish(&format!("rft-draft-{}", std::process::id())),
            Err(Error::Os { .. })
        ));
        draft.finish().unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().mode(), mode);
    }

    #[test]
    fn a_file_keeps_its_permissions_when_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.npy");
        std::fs::write(&target, "before").unwrap();
        std::fs::set_permissions(&target, Permissions::from_mode(0o4640)).unwrap();
        SharedArray::<f64, _>::zeros(None, 3).unwrap().write_npy(&target).unwrap();
        assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_name_that_no_file_can_have_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for name in ["new/", "file/", "file/a.npy", "none/a.npy", &"x".repeat(256)] {
            let refused = NpyDraft::<f64, _>::create(dir.path().join(name), 3).unwrap_err();
            assert!(matches!(refused, Error::Os { .. }), "{name}: {refused}");
        }
        assert!(NpyDraft::<f64, _>::create("", 3).is_err());
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        for (target, expected) in
            [(dir.path().to_owned(), "directory"), (dir.path().join("link"), "device")]
        {
            match NpyDraft::<f64, _>::create(target, 10) {
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
        std::fs::write(&dead, "x").unwrap();
        let others = [
            "rowfork-1-0.tmp",
            ".rowfork-1-0",
            ".rowfork-notes.tmp",
            ".rowfork-1-.tmp",
            ".rowfork-1-x.tmp",
        ];
        for name in others {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep_drafts(dir.path()).unwrap(), [dead]);
        assert!(alive.0.exists());
        assert_eq!(names(dir.path()).len(), 1 + others.len());
    }
}
