//! The process's resident memory, as Linux counts it.

/// A measurement of it.
pub(super) struct Resident {
    before: usize,
}

impl Resident {
    /// Starts measuring the peak from here.
    pub(super) fn reset() -> Self {
        // Where the mark cannot be reset, the peak since the process began is reported: never too little.
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
