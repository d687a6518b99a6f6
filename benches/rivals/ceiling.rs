//! How fast the bytes can be read at all, and copied.
//!
//! There is no one best way to read memory: what is asked for in advance, and how many places are
//! read at once, matters on some machines and in some phases of them. So several ways are tried,
//! and the best is the ceiling.
#![allow(unsafe_code, reason = "a prefetch, and functions compiled for more than the baseline")]
#![allow(clippy::inline_always, reason = "what is not inlined is compiled for the baseline")]

use rayon::prelude::*;
use rayon::slice::ParallelSlice;
use std::hint::black_box;
use std::time::Instant;

/// A way to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceiling {
    /// So many places in turn.
    pub(crate) streams: usize,
    /// So many bytes ahead memory is asked for; 0 for not at all.
    pub(crate) ahead: usize,
    /// So much a thread reads at a time.
    pub(crate) piece_bytes: usize,
}

impl Ceiling {
    /// The best way here and now.
    pub(crate) fn of(elements: &[f64]) -> Self {
        let half = (size_of_val(elements) / rayon::current_num_threads()).max(64);
        let ways = [1, 2, 4].into_iter().flat_map(|streams| {
            [0, 1 << 10, 4 << 10].into_iter().flat_map(move |ahead| {
                [4 << 20, half].into_iter().map(move |piece_bytes| Self {
                    streams,
                    ahead,
                    piece_bytes,
                })
            })
        });
        let timed = ways.map(|way| {
            let time = || {
                let start = Instant::now();
                way.read(elements);
                start.elapsed()
            };
            ((0..4).map(|_| time()).min(), way)
        });
        timed.min_by_key(|(time, _)| *time).expect("several ways").1
    }

    /// Reads all elements, by all threads.
    pub(crate) fn read(&self, elements: &[f64]) {
        let read = match self.streams {
            1 => read::<1>,
            2 => read::<2>,
            _ => read::<4>,
        };
        let pieces = elements.par_chunks(self.piece_bytes / size_of::<f64>());
        black_box(pieces.map(|piece| read(piece, self.ahead)).sum::<f64>());
    }
}

/// Copies all elements, by all threads.
pub(crate) fn copy(from: &[f64], to: &mut [f64]) {
    let half = from.len().div_ceil(rayon::current_num_threads()).max(1);
    from.par_chunks(half)
        .zip(to.par_chunks_mut(half))
        .for_each(|(from, to)| to.copy_from_slice(from));
}

/// The sum of some elements in some order, as plain as can be.
fn read<const STREAMS: usize>(elements: &[f64], ahead: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it.
        return unsafe { read_avx512::<STREAMS>(elements, ahead) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { read_avx2::<STREAMS>(elements, ahead) };
    }
    read_lines::<STREAMS>(elements, ahead)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn read_avx512<const STREAMS: usize>(elements: &[f64], ahead: usize) -> f64 {
    read_lines::<STREAMS>(elements, ahead)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2<const STREAMS: usize>(elements: &[f64], ahead: usize) -> f64 {
    read_lines::<STREAMS>(elements, ahead)
}

/// A cache line of each stream in turn.
#[inline(always)]
fn read_lines<const STREAMS: usize>(elements: &[f64], ahead: usize) -> f64 {
    let (lines, tail) = elements.as_chunks::<8>();
    let lines_each = lines.len() / STREAMS;
    let (streamed, rest) = lines.split_at(lines_each * STREAMS);
    let mut sums = [[0.0; 8]; STREAMS];
    for i in 0..lines_each {
        for (stream, sums) in sums.iter_mut().enumerate() {
            let line = &streamed[stream * lines_each + i];
            if ahead > 0 {
                prefetch(line.as_ptr().wrapping_byte_add(ahead));
            }
            for (sum, x) in sums.iter_mut().zip(line) {
                *sum += x;
            }
        }
    }
    sums.iter().flatten().sum::<f64>()
        + rest.iter().flatten().sum::<f64>()
        + tail.iter().sum::<f64>()
}

#[inline(always)]
fn prefetch(address: *const f64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and the instruction does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
