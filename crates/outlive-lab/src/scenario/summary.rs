//! What a book says about its groups, for reports.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::report::milliseconds;
use crate::traffic::Book;

/// How values in milliseconds are distributed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Distribution {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// That of these values; zeros if there are none.
    pub fn of(values: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = values.collect();
        sorted.sort_unstable();
        let quantile = |q: f64| {
            let rank = (sorted.len() as f64 * q).ceil() as usize;
            milliseconds(sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default())
        };
        Self { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) }
    }
}

/// One group in a report.
#[derive(Debug, Clone, Serialize)]
pub struct GroupSummary {
    /// Its label.
    pub group: String,
    /// Connections asked for.
    pub connections: u64,
    /// Connections whose client end failed.
    pub failed: u64,
    /// Bytes that arrived at servers.
    pub up: u64,
    /// Bytes that arrived at clients.
    pub down: u64,
    /// The longest time in which a connection of it waited for progress, in milliseconds.
    pub longest_wait_ms: f64,
    /// Median time to an answer in milliseconds, where there are answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_median_ms: Option<f64>,
    /// The 99th percentile of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<f64>,
}

/// All groups of a book, over its whole time.
pub fn groups(book: &Book) -> Vec<GroupSummary> {
    let records = book.records();
    let summaries = book.groups().into_iter().map(|group| {
        let mine = records.iter().filter(|record| record.group == group.label);
        let longest = mine.map(|record| record.longest_wait(Duration::ZERO, Duration::MAX)).max();
        let latency = group.latency.lock().expect("no holder panics");
        let quantile = |q| {
            let any = !latency.is_empty();
            any.then(|| milliseconds(Duration::from_micros(latency.value_at_quantile(q))))
        };
        GroupSummary {
            group: group.label.to_string(),
            connections: group.opened.load(Relaxed),
            failed: group.failed.load(Relaxed),
            up: group.up.load(Relaxed),
            down: group.down.load(Relaxed),
            longest_wait_ms: milliseconds(longest.unwrap_or_default()),
            latency_median_ms: quantile(0.5),
            latency_p99_ms: quantile(0.99),
        }
    });
    summaries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_names_values_that_occurred() {
        let hundred = Distribution::of((1..=100).map(Duration::from_millis));
        assert_eq!((hundred.p50, hundred.p99, hundred.max), (50.0, 99.0, 100.0));
        let none = Distribution::of(std::iter::empty());
        assert_eq!((none.p50, none.p99, none.max), (0.0, 0.0, 0.0));
    }
}
