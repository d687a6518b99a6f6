//! Segments: POSIX shared-memory objects under `/dev/shm` whose bytes are a `.npy` file. Birth,
//! attach, huge pages, list, remove, sweep. Knows bytes, shapes and names, not element types;
//! `array` puts those on top.
//!
//! A segment is *volatile* (mode 01600: the sticky bit says that it belongs to its maker and goes
//! with it) or *lasting* (0600). Everyone attached holds a shared `flock` for life; only who wins
//! the exclusive one may sweep. `docs/SEGMENT.md` has the layout byte by byte, and how to read it
//! from NumPy and C.

mod attach;
mod birth;
mod capacity;
mod claim_name;
mod handle;
mod header;
mod mapping;
mod metadata;
mod name;
mod npy;
mod parallel;
mod preflight;
pub(crate) mod registry;
mod reserve;
mod reserve_in_child;
mod shortage;
mod sweep;

pub(crate) use self::attach::{attach, map_draft, map_file};
pub(crate) use self::birth::birth;
pub use self::capacity::{Capacity, MemoryCapacity, capacity};
pub use self::claim_name::check_free;
pub(crate) use self::handle::Segment;
pub(crate) use self::header::{DATA_OFFSET, data_bytes, of_file as npy_file_header};
pub(crate) use self::name::{kind_name, os, our_uid, path as path_of, validated};
pub use self::npy::NpyInfo;
pub(crate) use self::npy::{ExpectedArray, Layout, NpyFile};
pub(crate) use self::preflight::{check_address_space, check_memory};
pub use self::reserve::Pages;
pub(crate) use self::reserve::{Fill, reserve_file};
pub use self::sweep::{SegmentInfo, find_processes, info, list, remove, sweep};
