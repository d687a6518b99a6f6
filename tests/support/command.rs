//! The command, as somebody at a shell runs it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use ndarray::Dimension;
use rowfork::{Element, SharedArray};

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` for one that a signal ended.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed; fails the test if it failed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// The one line that it ends with, which must be one; fails the test if it did not.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!((self.code, &*self.out), (Some(1), ""), "{}", self.err);
        let line = self.err.strip_suffix('\n').unwrap();
        assert!(line.starts_with("rowfork: ") && !line.contains('\n'), "{line}");
        line.to_owned()
    }
}

/// `rowfork`, with nothing on standard input.
pub(crate) fn command(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(super::rowfork_path());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn rowfork(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    ran(command(args))
}

/// Runs any command to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A command in a mount namespace with a `/dev/shm` of its own, of so many bytes; `None` where that
/// is not allowed.
pub(crate) fn with_shm_of(size: u64, command: &Command) -> Option<Command> {
    let mut inside = Command::new("unshare");
    let script = format!(
        "mount -t tmpfs -o size={size},mode=1777 rowfork-test /dev/shm && exec \"$0\" \"$@\""
    );
    inside
        .args(["-m", "sh", "-c", &script])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    let probe = Command::new("unshare").args(["-m", "true"]).output();
    probe.is_ok_and(|probe| probe.status.success()).then_some(inside)
}

/// Writes an array to a file.
pub(crate) fn write<A: Element, D: Dimension>(path: &Path, array: &ndarray::Array<A, D>) {
    SharedArray::copy_from(None, array).unwrap().write_npy(path).unwrap();
}

/// The bits of a vector in a file.
pub(crate) fn read(path: &Path) -> Vec<f64> {
    SharedArray::<f64, ndarray::Ix1>::from_npy_file(None, path).unwrap().as_slice().to_vec()
}
