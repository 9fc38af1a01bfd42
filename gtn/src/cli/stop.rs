//! Ctrl-C, SIGTERM and SIGHUP: the first asks the program to save and to end after the current step; another, a second
//! or more later, ends it at once.

use crate::error::{Error, Result};
use std::io::{copy, sink, stdin};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static LISTENS: AtomicBool = AtomicBool::new(false);
static ASKED: OnceLock<Instant> = OnceLock::new();

/// A lost terminal and a service manager send several signals at once, which are one request.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Listens for the signals from now on.
pub(super) fn listen() -> Result<()> {
    // One command may run another, which listens, too.
    if LISTENS.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let handler = || {
        if ASKED.get_or_init(Instant::now).elapsed() > ONE_REQUEST {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(Error::run)
}

/// From now on the end of standard input is a request to stop, too.
pub(super) fn when_input_ends() {
    std::thread::spawn(|| {
        // An input that cannot be read counts as ended.
        let _ = copy(&mut stdin(), &mut sink());
        ask();
    });
}

/// Records a request, such as one that another rank got.
pub(super) fn ask() {
    ASKED.get_or_init(Instant::now);
}

/// Whether the user wants to stop.
pub(super) fn asked() -> bool {
    ASKED.get().is_some()
}
