//! The file as it is written.

use outlive_node::settings::values::Text;
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) host: Host,
    pub(super) tunnel: Tunnel,
    #[serde(default)]
    pub(super) service: Vec<Spanned<Service>>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) metrics: Option<Metrics>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) listen: Text,
    pub(super) key_file: Text,
    pub(super) nodes: Spanned<Vec<Text>>,
    pub(super) tun: Option<Text>,
    pub(super) mtu: Option<Spanned<i64>>,
    pub(super) table: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) set_sysctls: bool,
    pub(super) status_socket: Option<Text>,
    pub(super) log: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tunnel {
    pub(super) addresses: Spanned<Vec<Text>>,
    pub(super) nodes: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) address: Spanned<Vec<Text>>,
    pub(super) mode: Text,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) socket: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) patience: Option<Text>,
    pub(super) open: Option<Text>,
    pub(super) linger: Option<Text>,
    pub(super) idle: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Text,
}
