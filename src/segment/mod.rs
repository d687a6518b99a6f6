//! Segments: POSIX shared-memory objects under `/dev/shm` whose bytes are a `.npy` file. Birth, attach, huge pages,
//! list, remove, sweep. Knows bytes, shapes and names, not element types; `array` puts those on top.
//!
//! A segment is *volatile* (mode 01600: the sticky bit says that it belongs to its maker and goes with it) or
//! *lasting* (0600). Everyone attached holds a shared `flock` for life; only who wins the exclusive one may sweep.
//! `docs/SEGMENT.md` has the layout byte by byte, and how to read it from NumPy and C.

mod attach;
mod birth;
mod header;
mod mapping;
mod name;
mod npy;
mod preflight;
pub(crate) mod registry;
mod reserve;
mod sweep;

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

pub(crate) use self::attach::attach;
pub(crate) use self::birth::birth;
pub(crate) use self::header::{DATA_OFFSET, of_file as npy_file_header};
pub(crate) use self::name::{os, path as path_of, validated};
pub(crate) use self::npy::{Layout, NpyFile, Wanted};
pub(crate) use self::preflight::{check_address_space, check_memory};
pub(crate) use self::reserve::Fill;
pub use self::reserve::Pages;
pub use self::sweep::{SegmentInfo, list, remove, sweep};

use self::mapping::Mapped;
use self::name::SHM_DIR;
use crate::error::{Error, Result};

/// Mode of a volatile segment.
const VOLATILE: u32 = 0o1600;
/// Mode of a lasting one.
const LASTING: u32 = 0o600;
/// The bit that tells them apart.
const STICKY: u32 = 0o1000;

/// Whether a file's mode says that it goes with its maker.
fn is_volatile(meta: &Metadata) -> bool {
    meta.mode() & 0o7777 == VOLATILE
}

/// An open, mapped, locked segment.
#[derive(Debug)]
pub(crate) struct Segment {
    mapping: Mapped,
    file: File,
    name: Option<String>,
    /// The process that made it, if this handle is the maker's; nobody else's drop unlinks.
    maker: Option<u32>,
    data_offset: usize,
    pages: Option<Pages>,
}

impl Segment {
    fn made_here(file: File, mapping: Mapped, name: Option<String>, pages: Pages) -> Self {
        Self { mapping, file, name, maker: Some(std::process::id()), data_offset: DATA_OFFSET, pages: Some(pages) }
    }

    fn attached(file: File, mapping: Mapped, name: String, data_offset: usize) -> Self {
        Self { mapping, file, name: Some(name), maker: None, data_offset, pages: None }
    }

    /// The name, without a slash; `None` until published.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What error messages call it.
    pub(crate) fn path(&self) -> PathBuf {
        self.name.as_deref().map_or_else(|| Path::new(SHM_DIR).join("(nameless)"), name::path)
    }

    /// The first data byte.
    pub(crate) fn data(&self) -> NonNull<u8> {
        self.mapping.at(self.data_offset)
    }

    /// Address of the mapping, the header's first byte.
    pub(crate) fn address(&self) -> usize {
        self.mapping.map().address()
    }

    /// Which pages its maker got; `None` if somebody else made it.
    pub(crate) fn pages(&self) -> Option<Pages> {
        self.pages
    }

    /// `Truncated` if somebody has cut the file since.
    pub(crate) fn check_length(&self) -> Result<()> {
        let actual = self.file.metadata().map_err(os("examine", &self.path()))?.len();
        let expected = self.mapping.map().len() as u64;
        if actual < expected { Err(Error::Truncated { path: self.path(), expected, actual }) } else { Ok(()) }
    }

    /// Gives a nameless segment its name. It stays volatile.
    pub(crate) fn publish(&mut self, name: &str) -> Result<()> {
        if let Some(name) = &self.name {
            return Err(Error::AlreadyNamed { name: name.clone() });
        }
        let name = name::validated(name)?;
        name::check_free(name)?;
        let path = name::path(name);
        self.file.set_permissions(Permissions::from_mode(VOLATILE)).map_err(os("change the mode of", &path))?;
        birth::link(&self.file, name)?;
        self.mapping.relabel(name::label(Some(name)));
        self.name = Some(name.to_owned());
        Ok(())
    }

    /// Lets a named segment outlive its maker. What is not volatile lasts already, and may be somebody else's.
    pub(crate) fn persist(&mut self) -> Result<()> {
        if self.name.is_none() {
            return Err(Error::Nameless);
        }
        if !is_volatile(&self.file.metadata().map_err(os("examine", &self.path()))?) {
            return Ok(());
        }
        self.file.set_permissions(Permissions::from_mode(LASTING)).map_err(os("change the mode of", &self.path()))
    }
}

impl Drop for Segment {
    /// The maker's handle takes the name away, unless the segment was made to last: the file's mode says so, whoever
    /// changed it. A forked child has another pid; a name that leads elsewhere by now is not ours.
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        if self.maker != Some(std::process::id()) {
            return;
        }
        let Ok(meta) = self.file.metadata() else { return };
        if meta.mode() & STICKY != 0 && name::leads_to(name, &meta) {
            let _ = std::fs::remove_file(name::path(name));
        }
    }
}
