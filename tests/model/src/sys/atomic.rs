//! Atomics of the model's, and deaths between two stores.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;

use loom::sync::atomic as modelled;

pub(crate) use modelled::fence;
pub(crate) use std::sync::atomic::Ordering;

loom::thread_local! {
    /// So many stores this process has left to make.
    static LEFT: Cell<u32> = Cell::new(u32::MAX);
}

/// Whether all accesses are made to look like stores of something. Loom remembers one access to
/// each value, and of a thread that loads and then stores it forgets whom else the load came after:
/// without this some orders are left out.
pub(crate) static WITNESS: AtomicBool = AtomicBool::new(true);

struct Death;

/// A worker's life, with so many stores at most. `None` if it has died.
pub(crate) fn mortal<T>(steps: u32, life: impl FnOnce() -> T) -> Option<T> {
    LEFT.with(|left| left.set(steps));
    let lived = catch_unwind(AssertUnwindSafe(life));
    LEFT.with(|left| left.set(u32::MAX));
    match lived {
        Ok(value) => Some(value),
        Err(payload) if (*payload).type_id() == std::any::TypeId::of::<Death>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// One store more, or death. (Who dies between two loads has left nothing else than who dies after
/// the second.)
pub(crate) fn step() {
    LEFT.with(|left| match left.get() {
        u32::MAX => {}
        0 => resume_unwind(Box::new(Death) as Box<dyn Any + Send>),
        steps => left.set(steps - 1),
    });
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        #[derive(Default)]
        pub(crate) struct $name(modelled::$name, modelled::AtomicUsize);

        impl $name {
            fn witness(&self) {
                if WITNESS.load(Ordering::Relaxed) {
                    self.1.fetch_add(1, Ordering::Relaxed);
                }
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $int {
                self.witness();
                self.0.load(ordering)
            }

            pub(crate) fn store(&self, value: $int, ordering: Ordering) {
                step();
                self.witness();
                self.0.store(value, ordering);
            }

            pub(crate) fn swap(&self, value: $int, ordering: Ordering) -> $int {
                step();
                self.witness();
                self.0.swap(value, ordering)
            }

            pub(crate) fn fetch_add(&self, value: $int, ordering: Ordering) -> $int {
                step();
                self.witness();
                self.0.fetch_add(value, ordering)
            }

            pub(crate) fn fetch_min(&self, value: $int, ordering: Ordering) -> $int {
                step();
                self.witness();
                self.0.fetch_min(value, ordering)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.witness();
                self.0.compare_exchange(current, new, success, failure)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
