#![allow(unsafe_code, reason = "attaches to segments that only this test knows")]

//! A kernel may make large arrays. rayon's threads fill them in the caller; in a forked worker
//! there are none, and waiting for them would take for ever.

use std::path::Path;

use ndarray::{Array1, Array2, Ix1, Ix2};
use rayon::prelude::*;
use rowfork::SharedArray;

use crate::support::isolated::{isolated, unique_name};

const MIB: usize = 1 << 20;

/// An array of `mib` MiB, header included.
fn filled(mib: usize) -> SharedArray<f64, Ix1> {
    SharedArray::from_shape_fn(None, (mib * MIB - 4096) / 8, |i| i as f64).unwrap()
}

fn a_kernel_makes_and_reads_8_mib() {
    let m = SharedArray::<f64, _>::zeros(None, (4, 8)).unwrap();
    let last =
        rowfork::fork().workers(2).map_rows(&m, |_| *filled(8).view().last().unwrap()).unwrap();
    assert_eq!(last.view().to_vec(), [(MIB - 513) as f64; 4]);
}

#[test]
fn where_the_host_has_used_rayon() {
    isolated(|| {
        assert_eq!((0..1000_usize).into_par_iter().sum::<usize>(), 499_500);
        a_kernel_makes_and_reads_8_mib();
    });
}

#[test]
fn where_the_host_has_used_rayon_and_has_made_no_array() {
    isolated(|| {
        assert_eq!((0..1000_usize).into_par_iter().sum::<usize>(), 499_500);
        let [input, output] = ["input", "output"].map(unique_name);
        let path = |name: &str| Path::new("/dev/shm").join(name);
        ndarray_npy::write_npy(path(&input), &Array2::<f64>::zeros((4, 8))).unwrap();
        ndarray_npy::write_npy(path(&output), &Array1::<f64>::zeros(4)).unwrap();
        // SAFETY: nobody else knows the names.
        let m = unsafe { SharedArray::<f64, Ix2>::attach(&input) }.unwrap();
        // SAFETY: as above.
        let mut last = unsafe { SharedArray::<f64, Ix1>::attach(&output) }.unwrap();
        std::fs::remove_file(path(&input)).unwrap();
        std::fs::remove_file(path(&output)).unwrap();
        rowfork::fork()
            .workers(2)
            .map_rows_into(&m, &mut last, |_| *filled(8).view().last().unwrap())
            .unwrap();
        assert_eq!(last.view().to_vec(), [(MIB - 513) as f64; 4]);
    });
}

#[test]
fn where_the_parent_has_made_zeros_of_one_huge_page() {
    isolated(|| {
        drop(SharedArray::<f64, _>::zeros(None, (2 * MIB - 4096) / 8).unwrap());
        a_kernel_makes_and_reads_8_mib();
    });
}

#[test]
fn where_the_parent_has_filled_a_large_one() {
    isolated(|| {
        drop(filled(16));
        a_kernel_makes_and_reads_8_mib();
    });
}
