//! The Python that this project shows runs as it is shown: every program of `docs/NUMPY.md`, in
//! order, in one directory, and the script `examples/numpy_both_ways.py`, each with the command
//! that `cargo test` has built. Nothing stays in `/dev/shm`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::isolated::output_within;
use crate::support::{self, Names, numpy, skip};

const PAGE: &str = include_str!("../../docs/NUMPY.md");
const SCRIPT: &str = include_str!("../../examples/numpy_both_ways.py");

/// What every name on the page begins with; a test run puts its own tag there.
const STEM: &str = "weather-";

/// Nothing here takes long; a hang is a failure, not a wait.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The directory of the command; `None`, and the reason printed, where a part of what is needed is
/// not there.
fn directory_of_command() -> Option<PathBuf> {
    let command = support::rowfork_path();
    if !command.exists() {
        skip("the command rowfork lies where this user cannot reach it");
        return None;
    }
    numpy("", &[])?;
    command.parent().map(Path::to_owned)
}

/// Runs a file of Python, `rowfork` on its PATH, in the directory where it lies; how it ended, and
/// what it said.
fn python(file: &Path, arguments: &[&str], path: &str) -> (bool, String) {
    let mut command = Command::new("python3");
    command.arg(file).args(arguments).current_dir(file.parent().unwrap()).env("PATH", path);
    output_within(command, WATCHDOG)
}

/// The PATH that the command is the first on.
fn path_with(directory: &Path) -> String {
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default())
}

/// A fenced block of the page: its language, its text, and the line that it begins on.
struct Block {
    language: &'static str,
    text: String,
    line: usize,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (line, text) in (1..).zip(PAGE.lines()) {
        match text.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                blocks.push(Block { language, text: String::new(), line: line + 1 });
                open = true;
            }
            None if open => {
                let block = blocks.last_mut().unwrap();
                block.text += text;
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "a block without an end");
    blocks
}

/// Names in `/dev/shm` that a text has and that this page's stem does not begin.
fn strangers(text: &str) -> Vec<&str> {
    let names = ["/dev/shm/", "shm:"].into_iter().flat_map(|before| text.split(before).skip(1));
    names
        .filter(|name| name.starts_with(char::is_alphanumeric) && !name.starts_with(STEM))
        .collect()
}

#[test]
fn every_program_of_the_page_prints_as_said_and_leaves_nothing() {
    let Some(directory) = directory_of_command() else { return };
    let (path, names, work) = (path_with(&directory), Names::new(), tempfile::tempdir().unwrap());
    let blocks = blocks();
    let mut run = 0;
    for (i, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "python") {
        assert!(
            strangers(&block.text).is_empty(),
            "docs/NUMPY.md:{}: {:?}",
            block.line,
            strangers(&block.text)
        );
        let program = work.path().join(format!("line_{}.py", block.line));
        std::fs::write(&program, block.text.replace(STEM, &names.name(""))).unwrap();
        let (succeeded, said) = python(&program, &[], &path);
        assert!(succeeded, "docs/NUMPY.md:{}:\n{said}", block.line);
        // Line by line: what follows at once is its output, and no other text is.
        let expected =
            blocks.get(i + 1).filter(|next| next.language == "text").map_or("", |next| &next.text);
        assert_eq!(said.replace(&names.name(""), STEM), expected, "docs/NUMPY.md:{}", block.line);
        assert!(names.left().is_empty(), "docs/NUMPY.md:{} leaves {:?}", block.line, names.left());
        run += 1;
    }
    assert!(run >= 7, "only {run} programs found: the test reads too little");
}

#[test]
fn the_script_finds_every_sum_to_be_fsums_and_what_is_missing() {
    let Some(directory) = directory_of_command() else { return };
    let path = path_with(&directory);
    let (succeeded, said) = script(&["300", "17"], &[], &path);
    assert!(succeeded && said.contains("300 rows of 17: every sum is that of math.fsum"), "{said}");
    let (succeeded, said) = script(&["0"], &[], &path);
    assert!(!succeeded && said.contains("'0' is no number of rows"), "{said}");

    // A command that fails: the matrix goes all the same.
    let fake = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/false", fake.path().join("rowfork")).unwrap();
    let (succeeded, said) = script(&["5", "5"], &[], &path_with(fake.path()));
    assert!(!succeeded && said.contains("rowfork sum ended with exit code 1"), "{said}");

    let nothing = tempfile::tempdir().unwrap();
    let (succeeded, said) = script(&[], &[], nothing.path().to_str().unwrap());
    assert!(!succeeded && said.contains("no command rowfork on the PATH"), "{said}");
    // Python alone, without the packages that were installed.
    let (succeeded, said) = script(&[], &["-IS"], &path);
    assert!(!succeeded && said.contains("NumPy is not installed"), "{said}");
}

/// Runs the script: its arguments, those of Python, and what it sees as PATH. It leaves nothing in
/// `/dev/shm`, where its names carry its process id.
fn script(arguments: &[&str], of_python: &[&str], path: &str) -> (bool, String) {
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("numpy_both_ways.py");
    std::fs::write(&file, SCRIPT).unwrap();
    let found = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap()
        .stdout;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"echo $$; exec "$0" "$@""#, String::from_utf8(found).unwrap().trim()]);
    command.args(of_python).arg(&file).args(arguments).env("PATH", path);
    let (succeeded, said) = output_within(command, WATCHDOG);
    let id = said.lines().next().unwrap_or_default();
    assert!(!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()), "{said}");
    let names = std::fs::read_dir("/dev/shm")
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.ends_with(&format!("-{id}"))).collect();
    assert!(left.is_empty(), "left in /dev/shm: {left:?}");
    (succeeded, said)
}
