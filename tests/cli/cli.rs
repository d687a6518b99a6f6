//! The command: the answers of the library, wherever the rows come from and the answer goes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use ndarray::{Array1, Array2, Axis, array};
use rowfork::failpoints::{self, Failpoint};
use rowfork::{SharedArray, exact_mean, exact_sum, segment};
use tempfile::TempDir;

use crate::support::command::{command, ran, read, rowfork, write};
use crate::support::{self, Names, golden, shm, skip};

/// Doubles of all sizes, whose sums depend on the order of additions.
fn matrix(n_rows: usize, n_columns: usize) -> Array2<f64> {
    Array2::from_shape_fn((n_rows, n_columns), |(i, j)| {
        ((i * 31 + j * 17) as f64).sin() * [1e-16, 1e-8, 1.0, 1e8, 1e16][j % 5]
    })
}

fn file_of(array: &Array2<f64>) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.npy");
    write(&path, array);
    (dir, path.to_str().unwrap().to_owned())
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn lines(text: &str) -> Vec<f64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn sums_are_exact_by_any_executor_and_workers_from_any_source() {
    let names = Names::new();
    let m = matrix(3000, 37);
    let expected: Vec<f64> =
        m.rows().into_iter().map(|row| exact_sum(row.as_slice().unwrap())).collect();
    let (dir, file) = file_of(&m);
    let name = names.name("m");
    rowfork(["load", &file, &name, "-q"]).ok();
    for input in [file, format!("shm:{name}")] {
        for executor in ["fork", "pool"] {
            for workers in ["1", "2", "3", "8"] {
                let asked = ["sum", &input, "--executor", executor, "--workers", workers];
                let by_lines = rowfork(asked).ok();
                assert_eq!(bits(&lines(&by_lines)), bits(&expected), "{asked:?}");
                let out = dir.path().join("out.npy");
                rowfork(asked.iter().copied().chain(["-o", out.to_str().unwrap()])).ok();
                assert_eq!(bits(&read(&out)), bits(&expected), "{asked:?}");
                let answer = names.name("out");
                rowfork(asked.iter().copied().chain(["-o", &format!("shm:{answer}")])).ok();
                assert_eq!(
                    std::fs::read(shm(&answer)).unwrap()[4096..],
                    *bytemuck::cast_slice::<f64, u8>(&expected)
                );
                rowfork(["rm", &answer]).ok();
            }
        }
    }
    rowfork(["rm", &format!("shm:{name}")]).ok();
}

#[test]
fn real_data_have_the_sums_of_fsum() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let (input, expected) =
        (data.join("mobility-m50-index.npy"), data.join("mobility-row-sums.npy"));
    let Ok(expected) = std::fs::read(expected) else { return skip("the real data are not here") };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.npy");
    for executor in ["fork", "pool"] {
        for workers in 1..=8 {
            let workers = workers.to_string();
            let asked = [
                "sum",
                input.to_str().unwrap(),
                "-w",
                &workers,
                "--executor",
                executor,
                "-o",
                out.to_str().unwrap(),
            ];
            rowfork(asked).ok();
            assert!(std::fs::read(&out).unwrap() == expected, "{asked:?}");
        }
    }
}

#[test]
fn each_operation_is_the_librarys() {
    let m = matrix(500, 20);
    let (dir, file) = file_of(&m);
    let rows = || m.rows().into_iter().map(|row| row.to_vec());
    let means: Vec<f64> = rows().map(|row| exact_mean(&row)).collect();
    assert_eq!(bits(&lines(&rowfork(["mean", &file]).ok())), bits(&means));
    let fast: Vec<f64> = rows().map(|row| rowfork::fast_sum(&row)).collect();
    assert_eq!(bits(&lines(&rowfork(["sum-fast", &file]).ok())), bits(&fast));

    let vector: Vec<f64> = (0..20).map(|j| f64::from(j) / 7.0).collect();
    let path = dir.path().join("v.npy");
    write(&path, &Array1::from(vector.clone()));
    let dots: Vec<f64> = rows().map(|row| rowfork::exact_dot(&row, &vector)).collect();
    let names = Names::new();
    let name = names.name("v");
    rowfork(["load", path.to_str().unwrap(), &name]).ok();
    for with in [path.to_str().unwrap().to_owned(), format!("shm:{name}")] {
        for executor in ["fork", "pool"] {
            assert_eq!(
                bits(&lines(
                    &rowfork(["dot", &file, "--with", &with, "--executor", executor]).ok()
                )),
                bits(&dots)
            );
        }
    }
    rowfork(["rm", &name]).ok();
    let eleven = rowfork(["dot", &file, "--with", path.to_str().unwrap(), "-c", "1-11"]).refused();
    assert!(eleven.contains("shape [20], [11] is needed"), "{eleven}");
    let three = rowfork(["dot", &file, "--with", path.to_str().unwrap(), "-c", "1,2,4"]).refused();
    assert_eq!(three, eleven.replace("[11]", "[3]"));
}

#[test]
fn every_number_has_a_sum_of_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.npy");
    let file = path.to_str().unwrap();
    write(&path, &array![[0.1f32, 0.2, 0.3], [1e30, 1.0, -1e30]]);
    assert_eq!(rowfork(["sum", file]).ok(), "0.6\n1.0\n");
    write(&path, &array![[i64::MAX, -1], [-5, 2]]);
    assert_eq!(rowfork(["sum", file]).ok(), format!("{}\n-3\n", i64::MAX - 1));
    write(&path, &array![[255u8, 255], [1, 0]]);
    assert_eq!(rowfork(["sum", file, "--executor", "pool"]).ok(), "510\n1\n");
    write(&path, &array![[true, true], [false, true]].mapv(rowfork::Bool::from));
    assert_eq!(rowfork(["sum", file]).ok(), "2\n1\n");
    write(&path, &array![[i64::MAX, 1], [-5, 2]]);
    let over = rowfork(["sum", file]).refused();
    assert!(
        over.contains("the sum of row 0 is 9223372036854775808, beyond the range of int64"),
        "{over}"
    );
    let mut large = Array2::from_elem((300, 6), 1_i64);
    large[[150, 0]] = i64::MAX;
    write(&path, &large);
    for part in [
        &[][..],
        &["-c", "1,2,4"],
        &["-r", "101-"],
        &["-r", "151", "-c", "1,2,4", "--executor", "pool"],
    ] {
        let over = rowfork([&["sum", file], part].concat()).refused();
        assert!(over.contains("the sum of row 150 is 92233720368547758"), "{part:?}: {over}");
    }
    let told = rowfork(["sum", file, "--report", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.err).unwrap();
    assert!(told["error"].as_str().unwrap().contains("the sum of row 150"), "{told}");
    write(&path, &array![[i64::MAX, 1], [-5, 2]]);
    let mean = rowfork(["mean", file]).refused();
    assert!(mean.contains("holds dtype \"<i8\", \"<f8\" is wanted; convert it"), "{mean}");
}

#[test]
fn columns_and_rows_are_chosen_as_by_cut() {
    let m = matrix(100, 12);
    let (_dir, file) = file_of(&m);
    for (list, indices) in [
        ("6-", (5..12).collect::<Vec<_>>()),
        ("-3", vec![0, 1, 2]),
        ("1,4,7,10", vec![0, 3, 6, 9]),
        ("2,4,7-9", vec![1, 3, 6, 7, 8]),
        ("9,7-8,4,2,2", vec![1, 3, 6, 7, 8]),
    ] {
        let chosen = m.select(Axis(1), &indices);
        let expected: Vec<f64> =
            chosen.rows().into_iter().map(|row| exact_sum(&row.to_vec())).collect();
        for executor in ["fork", "pool"] {
            let said =
                rowfork(["sum", &file, "-c", list, "-r", "11-60", "--executor", executor]).ok();
            assert_eq!(bits(&lines(&said)), bits(&expected[10..60]), "{list}");
        }
    }
    let beyond = rowfork(["sum", &file, "--columns", "3,13"]).refused();
    assert_eq!(beyond, "rowfork: --columns 3,13: there is no column 13, the last is 12");
}

#[test]
fn numbers_are_the_shortest_that_read_back_and_sort_knows_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.npy");
    let values = [0.1, 0.0, 1e300, 5e-324, f64::INFINITY, 1.0 / 3.0, 123_456_789.0, 1e16];
    write(&path, &Array2::from_shape_fn((values.len(), 1), |(i, _)| values[i]));
    let said = rowfork(["mean", path.to_str().unwrap()]).ok();
    assert_eq!(said, "0.1\n0.0\n1e300\n5e-324\ninf\n0.3333333333333333\n123456789.0\n1e16\n");
    let sorted = ran({
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", "\"$0\" mean \"$1\" | LC_ALL=C sort -g | tail -2"])
            .arg(support::rowfork_path())
            .arg(&path);
        shell
    });
    assert_eq!(sorted.ok(), "1e300\ninf\n");
}

#[test]
fn who_has_seen_enough_is_no_error() {
    let (_dir, file) = file_of(&matrix(200_000, 2));
    let mut child =
        command(["sum", &file]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.trim().parse::<f64>().is_ok());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]));
}

#[test]
fn a_report_for_people_or_programs_goes_to_standard_error() {
    let (_dir, file) = file_of(&matrix(5000, 50));
    let text = rowfork(["sum", &file, "--report", "text"]);
    assert!(
        text.err.contains("mapped where it lies") && text.err.contains("5000 rows in"),
        "{}",
        text.err
    );
    let json = rowfork(["sum", &file, "--report", "json", "--executor", "pool"]);
    let report: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(
        (&report["rows"], &report["executor"], &report["bytes_read"]),
        (&5000.into(), &"pool".into(), &2_000_000.into())
    );
    assert_eq!(lines(&json.out), lines(&text.out));
    let quiet = rowfork(["sum", &file]);
    assert_eq!(quiet.err, "", "no bar where there is no terminal");
}

#[test]
fn segments_are_loaded_listed_described_and_removed() {
    let names = Names::new();
    let name = names.name("loaded");
    for golden_file in
        ["c_order.npy", "float32.npy", "uint8.npy", "no_rows.npy", "no_axis.npy", "version_3.npy"]
    {
        let said = rowfork(["load", golden(golden_file).to_str().unwrap(), &name]);
        assert!(said.err.contains(&format!("/dev/shm/{name}")), "{}", said.err);
        said.ok();
        let listed = rowfork(["ls"]).ok();
        let line = listed.lines().find(|line| line.starts_with(&name)).unwrap();
        assert!(line.contains("lasting") && line.contains("at rest"), "{line}");
        assert!(support::eventually(|| rowfork(["rm", &name]).code == Some(0)));
    }
    let mut held = SharedArray::<f64, _>::zeros(&name, (3, 4)).unwrap();
    let info = rowfork(["info", &name]).ok();
    for part in
        ["(3,4)", "<f8", "4192 bytes", "volatile", "in use", &std::process::id().to_string()]
    {
        assert!(info.contains(part), "{part} in {info}");
    }
    let refused = rowfork(["rm", &name]).refused();
    assert!(refused.contains("in use by a live process"), "{refused}");
    held.persist().unwrap();
    drop(held);
    assert!(support::eventually(|| rowfork(["rm", &name]).code == Some(0)));
    assert!(rowfork(["info", &name]).refused().contains("no segment named"));
    assert!(segment::list().unwrap().iter().all(|segment| segment.name != name));
}

#[test]
fn what_is_not_understood_is_2_and_what_is_asked_is_0() {
    for args in [
        &["sum"][..],
        &["summ", "x"],
        &["sum", "x", "-c", "0"],
        &["sum", "x", "--deadline", "soon"],
        &["dot", "x"],
        &[],
        &["sum", "x", "-w", "0"],
        &["sum", "x", "--stall", "0s"],
        &["load", "shm:x", "y"],
    ] {
        let ran = rowfork(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
    }
    let (_dir, file) = file_of(&matrix(10, 3));
    let two = rowfork(["sum", &file, "-r", "1,5-6"]);
    assert_eq!((two.code, &*two.out), (Some(2), ""), "{}", two.err);
    assert_eq!(rowfork(["--version"]).ok(), format!("rowfork {}\n", env!("CARGO_PKG_VERSION")));
    assert!(rowfork(["sum", "--help"]).ok().contains("Example: rowfork sum"));
    assert!(rowfork(["man"]).ok().contains(".TH rowfork"));
    assert!(rowfork(["completions", "bash"]).ok().contains("sum-fast"));
    let dir = tempfile::tempdir().unwrap();
    rowfork(["man", dir.path().to_str().unwrap()]).ok();
    assert!(dir.path().join("rowfork-sum.1").exists());
}

#[test]
fn an_answer_does_not_depend_on_who_listens_to_standard_error() {
    let m = matrix(100, 5);
    let (dir, file) = file_of(&m);
    for (form, n) in [("text", 0), ("json", 1)] {
        let out = dir.path().join(format!("{n}.npy"));
        let mut asked = command(["sum", &file, "-o", out.to_str().unwrap(), "--report", form]);
        asked.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
        assert!(asked.status().unwrap().success());
        assert_eq!(read(&out).len(), 100);
    }
    let mut missing = command(["sum", "none.npy"]);
    missing.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(missing.status().unwrap().code(), Some(1));
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let m = matrix(10, 3);
    let (dir, file) = file_of(&m);
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.npy"));
    rowfork([Path::new("sum"), Path::new(&file), Path::new("-o"), &odd]).ok();
    let vector = dir.path().join(std::ffi::OsStr::from_bytes(b"\xfe.npy"));
    write(&vector, &Array1::from(vec![1.0; 3]));
    let dots = rowfork([Path::new("dot"), Path::new(&file), Path::new("--with"), &vector]).ok();
    assert_eq!(bits(&lines(&dots)), bits(&read(&odd)));
    assert!(rowfork([Path::new("info"), &odd]).ok().contains("(10,)"));
}

#[test]
fn an_answer_is_the_same_where_it_cannot_be_made_in_its_file() {
    let m = matrix(5000, 5);
    let (dir, file) = file_of(&m);
    let expected = lines(&rowfork(["sum", &file]).ok());
    for without in [Failpoint::NoDraftsInPlace, Failpoint::NoNamelessDrafts] {
        let out = dir.path().join("out.npy");
        let mut asked = command(["sum", &file, "-o", out.to_str().unwrap()]);
        asked.env(failpoints::VARIABLE, without.to_string());
        ran(asked).ok();
        assert_eq!(bits(&read(&out)), bits(&expected), "{without}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn rows_are_counted_in_the_input_whatever_part_was_asked_for() {
    let (_dir, file) = file_of(&matrix(300_000, 5));
    let asked = ["sum", &file, "--rows", "1001-", "--deadline", "1ns", "--on-poison", "nan"];
    let warned = rowfork(asked);
    assert!(
        warned.err.contains("rows are missing and hold nan, the first is row 1000 (from 0)"),
        "{}",
        warned.err
    );
    let told = rowfork(asked.iter().copied().chain(["--report", "json"]));
    let report: serde_json::Value = serde_json::from_str(&told.err).unwrap();
    assert_eq!((&report["first_row"], &report["ended_early"]), (&1000.into(), &"deadline".into()));
    assert!(warned.out.lines().all(|line| line == "NaN"));
}

#[test]
fn what_python_has_mapped_is_told_and_outlives_its_removal() {
    let names = Names::new();
    let name = names.name("mapped");
    let path = shm(&name);
    let mut made = SharedArray::<f64, _>::zeros(&name, (3, 4)).unwrap();
    made.persist().unwrap();
    drop(made);
    let script = "import sys, numpy as np\na = np.load(sys.argv[1], mmap_mode='r')\n\
                  print('ready', flush=True)\nsys.stdin.read()\nprint(a.sum())";
    let mut python = std::process::Command::new("python3");
    python
        .args(["-c", script])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut python = python.spawn().unwrap();
    let mut said = BufReader::new(python.stdout.take().unwrap());
    let (mut ready, mut sum) = (String::new(), String::new());
    said.read_line(&mut ready).unwrap();
    if ready == "ready\n" {
        let listed = rowfork(["ls"]).ok();
        let line = listed.lines().find(|line| line.starts_with(&name)).unwrap();
        assert!(line.contains("mapped") && line.ends_with(&python.id().to_string()), "{line}");
    } else {
        skip("python3 with numpy is not installed");
    }
    rowfork(["rm", &name]).ok();
    drop(python.stdin.take());
    said.read_line(&mut sum).unwrap();
    assert!(ready.is_empty() || sum == "0.0\n", "{sum}");
    python.wait().unwrap();
}
