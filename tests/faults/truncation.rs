//! Arrays that are cut, that lose memory, or that lose their name during a call.

use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;
use rowfork::failpoints::Failpoint;
use rowfork::{Error, SharedArray, fork};

use crate::support::harm::{self, first_time, harmed, matrix};
use crate::support::isolated::{self, isolated, name_of};
use crate::support::shared::{SharedWord, raise};

#[test]
fn an_array_truncated_during_a_call_is_named() {
    isolated(|| {
        let name = isolated::unique_name("cut");
        let m =
            SharedArray::from_shape_fn(name.as_str(), (100, 512), |(i, j)| (i + j) as f64).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let outcome = harmed(&m, 2, |row| {
            if row == 40 {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            }
        });
        match outcome.unwrap_err() {
            Error::Truncated { expected, actual, .. } => {
                assert_eq!((expected, actual), (4096 + 100 * 512 * 8, 8192));
            }
            other => panic!("{other:?}"),
        }
        match fork().row_sums(&m).unwrap_err() {
            Error::Truncated { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_output_truncated_during_a_call_is_named_not_handed_out() {
    isolated(|| {
        let name = isolated::unique_name("cut-output");
        let m = matrix(100, 3);
        let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 100).unwrap();
        let path = std::path::Path::new("/dev/shm").join(&name);
        let outcome = fork().workers(1).map_rows_into(&m, &mut out, |row| {
            if row.index() == 99 {
                // What is cut off is done by then, and nobody touches it any more.
                std::fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(4096 + 99 * 8)
                    .unwrap();
            }
            0.0
        });
        assert!(matches!(outcome.unwrap_err(), Error::Truncated { .. }));
    });
}

#[test]
fn memory_taken_out_of_an_array_during_a_call_is_missed() {
    isolated(|| {
        let punch: fn(&std::fs::File, u64) = |file, len| {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(file, flags, 4096, 10 * 8 * i64::try_from(len / 800).unwrap()).unwrap();
        };
        let cut_and_extend: fn(&std::fs::File, u64) = |file, len| {
            file.set_len(4096).unwrap();
            file.set_len(4096 + len).unwrap();
        };
        // Small pages, and several huge ones.
        for n_columns in [512, 1 << 14] {
            for (harm, take) in [("punched", punch), ("cut and extended", cut_and_extend)] {
                let name = isolated::unique_name("holes");
                let m = SharedArray::from_shape_fn(name.as_str(), (100, n_columns), |(i, j)| {
                    (i + j) as f64
                })
                .unwrap();
                let path = std::path::Path::new("/dev/shm").join(&name);
                // The last row: what is taken is done by then, and nobody gives it memory by
                // looking at it.
                let outcome = fork().workers(1).map_rows(&m, |row| {
                    let sum = row.sum();
                    if row.index() == 99 {
                        take(
                            &std::fs::File::options().write(true).open(&path).unwrap(),
                            m.len() as u64 * 8,
                        );
                    }
                    sum
                });
                for refused in [outcome.unwrap_err(), fork().row_sums(&m).unwrap_err()] {
                    match refused {
                        Error::HolesPunched { path: named, expected, actual, .. } => {
                            assert_eq!(
                                (named, expected),
                                (path.clone(), 4096 + m.len() as u64 * 8)
                            );
                            assert!(actual < expected, "{harm}: {actual} of {expected}");
                        }
                        other => panic!("{harm}: {other:?}"),
                    }
                }
            }
        }
    });
}

#[test]
fn a_fold_names_an_output_cut_while_the_caller_writes_to_it() {
    isolated(|| {
        let name = isolated::unique_name("cut-fold");
        let path = std::path::Path::new("/dev/shm").join(&name);
        let identity = ndarray::Array1::<f64>::ones(10_000);
        for n_rows in [1, 65] {
            let m = matrix(n_rows, 3);
            let mut out = SharedArray::<f64, _>::zeros(name.as_str(), 10_000).unwrap();
            let cut = |_: &mut ndarray::ArrayViewMut1<'_, f64>,
                       _: rowfork::Row<'_, f64, ndarray::Ix1>| {
                std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
            };
            let outcome =
                fork().workers(1).fold_rows_array_into(&m, &identity, &mut out, cut, |_, _| ());
            assert!(
                matches!(outcome.unwrap_err(), Error::Truncated { actual: 8192, .. }),
                "{n_rows} rows"
            );
        }
    });
}

#[test]
fn a_file_that_takes_an_arrays_name_is_neither_read_nor_removed() {
    isolated(|| {
        for lasting in [false, true] {
            let (name, output) =
                (isolated::unique_name("taken"), isolated::unique_name("taken-output"));
            let mut m =
                SharedArray::from_shape_fn(name.as_str(), (100, 512), |(i, j)| (i * j) as f64)
                    .unwrap();
            let mut sums = SharedArray::<f64, _>::zeros(output.as_str(), 100).unwrap();
            let (m_bits, expected) = (m.to_owned(), harmed(&m, 1, |_| {}).unwrap().0);
            if lasting {
                m.persist().unwrap();
            }
            let (deaths, stranger) = (SharedWord::new(), vec![0x5a; 4096 + 100 * 512 * 8]);
            let path = |name: &str| std::path::Path::new("/dev/shm").join(name);
            // A worker forked after the names lead elsewhere works on what it inherited.
            fork()
                .workers(2)
                .block_rows(10)
                .map_rows_into(&m, &mut sums, |row| {
                    if row.index() == 30 && first_time(&deaths) {
                        for name in [&name, &output] {
                            std::fs::remove_file(path(name)).unwrap();
                            std::fs::write(path(name), &stranger).unwrap();
                        }
                        raise(Signal::SIGKILL);
                    }
                    row.sum()
                })
                .unwrap();
            assert_eq!((m.view(), harm::bits(&sums)), (m_bits.view(), expected));
            let identity = |name: &str| {
                let meta = std::fs::metadata(path(name)).unwrap();
                (meta.ino(), meta.mode(), meta.mtime_nsec())
            };
            let before = [&name, &output].map(|name| identity(name));
            drop((m, sums));
            rowfork::segment::sweep().unwrap();
            assert!(rowfork::segment::remove(&name).is_err(), "not a segment");
            assert_eq!([&name, &output].map(|name| identity(name)), before);
            for name in [&name, &output] {
                assert_eq!(std::fs::read(path(name)).unwrap(), stranger);
                std::fs::remove_file(path(name)).unwrap();
            }
        }
    });
}

#[test]
fn each_protection_is_seen_by_its_test() {
    isolated::each_fails_without(&[
        (Failpoint::NoLengthCheck, name_of(an_array_truncated_during_a_call_is_named)),
        (Failpoint::NoLengthCheck, name_of(memory_taken_out_of_an_array_during_a_call_is_missed)),
        (
            Failpoint::CompareNamesNotInodes,
            name_of(a_file_that_takes_an_arrays_name_is_neither_read_nor_removed),
        ),
    ]);
}
