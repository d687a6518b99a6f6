//! What a child that stays has inherited, and is not to keep: descriptors and mappings of its
//! parent. The zygote and the workers of a pool call this at birth.
//!
//! # Safety
//! These are raw calls on descriptors and addresses that the parent owns and that nobody in the
//! child uses. The child runs no code of the parent's but functions that were given to it, and the
//! documents tell their authors so.
#![allow(unsafe_code, reason = "replaces descriptors and mappings by number")]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::RawFd;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Makes every descriptor but the standard three and those to `keep` one of `/dev/null`: pipes and
/// sockets of the parent's are to close when the parent closes them.
///
/// They are replaced and not closed. The number of a closed one would be given out again, and what
/// some function still writes to a file of the parent's would go elsewhere. And the list stays as
/// it is while it is read. Without `/proc` nothing happens. Allocates nothing, hence the raw system
/// calls.
///
/// See [`proc_pid_fd(5)`](https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html),
/// [getdents(2)](https://man7.org/linux/man-pages/man2/getdents.2.html) and
/// [dup(2)](https://man7.org/linux/man-pages/man2/dup.2.html).
///
/// # Safety
/// Nobody in this process is to use any of these descriptors as what it was.
pub(crate) unsafe fn blank_descriptors(keep: impl Fn(RawFd) -> bool) {
    // SAFETY: a path that ends with a zero byte.
    let list = unsafe {
        libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    };
    if list < 0 {
        return;
    }
    // SAFETY: as above.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    // One page; words, because the kernel's entries begin at multiples of 8.
    let mut entries = [0u64; 512];
    loop {
        // SAFETY: the kernel writes at most as many bytes as `entries` has.
        let read = unsafe {
            libc::syscall(libc::SYS_getdents64, list, entries.as_mut_ptr(), size_of_val(&entries))
        };
        let Ok(read @ 1..) = usize::try_from(read) else { break };
        let mut left: &[u8] = &bytemuck::cast_slice(&entries)[..read];
        // An entry is a struct linux_dirent64: u64 inode, i64 offset, u16 length of the entry, u8
        // type, name. The length is at byte 16 and the name at byte 19.
        while let [_, .., _] = left
            && let Some(&[low, high]) = left.get(16..18)
        {
            // An entry is at least a byte long, so that the loop ends whatever the kernel writes.
            let (entry, rest) =
                left.split_at(usize::from(u16::from_ne_bytes([low, high])).clamp(1, left.len()));
            left = rest;
            let name = entry
                .get(19..)
                .and_then(|name| name.split(|&byte| byte == 0).next())
                .unwrap_or_default();
            let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<RawFd>().ok());
            if let Some(fd) = number.filter(|&fd| fd > 2 && fd != list && fd != null && !keep(fd)) {
                // SAFETY: whatever it was, nobody uses it here any more, as the caller promises.
                // Without /dev/null it is closed.
                let replaced = unsafe { libc::dup3(null, fd, libc::O_CLOEXEC) };
                if replaced < 0 {
                    // SAFETY: as above.
                    unsafe { libc::close(fd) };
                }
            }
        }
    }
    // SAFETY: ours.
    unsafe { libc::close(list) };
    if null >= 0 {
        // SAFETY: ours.
        unsafe { libc::close(null) };
    }
}

/// Puts in the place of a mapping one that nobody may touch and that holds no memory.
///
/// A stale pointer into it is then a fault. If the range were only unmapped, another mapping could
/// come to lie there, and the pointer would read that one. A range that is empty, or starts at 0,
/// is none, and nothing happens.
///
/// See [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html).
///
/// # Safety
/// `range` is a whole mapping, and touching it is to be a fault from now on.
pub(crate) unsafe fn vacate(range: &Range<usize>) -> io::Result<()> {
    let (Some(start), Some(len)) = (NonZeroUsize::new(range.start), NonZeroUsize::new(range.len()))
    else {
        return Ok(());
    };
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
    // SAFETY: as the caller promises.
    unsafe { mmap_anonymous(Some(start), len, ProtFlags::PROT_NONE, flags) }?;
    Ok(())
}

/// Names this process for `ps` and `top`. The kernel keeps 15 bytes and cuts off what is longer.
///
/// See [prctl(2)](https://man7.org/linux/man-pages/man2/prctl.2.html).
pub(crate) fn set_process_name(name: &std::ffi::CStr) {
    let _ = nix::sys::prctl::set_name(name);
}

/// Keeps a mapping out of the children of later forks. A kernel that refuses leaves the children a
/// mapping that they do not look for.
///
/// See [madvise(2)](https://man7.org/linux/man-pages/man2/madvise.2.html).
///
/// # Safety
/// No later child of this process is to use `range`, a whole mapping.
pub(crate) unsafe fn keep_from_children(start: *mut c_void, len: usize) {
    // SAFETY: changes no memory of this process.
    unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) };
}
