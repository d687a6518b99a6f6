//! The words for harm that kernels do to their workers: what they do, on which row, how far they
//! are with it, and how many times. The words are numbers, because the kernels of a pool capture
//! nothing and get them as a `param`.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unsafe_code, reason = "does all that a kernel must not do")]

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ndarray::{Dimension, Ix1, Ix2};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::signal::Signal;
use rowfork::{DeathCause, SharedArray, fork};

use super::shared::{SharedWord, raise};

/// Counted by kernels, which capture nothing. Mapped before a pool is made, so that its workers
/// have it.
pub(crate) static TIMES: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

/// A kernel on its way says where it is; nothing else that it shares with the caller says so.
pub(crate) static WHERE: LazyLock<SharedWord> = LazyLock::new(SharedWord::new);

/// What the place of a panic in [`harm`] begins with.
pub(crate) const FILE: &str = concat!(file!(), ":");

/// What a kernel does on a row: nothing, or something that ends its worker ([`CRASHES`]).
pub(crate) const NOTHING: u64 = 0;
pub(crate) const KILLED: u64 = 1;
pub(crate) const FAULTS: u64 = 2;
pub(crate) const ABORTS: u64 = 3;
pub(crate) const EXITS: u64 = 4;
pub(crate) const EXITS_WITH_3: u64 = 5;
pub(crate) const GETS_SIGUSR1: u64 = 6;
pub(crate) const STORES_TO_NULL: u64 = 7;
pub(crate) const STORES_TO_INPUT: u64 = 8;
pub(crate) const READS_WHAT_WAS_CUT: u64 = 9;
pub(crate) const RUNS_NO_INSTRUCTION: u64 = 10;
pub(crate) const DIVIDES_BY_ZERO: u64 = 11;
pub(crate) const OVERFLOWS_THE_STACK: u64 = 12;
/// Or something that the worker survives, or from which somebody else must end it.
pub(crate) const PANICS: u64 = 20;
pub(crate) const PANICS_TWICE: u64 = 21;
pub(crate) const FAILS: u64 = 22;
pub(crate) const SPINS: u64 = 23;
pub(crate) const STOPS: u64 = 24;
pub(crate) const DAWDLES: u64 = 25;

/// A kind of harm, on which row, at which stage, and how many times over all processes.
pub(crate) type Harm = [u64; 4];

pub(crate) const ALWAYS: u64 = u64::MAX;

/// Rows that never come.
pub(crate) const NO_HARM: Harm = [NOTHING, u64::MAX, 0, 0];

/// A way to die of which the kernel itself reports nothing.
pub(crate) struct Crash {
    pub(crate) kind: u64,
    pub(crate) name: &'static str,
    /// Given the address of the row in the worker, where it is read-only.
    die: fn(usize),
    /// Given the address of the row in the caller.
    pub(crate) is_cause: fn(&DeathCause, usize) -> bool,
    /// It may have written anywhere before.
    pub(crate) wild: bool,
    /// The deaths after which the row is poisoned: more where somebody else may have killed the
    /// worker.
    pub(crate) attempts: u32,
}

pub(crate) const CRASHES: [Crash; 12] = [
    Crash {
        kind: STORES_TO_NULL,
        name: "a store to the null page",
        die: |_| store_to(std::hint::black_box(8)),
        is_cause: |cause, _| {
            let (signal, address) = (libc::SIGSEGV, 8);
            *cause == DeathCause::MemoryFault { signal, address, read_only_segment: None }
        },
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: STORES_TO_INPUT,
        name: "a store to the input",
        die: store_to,
        is_cause: |cause, address| {
            let (signal, segment) = (libc::SIGSEGV, Some("a nameless segment".to_owned()));
            *cause == DeathCause::MemoryFault { signal, address, read_only_segment: segment }
        },
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: READS_WHAT_WAS_CUT,
        name: "a file that was cut",
        die: |_| {
            // SAFETY: none; the page is gone.
            let _ = unsafe { std::ptr::with_exposed_provenance::<u64>(*CUT).read_volatile() };
        },
        is_cause: |cause, _| is_fault(cause, libc::SIGBUS),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: RUNS_NO_INSTRUCTION,
        name: "no instruction",
        die: run_no_instruction,
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGILL),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: DIVIDES_BY_ZERO,
        name: "a division by zero",
        die: divide_by_zero,
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGFPE),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: ABORTS,
        name: "abort",
        die: |_| std::process::abort(),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGABRT),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: OVERFLOWS_THE_STACK,
        name: "a stack overflow",
        die: |_| assert_ne!(deeper(0), 1),
        is_cause: |cause, _| is_fault(cause, libc::SIGSEGV),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: FAULTS,
        name: "a SIGSEGV that is sent",
        die: |_| raise(Signal::SIGSEGV),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGSEGV),
        wild: true,
        attempts: 3,
    },
    Crash {
        kind: EXITS,
        name: "exit(0)",
        die: |_| std::process::exit(0),
        is_cause: |cause, _| *cause == DeathCause::Exited(0),
        wild: false,
        attempts: 3,
    },
    Crash {
        kind: EXITS_WITH_3,
        name: "exit(3)",
        die: |_| std::process::exit(3),
        is_cause: |cause, _| *cause == DeathCause::Exited(3),
        wild: false,
        attempts: 3,
    },
    Crash {
        kind: KILLED,
        name: "SIGKILL",
        die: |_| raise(Signal::SIGKILL),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGKILL),
        wild: false,
        attempts: 7,
    },
    Crash {
        kind: GETS_SIGUSR1,
        name: "SIGUSR1",
        die: |_| raise(Signal::SIGUSR1),
        is_cause: |cause, _| *cause == DeathCause::Signalled(libc::SIGUSR1),
        wild: false,
        attempts: 7,
    },
];

/// What messages call this kind of harm.
pub(crate) fn name(kind: u64) -> &'static str {
    match kind {
        NOTHING => "nothing",
        PANICS => "a panic",
        PANICS_TWICE => "a panic within a panic",
        FAILS => "an error",
        SPINS => "an endless loop",
        STOPS => "SIGSTOP",
        DAWDLES => "dawdling",
        _ => CRASHES.iter().find(|crash| crash.kind == kind).expect("a kind of harm").name,
    }
}

/// A page of a file that has lost it; mapped until the process ends.
static CUT: LazyLock<usize> = LazyLock::new(|| {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let len = NonZeroUsize::new(4096).unwrap();
    // SAFETY: a new mapping, of which there is no reference.
    let page = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) };
    file.set_len(0).unwrap();
    page.unwrap().as_ptr().expose_provenance()
});

pub(crate) fn store_to(address: usize) {
    // SAFETY: none; this is the stray store that the test is about.
    unsafe { std::ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(0x5a5a_5a5a) };
}

#[cfg(target_arch = "x86_64")]
fn run_no_instruction(_: usize) {
    // SAFETY: has no effect but the signal.
    unsafe { std::arch::asm!("ud2") };
}

#[cfg(not(target_arch = "x86_64"))]
fn run_no_instruction(_: usize) {
    raise(Signal::SIGILL);
}

#[cfg(target_arch = "x86_64")]
fn divide_by_zero(_: usize) {
    // SAFETY: has no effect but the signal.
    unsafe {
        std::arch::asm!(
            "xor edx, edx",
            "xor ecx, ecx",
            "div ecx",
            inout("eax") 1 => _,
            out("ecx") _,
            out("edx") _,
        );
    };
}

#[cfg(not(target_arch = "x86_64"))]
fn divide_by_zero(_: usize) {
    raise(Signal::SIGFPE);
}

#[allow(unconditional_recursion, reason = "overflows the stack")]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(depth + 1)) + depth
}

fn is_fault(cause: &DeathCause, wanted: i32) -> bool {
    matches!(
        cause,
        DeathCause::MemoryFault { signal, read_only_segment: None, .. } if *signal == wanted
    )
}

/// Panics while it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("and again");
    }
}

/// Harm of this kind on a row that lies at this address.
fn act(kind: u64, row: usize, address: usize) {
    if let Some(crash) = CRASHES.iter().find(|crash| crash.kind == kind) {
        return (crash.die)(address);
    }
    match kind {
        PANICS => panic!("bad row {row}"),
        PANICS_TWICE => {
            let _bomb = Bomb;
            panic!("bad row {row}")
        }
        SPINS => loop {
            std::hint::spin_loop();
        },
        STOPS => raise(Signal::SIGSTOP),
        _ => {}
    }
}

/// Harm of this kind, or an error of the kernel's own.
pub(crate) fn act_or_fail(kind: u64, row: usize) -> Result<(), String> {
    if kind == FAILS {
        return Err(format!("bad row {row}"));
    }
    act(kind, row, 0);
    Ok(())
}

/// Does the harm if this is the row and the stage of it.
pub(crate) fn harm(harm: Harm, row: usize, stage: u64) {
    harm_at(harm, row, stage, 0);
}

/// The same for a row that lies at this address.
pub(crate) fn harm_at([kind, victim, at, times]: Harm, row: usize, stage: u64, address: usize) {
    if kind == DAWDLES && stage == 0 {
        std::thread::sleep(Duration::from_micros(times));
    }
    if (row as u64, stage) != (victim, at)
        || kind == DAWDLES
        || TIMES.fetch_add(1, Ordering::AcqRel) >= times
    {
        return;
    }
    WHERE.store(std::process::id().into(), Ordering::Release);
    act(kind, row, address);
}

/// Harm is counted from here on.
pub(crate) fn count_anew() {
    TIMES.store(0, Ordering::Release);
    WHERE.store(0, Ordering::Release);
}

/// Writes each row in two halves, with harm before, between and behind them: 4 columns from 4.
#[macro_export]
macro_rules! transformed {
    ($executor:expr, $m:expr, $harm:expr) => {
        $executor.transform_rows(($m, rowfork::param($harm)), 4, |(row, harm), out| {
            let harm = |stage| {
                let address = row.as_ptr().expose_provenance();
                $crate::support::harm::harm_at(harm, row.index(), stage, address);
            };
            harm(0);
            (0..2).for_each(|column| out[column] = row[column] * 3.0 + 0.1);
            harm(1);
            (2..4).for_each(|column| out[column] = row[column] / 3.0);
            harm(2);
        })
    };
}

pub(crate) fn matrix(n_rows: usize, n_columns: usize) -> SharedArray<f64, Ix2> {
    SharedArray::from_shape_fn(None, (n_rows, n_columns), |(i, j)| (i * 7 + j) as f64 * 0.1)
        .unwrap()
}

pub(crate) fn bits<D: Dimension>(array: &SharedArray<f64, D>) -> Vec<u64> {
    array.as_slice().iter().map(|value| value.to_bits()).collect()
}

/// Sums by forked workers, whose kernel first does `harm` on each row.
pub(crate) fn harmed(
    m: &SharedArray<f64, Ix2>,
    workers: usize,
    harm: impl Fn(usize),
) -> rowfork::Result<(Vec<u64>, rowfork::Report)> {
    let kernel = |row: rowfork::Row<'_, f64, Ix1>| {
        harm(row.index());
        row.sum()
    };
    let (sums, report) = fork().workers(workers).block_rows(10).map_rows(m, kernel)?.into_parts();
    Ok((bits(&sums), report))
}

/// True for the first of all processes that ask.
pub(crate) fn first_time(word: &SharedWord) -> bool {
    word.fetch_add(1, Ordering::Relaxed) == 0
}
