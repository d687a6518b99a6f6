//! Whatever is wrong, the command says so on one line that names the thing, what is wrong with it
//! and what to do, exits with 1, and leaves no file and no segment behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ndarray::{Array2, Array3};
use rowfork::SharedArray;

use crate::support::command::{Ran, command, ran, rowfork, with_shm_of, write};
use crate::support::{self, Names, golden, is_root, shm, skip};

/// What is there beside the input: neither answers nor drafts.
fn left_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "in.npy").collect()
}

/// Asks for the sums of `in.npy` in a directory of its own, and for a segment of it, by either
/// executor.
fn refused(prepare: impl Fn(&Path), expected: &[&str]) {
    let names = Names::new();
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in.npy"), dir.path().join("out.npy"));
    prepare(&input);
    let (input, out, name) = (input.to_str().unwrap(), out.to_str().unwrap(), names.name("out"));
    let by_name = format!("shm:{name}");
    let mut asked = vec![vec!["load", input, &name]];
    for executor in ["fork", "pool"] {
        for output in [&["-o", out][..], &["-o", &by_name], &[]] {
            asked.push([&["sum", input, "--executor", executor], output].concat());
        }
    }
    for args in asked {
        // A segment may have any number of axes.
        if args[0] == "load" && expected[0] == "3 dimensions" {
            continue;
        }
        let line = rowfork(&args).refused();
        for part in expected {
            assert!(line.contains(part), "{args:?}: no {part:?} in {line}");
        }
        assert!(line.contains(input), "{args:?}: {line}");
        assert_eq!((left_in(dir.path()), names.left()), (vec![], vec![]), "{args:?}");
    }
}

fn copy_of(name: &'static str) -> impl Fn(&Path) {
    move |input| assert!(fs::copy(golden(name), input).unwrap() > 0)
}

#[test]
fn a_file_that_is_no_matrix_is_refused_by_what_is_wrong_with_it() {
    refused(
        copy_of("truncated.npy"),
        &["truncated: ", "bytes promised by the header", "make it again"],
    );
    refused(copy_of("fortran_order.npy"), &["Fortran order", "numpy.ascontiguousarray"]);
    refused(copy_of("big_endian.npy"), &["\">f8\" is big endian", "array.astype('<f8')"]);
    refused(copy_of("object.npy"), &["\"|O\" holds Python objects", "numeric dtype"]);
    refused(copy_of("structured.npy"), &["holds dtype", "convert it"]);
    refused(
        |input| write(input, &Array3::<f64>::zeros((2, 3, 4))),
        &["3 dimensions", "[2, 3, 4]", "reshape"],
    );
    refused(|input| drop(fs::File::create(input).unwrap()), &["it is empty", "numpy.save"]);
    refused(
        |input| fs::write(input, "a,b\n1,2\n").unwrap(),
        &["starts with \"a,b\\n1,\"", "numpy.save"],
    );
    refused(
        |input| fs::create_dir(input).unwrap(),
        &["is a directory, not a file", "name a .npy file"],
    );
    refused(|_| {}, &["No such file", "check the path"]);
}

/// The command as a user who may not read or write everything; `None` where that cannot be had.
fn as_plain_user(directory: &Path, args: &[&str]) -> Option<Command> {
    if !is_root() {
        return Some(command(args));
    }
    let copy = directory.join("rowfork");
    fs::copy(support::rowfork_path(), &copy).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut plain = Command::new("setpriv");
    plain.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(args);
    let there = Command::new("setpriv").arg("--version").output().is_ok();
    there.then_some(plain)
}

#[test]
fn what_may_not_be_read_or_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.npy");
    write(&input, &Array2::<f64>::zeros((10, 3)));
    let file = input.to_str().unwrap();
    let out = dir.path().join("out.npy");
    fs::set_permissions(&input, fs::Permissions::from_mode(0o444)).unwrap();
    let Some(writing) = as_plain_user(dir.path(), &["sum", file, "-o", out.to_str().unwrap()])
    else {
        return skip("there is no setpriv");
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let line = ran(writing).refused();
    assert!(line.contains("Permission denied") && line.contains("check the permissions"), "{line}");
    fs::set_permissions(&input, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let line = ran(as_plain_user(dir.path(), &["sum", file]).unwrap()).refused();
    assert!(
        line.contains(file)
            && line.contains("Permission denied")
            && line.contains("check the permissions"),
        "{line}"
    );
}

#[test]
fn a_name_that_cannot_be_had_is_refused_before_the_work() {
    let names = Names::new();
    let name = names.name("taken");
    let held = SharedArray::<f64, _>::zeros(&name, 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.npy");
    write(&input, &Array2::<f64>::zeros((10, 3)));
    let file = input.to_str().unwrap();
    for args in [["load", file, &name].as_slice(), &["sum", file, "-o", &format!("shm:{name}")]] {
        let line = rowfork(args).refused();
        assert!(line.contains(&name) && line.contains("rowfork info"), "{line}");
    }
    assert_eq!(held.len(), 3);
    for args in [
        ["load", file, "a/b"].as_slice(),
        &["sum", file, "-o", "shm:a/b"],
        &["sum", "shm:a/b"],
        &["rm", "a/b"],
    ] {
        let line = rowfork(args).refused();
        assert!(
            line.contains(
                "\"a/b\" is invalid: it contains '/'; a name is what stands after /dev/shm/"
            ),
            "{line}"
        );
    }
    let line = rowfork(["sum", &format!("shm:{}", names.name("none"))]).refused();
    assert!(line.contains("no segment named") && line.contains("rowfork ls"), "{line}");
    let line = rowfork(["sum", file, "-o", "/dev/null"]).refused();
    assert!(line.contains("/dev/null is a device, not a file"), "{line}");
    assert!(fs::metadata("/dev/null").unwrap().permissions().mode() & 0o777 == 0o666);
}

#[test]
fn however_small_dev_shm_is_there_is_an_answer_or_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in.npy"), dir.path().join("out.npy"));
    let m = Array2::from_shape_fn((40_000, 4), |(i, j)| (i * j) as f64);
    write(&input, &m);
    let mut answered = 0;
    for kib in [16, 20, 28, 44, 64, 100, 200, 300, 320, 400, 700, 1000, 1300, 2000, 4000, 9000] {
        for (args, makes) in [
            (vec!["sum", input.to_str().unwrap(), "-o", out.to_str().unwrap()], true),
            (
                vec![
                    "sum",
                    input.to_str().unwrap(),
                    "--executor",
                    "pool",
                    "-o",
                    out.to_str().unwrap(),
                ],
                true,
            ),
            (
                vec!["sum", input.to_str().unwrap(), "-c", "1,2,4", "-o", out.to_str().unwrap()],
                true,
            ),
            (vec!["sum", input.to_str().unwrap(), "-o", "shm:sums"], false),
            (vec!["load", input.to_str().unwrap(), "m"], false),
        ] {
            let Some(inside) = with_shm_of(kib << 10, &command(&args)) else {
                return skip("this user may not mount a /dev/shm of its own");
            };
            let Ran { code, out: said, err } = ran(inside);
            // What goes to a file takes no memory of its own.
            assert!(!makes || code == Some(0), "{kib} KiB, {args:?}: {err}");
            match code {
                Some(0) => answered += 1,
                Some(1) => {
                    assert!(
                        said.is_empty() && err.lines().count() == 1 && err.contains("/dev/shm"),
                        "{kib}: {err}"
                    );
                    assert!(err.contains("available"), "{kib}: {err}");
                }
                _ => panic!("{kib} KiB, {args:?}: {code:?} {err}"),
            }
            assert_eq!(out.exists(), makes && code == Some(0), "{kib} KiB, {args:?}");
            let _ = fs::remove_file(&out);
            assert_eq!(left_in(dir.path()), [""; 0]);
        }
    }
    assert!((50..78).contains(&answered), "{answered} of 80");
}

#[test]
fn a_full_disk_is_known_before_the_work_and_old_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.npy");
    write(&input, &Array2::<f64>::zeros((100_000, 2)));
    let file = input.to_str().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = "mount -t tmpfs -o size=256k rowfork-test \"$1\" && \
                  echo before > \"$1/out.npy\" && \
                  \"$0\" sum \"$2\" -o \"$1/out.npy\"; echo $?; \
                  cat \"$1/out.npy\"; ls -A \"$1\" | wc -l";
    let mut inside = Command::new("unshare");
    inside
        .args(["-m", "sh", "-c", script])
        .arg(support::rowfork_path())
        .args([&disk, Path::new(file)]);
    let Ran { out, err, .. } = ran(inside);
    if err.contains("unshare") || err.contains("mount") {
        return skip("this user may not mount");
    }
    assert_eq!(out, "1\nbefore\n1\n", "{err}");
    assert!(
        err.contains("no room for")
            && err.contains("800128 bytes needed, 258048 available; make room"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1);
}

#[test]
fn unwritable_standard_output_is_an_error_unless_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.npy");
    write(&input, &Array2::<f64>::zeros((100, 2)));
    let mut full = command(["sum", input.to_str().unwrap()]);
    full.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let ended = full.output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let line = String::from_utf8(ended.stderr).unwrap();
    assert!(line.starts_with("rowfork: standard output: No space left"), "{line}");
}

#[test]
fn a_name_behind_which_is_no_array_is_refused() {
    let names = Names::new();
    let name = names.name("sparse");
    fs::write(shm(&name), "no npy").unwrap();
    let line = rowfork(["sum", &format!("shm:{name}")]).refused();
    assert!(line.contains(&name) && line.contains("not a .npy file"), "{line}");
    let line = rowfork(["rm", &name]).refused();
    assert!(line.contains("not a .npy file"), "{line}");
    fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn a_name_that_no_file_can_have_is_refused_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.npy");
    write(&input, &Array2::<f64>::zeros((10, 3)));
    for name in ["new/", "in.npy/", "in.npy/out.npy", "none/out.npy", &"x".repeat(256)] {
        let out = dir.path().join(name);
        rowfork([Path::new("sum"), &input, Path::new("-o"), &out]).refused();
    }
    rowfork(["sum", input.to_str().unwrap(), "-o", ""]).refused();
    assert_eq!(left_in(dir.path()), [""; 0]);
}

#[test]
fn each_name_that_cannot_be_removed_has_a_line_and_others_go() {
    let names = Names::new();
    let good = names.name("good");
    SharedArray::<f64, _>::zeros(&good, 3).unwrap().persist().unwrap();
    let mut said = String::new();
    // While another program looks at it, the good one has a line, too.
    let two_lines = support::eventually(|| {
        let ran = rowfork(["rm", &names.name("no"), &format!("shm:{good}"), &names.name("nor")]);
        said = ran.err;
        (ran.code, said.lines().count()) == (Some(1), 2)
    });
    assert!(two_lines, "{said}");
    assert!(!shm(&good).exists());
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join(".rowfork-1-0.tmp");
    fs::write(&dead, "").unwrap();
    let ran = rowfork([Path::new("gc"), &dir.path().join("none"), dir.path()]);
    assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{}", ran.err);
    assert!(ran.out.contains(dead.to_str().unwrap()) && !dead.exists(), "{}", ran.out);
}

#[test]
fn names_cannot_break_a_line_nor_colour_a_terminal() {
    let names = Names::new();
    let name = names.name("a\nb\u{1b}[31m");
    let mut kept = SharedArray::<f64, _>::zeros(&name, 3).unwrap();
    kept.persist().unwrap();
    for args in [vec!["ls"], vec!["info", &name]] {
        let said = rowfork(&args).ok();
        assert!(said.contains("a\\nb\\u{1b}[31m") && !said.contains('\u{1b}'), "{said}");
    }
    drop(kept);
    assert!(support::eventually(|| rowfork(["rm", &name]).code == Some(0)));
    let line = rowfork(["sum", "a\nb\r\u{1b}[31m.npy"]).refused();
    assert!(line.contains("a\\nb\\r\\u{1b}[31m.npy"), "{line}");
}
