//! Switches for tests alone, in builds with the feature `failpoints`: a protection is switched off
//! to see that its test fails without it, or a fault is injected where nothing outside can. In any
//! other build [`is_on`] is `false`, and what it guards is compiled away.
//!
//! Not a public interface.

/// Whether a test has thrown the switch called `name`. One of the names that the sources use; a
/// forked child has its parent's.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn is_on(_name: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use self::switches::{is_on, release, throw};

#[cfg(feature = "failpoints")]
mod switches {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Read without a lock, since children read it.
    static SWITCHES: [Switch; 8] =
        [const { Switch { name: OnceLock::new(), thrown: AtomicBool::new(false) } }; 8];

    struct Switch {
        name: OnceLock<String>,
        thrown: AtomicBool,
    }

    /// Throws a switch, in this process and its future children.
    ///
    /// # Panics
    /// When too many have been thrown.
    pub fn throw(name: &str) {
        let ours = |switch: &&Switch| switch.name.get_or_init(|| name.to_owned()) == name;
        SWITCHES
            .iter()
            .find(ours)
            .expect("at most 8 switches")
            .thrown
            .store(true, Ordering::Relaxed);
    }

    /// Puts a switch back.
    pub fn release(name: &str) {
        named(name).for_each(|switch| switch.thrown.store(false, Ordering::Relaxed));
    }

    /// Whether the switch called `name` is thrown.
    #[must_use]
    pub fn is_on(name: &str) -> bool {
        named(name).any(|switch| switch.thrown.load(Ordering::Relaxed))
    }

    fn named(name: &str) -> impl Iterator<Item = &'static Switch> {
        SWITCHES.iter().filter(move |switch| switch.name.get().is_some_and(|known| known == name))
    }
}
