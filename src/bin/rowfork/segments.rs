//! Segments from the outside: made for others, listed, described, removed, swept up.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ndarray::IxDyn;
use rowfork::segment::{self, NpyInfo, SegmentInfo};
use rowfork::{Element, Error, HeaderError, SharedArray, sweep_drafts};

use crate::args::LoadArgs;
use crate::deliver::keep;
use crate::failure::Failure;
use crate::input::bare;
use crate::operations::with_element;
use crate::progress::ByteBar;
use crate::text;

/// `rowfork load`: places a file in a segment that stays.
pub(crate) fn load(args: &LoadArgs) -> Result<(), Failure> {
    let start = Instant::now();
    segment::check_free(&args.name)?;
    let info = NpyInfo::of_file(&args.input)?;
    let dtype = &*info.dtype;
    let bar = ByteBar::new(info.bytes, args.quiet);
    with_element!(any, dtype, A => place::<A>(&args.input, &args.name, &bar))?;
    drop(bar);
    if !args.quiet {
        let (bytes, seconds) = (text::bytes(info.bytes), start.elapsed().as_secs_f64());
        let name = args.name.trim_start_matches('/');
        eprintln!(
            "{} {} of {dtype}, {bytes}, in {seconds:.3} s: /dev/shm/{name}",
            args.input.display(),
            shape(&info.shape)
        );
    }
    Ok(())
}

fn place<A: Element>(path: &Path, name: &str, bar: &ByteBar) -> rowfork::Result<()> {
    keep(SharedArray::<A, IxDyn>::from_npy_file_with(None, path, |bytes| bar.more(bytes))?, name)
}

/// `rowfork ls`: a line for each.
pub(crate) fn list() -> Result<(), Failure> {
    let mut segments = segment::list()?;
    segment::find_processes(&mut segments);
    let header = ["NAME", "SHAPE", "DTYPE", "SIZE", "AGE", "OWNER", "KEPT", "STATE", "MAPPED BY"].map(str::to_owned);
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
pub(crate) fn info(name: &str) -> Result<(), Failure> {
    let mut lines = vec![("name", text::on_one_line(name.trim_start_matches('/')))];
    match segment::info(name) {
        Ok(segment) => {
            lines.push(("shape", shape(&segment.shape)));
            lines.push(("dtype", segment.dtype.clone()));
            lines.push(("size", format!("{} ({} bytes)", text::bytes(segment.bytes), segment.bytes)));
            lines.push(("age", age(segment.made)));
            lines.push(("owner", owner(segment.owner_uid)));
            lines.push(("kept", kept(&segment).to_owned()));
            lines.push(("state", state(&segment).to_owned()));
            lines.push(("mapped by", processes(&segment.processes)));
        }
        // NumPy's, or somebody else's: what its header says is all there is to say.
        Err(Error::Npy { source: HeaderError::NotSegment { .. }, .. }) => {
            let npy = NpyInfo::of_segment(name)?;
            lines.push(("shape", shape(&npy.shape)));
            lines.push(("dtype", npy.dtype));
            lines.push(("size", format!("{} ({} bytes)", text::bytes(npy.bytes), npy.bytes)));
            lines.push(("made by", "another program: rowfork reads it and never removes it".to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    let mut out = io::stdout().lock();
    for (what, value) in lines {
        writeln!(out, "{what:<10} {value}")?;
    }
    Ok(out.flush()?)
}

/// `rowfork rm`: all that can be; the first that cannot is the error.
pub(crate) fn remove(names: &[String]) -> Result<(), Failure> {
    let outcomes: Vec<rowfork::Result<()>> = names.iter().map(|name| segment::remove(name)).collect();
    Ok(outcomes.into_iter().collect::<rowfork::Result<()>>()?)
}

/// `rowfork gc`: says what it removed.
pub(crate) fn collect(directories: &[PathBuf]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for name in segment::sweep()? {
        writeln!(out, "/dev/shm/{name}")?;
    }
    for directory in directories {
        for draft in sweep_drafts(directory)? {
            writeln!(out, "{}", draft.display())?;
        }
    }
    Ok(out.flush()?)
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
