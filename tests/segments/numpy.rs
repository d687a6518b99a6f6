#![allow(unsafe_code, reason = "attaches to segments that only this test knows")]

//! Segments are `.npy` files: NumPy, `ndarray-npy` and `shared_memory` read what is made here, and
//! what NumPy made is read here or refused by name.

use std::path::Path;

use ndarray::{Array0, Array1, Array2, Ix0, Ix1, Ix2, array};
use rowfork::{Bool, Error, HeaderError, SharedArray, segment};

use crate::support::isolated::isolated;
use crate::support::{Names, eventually, golden, numpy, shm};

fn attach(name: &str) -> rowfork::Result<SharedArray<f64, Ix2>> {
    // SAFETY: the names are this test's own, and writers and readers take turns.
    unsafe { SharedArray::attach(name) }
}

fn golden_array() -> Array2<f64> {
    Array2::from_shape_fn((3, 4), |(i, j)| f64::from(u8::try_from(4 * i + j).unwrap()) / 8.0)
}

#[test]
fn numpy_maps_a_live_segment_where_it_is() {
    let names = Names::new();
    let name = names.name("map");
    let m =
        SharedArray::from_shape_fn(name.as_str(), (1000, 7), |(i, j)| (i * 7 + j) as f64).unwrap();
    let script = "import sys, numpy as np\n\
        a = np.load(sys.argv[1], mmap_mode='r')\n\
        print(a.shape, a.dtype.str, a.flags.c_contiguous, a.offset, a.ctypes.data % 4096, \
        a.sum(), a[999, 6])";
    let Some(said) = numpy(script, &[shm(&name).to_str().unwrap()]) else { return };
    assert_eq!(said, format!("(1000, 7) <f8 True 4096 0 {:?} 6999.0", m.view().sum()));
}

#[test]
fn what_numpy_writes_into_a_segment_is_seen_here() {
    let names = Names::new();
    let name = names.name("write");
    let m = SharedArray::<f64, _>::zeros(name.as_str(), (2, 3)).unwrap();
    let script =
        "import sys, numpy as np\na = np.load(sys.argv[1], mmap_mode='r+')\na[1, 2] = 0.1 + 0.2";
    let Some(_) = numpy(script, &[shm(&name).to_str().unwrap()]) else { return };
    assert_eq!(m.view(), array![[0.0, 0.0, 0.0], [0.0, 0.0, 0.1 + 0.2]]);
}

#[test]
fn a_segment_by_numpy_is_attached_written_and_never_removed() {
    let names = Names::new();
    let name = names.name("memmap");
    let script = "import sys, numpy as np\n\
        a = np.lib.format.open_memmap(sys.argv[1], mode='w+', dtype='<f8', shape=(5, 3))\n\
        a[4] = [1, 2, 3]";
    let Some(_) = numpy(script, &[shm(&name).to_str().unwrap()]) else { return };
    let mut m = attach(&name).unwrap();
    assert_eq!(m.view().row(4), array![1.0, 2.0, 3.0]);
    assert_eq!((m.name(), m.pages()), (Some(name.as_str()), None));
    m.view_mut()[[0, 0]] = -0.5;
    let script = "import sys, numpy as np\nprint(np.load(sys.argv[1])[0, 0])";
    assert_eq!(numpy(script, &[shm(&name).to_str().unwrap()]).unwrap(), "-0.5");
    drop(m);
    assert!(
        segment::list().unwrap().iter().all(|s| s.name != name),
        "NumPy's file is not a segment of ours"
    );
    assert!(matches!(
        segment::remove(&name),
        Err(Error::Npy {
            cause: HeaderError::NotSegment { data_offset: 128, expected: 4096, .. },
            ..
        })
    ));
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn persist_changes_nothing_of_a_file_that_lasts_anyway() {
    use std::os::unix::fs::PermissionsExt;
    let names = Names::new();
    let name = names.name("lasting");
    std::fs::copy(golden("c_order.npy"), shm(&name)).unwrap();
    for mode in [0o644, 0o1660] {
        std::fs::set_permissions(shm(&name), std::fs::Permissions::from_mode(mode)).unwrap();
        attach(&name).unwrap().persist().unwrap();
        assert_eq!(std::fs::metadata(shm(&name)).unwrap().permissions().mode() & 0o7777, mode);
    }
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn a_file_is_written_beside_the_drafts_of_another_with_our_id() {
    let dir = tempfile::tempdir().unwrap();
    let draft = |i: u32| dir.path().join(format!(".rowfork-{}-{i}.tmp", std::process::id()));
    let drafts: Vec<_> = (0..200).map(draft).collect();
    for draft in &drafts {
        std::fs::write(draft, "another's").unwrap();
    }
    let (elsewhere, path) = (dir.path().join("elsewhere"), dir.path().join("out.npy"));
    std::fs::write(&elsewhere, "stays").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let m = SharedArray::copy_from(None, &golden_array()).unwrap();
    m.write_npy(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(golden("c_order.npy")).unwrap());
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"stays");
    assert!(drafts.iter().all(|draft| std::fs::read(draft).unwrap() == b"another's"));
    let nowhere = dir.path().join("no/such/out.npy");
    let refused = m.write_npy(&nowhere).unwrap_err();
    assert!(
        matches!(&refused, Error::Os { subject, .. } if *subject == nowhere.display().to_string()),
        "{refused}"
    );
}

#[test]
fn the_holes_of_a_sparse_file_get_memory_when_it_is_attached() {
    use std::os::unix::fs::MetadataExt;
    let names = Names::new();
    let name = names.name("sparse");
    let script = "import sys, numpy as np\n\
        np.lib.format.open_memmap(sys.argv[1], mode='w+', dtype='<f8', \
        shape=(3000, 1000))[1500] = 1";
    let Some(_) = numpy(script, &[shm(&name).to_str().unwrap()]) else { return };
    let blocks = || std::fs::metadata(shm(&name)).unwrap().blocks() * 512;
    assert!(blocks() < 100_000, "NumPy's file is not sparse");
    let m = attach(&name).unwrap();
    assert!(blocks() >= 24_000_128);
    assert_eq!(m.view().sum().to_bits(), 1000.0_f64.to_bits());
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn ndarray_npy_reads_a_segment() {
    let names = Names::new();
    let name = names.name("crate");
    let m = SharedArray::copy_from(name.as_str(), &golden_array()).unwrap();
    let read: Array2<f64> = ndarray_npy::read_npy(shm(&name)).unwrap();
    assert_eq!(read, m.view());
}

#[test]
fn shared_memory_opens_a_segment_with_data_at_byte_4096() {
    let names = Names::new();
    let name = names.name("shmem");
    let m = SharedArray::copy_from(name.as_str(), &golden_array()).unwrap();
    let mut opened = shared_memory::ShmemConf::new().os_id(&name).open().unwrap();
    opened.set_owner(false);
    assert_eq!(opened.len(), 4096 + 96);
    // SAFETY: mapped, as long as just asserted, and written by nobody meanwhile.
    let bytes = unsafe { opened.as_slice() };
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    assert_eq!(bytes[4096..], *bytemuck::cast_slice::<f64, u8>(m.view().as_slice().unwrap()));
}

#[test]
fn a_written_file_holds_the_bytes_that_numpy_would_save() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.npy");
    std::fs::write(&path, "was here before").unwrap();
    let m = SharedArray::copy_from(None, &golden_array()).unwrap();
    m.write_npy(&path).unwrap();
    let written = std::fs::read(&path).unwrap();
    assert_eq!(written, std::fs::read(golden("c_order.npy")).unwrap());
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["out.npy"]);
    for shape in [
        vec![],
        vec![0],
        vec![7],
        vec![1_000_000],
        vec![3, 0],
        vec![12_345, 2],
        vec![1, 2, 3, 4, 5, 6, 7, 8],
    ] {
        let m = SharedArray::<f64, ndarray::IxDyn>::zeros(None, shape.clone()).unwrap();
        m.write_npy(&path).unwrap();
        let script = "import sys, numpy as np\na = np.load(sys.argv[1])\n\
                      np.save(sys.argv[1] + '.again.npy', a)\nprint(a.shape)";
        if numpy(script, &[path.to_str().unwrap()]).is_none() {
            return;
        }
        let again = std::fs::read(path.with_extension("npy.again.npy")).unwrap();
        assert!(std::fs::read(&path).unwrap() == again, "{shape:?}");
    }
}

#[test]
fn what_numpy_saved_is_read_in_every_version_of_the_format() {
    for file in ["c_order.npy", "version_2.npy", "version_3.npy"] {
        let m = SharedArray::<f64, Ix2>::from_npy_file(None, golden(file)).unwrap();
        assert_eq!(m.view(), golden_array(), "{file}");
    }
    let one: SharedArray<f64, Ix1> =
        SharedArray::from_npy_file(None, golden("one_axis.npy")).unwrap();
    assert_eq!(one.view(), Array1::from_vec(vec![0.0, 0.125, 0.25, 0.375]));
    let none: SharedArray<f64, Ix0> =
        SharedArray::from_npy_file(None, golden("no_axis.npy")).unwrap();
    assert_eq!(none.view(), Array0::from_elem((), 2.5));
    for (file, shape) in [("no_rows.npy", [0, 4]), ("no_columns.npy", [3, 0])] {
        let m = SharedArray::<f64, Ix2>::from_npy_file(None, golden(file)).unwrap();
        assert_eq!(m.shape(), shape);
    }
}

#[test]
fn a_large_file_is_read_in_parallel_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.npy");
    let a = Array2::from_shape_fn((1001, 1003), |(i, j)| (i * 1003 + j) as f64);
    SharedArray::copy_from(None, &a).unwrap().write_npy(&path).unwrap();
    let m = SharedArray::<f64, Ix2>::from_npy_file(None, &path).unwrap();
    assert_eq!(m.view(), a);
}

#[test]
fn what_is_not_a_plain_f64_array_is_refused_by_name() {
    let read = |file: &str| SharedArray::<f64, Ix2>::from_npy_file(None, golden(file)).unwrap_err();
    let header = |file: &str| match read(file) {
        Error::Npy { cause: source, .. } => source,
        other => panic!("{file}: {other}"),
    };
    assert_eq!(header("fortran_order.npy"), HeaderError::FortranOrder);
    assert_eq!(header("big_endian.npy"), HeaderError::BigEndian { descr: ">f8".to_owned() });
    assert_eq!(header("object.npy"), HeaderError::ObjectDtype { descr: "|O".to_owned() });
    assert!(matches!(header("make.py"), HeaderError::BadMagic { .. }));
    for (file, dtype) in
        [("float32.npy", "<f4"), ("uint8.npy", "|u1"), ("structured.npy", "[('x', '<f8')")]
    {
        assert!(matches!(
            read(file),
            Error::WrongDtype { expected: "<f8", found, .. } if found.starts_with(dtype)
        ));
    }
    assert!(matches!(
        read("one_axis.npy"),
        Error::WrongDimension { expected: 2, shape, .. } if shape == [4]
    ));
    assert!(matches!(read("truncated.npy"), Error::Truncated { expected: 224, actual: 223, .. }));
    assert!(matches!(read("no_such_file.npy"), Error::Os { action: "open", .. }));
    assert!(matches!(read("."), Error::NotAFile { kind: "directory", .. }));
}

#[test]
fn a_byte_order_is_one_mark_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    let whole = std::fs::read(golden("c_order.npy")).unwrap();
    for (descr, accepted) in
        [("'<f8',  ", true), ("'=f8',  ", true), ("'f8',   ", true), ("'<<f8', ", false)]
    {
        let at = whole.windows(7).position(|part| part == b"'<f8', ").unwrap();
        let text =
            [&whole[..at], descr.as_bytes(), &whole[at + 7..126], b"\n", &whole[128..]].concat();
        std::fs::write(&path, text).unwrap();
        let read = SharedArray::<f64, Ix2>::from_npy_file(None, &path);
        assert_eq!(read.is_ok(), accepted, "{descr} {:?}", read.err());
    }
}

#[test]
fn what_is_damaged_is_refused_by_attach_and_by_read_copy() {
    let names = Names::new();
    let name = names.name("bad");
    let whole = std::fs::read(golden("c_order.npy")).unwrap();
    let huge = whole.iter().copied().map(|b| if b == b'3' { b'9' } else { b }).collect::<Vec<u8>>();
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", vec![]),
        ("cut in the magic", whole[..5].to_vec()),
        ("cut in the header", whole[..100].to_vec()),
        ("cut in the data", whole[..200].to_vec()),
        ("claims more than there is", huge),
    ];
    for (what, bytes) in cases {
        std::fs::write(shm(&name), bytes).unwrap();
        for error in
            [attach(&name).unwrap_err(), SharedArray::<f64, Ix2>::read_copy(&name).unwrap_err()]
        {
            let told_apart = match what {
                "empty" | "cut in the magic" => {
                    matches!(&error, Error::Npy { cause: HeaderError::BadMagic { .. }, .. })
                }
                "cut in the header" => {
                    matches!(
                        &error,
                        Error::Npy {
                            cause: HeaderError::BeyondFile { end: 128, file_bytes: 100, .. },
                            ..
                        }
                    )
                }
                _ => matches!(&error, Error::Truncated { .. }),
            };
            assert!(told_apart, "{what}: {error}");
        }
    }
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn misaligned_data_can_be_copied_and_not_be_attached_to() {
    let names = Names::new();
    let name = names.name("misaligned");
    let whole = std::fs::read(golden("c_order.npy")).unwrap();
    std::fs::write(shm(&name), [&whole[..8], &[117, 0], &whole[10..126], &whole[127..]].concat())
        .unwrap();
    let error = attach(&name).unwrap_err();
    let misaligned = HeaderError::Misaligned { data_offset: 127, align: 8 };
    assert!(matches!(&error, Error::Npy { cause: source, .. } if *source == misaligned), "{error}");
    assert_eq!(SharedArray::<f64, Ix2>::read_copy(&name).unwrap(), golden_array());
    std::fs::remove_file(shm(&name)).unwrap();
}

#[test]
fn arrays_without_elements_are_read_by_numpy_and_attached() {
    let names = Names::new();
    for shape in [(0, 5), (5, 0), (0, 0)] {
        let name = names.name("empty");
        let m = SharedArray::<f64, _>::zeros(name.as_str(), shape).unwrap();
        assert_eq!(std::fs::metadata(shm(&name)).unwrap().len(), 4096);
        assert_eq!(attach(&name).unwrap().view(), m.view());
        assert_eq!(SharedArray::<f64, Ix2>::read_copy(&name).unwrap(), m.view());
        let script = "import sys, numpy as np\nprint(np.load(sys.argv[1]).shape)";
        if let Some(said) = numpy(script, &[shm(&name).to_str().unwrap()]) {
            assert_eq!(said, format!("{shape:?}"));
        }
    }
}

#[test]
fn the_holes_of_a_file_are_filled_by_one_at_a_time() {
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::unix::fs::{FileExt, MetadataExt};
    let names = Names::new();
    let name = names.name("holes");
    let golden = std::fs::read(golden("one_axis.npy")).unwrap();
    let header = String::from_utf8_lossy(&golden[10..128]).replace("(4,), }     ", "(500000,), }");
    let file =
        std::fs::File::options().read(true).write(true).create_new(true).open(shm(&name)).unwrap();
    file.write_all_at(&[&golden[..10], header.as_bytes()].concat(), 0).unwrap();
    file.set_len(128 + 4_000_000).unwrap();
    let lock = |kind: libc::c_int| {
        let kind = libc::c_short::try_from(kind).unwrap();
        let first_byte = libc::flock { l_type: kind, l_whence: 0, l_start: 0, l_len: 1, l_pid: 0 };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&first_byte)).unwrap();
    };
    lock(libc::F_WRLCK); // another process fills
    std::thread::scope(|scope| {
        // SAFETY: nobody else knows the name.
        let attaching =
            scope.spawn(|| unsafe { SharedArray::<f64, Ix1>::attach(&name) }.unwrap().len());
        // As the kernel lists it: `1: -> OFDLCK ADVISORY  WRITE -1 00:1a:INODE 0 0`.
        let waits = format!(":{} ", file.metadata().unwrap().ino());
        let waits = |line: &str| line.contains("-> OFDLCK") && line.contains(&waits);
        let comes_to_wait = eventually(|| {
            attaching.is_finished()
                || std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits)
        });
        assert!(comes_to_wait && !attaching.is_finished(), "it fills although another does");
        lock(libc::F_UNLCK);
        assert_eq!(attaching.join().unwrap(), 500_000);
    });
    std::fs::remove_file(shm(&name)).unwrap();
}

/// Values of every element type, its extremes first, and their text as NumPy prints it.
trait Sample: rowfork::Element + PartialEq {
    const DTYPE: &'static str;
    fn samples() -> Vec<Self>;
}

macro_rules! samples {
    ($($type:ty: $dtype:literal, [$($value:expr),+];)+) => {$(
        impl Sample for $type {
            const DTYPE: &'static str = $dtype;
            fn samples() -> Vec<Self> {
                vec![$($value),+]
            }
        }
    )+};
}

samples! {
    f64: "<f8", [f64::MIN, f64::MAX, 5e-324, -0.0, 0.1, f64::INFINITY];
    f32: "<f4", [f32::MIN, f32::MAX, 1e-45, -0.0, 0.1, f32::INFINITY];
    i8: "|i1", [i8::MIN, i8::MAX, -1, 0, 1, 42];
    i16: "<i2", [i16::MIN, i16::MAX, -1, 0, 1, 4242];
    i32: "<i4", [i32::MIN, i32::MAX, -1, 0, 1, 424_242];
    i64: "<i8", [i64::MIN, i64::MAX, -1, 0, 1, 4_242_424_242];
    u8: "|u1", [u8::MIN, u8::MAX, 1, 2, 3, 42];
    u16: "<u2", [u16::MIN, u16::MAX, 1, 2, 3, 4242];
    u32: "<u4", [u32::MIN, u32::MAX, 1, 2, 3, 424_242];
    u64: "<u8", [u64::MIN, u64::MAX, 1, 2, 3, 4_242_424_242];
    Bool: "|b1", [Bool::TRUE, Bool::FALSE, Bool::FALSE, Bool::TRUE, Bool::TRUE, Bool::FALSE];
}

/// What a function gives for every element type.
macro_rules! of_every_type {
    ($function:ident($($argument:expr),*)) => {
        [
            $function::<f64>($($argument),*),
            $function::<f32>($($argument),*),
            $function::<i8>($($argument),*),
            $function::<i16>($($argument),*),
            $function::<i32>($($argument),*),
            $function::<i64>($($argument),*),
            $function::<u8>($($argument),*),
            $function::<u16>($($argument),*),
            $function::<u32>($($argument),*),
            $function::<u64>($($argument),*),
            $function::<Bool>($($argument),*),
        ]
    };
}

/// Bytes as Python's `bytes.hex`.
fn hex<A: Sample>(elements: &[A]) -> String {
    use std::fmt::Write;
    let bytes: &[u8] = bytemuck::cast_slice(elements);
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn samples<A: Sample>() -> Array2<A> {
    Array2::from_shape_vec((2, 3), A::samples()).unwrap()
}

/// A path, a type and its samples as a script takes them: all types in one, since NumPy takes long
/// to begin.
fn case_in<A: Sample>(directory: &Path, prefix: &str) -> String {
    let path = directory.join(format!("{prefix}{}", &A::DTYPE[1..]));
    format!("{}:{}:{}", path.display(), A::DTYPE, hex(&A::samples()))
}

/// Begins a loop over the cases: `path`, `dtype` and `a`, the samples as NumPy has them.
const EACH_CASE: &str = "import sys, numpy as np\n\
    for path, dtype, samples in (case.split(':') for case in sys.argv[1:]):\n \
    a = np.frombuffer(bytes.fromhex(samples), dtype=dtype).reshape(2, 3)\n ";

/// Runs the body of such a loop.
fn numpy_on_each(cases: &[String], body: &str) -> Option<String> {
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    numpy(&format!("{EACH_CASE}{body}"), &cases)
}

/// The name of the segment of a type.
fn name_of<A: Sample>(names: &Names) -> String {
    names.name(&A::DTYPE[1..])
}

#[test]
fn numpy_reads_every_type_as_its_own_where_it_is() {
    fn publish<A: Sample>(names: &Names) -> Box<dyn std::any::Any> {
        let mut m = SharedArray::copy_from(None, &samples::<A>()).unwrap();
        m.publish(&name_of::<A>(names)).unwrap();
        Box::new(m)
    }
    fn expected<A: Sample>() -> String {
        format!("{} True (2, 3) {}", A::DTYPE, hex(&A::samples()))
    }
    let names = Names::new();
    let _published = of_every_type!(publish(&names));
    let body = "m = np.load(path, mmap_mode='r'); \
        print(m.dtype.str, m.dtype == np.dtype(dtype) and (m == a).all(), m.shape, \
        m.tobytes().hex())";
    let cases = of_every_type!(case_in(Path::new("/dev/shm"), &names.name("")));
    let Some(said) = numpy_on_each(&cases, body) else { return };
    assert_eq!(said.lines().collect::<Vec<_>>(), of_every_type!(expected()));
}

#[test]
fn every_type_that_numpy_maps_is_attached_read_and_written() {
    fn is_attached<A: Sample>(names: &Names) -> String {
        let name = name_of::<A>(names);
        // SAFETY: the names are this test's own, and writers and readers take turns.
        let mut m: SharedArray<A, Ix2> = unsafe { SharedArray::attach(&name) }.unwrap();
        assert_eq!(hex(m.as_slice()), hex(&A::samples()), "{}", A::DTYPE);
        assert_eq!(
            hex(SharedArray::<A, Ix2>::read_copy(&name).unwrap().as_slice().unwrap()),
            hex(&A::samples())
        );
        m.view_mut()[[1, 2]] = A::samples()[0];
        format!("{} {}", A::DTYPE, hex(&A::samples()[..1]))
    }
    let names = Names::new();
    let cases = of_every_type!(case_in(Path::new("/dev/shm"), &names.name("")));
    let body = "np.lib.format.open_memmap(path, mode='w+', dtype=dtype, shape=(2, 3))[...] = a";
    let Some(_) = numpy_on_each(&cases, body) else { return };
    let expected = of_every_type!(is_attached(&names));
    let said =
        numpy_on_each(&cases, "m = np.load(path); print(m.dtype.str, m[1, 2:].tobytes().hex())")
            .unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    for name in names.left() {
        std::fs::remove_file(shm(&name)).unwrap();
    }
}

#[test]
fn files_of_every_type_are_those_that_numpy_saves() {
    fn are_the_same<A: Sample>(dir: &Path) {
        let [ours, theirs] =
            ["ours", "theirs-"].map(|prefix| dir.join(format!("{prefix}{}", &A::DTYPE[1..])));
        let theirs = theirs.with_extension("npy");
        SharedArray::copy_from(None, &samples::<A>()).unwrap().write_npy(&ours).unwrap();
        assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(), "{}", A::DTYPE);
        for path in [&ours, &theirs] {
            let read = SharedArray::<A, Ix2>::from_npy_file(None, path).unwrap();
            assert_eq!(hex(read.as_slice()), hex(&A::samples()), "{}", A::DTYPE);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let cases = of_every_type!(case_in(dir.path(), "theirs-"));
    if numpy_on_each(&cases, "np.save(path, a)").is_some() {
        of_every_type!(are_the_same(dir.path()));
    }
}

#[test]
fn a_type_is_taken_for_no_other() {
    fn refuses<A: Sample, B: Sample>(name: &str, path: &Path) {
        if A::DTYPE == B::DTYPE {
            return;
        }
        // SAFETY: it is refused; if it were not, this test writes nothing while it reads.
        let attached = unsafe { SharedArray::<A, Ix2>::attach(name) };
        let read = SharedArray::<A, Ix2>::from_npy_file(None, path);
        for error in [
            attached.unwrap_err(),
            read.unwrap_err(),
            SharedArray::<A, Ix2>::read_copy(name).unwrap_err(),
        ] {
            let Error::WrongDtype { expected, found, .. } = error else { panic!("{error}") };
            assert_eq!((expected, &*found), (A::DTYPE, B::DTYPE));
        }
    }
    fn is_refused_by_others<B: Sample>(names: &Names, dir: &Path) {
        let (name, path) = (name_of::<B>(names), dir.join(&B::DTYPE[1..]));
        let m = SharedArray::copy_from(name.as_str(), &samples::<B>()).unwrap();
        m.write_npy(&path).unwrap();
        refuses::<f64, B>(&name, &path);
        refuses::<f32, B>(&name, &path);
        refuses::<i8, B>(&name, &path);
        refuses::<i64, B>(&name, &path);
        refuses::<u8, B>(&name, &path);
        refuses::<u64, B>(&name, &path);
        refuses::<Bool, B>(&name, &path);
    }
    let (names, dir) = (Names::new(), tempfile::tempdir().unwrap());
    of_every_type!(is_refused_by_others(&names, dir.path()));
}

#[test]
fn bytes_of_a_truth_value_other_than_0_and_1_are_true() {
    isolated(|| {
        let names = Names::new();
        let name = names.name("bool");
        let script = "import sys, numpy as np\n\
            a = np.lib.format.open_memmap(sys.argv[1], mode='w+', dtype='?', shape=(2, 3))\n\
            a.view('u1')[...] = [[0, 1, 2], [255, 128, 0]]";
        let Some(_) = numpy(script, &[shm(&name).to_str().unwrap()]) else { return };
        // SAFETY: the name is this test's own, and writers and readers take turns.
        let m: SharedArray<Bool, Ix2> = unsafe { SharedArray::attach(&name) }.unwrap();
        assert_eq!(m.view().mapv(bool::from), array![[false, true, true], [true, true, false]]);
        assert_eq!(m.view()[[0, 2]], m.view()[[1, 0]]);
        assert_eq!(rowfork::fork().workers(2).row_sums(&m).unwrap().view(), array![2, 2]);
        let any = rowfork::fork().workers(2).map_rows(&m, |row| row[2].get()).unwrap();
        assert_eq!(any.as_slice(), [Bool::TRUE, Bool::FALSE]);
        assert_eq!(
            bytemuck::cast_slice::<_, u8>(any.as_slice()),
            [1, 0],
            "what is written here is 1 or 0"
        );
        std::fs::remove_file(shm(&name)).unwrap();
    });
}
