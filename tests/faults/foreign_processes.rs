//! What other programs do to the files of a call while it runs: they cut them, and the call ends
//! with an error that says so, never with a signal; they remove or replace them, and the call does
//! not care.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use ndarray::{Array1, Ix1, Ix2};
use nix::sys::signal::Signal;
use rowfork::{Error, Fork, Policy, SharedArray, fork};

use crate::support::isolated::{isolated, unique_name};
use crate::support::shared::{SharedWord, raise};

const N_ROWS: usize = 100;
/// A row is a page.
const N_COLUMNS: usize = 512;
const HEADER: u64 = 4096;
const PAGE: u64 = 4096;

/// At which row somebody cuts a file, and to which length.
const CUTS: [(usize, u64); 5] = [
    (0, 0),
    (0, HEADER),
    (50, HEADER + 10 * PAGE),
    (50, HEADER + 70 * PAGE + 100),
    (99, HEADER + 99 * PAGE),
];

fn shm(name: &str) -> PathBuf {
    std::path::Path::new("/dev/shm").join(name)
}

fn named_matrix(name: &str) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(name, (N_ROWS, N_COLUMNS), |(i, j)| (i * 7 + j) as f64 * 0.1)
        .unwrap()
}

/// What of a call is harmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Output,
    Blocks,
    BlocksOutput,
    Sums,
    FoldInput,
    Updated,
    BesideUpdated,
}

const ROLES: [Role; 8] = [
    Role::Input,
    Role::Output,
    Role::Blocks,
    Role::BlocksOutput,
    Role::Sums,
    Role::FoldInput,
    Role::Updated,
    Role::BesideUpdated,
];

impl Role {
    /// Whether a user's kernel runs that can do the harm itself.
    fn has_kernel(self) -> bool {
        self != Self::Sums
    }
}

/// Runs a call in which `name` plays `role`, and whose kernel does `harm` at each row before it
/// looks at it.
fn call(role: Role, options: &Fork<'_>, name: &str, harm: &dyn Fn(usize)) -> rowfork::Result<()> {
    let other =
        SharedArray::from_shape_fn(None, (N_ROWS, N_COLUMNS), |(i, j)| (i + j) as f64).unwrap();
    let mut victim = named_matrix(name);
    match role {
        Role::Input => options
            .map_rows(&victim, |row| {
                harm(row.index());
                row.sum()
            })
            .map(drop),
        Role::Output => {
            let shape = N_COLUMNS;
            options
                .transform_rows_into(&other, shape, &mut victim, |row, out| {
                    harm(row.index());
                    out.assign(&row);
                })
                .map(drop)
        }
        Role::Blocks => options
            .map_blocks(&victim, (), |block, out| {
                block.row_range().for_each(harm);
                out.fill(block.sum());
            })
            .map(drop),
        Role::BlocksOutput => options
            .map_blocks_into(&other, N_COLUMNS, &mut victim, |block, out| {
                block.row_range().for_each(harm);
                out.assign(&block);
            })
            .map(drop),
        Role::Sums => {
            harm(50);
            options.row_sums(&victim).map(drop)
        }
        Role::FoldInput => options
            .fold_rows(
                &victim,
                0.0,
                |sum, row| {
                    harm(row.index());
                    *sum += row.sum();
                },
                |sum, other| *sum += other,
            )
            .map(drop),
        Role::Updated => options
            .update_rows(&mut victim, |row| {
                harm(row.index());
                row.mapv_inplace(|x| x + 1.0);
            })
            .map(drop),
        Role::BesideUpdated => {
            let mut updated = other;
            options
                .update_rows_with(&mut updated, &victim, |row, beside| {
                    harm(row.index());
                    *row += &beside;
                })
                .map(drop)
        }
    }
}

#[test]
fn an_array_cut_by_others_is_named_and_kills_only_workers() {
    isolated(|| {
        let name = unique_name("cut");
        let mut n_calls = 0;
        for role in ROLES {
            for guard in [false, true] {
                for policy in [Policy::Fail, Policy::fill(-1.5)] {
                    for workers in [1, 3] {
                        for (at, len) in CUTS {
                            let what = format!(
                                "{role:?} cut to {len} at {at}, guard {guard}, {policy:?}, \
                                 {workers} workers"
                            );
                            let options = fork().workers(workers).guard(guard).policy(policy);
                            let cut = |row| {
                                if row == at || !role.has_kernel() {
                                    File::options()
                                        .write(true)
                                        .open(shm(&name))
                                        .unwrap()
                                        .set_len(len)
                                        .unwrap();
                                }
                            };
                            let error = call(role, &options, &name, &cut).unwrap_err();
                            let is_told = |error: &Error| match error {
                                Error::Truncated { path, .. }
                                | Error::HolesPunched { path, .. } => *path == shm(&name),
                                _ => false,
                            };
                            let told = match &error {
                                Error::UpdateInterrupted { cause: source, .. } => {
                                    assert_eq!(
                                        role,
                                        Role::BesideUpdated,
                                        "{what}: rows that are gone"
                                    );
                                    is_told(source)
                                }
                                error => is_told(error),
                            };
                            assert!(told, "{what}: {error}");
                            n_calls += 1;
                        }
                    }
                }
            }
        }
        println!("FIGURE {n_calls} calls on arrays that were cut");
    });
}

#[test]
fn an_array_that_is_cut_and_made_long_again_is_told_on() {
    isolated(|| {
        let name = unique_name("cut-and-extended");
        for role in ROLES {
            for guard in [false, true] {
                for policy in [Policy::Fail, Policy::fill(-1.5)] {
                    let what = format!("{role:?}, guard {guard}, {policy:?}");
                    let options = fork().workers(2).guard(guard).policy(policy);
                    let times = SharedWord::new();
                    let cut = |row| {
                        if row == 70 && times.fetch_add(1, Ordering::Relaxed) == 0
                            || !role.has_kernel()
                        {
                            let file = File::options().write(true).open(shm(&name)).unwrap();
                            let len = file.metadata().unwrap().len();
                            file.set_len(HEADER + 10 * PAGE).unwrap();
                            file.set_len(len).unwrap();
                        }
                    };
                    let error = call(role, &options, &name, &cut);
                    let is_told = |error: &Error| {
                        matches!(error, Error::Truncated { .. } | Error::HolesPunched { .. })
                    };
                    match error {
                        Err(Error::UpdateInterrupted { cause: source, .. }) if is_told(&source) => {
                        }
                        Err(error) if is_told(&error) => {}
                        other => panic!("{what}: {other:?}"),
                    }
                }
            }
        }
    });
}

#[test]
fn a_report_warns_of_a_name_that_is_gone() {
    isolated(|| {
        let name = unique_name("gone");
        let m = named_matrix(&name);
        let sums = fork().map_rows(&m, |row| row[0]).unwrap();
        assert!(sums.report().warnings.is_empty());
        std::fs::remove_file(shm(&name)).unwrap();
        let sums = fork().map_rows((&m, &m), |(row, _)| row[0]).unwrap();
        assert_eq!(sums.report().warnings, [rowfork::Warning::NameGone { name: name.clone() }]);
        assert!(sums.report().to_string().contains(&format!("warning: the name {name:?}")));
    });
}

#[test]
fn a_call_does_not_care_what_becomes_of_the_names_of_its_arrays() {
    isolated(|| {
        for guard in [false, true] {
            for replaced in [false, true] {
                for workers in [1, 3] {
                    let what = format!("guard {guard}, replaced {replaced}, {workers} workers");
                    let names = ["input", "output", "updated", "folded"].map(unique_name);
                    let input = named_matrix(&names[0]);
                    let mut output =
                        SharedArray::<f64, Ix1>::zeros(names[1].as_str(), N_ROWS).unwrap();
                    let mut updated = named_matrix(&names[2]);
                    let mut folded =
                        SharedArray::<f64, Ix1>::zeros(names[3].as_str(), N_COLUMNS).unwrap();
                    let stranger = vec![0x5a; 10_000];
                    let take_away = |name: &String| {
                        std::fs::remove_file(shm(name)).unwrap();
                        if replaced {
                            std::fs::write(shm(name), &stranger).unwrap();
                        }
                    };
                    // A worker forked afterwards works on what it inherited.
                    let harm = |names: &[String], word: &SharedWord, row: usize| {
                        if row == 30 && word.fetch_add(1, Ordering::Relaxed) == 0 {
                            names.iter().for_each(take_away);
                            raise(Signal::SIGKILL);
                        }
                    };
                    let options = fork().workers(workers).guard(guard);
                    let words = [SharedWord::new(), SharedWord::new(), SharedWord::new()];
                    options
                        .map_rows_into(&input, &mut output, |row| {
                            harm(&names[..2], &words[0], row.index());
                            row[0]
                        })
                        .unwrap();
                    assert!(
                        output.view().iter().enumerate().all(|(i, &x)| x == (i * 7) as f64 * 0.1),
                        "{what}"
                    );
                    options
                        .update_rows(&mut updated, |row| {
                            harm(&names[2..3], &words[1], row.index());
                            row.mapv_inplace(|x| x * 2.0);
                        })
                        .unwrap();
                    let doubled = |(i, j): (usize, usize)| (i * 7 + j) as f64 * 0.1 * 2.0;
                    assert!(
                        updated.view().indexed_iter().all(|(at, &x)| x == doubled(at)),
                        "{what}"
                    );
                    let zeros = Array1::<f64>::zeros(N_COLUMNS);
                    options
                        .fold_rows_array_into(
                            &input,
                            &zeros,
                            &mut folded,
                            |last, row| {
                                harm(&names[3..], &words[2], row.index());
                                last.assign(&row);
                            },
                            |last, other| last.assign(other),
                        )
                        .unwrap();
                    assert_eq!(folded.view(), input.view().row(N_ROWS - 1), "{what}");

                    let identity = |name: &String| {
                        let meta = std::fs::metadata(shm(name)).ok()?;
                        Some((meta.ino(), meta.mode(), meta.mtime_nsec()))
                    };
                    let before = names.each_ref().map(identity);
                    assert!(before.iter().all(|file| file.is_some() == replaced), "{what}");
                    drop((input, output, updated, folded));
                    assert_eq!(
                        names.each_ref().map(identity),
                        before,
                        "{what}: a stranger's file was touched"
                    );
                    for name in names.iter().filter(|_| replaced) {
                        assert_eq!(std::fs::read(shm(name)).unwrap(), stranger, "{what}");
                        std::fs::remove_file(shm(name)).unwrap();
                    }
                }
            }
        }
    });
}
