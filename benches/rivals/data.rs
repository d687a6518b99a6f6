//! What is summed: data that people have, and rows that are hard on purpose. The same in every run.

/// A kind of data: its name, and the element in row i, column j of so many.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) element: fn(usize, usize, usize) -> f64,
}

pub(crate) const DATA: [Data; 4] = [
    Data { name: "uniform", element: |i, j, _| uniform(i, j) },
    Data { name: "centred", element: |i, j, _| uniform(i, j) - 0.5 },
    Data { name: "prices", element: |i, j, _| (1e4 * uniform(i, j)).round() / 100.0 },
    Data { name: "near-ties", element: near_tie },
];

/// In `0..1`, with all 53 bits at random (the finalizer of `SplitMix64`).
fn uniform(i: usize, j: usize) -> f64 {
    let z = ((i as u64) << 32 | j as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 * 2f64.powi(-53)
}

/// Rows whose sum is a hair's breadth from the middle between two doubles, and all other terms of
/// which cancel.
fn near_tie(i: usize, j: usize, n_columns: usize) -> f64 {
    let hair = 2f64.powi(-100);
    match j {
        0 => 1.0 + (i % 1024) as f64 * 2f64.powi(-20),
        1 => 2f64.powi(-53),
        2 => hair * if i.is_multiple_of(2) { 1.0 } else { -1.0 },
        // Pairs; of an odd number of terms the last has no partner.
        _ if n_columns.is_multiple_of(2) && j == n_columns - 1 => 0.0,
        _ => uniform(i, (j - 3) / 2) * if j.is_multiple_of(2) { 1.0 } else { -1.0 },
    }
}
