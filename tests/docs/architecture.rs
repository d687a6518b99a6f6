//! The layers of docs/ARCHITECTURE.md: a file imports from its own layer or a lower one. Inside some
//! layers the files and folders have an order, and the same holds. No files import each other in a
//! circle.
//! The test reads the sources, file by file, the command included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Every layer, the lowest first. A layer may use those above its line in this table, and none below
/// it.
const LAYERS: &[&str] = &[
    "failpoints",
    "sys",
    "error",
    "segment",
    "kernel",
    "array",
    "engine",
    "executor",
    "rows",
    "bin",
];

/// The order of the files and folders inside some layers, the lowest first. The `mod.rs` of such a
/// layer lists them, and is not among them.
const ORDERS: &[(&str, &[&str])] = &[
    (
        "engine",
        &[
            "ranges",
            "blocks",
            "policy",
            "cancel",
            "args",
            "control",
            "undo",
            "worker_set",
            "worker",
            "report",
            "options",
            "decide",
            "call",
            "supervisor",
        ],
    ),
    (
        "executor/pool",
        &[
            "defaults",
            "counters",
            "silence",
            "spin",
            "queue",
            "job",
            "job_board",
            "maps",
            "messages",
            "mailboxes",
            "shared_state",
            "worker",
            "zygote",
            "worker_table",
            "call_workers",
            "builder",
        ],
    ),
];

/// What some places may not use although it stands lower.
const APART: &[(&str, &[&str])] = &[
    ("kernel", &["segment", "error"]),
    ("segment", &["kernel"]),
    ("engine/blocks", &["sys", "error", "segment", "array"]),
    ("engine/control", &["segment", "kernel", "error", "array"]),
    (
        "engine/decide",
        &["sys", "segment", "array", "engine/worker", "engine/worker_set", "engine/undo"],
    ),
    ("engine", &["kernel"]),
    ("executor/fork", &["executor/pool"]),
    ("executor/pool", &["executor/fork"]),
];

/// One source file without its comments and unit tests.
struct Source {
    /// Below `src/`.
    path: PathBuf,
    /// The names that lead to it from the root of its crate: `engine`, `control`, `claims`.
    module: Vec<String>,
    text: String,
}

impl Source {
    fn layer(&self) -> String {
        self.path
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned()
    }

    /// Where it stands, as `APART` writes it.
    fn place(&self) -> String {
        let place = self.path.to_str().unwrap().trim_end_matches(".rs");
        place.strip_suffix("/mod").unwrap_or(place).to_owned()
    }

    fn is_of_command(&self) -> bool {
        self.path.starts_with("bin")
    }
}

/// `mod name;`, which imports nothing.
fn is_module_list(line: &str) -> bool {
    line.ends_with(';')
        && line
            .split_once("mod ")
            .is_some_and(|(before, _)| before.is_empty() || before.starts_with("pub"))
}

fn paths_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { paths_below(&path) } else { vec![path] }).collect()
}

/// All files of the library and the command but tests.
fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rust = paths_below(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut sources: Vec<Source> = rust
        .map(|path| Source::read(&root, &path))
        .filter(|source| !source.module.iter().any(|name| name == "tests"))
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The same without `lib.rs`, which belongs to no layer: it lists them.
fn sources() -> Vec<Source> {
    all_sources().into_iter().filter(|source| source.place() != "lib").collect()
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let relative = path.strip_prefix(root).unwrap();
        let of_crate = relative.strip_prefix("bin/rowfork").unwrap_or(relative);
        let names = of_crate.with_extension("");
        let mut module: Vec<String> =
            names.components().map(|name| name.as_os_str().to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|name| name == "mod" || name == "main") {
            module.pop();
        }
        let text = fs::read_to_string(path).unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//") && !is_module_list(line);
        let lines: Vec<&str> = text.lines().filter(is_code).collect();
        let tests =
            lines.iter().position(|line| line.starts_with("mod tests {")).unwrap_or(lines.len());
        Self { path: relative.to_owned(), module, text: lines[..tests].join("\n") }
    }
}

/// A path that a `use` statement names.
struct Use {
    path: Vec<String>,
    /// To others: `pub use`.
    handed_on: bool,
}

/// What `use` statements name. In a module within the file (which is indented) `super` is the file
/// itself.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for (before, tree) in use_statements(text) {
        for mut path in expanded(&tree) {
            if before.starts_with(' ') && path.first().is_some_and(|name| name == "super") {
                "self".clone_into(&mut path[0]);
            }
            found.push(Use { path, handed_on: before.trim().starts_with("pub") });
        }
    }
    found
}

/// Each `use` statement: what stands before it on its line, and what it names.
fn use_statements(text: &str) -> Vec<(&str, String)> {
    let statements = text.split(';').filter_map(|statement| {
        let at = use_at(statement)?;
        let before = &statement[statement[..at].rfind('\n').map_or(0, |end| end + 1)..at];
        Some((before, statement[at + 4..].split_whitespace().collect::<Vec<_>>().join(" ")))
    });
    statements.collect()
}

/// Where in a statement its `use` begins, if it is one.
fn use_at(statement: &str) -> Option<usize> {
    let at = statement.rfind("use ")?;
    let before = statement[statement[..at].rfind('\n').map_or(0, |end| end + 1)..at].trim();
    (before.is_empty() || before.starts_with("pub")).then_some(at)
}

fn without_uses(text: &str) -> String {
    text.split_inclusive(';')
        .map(|statement| use_at(statement).map_or(statement, |at| &statement[..at]))
        .collect()
}

/// `a::{b, c::d as e}` as `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap();
        return vec![
            path.split("::")
                .map(|name| name.trim().to_owned())
                .filter(|name| name != "self")
                .collect(),
        ];
    };
    let before: Vec<String> = tree[..open]
        .split("::")
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let (mut depth, mut start, mut parts) = (0, open + 1, Vec::new());
    for (at, c) in tree.char_indices().skip(open) {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(&tree[start..at]);
                }
            }
            _ => {}
        }
    }
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty()).flat_map(expanded);
    parts.map(|part| before.iter().cloned().chain(part).collect()).collect()
}

/// Paths that stand in the code itself, as in `crate::segment::registry::lock()` or
/// `child::work()`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code
        .split(|c: char| !is_path(c))
        .filter(|word| word.contains("::") && !word.ends_with("::"));
    words.map(|word| word.split("::").map(str::to_owned).collect()).collect()
}

/// Whether `code` has `name` as a word of its own.
fn mentions(code: &str, name: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// Which file imports from which: indices into `sources`. Doors, by which a `mod.rs` hands on what
/// its children have, are followed to the child. They are imports of the `mod.rs` only where its
/// own code uses what they lead to.
fn imports(sources: &[Source]) -> BTreeMap<usize, BTreeSet<usize>> {
    let file_of = |of_command: bool, module: &[String]| {
        sources
            .iter()
            .position(|source| source.is_of_command() == of_command && source.module == module)
    };
    let absolute = |source: &Source, path: &[String]| -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => source.module.clone(),
            "super" => source.module[..source.module.len().checked_sub(1)?].to_vec(),
            // A child of this very module, or a foreign crate.
            child => {
                let own: Vec<String> =
                    source.module.iter().cloned().chain([child.to_owned()]).collect();
                file_of(source.is_of_command(), &own)?;
                own
            }
        };
        for name in rest {
            if name == "super" {
                module.pop();
            } else {
                module.push(name.clone());
            }
        }
        Some(module)
    };
    // Each name that a file hands on: where it comes from.
    let mut doors: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        for Use { path, handed_on } in uses(&source.text) {
            if let (true, Some(target), Some(name)) =
                (handed_on, absolute(source, &path), path.last())
            {
                doors.insert((index, name.clone()), target);
            }
        }
    }
    let file_that_has = |of_command: bool, mut path: Vec<String>| -> Option<usize> {
        for _ in 0..8 {
            let length = (0..=path.len())
                .rev()
                .find(|&length| file_of(of_command, &path[..length]).is_some())?;
            let file = file_of(of_command, &path[..length])?;
            match path.get(length).and_then(|name| doors.get(&(file, name.clone()))) {
                Some(target) if *target != path => path = target.clone(),
                _ => return Some(file),
            }
        }
        panic!("{path:?} is handed on in a circle");
    };
    let mut imports: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        let code = without_uses(&source.text);
        let own = uses(&source.text).into_iter().filter(|Use { path, handed_on }| {
            !handed_on || path.last().is_some_and(|name| mentions(&code, name))
        });
        let found = own.map(|own| own.path).chain(inline_paths(&code));
        for path in found.filter_map(|path| absolute(source, &path)) {
            if let Some(used) =
                file_that_has(source.is_of_command(), path).filter(|&used| used != index)
            {
                imports.entry(index).or_default().insert(used);
            }
        }
    }
    imports
}

fn is_in(place: &str, layer: &str) -> bool {
    place == layer || place.strip_prefix(layer).is_some_and(|rest| rest.starts_with('/'))
}

/// Where a place stands in the order inside a layer; `None` for places elsewhere and for the layer's
/// `mod.rs`.
fn rank_of(place: &str, layer: &str, order: &[&str]) -> Option<usize> {
    let within = place.strip_prefix(layer)?.strip_prefix('/')?;
    order.iter().position(|file| is_in(within, file))
}

#[test]
fn every_file_belongs_to_a_layer() {
    for source in sources() {
        assert!(
            LAYERS.contains(&&*source.layer()),
            "{} belongs to no layer",
            source.path.display()
        );
        for (layer, order) in ORDERS {
            let place = source.place();
            assert!(
                !is_in(&place, layer) || place == *layer || rank_of(&place, layer, order).is_some(),
                "{} has no place in the order inside {layer}",
                source.path.display()
            );
        }
    }
}

#[test]
fn every_place_of_the_tables_is_there() {
    let places: Vec<String> = sources().iter().map(Source::place).collect();
    let layers = LAYERS.iter().map(ToString::to_string);
    let ordered = ORDERS
        .iter()
        .flat_map(|(layer, order)| order.iter().map(move |file| format!("{layer}/{file}")));
    let apart = APART
        .iter()
        .flat_map(|(one, others)| [one].into_iter().chain(*others).map(ToString::to_string));
    for named in layers.chain(ordered).chain(apart) {
        assert!(
            places.iter().any(|place| is_in(place, &named)),
            "a table names {named}, where no source is"
        );
    }
}

#[test]
fn imports_go_down() {
    let sources = sources();
    let imports = imports(&sources);
    let rank = |source: &Source| LAYERS.iter().position(|layer| *layer == source.layer()).unwrap();
    let mut checked = 0;
    for (from, used) in
        imports.iter().flat_map(|(from, used)| used.iter().map(move |used| (from, used)))
    {
        let (from, used) = (&sources[*from], &sources[*used]);
        assert!(
            rank(used) <= rank(from),
            "{} uses {}, which stands above",
            from.path.display(),
            used.path.display()
        );
        let (from_place, used_place) = (from.place(), used.place());
        for (layer, order) in ORDERS {
            let rank = |place| rank_of(place, layer, order);
            assert!(
                rank(&from_place).is_none_or(|from| rank(&used_place) <= Some(from)),
                "{} uses {}, which stands above it in their layer",
                from.path.display(),
                used.path.display()
            );
        }
        let apart = APART.iter().find(|(one, others)| {
            is_in(&from_place, one)
                && others
                    .iter()
                    .any(|other| is_in(&used_place, other) && !is_in(&from_place, other))
        });
        assert!(
            apart.is_none(),
            "{} must know nothing of {}",
            from.path.display(),
            used.path.display()
        );
        checked += 1;
    }
    assert!(checked > 300, "only {checked} imports found: the test reads too little");
}

/// All files that `file` imports, and those that these import, and so on.
fn reach(file: usize, imports: &BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    let (mut reached, mut ahead) = (BTreeSet::new(), vec![file]);
    while let Some(file) = ahead.pop() {
        ahead
            .extend(imports.get(&file).into_iter().flatten().filter(|&&used| reached.insert(used)));
    }
    reached
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let sources = sources();
    let imports = imports(&sources);
    let reached: BTreeMap<usize, BTreeSet<usize>> =
        imports.keys().map(|&file| (file, reach(file, &imports))).collect();
    let mut in_circles = String::new();
    for (from, used) in
        imports.iter().flat_map(|(from, used)| used.iter().map(move |used| (from, used)))
    {
        if reached.get(used).is_some_and(|reached| reached.contains(from)) {
            let (from, used) = (sources[*from].path.display(), sources[*used].path.display());
            writeln!(in_circles, "{from} uses {used}").expect("a string");
        }
    }
    assert!(in_circles.is_empty(), "circles:\n{in_circles}");
}

#[test]
fn the_reader_of_this_test_sees_what_is_imported() {
    let text = "use a::{self, b::{C, d as e}};\npub(crate) use super::x;\n\
                mod c {\n    use super::v;\n}\nlet y = crate::z::w();";
    let paths: Vec<String> = uses(text).into_iter().map(|used| used.path.join("::")).collect();
    assert_eq!(paths, ["a", "a::b::C", "a::b::d", "super::x", "self::v"]);
    assert_eq!(inline_paths(&without_uses(text)), [["crate", "z", "w"]]);
    assert!(mentions("let x: Name<u8>;", "Name") && !mentions("let x: Names;", "Name"));
}

#[test]
fn the_library_prints_nothing_and_never_exits_a_caller() {
    for source in all_sources().into_iter().filter(|source| !source.is_of_command()) {
        for word in
            ["println!", "eprintln!", "print!(", "process::exit", "todo!", "unimplemented!", "dbg!"]
        {
            assert!(!source.text.contains(word), "{} says {word}", source.path.display());
        }
    }
}
