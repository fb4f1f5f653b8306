//! Load for benchmarks: as much as goes, counted, not verified byte by byte.
//!
//! The other half of the lab's traffic, [`traffic`](crate::traffic), proves that nothing is lost;
//! this half finds out how fast something is, and must not be the slowest part itself. Servers and
//! clients are threads of their hosts.

mod bulk;
mod http_client;
mod http_server;

pub use bulk::{BulkServer, Direction, measure_bulk};
pub use http_client::{HttpLoad, HttpResult};
pub use http_server::HttpServer;

use std::time::Duration;

/// When a measurement counts: after `warm_up`, for `length`.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Time for windows and caches to open and fill.
    pub warm_up: Duration,
    /// Time that counts.
    pub length: Duration,
}
