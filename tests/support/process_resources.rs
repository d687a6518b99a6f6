//! What a process has at a moment: what would grow if calls left anything behind.

/// Of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessResources {
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    /// Its own memory. Pages of its program and libraries come and go with the system's cache, and
    /// are nobody's leak.
    pub(crate) anonymous_kib: usize,
}

impl ProcessResources {
    /// Of a process of this user, this one included.
    pub(crate) fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        Self {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            mappings: std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().count(),
            anonymous_kib: anonymous.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}
