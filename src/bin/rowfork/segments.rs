//! Segments from the outside: made for others, listed, described, removed, swept up.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ndarray::IxDyn;
use rowfork::segment::{self, NpyInfo, SegmentInfo};
use rowfork::{Element, Error, HeaderError, SharedArray, sweep_drafts};

use crate::args::LoadArgs;
use crate::deliver::keep;
use crate::element::with_element;
use crate::failure::Failure;
use crate::location::Location;
use crate::progress::ByteBar;
use crate::text;

/// `rowfork load`: places a file in a segment that stays.
pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let Location::File(input) = &args.input else {
        return Err(Failure::Usage(format!(
            "{} is a segment already: load takes a file",
            args.input
        )));
    };
    segment::check_free(&args.name)?;
    let info = NpyInfo::of_file(input)?;
    let dtype = &*info.dtype;
    let bar = ByteBar::new(info.bytes, args.quiet);
    with_element!(any, dtype, A => place::<A>(input, &args.name, &bar))?;
    drop(bar);
    if !args.quiet {
        let (bytes, seconds) = (text::bytes(info.bytes), start.elapsed().as_secs_f64());
        let name = args.name.trim_start_matches('/');
        text::tell(&text::on_one_line(&format!(
            "{} {} of {dtype}, {bytes}, in {seconds:.3} s: /dev/shm/{name}",
            args.input,
            shape(&info.shape)
        )));
    }
    Ok(())
}

fn place<A: Element>(path: &Path, name: &str, bar: &ByteBar) -> Result<(), Failure> {
    keep(SharedArray::<A, IxDyn>::from_npy_file_with(None, path, |bytes| bar.more(bytes))?, name)
}

/// `rowfork ls`: a line for each.
pub(crate) fn list() -> Result<(), Failure> {
    let mut segments = segment::list()?;
    segment::find_processes(&mut segments);
    let header = ["NAME", "SHAPE", "DTYPE", "SIZE", "AGE", "OWNER", "KEPT", "STATE", "MAPPED BY"]
        .map(str::to_owned);
    let rows = segments.iter().map(|segment| {
        [
            text::on_one_line(&segment.name),
            shape(&segment.shape),
            segment.dtype.clone(),
            text::bytes(segment.bytes),
            age(segment.made),
            owner(segment.owner_uid),
            kept(segment).to_owned(),
            state(segment).to_owned(),
            processes(&segment.processes),
        ]
    });
    let mut out = io::stdout().lock();
    for line in text::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>(), &[3, 4]) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// `rowfork info`: all that is known of one.
pub(crate) fn info(array: &Location) -> Result<(), Failure> {
    let lines = match array {
        Location::Segment(name) => of_segment(name)?,
        Location::File(path) => match path.to_str() {
            // `prices` alone is a segment where there is one, `m.npy` and `./prices` are files.
            Some(name) if !looks_like_a_file(name) => {
                of_segment(name).or_else(|error| of_file(path).map_err(|_| error))?
            }
            _ => of_file(path)?,
        },
    };
    let mut out = io::stdout().lock();
    for (what, value) in lines {
        writeln!(out, "{what:<10} {}", text::on_one_line(&value))?;
    }
    Ok(out.flush()?)
}

fn looks_like_a_file(name: &str) -> bool {
    name.contains('/') || Path::new(name).extension().is_some_and(|extension| extension == "npy")
}

type Lines = Vec<(&'static str, String)>;

fn of_segment(name: &str) -> rowfork::Result<Lines> {
    let segment = match segment::info(name) {
        // NumPy's, or somebody else's: what its header says is all there is to say.
        Err(Error::Npy { cause: HeaderError::NotSegment { .. }, .. }) => {
            let mut lines = of_header(name.to_owned(), NpyInfo::of_segment(name)?);
            lines.push((
                "made by",
                "another program: rowfork reads it and never removes it".to_owned(),
            ));
            return Ok(lines);
        }
        info => info?,
    };
    Ok(vec![
        ("name", segment.name.clone()),
        ("shape", shape(&segment.shape)),
        ("dtype", segment.dtype.clone()),
        ("size", format!("{} ({} bytes)", text::bytes(segment.bytes), segment.bytes)),
        ("age", age(segment.made)),
        ("owner", owner(segment.owner_uid)),
        ("kept", kept(&segment).to_owned()),
        ("state", state(&segment).to_owned()),
        ("mapped by", processes(&segment.processes)),
    ])
}

fn of_file(path: &Path) -> rowfork::Result<Lines> {
    Ok(of_header(path.display().to_string(), NpyInfo::of_file(path)?))
}

fn of_header(name: String, npy: NpyInfo) -> Lines {
    let size = format!("{} ({} bytes)", text::bytes(npy.bytes), npy.bytes);
    vec![("name", name), ("shape", shape(&npy.shape)), ("dtype", npy.dtype), ("size", size)]
}

/// `rowfork rm`: removes all segments that can be removed, and prints a line for each that cannot.
/// A process that has a segment mapped without our lock, as NumPy has, keeps the memory; no other
/// process finds the segment any more.
pub(crate) fn remove(names: &[String]) -> Result<(), Failure> {
    Failure::tell_all(
        names.iter().filter_map(|name| segment::remove(name).err()).map(Failure::from),
    )
}

/// `rowfork gc`: says what it removed, and where it could not look.
pub(crate) fn collect(directories: &[PathBuf]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for name in segment::sweep()? {
        writeln!(out, "/dev/shm/{}", text::on_one_line(&name))?;
    }
    let mut failures = Vec::new();
    for directory in directories {
        match sweep_drafts(directory) {
            Ok(drafts) => {
                drafts.iter().try_for_each(|draft| writeln!(out, "{}", draft.display()))?;
            }
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    out.flush()?;
    Failure::tell_all(failures)
}

/// As NumPy writes it, without blanks.
fn shape(shape: &[u64]) -> String {
    let axes: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("({}{})", axes.join(","), if axes.len() == 1 { "," } else { "" })
}

/// The largest unit alone, or two: `3h 5m`.
fn age(made: SystemTime) -> String {
    let seconds = made.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

fn owner(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn kept(segment: &SegmentInfo) -> &'static str {
    if segment.volatile { "volatile" } else { "lasting" }
}

fn state(segment: &SegmentInfo) -> &'static str {
    match (segment.live, segment.volatile) {
        (true, _) => "in use",
        (false, _) if !segment.processes.is_empty() => "mapped",
        (false, true) => "stale",
        (false, false) => "at rest",
    }
}

fn processes(ids: &[u32]) -> String {
    if ids.is_empty() {
        return "-".to_owned();
    }
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
