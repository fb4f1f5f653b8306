//! The congestion control of the lab's hosts.
//!
//! Cubic where it can be had, because it is what most end systems use, and because the default of
//! some machines (bbr) measures something else: 18 instead of 49 Gbit/s over a veth pair.

use std::fs;

const WANTED: &str = "cubic";
const CURRENT: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Adds cubic to what namespaces may choose. Only the machine's first namespace can say so, and
/// only root there; without it, hosts keep the machine's default. This outlives the lab: it is a
/// permission, changes no connection, and another lab may rely on it.
pub(crate) fn allow() {
    let allowed = fs::read_to_string(ALLOWED).unwrap_or_default();
    if !allowed.split_whitespace().any(|name| name == WANTED) {
        let _ = fs::write(ALLOWED, format!("{} {WANTED}", allowed.trim()));
    }
}

/// Chooses cubic in the namespace of the calling thread if it may, and says what is in force.
pub(crate) fn choose() -> String {
    let _ = fs::write(CURRENT, WANTED);
    fs::read_to_string(CURRENT).map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
