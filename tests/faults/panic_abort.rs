//! A program built with `panic = "abort"` gets the typed error of a kernel that panics, although
//! nothing unwinds in it. It is a package of its own, since a build has one way to panic; its
//! target directory is kept, so that only the first run compiles rowfork's dependencies.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::isolated;
use crate::support::{self, Names, skip};

fn manifest() -> String {
    format!(
        r#"
[package]
name = "panics-abort"
version = "0.0.0"
edition = "2024"

[[bin]]
name = "panics-abort"
path = "{0}/tests/faults/panic_abort/program.rs"

[dependencies]
rowfork = {{ path = "{0}" }}

[profile.dev]
panic = "abort"
debug = false

[workspace]
"#,
        support::project().display()
    )
}

/// The program, or `None` (with the reason printed) where cargo cannot be run.
fn build(package: &Path) -> Option<Command> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    if !Command::new(&cargo).arg("--version").output().is_ok_and(|done| done.status.success()) {
        skip("cargo cannot be run here");
        return None;
    }
    std::fs::create_dir_all(package).unwrap();
    // The same versions, which are here already: nothing is fetched.
    let lock = support::project().join("Cargo.lock");
    if lock.exists() {
        std::fs::copy(lock, package.join("Cargo.lock")).unwrap();
    }
    std::fs::write(package.join("Cargo.toml"), manifest()).unwrap();
    let target = package.join("target");
    let mut build = Command::new(&cargo);
    build
        .args(["build", "--offline", "--quiet"])
        .current_dir(package)
        .env("CARGO_TARGET_DIR", &target);
    build.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let (succeeded, output) = isolated::output_within(build, Duration::from_secs(600));
    assert!(succeeded, "{output}");
    Some(Command::new(target.join("debug/panics-abort")))
}

#[test]
fn a_kernel_that_panics_is_named_where_panics_abort() {
    let _compiler = isolated::without_others();
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panics-abort");
    let Some(mut program) = build(&package) else { return };
    let names = Names::new();
    // A core dump, where they are made, lies where nobody minds.
    program.arg(names.name("a")).current_dir(&package);
    let (succeeded, output) = isolated::output_within(program, Duration::from_secs(20));
    assert!(succeeded, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let [panicked, sum] = lines[..] else { panic!("{output}") };
    let fields: Vec<&str> = panicked.split('|').collect();
    let ["57", "bad row 57", location] = fields[..] else { panic!("{output}") };
    assert!(location.contains("program.rs:"), "{output}");
    assert_eq!(sum, "300", "99 + 100 + 101");
    assert!(names.left().is_empty(), "{:?}", names.left());
}
