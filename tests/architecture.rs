//! The floors of the house: a file imports only from its own floor or a lower one (docs/ARCHITECTURE.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module and its floor.
const FLOORS: &[(&str, u32)] = &[
    ("sys", 0),
    ("error", 0),
    ("blocks", 0),
    ("failpoints", 0),
    ("policy", 0),
    ("ranges", 0),
    ("segment", 1),
    ("control", 1),
    ("kernel", 1),
    ("cancel", 1),
    ("array", 2),
    ("spare", 2),
    ("report", 2),
    ("supervise", 2),
    ("interrupted", 2),
    ("worker", 2),
    ("crew", 2),
    ("options", 2),
    ("call", 2),
    ("packet", 2),
    ("supervisor", 3),
    ("executor", 3),
    ("fork", 3),
    ("pool", 3),
    ("rows", 4),
    // The command: a crate of its own, which sees of the others what everybody sees.
    ("bin", 5),
];

/// What some modules may not use although it stands lower, or on their own floor.
const APART: &[(&str, &[&str])] = &[
    ("kernel", &["segment", "control", "error", "blocks"]),
    ("control", &["segment", "kernel", "error"]),
    ("segment", &["control", "kernel", "blocks"]),
    ("supervise", &["sys", "segment", "worker", "crew", "array", "spare"]),
    ("interrupted", &["sys", "segment", "worker", "crew", "array"]),
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Path of each Rust file below `src`, its top-level module, and its text without comments and tests.
fn files() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rust = sources(&root).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| {
        let relative = path.strip_prefix(&root).unwrap();
        let module =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (relative.to_owned(), module, code.join("\n"))
    })
    .collect()
}

/// The top-level modules that a text names behind `crate::`.
fn imports(text: &str) -> Vec<String> {
    assert!(!text.contains("crate::{"), "one import a line, so that this test can read it");
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    text.split("crate::").skip(1).map(word).filter(|name| FLOORS.iter().any(|(module, _)| module == name)).collect()
}

#[test]
fn every_module_has_a_floor() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    for (path, module, _) in files() {
        assert!(module == "lib" || floors.contains_key(&*module), "{} stands on no floor", path.display());
    }
}

#[test]
fn imports_go_down() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut checked = 0;
    for (path, module, text) in files().into_iter().filter(|(_, module, _)| module != "lib") {
        for used in imports(&text).into_iter().filter(|used| *used != module && module != "bin") {
            let (from, to) = (floors[&*module], floors[&*used]);
            assert!(to <= from, "{} (floor {from}) uses {used} (floor {to})", path.display());
            let apart = APART.iter().any(|(one, others)| *one == module && others.contains(&&*used));
            assert!(!apart, "{} must know nothing of {used}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} imports found: the test reads too little");
}

#[test]
fn the_library_prints_nothing_and_never_exits_a_caller() {
    for (path, _, text) in files().into_iter().filter(|(_, module, _)| module != "bin") {
        for word in ["println!", "eprintln!", "print!(", "process::exit", "todo!", "unimplemented!", "dbg!"] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

#[test]
fn modules_do_not_use_each_other_in_a_circle() {
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, module, text) in files().into_iter().filter(|(_, module, _)| module != "lib" && module != "bin") {
        uses.entry(module.clone()).or_default().extend(imports(&text).into_iter().filter(|used| *used != module));
    }
    // Takes away, again and again, what uses nothing that is left.
    while let Some(leaf) = uses.iter().find(|(_, used)| !used.iter().any(|name| uses.contains_key(name))) {
        let leaf = leaf.0.clone();
        uses.remove(&leaf);
    }
    assert!(uses.is_empty(), "a circle among {:?}", uses.keys());
}
