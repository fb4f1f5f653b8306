//! Configurations of the small world: every way to open a session, with limits that a short input can reach.

use std::{path::Path, sync::LazyLock, time::Duration};

use outlive_node::settings::Settings;
use outlive_proxy::{
    Entropy,
    config::{Config, NodeId, PairConfig},
};
use outlive_tcp::{time::Time, wire::Endpoint};

/// When nodes start.
pub(crate) const START: Time = Time::from_micros(1_000_000_000);
/// The wall clock then.
pub(crate) const UNIX_US: u64 = 1_700_000_000_000_000;
/// How often nodes say that they live.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a node must be silent to be dead.
pub(crate) const DETECTION: Duration = Duration::from_secs(4);
pub(crate) const SESSIONS: u32 = 8;
pub(crate) const OPENINGS: u32 = 6;
const HALF_OPEN: u32 = 3;

/// Bits of a variant.
pub(crate) const V6: u8 = 1;
pub(crate) const INSPECT: u8 = 2;
pub(crate) const PROXY_V1: u8 = 4;
pub(crate) const PROXY_V2: u8 = 8;
/// Sessions that are idle for a minute are forgotten.
pub(crate) const SHORT_IDLE: u8 = 16;
/// There is no second node.
pub(crate) const ALONE: u8 = 32;
/// Established sessions are left to a fast path, which has room for two.
pub(crate) const FAST_PATH: u8 = 64;
const VARIANTS: u8 = 64;

/// Secrets of a node, the same in every run.
pub(crate) fn entropy(seed: u8) -> Entropy {
    Entropy([seed; 32])
}

/// Where clients connect to.
pub(crate) fn listener(variant: u8) -> Endpoint {
    config(NodeId::A, variant).listeners[0].address
}

/// The configuration of a variant, for that node.
pub(crate) fn config(node: NodeId, variant: u8) -> Config {
    static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| (0..VARIANTS).map(parse).collect());
    Config { node, ..CONFIGS[usize::from(variant % VARIANTS)].clone() }
}

fn parse(variant: u8) -> Config {
    let has = |bit| variant & bit != 0;
    let (listener, servers) = if has(V6) {
        ("[fd00::100]:80", r#""[fd00::21]:80", "[fd00::22]:80""#)
    } else {
        ("10.0.0.100:80", r#""10.0.0.21:80", "10.0.0.22:80""#)
    };
    let mode = if has(INSPECT) { "inspect" } else { "direct" };
    let proxy_protocol = match (has(PROXY_V1), has(PROXY_V2)) {
        (true, _) => "proxy_protocol = \"v1\"",
        (false, true) => "proxy_protocol = \"v2\"",
        (false, false) => "",
    };
    let idle_timeout = if has(SHORT_IDLE) { "60s" } else { "7d" };
    let text = format!(
        r#"
        [node]
        name = "a"
        interfaces = ["eth0"]
        [peer]
        state = {{ listen = "192.0.2.1:7400", peer = "192.0.2.2:7400" }}
        heartbeat = [{{ local = "192.0.2.1:7401", peer = "192.0.2.2:7401" }}]
        key_file = "/etc/outlive/pair.key"
        [[listener]]
        name = "web"
        address = "{listener}"
        mode = "{mode}"
        pool = "web"
        idle_timeout = "{idle_timeout}"
        [[pool]]
        name = "web"
        servers = [{servers}]
        {proxy_protocol}
        "#
    );
    let settings = Settings::parse(Path::new("fuzz.toml"), &text);
    let mut config = settings.unwrap_or_else(|problems| panic!("{}", problems[0])).proxy;
    config.limits.sessions = SESSIONS;
    config.limits.openings = OPENINGS;
    config.limits.half_open = HALF_OPEN;
    config.pair = PairConfig {
        enabled: !has(ALONE),
        heartbeat_interval: HEARTBEAT,
        detection_timeout: DETECTION,
        join_timeout: DETECTION,
        ..config.pair
    };
    config.validate().expect("a valid configuration");
    config
}
