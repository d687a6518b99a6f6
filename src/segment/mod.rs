//! Segments: POSIX shared-memory objects under `/dev/shm` whose bytes are a `.npy` file. Birth,
//! attach, huge pages, list, remove, sweep. This module knows bytes, shapes and names, not element
//! types; `array` puts those on top.
//!
//! A segment is *volatile* (mode 01600: the sticky bit says that it belongs to its maker and goes
//! with it) or *lasting* (0600). Every process that is attached holds a shared `flock` for life;
//! only a process that gets the exclusive one may sweep. `docs/SEGMENT.md` has the layout byte by
//! byte, and how to read it from NumPy and C. See also
//! [`shm_overview(7)`](https://man7.org/linux/man-pages/man7/shm_overview.7.html).
//!
//! | to learn how | read |
//! |---|---|
//! | a segment is born | `birth`; what is asked before: `preflight`; its pages: `reserve` |
//! | memory is taken near a control group's limit | `reserve_in_child` |
//! | several threads share the work | `parallel` |
//! | a name is taken, checked, opened | `claim_name`, `name` |
//! | an existing file is attached to or read | `attach`, `npy` |
//! | a header is written and parsed | `header` |
//! | the handle of an open segment works | `handle`, `mapping`, `metadata` |
//! | a fork knows what its child inherits | `registry` |
//! | dead programs' segments go | `sweep` |
//! | refusals get their numbers | `shortage`, `capacity` |

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
