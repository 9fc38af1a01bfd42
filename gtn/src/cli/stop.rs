//! Ctrl-C: the first asks the program to end after the current step, the second ends it at once.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on.
pub(super) fn listen() -> Result<()> {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(Error::run)
}

/// Whether the user wants to stop.
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
