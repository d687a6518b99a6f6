#![allow(unsafe_code, reason = "the rivals are plain mmap")]
//! What placing an array costs, and letting it go, against the same copy made otherwise. Prints,
//! asserts no times: `cargo measure figures::`; `ROWFORK_FIGURES_MIB` sets the size.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use ndarray::Array2;
use rayon::prelude::*;
use rowfork::SharedArray;

const COLUMNS: usize = 512; // a row is 4 KiB
const PIECE: usize = 2 << 20;

/// Seconds to place, seconds to let go.
type Cost = (f64, f64);

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let made = work();
    (made, start.elapsed().as_secs_f64())
}

/// Maps, copies with all threads, unmaps.
fn plain_copy(source: &[f64], file: Option<&File>, advice: Option<i32>) -> Cost {
    let bytes: &[u8] = bytemuck::cast_slice(source);
    let (flags, fd) = file.map_or((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1), |f| {
        (libc::MAP_SHARED, f.as_raw_fd())
    });
    let (at, placed) = timed(|| {
        let (len, prot) = (bytes.len(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        if let Some(advice) = advice {
            // SAFETY: advice on the mapping just made.
            assert_eq!(unsafe { libc::madvise(at, len, advice) }, 0);
        }
        // SAFETY: just mapped, known to nobody else, zero pages.
        let target = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), len) };
        target
            .par_chunks_mut(PIECE)
            .zip(bytes.par_chunks(PIECE))
            .for_each(|(to, from)| to.copy_from_slice(from));
        at
    });
    // SAFETY: the mapping made above; the slice over it is gone.
    let ((), gone) = timed(|| assert_eq!(unsafe { libc::munmap(at, bytes.len()) }, 0));
    (placed, gone)
}

/// First-touch faults of 4 KiB pages in `/dev/shm`, or `fallocate` of everything first.
fn small_pages(source: &[f64], allocate_first: bool) -> Cost {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open("/dev/shm")
        .unwrap();
    let ((), reserved) = timed(|| {
        file.set_len(size_of_val(source) as u64).unwrap();
        let len = libc::off_t::try_from(size_of_val(source)).unwrap();
        // SAFETY: a plain system call on an open descriptor.
        assert!(!allocate_first || unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0);
    });
    let (placed, unmapped) = plain_copy(source, Some(&file), None);
    let ((), closed) = timed(|| drop(file));
    (reserved + placed, unmapped + closed)
}

fn shared_array(source: &Array2<f64>) -> Cost {
    let (array, placed) = timed(|| SharedArray::copy_from(None, source).unwrap());
    assert_eq!(array.view().last().map(|x| x.to_bits()), source.last().map(|x| x.to_bits()));
    let ((), gone) = timed(|| drop(array));
    (placed, gone)
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn a_small_birth() {
    let per_birth = |what: &str, birth: &dyn Fn()| {
        birth();
        let mut times: Vec<f64> = (0..1000).map(|_| timed(birth).1).collect();
        times.sort_by(f64::total_cmp);
        println!("{what:26} {:7.1} us, born and dropped", times[500] * 1e6);
    };
    let name = format!("rft-figures-{}", std::process::id());
    per_birth("nameless, 8 KiB", &|| drop(SharedArray::<f64, _>::zeros(None, 1024).unwrap()));
    per_birth("named, 8 KiB", &|| drop(SharedArray::<f64, _>::zeros(name.as_str(), 1024).unwrap()));
    per_birth("nameless, 1 MiB", &|| drop(SharedArray::<f64, _>::zeros(None, 1 << 17).unwrap()));
    per_birth("nameless, 3 MiB", &|| drop(SharedArray::<f64, _>::zeros(None, 3 << 17).unwrap()));
    per_birth("nameless, 32 MiB", &|| drop(SharedArray::<f64, _>::zeros(None, 1 << 22).unwrap()));
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn a_copy_of_256_mib() {
    let name = format!("rft-figures-copy-{}", std::process::id());
    let made = SharedArray::from_shape_fn(&name, 1 << 25, |i| i as f64).unwrap();
    let path = format!("/dev/shm/{name}");
    for _ in 0..5 {
        let (copy, copied) = timed(|| SharedArray::<f64, ndarray::Ix1>::read_copy(&name).unwrap());
        assert_eq!(copy[copy.len() - 1].to_bits(), made.as_slice()[copy.len() - 1].to_bits());
        let (_, read) =
            timed(|| SharedArray::<f64, ndarray::Ix1>::from_npy_file(None, &path).unwrap());
        println!("read_copy {:6.1} ms, from_npy_file {:6.1} ms", copied * 1e3, read * 1e3);
    }
}

#[test]
#[ignore = "takes a while and needs a quiet machine"]
fn placing_and_letting_go() {
    let mib: usize = std::env::var("ROWFORK_FIGURES_MIB").map_or(1024, |v| v.parse().unwrap());
    let source = Array2::from_shape_fn((mib * 256, COLUMNS), |(i, j)| {
        f64::from(u32::try_from(i ^ j).unwrap())
    });
    let slice = source.as_slice().unwrap();
    let rivals: [(&str, &dyn Fn() -> Cost); 5] = [
        ("SharedArray::copy_from", &|| shared_array(&source)),
        ("first touch, 4 KiB pages", &|| small_pages(slice, false)),
        ("fallocate all, then copy", &|| small_pages(slice, true)),
        ("private, huge pages", &|| plain_copy(slice, None, Some(libc::MADV_HUGEPAGE))),
        ("copy_from, control", &|| shared_array(&source)),
    ];
    let mut costs = vec![Vec::new(); rivals.len()];
    for round in 0..7 {
        for (rival, costs) in rivals.iter().zip(&mut costs) {
            // The host takes idle memory back: this keeps it warm.
            plain_copy(slice, None, Some(libc::MADV_HUGEPAGE));
            let cost = rival.1();
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    println!(
        "{mib} MiB, {} threads, medians of 6, huge pages {:?}",
        rayon::current_num_threads(),
        std::env::var("ROWFORK_HUGE_PAGES")
    );
    let ours = median(costs[0].iter().map(|c| c.0).collect());
    for ((name, _), costs) in rivals.iter().zip(costs) {
        let placed = median(costs.iter().map(|c| c.0).collect());
        let gone = median(costs.iter().map(|c| c.1).collect());
        let rate = f64::from(u32::try_from(mib).unwrap()) / 1024.0 * 1.073_741_824 / placed;
        println!(
            "{name:26} {rate:6.2} GB/s  {:5.2} x our time  let go in {:6.1} ms",
            placed / ours,
            gone * 1e3
        );
    }
}
