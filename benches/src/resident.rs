//! The process's resident memory, as Linux counts it.

/// glibc's variable for the size, in bytes, from which an allocation is a mapping of its own. A mapping goes
/// back to the system as soon as it is freed. If the variable is not set, glibc raises the size as large
/// blocks are freed.
const THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Restarts this program with large allocations as mappings, unless that is done already. Otherwise arrays
/// that were freed before a measurement stay resident. The measurement reuses their memory and does not count
/// it, which may hide a whole arena.
pub fn give_back() {
    #[cfg(unix)]
    if std::env::var_os(THRESHOLD.0).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let mut again = std::process::Command::new(program);
        again.args(std::env::args_os().skip(1));
        // `exec` returns only if it fails. Then this process measures as it is.
        let _ = again.env(THRESHOLD.0, THRESHOLD.1).exec();
    }
}

/// A measurement of it.
pub(super) struct Resident {
    before: usize,
}

impl Resident {
    /// Starts measuring the peak from here.
    pub(super) fn reset() -> Self {
        // If the high-water mark cannot be reset, the peak is that since the process began, which is never
        // too little.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self {
            before: status("VmRSS:"),
        }
    }

    /// The most above the beginning, in bytes; 0 where the system does not say.
    pub(super) fn peak(&self) -> usize {
        status("VmHWM:").saturating_sub(self.before)
    }
}

fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<usize>().ok())
        .unwrap_or(0)
        * 1024
}
