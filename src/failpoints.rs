//! Switches for tests alone, in builds with the feature `failpoints`. A switch takes a protection
//! away, so that a test can show that it fails without the protection, or it injects a fault that
//! nothing outside of this crate can cause. In any other build [`is_on`] is `false`, and the
//! compiler removes what it guards.
//!
//! Not a public interface.

/// Declares the enum, and the list of its variants for builds that look a variant up by name.
macro_rules! failpoints {
    ($($(#[$doc:meta])+ $variant:ident,)+) => {
        /// A protection that a test can switch off, or a fault that it can inject.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(
            not(feature = "failpoints"),
            allow(unreachable_pub, reason = "this module is public with the feature alone")
        )]
        pub enum Failpoint {
            $($(#[$doc])+ $variant,)+
        }

        #[cfg(feature = "failpoints")]
        impl Failpoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

failpoints! {
    /// The process that drops an array removes the array's name, even if another process made it.
    AnyProcessRemovesName,
    /// The supervisor believes a message about a row that the dead worker did not hold.
    BelieveAnyMessage,
    /// The supervisor believes a worker's message, however the worker ended.
    BelieveMessageAfterAnyExit,
    /// Every death counts against its row, even if the signal may have come from outside.
    BlameRowForOutsideKills,
    /// A worker that somebody has stopped counts as one whose row never ends.
    BlameRowOfStoppedWorker,
    /// A name counts as an array's own, even if it leads to another inode by now.
    CompareNamesNotInodes,
    /// The time for which the caller was stopped counts against its workers.
    CountPauseOfCaller,
    /// The first worker dies while it saves rows for the third time.
    FirstWorkerDiesWhileSaving,
    /// The first worker hangs before it is ready.
    FirstWorkerHangsAtStart,
    /// A pool's zygote keeps the descriptors that the caller had open.
    KeepDescriptorsOfCaller,
    /// Workers keep the floating-point mode of the caller.
    KeepFpuMode,
    /// Workers keep the signal handlers of the caller.
    KeepSignalHandlers,
    /// Workers pause for a second before they ask to die with their parent.
    LateParentDeathSignal,
    /// Calls ignore their deadline.
    NoDeadline,
    /// No answer is computed in the file that is to hold it: the file is written at the end.
    NoDraftsInPlace,
    /// A birth does not compare its size with the limit on the size of files.
    NoFileSizeCheck,
    /// A call does not see that an array's file has become shorter or has lost memory.
    NoLengthCheck,
    /// A birth does not compare its size with the memory that is left.
    NoMemoryCheck,
    /// Drafts of files have a name from the start.
    NoNamelessDrafts,
    /// Workers keep the caller's score for the kernel's choice when memory runs out.
    NoOomScore,
    /// A worker does not check whether its parent is still the one that forked it.
    NoParentCheck,
    /// The process itself makes a reservation that comes near to a limit, instead of a child.
    NoReservationInChild,
    /// Workers that never report a step are not replaced.
    NoStallDetection,
    /// Workers that never become ready are not replaced.
    NoStartLimit,
    /// All processes that follow each other in one slot have the same generation.
    OneGenerationPerSlot,
    /// A row counts as poisoned before it has run in a block of its own.
    PoisonWithoutRunAlone,
    /// Rows that a dead worker left half updated stay as they are.
    RestoreNothing,
    /// Signals are not blocked across the fork.
    SignalsDuringFork,
    /// The call keeps the blocks that a worker completed before it crashed.
    TrustAfterCrash,
    /// SIGKILL reaches no worker.
    UnkillableWorkers,
    /// Every worker hangs before it is ready.
    WorkersHangAtStart,
    /// Workers do not ask to die with their parent.
    WorkersOutliveCaller,
    /// Workers can write to the output segment of a guarded call.
    WritableOutputUnderGuard,
    /// Workers can write to segments that are no output of the call.
    WritableSegments,
}

/// Whether a test has switched `failpoint` on.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) const fn is_on(_failpoint: Failpoint) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use self::switches::{UnknownFailpoint, VARIABLE, is_on, release, throw, throw_by_environment};

#[cfg(feature = "failpoints")]
mod switches {
    use std::fmt;
    use std::str::FromStr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Failpoint;

    /// The environment variable that names the failpoints of a process, with commas between them.
    pub const VARIABLE: &str = "ROWFORK_TEST_WITHOUT";

    /// One for each variant. Forked children read it, and so it has no lock.
    static THROWN: [AtomicBool; Failpoint::ALL.len()] =
        [const { AtomicBool::new(false) }; Failpoint::ALL.len()];

    fn switch(failpoint: Failpoint) -> &'static AtomicBool {
        &THROWN[failpoint as usize]
    }

    /// Switches a failpoint on, in this process and its future children.
    pub fn throw(failpoint: Failpoint) {
        switch(failpoint).store(true, Ordering::Relaxed);
    }

    /// Switches a failpoint off.
    pub fn release(failpoint: Failpoint) {
        switch(failpoint).store(false, Ordering::Relaxed);
    }

    /// Whether a failpoint is on. A forked child has its parent's.
    #[must_use]
    pub fn is_on(failpoint: Failpoint) -> bool {
        switch(failpoint).load(Ordering::Relaxed)
    }

    /// Throws what [`VARIABLE`] names, if it is set.
    ///
    /// # Panics
    /// If there is no failpoint of such a name.
    pub fn throw_by_environment() {
        let Ok(names) = std::env::var(VARIABLE) else { return };
        for name in names.split(',') {
            throw(name.parse().unwrap_or_else(|error: UnknownFailpoint| panic!("{error}")));
        }
    }

    /// The variant's name.
    impl fmt::Display for Failpoint {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Debug::fmt(self, f)
        }
    }

    impl FromStr for Failpoint {
        type Err = UnknownFailpoint;

        fn from_str(name: &str) -> Result<Self, UnknownFailpoint> {
            let named = Self::ALL.iter().find(|failpoint| failpoint.to_string() == name);
            named.copied().ok_or_else(|| UnknownFailpoint(name.to_owned()))
        }
    }

    /// No failpoint has this name.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct UnknownFailpoint(String);

    impl fmt::Display for UnknownFailpoint {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let known: Vec<_> = Failpoint::ALL.iter().map(ToString::to_string).collect();
            write!(f, "no failpoint is called {:?}; there are {}", self.0, known.join(", "))
        }
    }

    impl std::error::Error for UnknownFailpoint {}

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_failpoint_is_found_by_its_name() {
            for (index, &failpoint) in Failpoint::ALL.iter().enumerate() {
                assert_eq!(failpoint as usize, index);
                assert_eq!(failpoint.to_string().parse(), Ok(failpoint));
            }
        }

        #[test]
        fn an_unknown_name_is_answered_by_the_names_that_exist() {
            let said = "restore nothing".parse::<Failpoint>().unwrap_err().to_string();
            assert!(said.starts_with("no failpoint is called \"restore nothing\"; "), "{said}");
            for failpoint in Failpoint::ALL {
                assert!(said.contains(&failpoint.to_string()), "{said}");
            }
        }
    }
}
