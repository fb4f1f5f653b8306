//! The demo line by line, for logs and for terminals that cannot do more.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use super::board::Snapshot;
use super::graph::per_second;
use super::{Display, view};
use crate::traffic::Group;

/// Between two looks at the board.
const TICK: Duration = Duration::from_millis(50);

/// Between two lines about how far it is.
const EVERY: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Lines {
    display: Display,
    events_shown: usize,
    next: Duration,
}

impl Lines {
    pub(super) fn new(display: Display) -> Self {
        Self { display, events_shown: 0, next: EVERY }
    }

    /// Writes what is new, and waits a little.
    pub(super) fn show(&mut self, snapshot: &Snapshot) {
        let mut text = String::new();
        for event in &snapshot.events[self.events_shown.min(snapshot.events.len())..] {
            let mark = if event.fault { "!!" } else { "  " };
            text += &format!("{:7.3} s {mark} {}\n", event.at.as_secs_f64(), event.what);
        }
        self.events_shown = snapshot.events.len();
        let now = snapshot.now();
        let running = snapshot.groups.iter().any(|group| group.open() > 0);
        if now >= self.next && running {
            self.next = now + EVERY;
            text += &format!("{:7.3} s    {}\n", now.as_secs_f64(), state(snapshot, now));
        }
        // Nobody has to listen.
        let _ = match self.display {
            Display::Output => io::stdout().write_all(text.as_bytes()),
            Display::Error => io::stderr().write_all(text.as_bytes()),
        };
        thread::sleep(TICK);
    }
}

fn state(snapshot: &Snapshot, now: Duration) -> String {
    let mut parts = Vec::new();
    for group in snapshot.groups.iter().filter(|group| view::is_transfer(group)) {
        let progress = view::progress(group, snapshot.size, now);
        let speed = match progress.stalled {
            _ if progress.over => "over".to_owned(),
            Some(stalled) => format!("silent for {} ms", stalled.as_millis()),
            None => per_second(progress.rate),
        };
        let percent = progress.part * 100.0;
        parts.push(format!("{} {percent:.0} % {speed}", group.label));
    }
    let sum = |count: fn(&Arc<Group>) -> u64| snapshot.groups.iter().map(count).sum::<u64>();
    let open = sum(|group| group.open());
    let failed = sum(|group| group.failed.load(Relaxed));
    parts.push(format!("{open} open, {failed} lost"));
    parts.join("; ")
}
