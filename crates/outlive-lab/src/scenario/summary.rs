//! What a book says about its groups, for reports.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::report::milliseconds;
use crate::traffic::Book;

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
