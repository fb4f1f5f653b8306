//! Traffic of all kinds, as most scenarios want it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::wait_until;
use crate::traffic::{Client, Group, Plan, Reader, Transfer};

/// Connections that last until the traffic winds up: idle, interactive, asking.
pub fn endless(client: &Client, to: SocketAddr) -> Vec<Arc<Group>> {
    let every = Duration::from_millis(20);
    let requests = Plan::Requests { every, request: 200, response: 1000 };
    vec![
        client.open("requests", 50, to, &requests),
        client.open("interactive", 10, to, &Plan::Interactive { every }),
        client.open("idle", 200, to, &Plan::Idle),
    ]
}

/// Connections that end by themselves; the largest carry `bulk` bytes.
pub fn transfers(client: &Client, to: SocketAddr, bulk: u64) -> Vec<Arc<Group>> {
    let stop_for = Duration::from_millis(300);
    let stopping = Reader { stop_after: 64 << 10, stop_for, pace: None };
    let stopping = Transfer {
        up: bulk / 32,
        down: bulk / 32,
        reader: stopping,
        server_reader: stopping,
        ..Transfer::default()
    };
    // Long enough at their pace for half a second of half-closed life.
    let small = (bulk / 16).min(1 << 20);
    let server_first = Transfer {
        up: small,
        up_pace: Some(2 * small),
        down: small,
        server_closes_first: true,
        ..Transfer::default()
    };
    vec![
        client.open("upload", 1, to, &Plan::upload(bulk)),
        client.open("download", 1, to, &Plan::download(bulk)),
        client.open("both", 2, to, &Plan::both(bulk / 8)),
        client.open("half-closed", 10, to, &Plan::half_closed(small, 2 * small)),
        client.open("stopped-reader", 4, to, &Plan::Transfer(stopping)),
        client.open("server-closes", 10, to, &Plan::Transfer(server_first)),
    ]
}

/// Connections of all kinds that carry `bytes` at `pace` bytes per second and always have something
/// to wait for. Most of the kinds end by themselves; these are given back.
pub fn lasting(client: &Client, to: SocketAddr, bytes: u64, pace: u64) -> Vec<Arc<Group>> {
    let both = Transfer {
        up: bytes,
        down: bytes,
        up_pace: Some(pace),
        down_pace: Some(pace),
        ..Transfer::default()
    };
    let slow_reader = Reader { pace: Some(pace), ..Reader::default() };
    let slow = Transfer {
        up: bytes,
        down: bytes,
        reader: slow_reader,
        server_reader: slow_reader,
        ..Transfer::default()
    };
    let server_first =
        Transfer { up: bytes, up_pace: Some(pace), down: 1000, server_closes_first: true, ..both };
    let every = Duration::from_millis(20);
    let requests = Plan::Requests { every, request: 200, response: 1000 };
    client.open("requests", 50, to, &requests);
    vec![
        client.open("both", 2, to, &Plan::Transfer(both)),
        client.open("slow readers", 2, to, &Plan::Transfer(slow)),
        client.open("half-closed", 5, to, &Plan::half_closed(bytes, pace)),
        client.open("server-closes", 5, to, &Plan::Transfer(server_first)),
    ]
}

/// Waits until all connections of the groups are over; whether they are.
pub fn wait_for(groups: &[Arc<Group>], limit: Duration) -> bool {
    wait_until(limit, || groups.iter().all(|group| group.open() == 0))
}
