//! Progress of a command: a bar on a terminal, and a line every ten seconds elsewhere.

use super::{is_silent, say};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    from: u64,
    begin: Instant,
    said: Instant,
}

impl Progress {
    /// Progress over `total` steps, of which `done` are done already.
    pub(super) fn new(what: &'static str, total: u64, done: u64) -> Self {
        let bar = (stderr().is_terminal() && !is_silent()).then(|| {
            let style = ProgressStyle::with_template(
                "{prefix} {pos}/{len} {wide_bar} {msg}{per_sec}, {eta} left",
            );
            let bar = ProgressBar::new(total).with_style(style.expect("the template is sound"));
            bar.set_prefix(what);
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        Self {
            bar,
            what,
            total,
            from: done,
            begin: now,
            said: now,
        }
    }

    /// A line of text that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// `done` steps are done; `message` is what they found.
    pub(super) fn at(&mut self, done: u64, message: &str) {
        let done = done.min(self.total);
        if let Some(bar) = &self.bar {
            bar.set_message(if message.is_empty() {
                String::new()
            } else {
                format!("{message}, ")
            });
            bar.set_position(done);
            return;
        }
        if self.said.elapsed() < PAUSE && done < self.total {
            return;
        }
        self.said = Instant::now();
        let per_second = (done - self.from) as f64 / self.begin.elapsed().as_secs_f64();
        let left = (self.total - done) as f64 / per_second;
        let comma = if message.is_empty() { "" } else { ", " };
        say(&format!(
            "{} {done}/{}: {message}{comma}{per_second:.2} per second, {left:.0} s left",
            self.what, self.total
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
