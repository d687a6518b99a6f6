#![allow(unsafe_code, reason = "maps files that only this test knows")]

//! `.npy` files that are mapped where they lie: an input like any other, never an output, and never
//! a signal in the caller.

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Ix2};
use rowfork::{Error, MappedArray, Pool, SharedArray, broadcast};
use tempfile::TempDir;

use crate::support::isolated::isolated;
use crate::support::{self, shm};

fn mapped(path: &Path) -> rowfork::Result<MappedArray<f64>> {
    // SAFETY: the files are this test's own; the one that cuts its file looks at no element
    // afterwards.
    unsafe { SharedArray::<f64, Ix2>::map_npy_file(path) }
}

/// A file of so many rows of seven, and what stands in it.
fn file_of(dir: &TempDir, n_rows: usize) -> (PathBuf, Array2<f64>) {
    let path = dir.path().join("m.npy");
    let m =
        SharedArray::from_shape_fn(None, (n_rows, 7), |(i, j)| (i * 7 + j) as f64 / 3.0).unwrap();
    m.write_npy(&path).unwrap();
    (path, m.to_owned())
}

#[test]
fn a_mapped_file_is_an_input_like_any_other() {
    isolated(|| {
        let dir = tempfile::tempdir().unwrap();
        let (path, expected) = file_of(&dir, 50_000);
        let m = mapped(&path).unwrap();
        assert_eq!((m.view(), m.name(), m.pages()), (expected.view(), None, None));
        let placed = SharedArray::<f64, Ix2>::from_npy_file(None, &path).unwrap();
        let sums = rowfork::fork().row_sums(&placed).unwrap();
        let pool = Pool::builder().workers(2).inline_below(0).build().unwrap();
        for workers in [1, 2, 3] {
            assert_eq!(
                rowfork::fork().workers(workers).row_sums(&m).unwrap().as_slice(),
                sums.as_slice()
            );
        }
        assert_eq!(pool.row_sums(&m).unwrap().as_slice(), sums.as_slice());
        let part = m.columns(2..5).unwrap().rows(7..40_000).unwrap();
        assert_eq!(
            pool.row_sums(part).unwrap().as_slice(),
            rowfork::fork().row_sums(part).unwrap().as_slice()
        );

        let beside = pool.map_rows((&m, &placed, broadcast(&m)), |(row, same, all)| {
            f64::from(u8::from(*row == *same && all.dim() == (50_000, 7)))
        });
        assert!(beside.unwrap().as_slice().iter().all(|&same| same == 1.0));
    });
}

#[test]
fn a_file_that_was_cut_is_an_error_before_the_call_and_in_it() {
    isolated(|| {
        for in_the_call in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (path, _) = file_of(&dir, 200_000);
            let m = mapped(&path).unwrap();
            let cut = || File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
            if !in_the_call {
                cut();
            }
            let sums = rowfork::fork().workers(2).map_rows(&m, |row| {
                if in_the_call && row.index() == 10 {
                    cut();
                }
                row.sum()
            });
            match sums {
                Err(Error::Truncated { path: named, actual: 1000, .. }) => assert_eq!(named, path),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn what_cannot_be_mapped_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| mapped(path).unwrap_err();
    assert!(matches!(refused(dir.path()), Error::NotAFile { kind: "directory", .. }));
    assert!(matches!(refused(&dir.path().join("none")), Error::Os { .. }));
    let path = dir.path().join("f4.npy");
    SharedArray::<f32, _>::zeros(None, (3, 4)).unwrap().write_npy(&path).unwrap();
    assert!(matches!(refused(&path), Error::WrongDtype { .. }));
    let path = dir.path().join("one.npy");
    SharedArray::<f64, _>::zeros(None, 3).unwrap().write_npy(&path).unwrap();
    assert!(matches!(refused(&path), Error::WrongDimension { .. }));
}

#[test]
fn a_segment_mapped_by_its_path_counts_as_in_use() {
    let names = support::Names::new();
    let name = names.name("by-path");
    let mut made = SharedArray::<f64, _>::zeros(&name, (3, 4)).unwrap();
    made.persist().unwrap();
    drop(made);
    let m = mapped(&shm(&name)).unwrap();
    assert!(matches!(rowfork::segment::remove(&name), Err(Error::InUse { .. })));
    let info = rowfork::segment::info(&name).unwrap();
    // Programs that other tests start may have it until they begin.
    assert!(info.live && info.processes.contains(&std::process::id()), "{info:?}");
    drop(m);
    assert!(support::eventually(|| rowfork::segment::remove(&name).is_ok()));
}

#[test]
fn a_worker_lets_go_of_what_it_has_read_of_a_large_file() {
    isolated(|| {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("m.npy");
        SharedArray::from_shape_fn(None, (64 << 10, 256), |(i, j)| (i ^ j) as f64)
            .unwrap()
            .write_npy(&path)
            .unwrap();
        if nix::sys::statfs::statfs(&path).unwrap().filesystem_type()
            == nix::sys::statfs::TMPFS_MAGIC
        {
            return support::skip("/var/tmp is not on a disk");
        }
        let m = mapped(&path).unwrap();
        let pool = Pool::builder().workers(1).inline_below(0).build().unwrap();
        let by_fork = rowfork::fork().workers(1).measure_memory(true).row_sums(&m).unwrap();
        let by_pool = pool.call().measure_memory(true).map_rows(&m, |row| row[0]).unwrap();
        for output in [by_fork, by_pool] {
            let of_its_own = output.report().workers[0].private_bytes.unwrap();
            assert!(
                of_its_own < 16 * MIB,
                "{} of the file's 128 MiB are mapped at the end",
                of_its_own / MIB
            );
        }
    });
}
