//! Whether the other ranks of this machine are there: MPI itself waits for ever for one that is lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Between two checks. A launcher ends the other ranks about a second after a loss, so the message must come
/// sooner.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a rank waits before it exits, so that others see the first loss and do not report this exit as
/// another one.
const FAREWELL: Duration = Duration::from_secs(2);

/// Starts a thread that watches processes through Linux's `/proc`. Processes that do not appear there are not
/// watched.
///
/// When one is lost, the lowest rank that is left says so, and all end: by themselves, if their launcher does not end them.
pub(super) fn start(
    own: usize,
    others: Vec<(usize, u32)>,
    step: Arc<AtomicU64>,
    watching: Arc<AtomicBool>,
) {
    let seen: Vec<_> = others.into_iter().filter(|(_, id)| lives(*id)).collect();
    if seen.is_empty() {
        return;
    }
    thread::spawn(move || {
        let (number, process) = loop {
            thread::sleep(PAUSE);
            if let Some(lost) = seen.iter().find(|(_, id)| !lives(*id)) {
                break lost;
            }
        };
        if !watching.load(Ordering::Relaxed) {
            return;
        }
        let left = |(number, id): &&(usize, u32)| *number < own && lives(*id);
        if seen.iter().find(left).is_none() {
            let (place, hint) = match step.load(Ordering::Relaxed) {
                0 => (String::new(), "give the same command again"),
                step => (
                    format!(" at outer step {step}"),
                    "--resume goes on from its last checkpoint",
                ),
            };
            eprintln!(
                "error: rank {number} (process {process}) was lost{place}: the run ends\nhint: {hint}"
            );
        }
        thread::sleep(FAREWELL);
        std::process::exit(1);
    });
}

fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which may hold anything, comes the state; zombies are dead.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}
