//! How long a connection waited, and when.
//!
//! A wait is a span in which a connection owed progress and made none: between two arrivals of a
//! bulk stream, between a request and its answer, a key and its echo. The longest ones are kept
//! with their times, so that any window (around a fault, say) can be asked about afterwards.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A span without progress, on the lab's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The last progress before it.
    pub from: Duration,
    /// The progress that ended it, or the end of the connection.
    pub to: Duration,
}

impl Wait {
    /// How much of it lies between `start` and `end`.
    pub fn within(self, start: Duration, end: Duration) -> Duration {
        self.to.min(end).saturating_sub(self.from.max(start))
    }
}

/// Waits shorter than this are not kept: nobody calls them a stall.
const SHORTEST_KEPT: Duration = Duration::from_millis(5);

/// At most this many waits are kept for a connection; then the shortest make room.
const KEPT: usize = 128;

/// The longest waits of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    since: Option<Duration>,
    kept: Vec<Wait>,
}

impl Waits {
    /// Progress is owed from now on, unless it was already.
    pub(crate) fn owe(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Progress was made, or ended, and nothing is owed for now.
    pub(crate) fn rest(&mut self, now: Duration) {
        if let Some(from) = self.since.take() {
            self.keep(Wait { from, to: now });
        }
    }

    /// Writes down one wait whose two ends are known.
    pub(crate) fn keep(&mut self, wait: Wait) {
        if wait.to.saturating_sub(wait.from) < SHORTEST_KEPT {
            return;
        }
        if self.kept.len() == KEPT {
            let length = |wait: &Wait| wait.to - wait.from;
            let shortest = (0..KEPT).min_by_key(|&at| length(&self.kept[at])).expect("not empty");
            if length(&self.kept[shortest]) >= length(&wait) {
                return;
            }
            self.kept.swap_remove(shortest);
        }
        self.kept.push(wait);
    }

    /// What was kept, in no order.
    pub(crate) fn into_kept(self) -> Vec<Wait> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_wait_is_counted_only_while_progress_is_owed() {
        let mut waits = Waits::default();
        waits.owe(ms(10));
        waits.owe(ms(20));
        waits.rest(ms(110));
        waits.rest(ms(111));
        waits.owe(ms(900));
        waits.rest(ms(960));
        let expected = [Wait { from: ms(10), to: ms(110) }, Wait { from: ms(900), to: ms(960) }];
        assert_eq!(waits.into_kept(), expected);
    }

    #[test]
    fn the_longest_waits_survive_any_number_of_short_ones() {
        let mut waits = Waits::default();
        waits.keep(Wait { from: ms(0), to: ms(500) });
        for at in 1..1000 {
            waits.keep(Wait { from: ms(at * 1000), to: ms(at * 1000 + 10) });
        }
        let kept = waits.into_kept();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.contains(&Wait { from: ms(0), to: ms(500) }));
    }

    #[test]
    fn a_window_sees_its_part_of_a_wait() {
        let wait = Wait { from: ms(100), to: ms(300) };
        assert_eq!(wait.within(ms(0), ms(1000)), ms(200));
        assert_eq!(wait.within(ms(250), ms(1000)), ms(50));
        assert_eq!(wait.within(ms(300), ms(1000)), ms(0));
    }
}
