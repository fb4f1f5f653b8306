//! The configuration file as it is written: names of tables and keys, nothing of their meaning.
//!
//! Values stay text with their place in the file, so that [`build`](super::build) can say where
//! a wrong one stands; every key is documented in `docs/configuration.md`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use toml::Spanned;

pub(super) use super::values::Text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) node: Spanned<Node>,
    pub(super) peer: Option<Spanned<Peer>>,
    pub(super) watch: Option<Spanned<Watch>>,
    pub(super) metrics: Option<Metrics>,
    pub(super) migration: Option<Spanned<Migration>>,
    #[serde(default)]
    pub(super) target: Vec<Spanned<Target>>,
    #[serde(default)]
    pub(super) listener: Vec<Spanned<Listener>>,
    #[serde(default)]
    pub(super) pool: Vec<Spanned<Pool>>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Option<Text>,
    pub(super) interfaces: Spanned<Vec<Text>>,
    pub(super) tun: Option<Text>,
    pub(super) edge: Option<Text>,
    pub(super) mtu: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) set_sysctls: bool,
    #[serde(default)]
    pub(super) log_connections: bool,
    #[serde(default)]
    pub(super) source_addresses: Vec<Text>,
    pub(super) admin_socket: Option<Text>,
    pub(super) log: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) state: Spanned<StatePath>,
    pub(super) heartbeat: Spanned<Vec<Spanned<HeartbeatPath>>>,
    pub(super) key_file: Text,
    pub(super) detector: Option<Text>,
    pub(super) heartbeat_interval: Option<Text>,
    pub(super) detection_timeout: Option<Text>,
    pub(super) join_timeout: Option<Text>,
    pub(super) quiet_time: Option<Text>,
    pub(super) confirm_timeout: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    pub(super) listen: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Migration {
    pub(super) tunnel: Vec<Text>,
    pub(super) key_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) name: Text,
    pub(super) agent: Text,
    pub(super) tunnel: Vec<Text>,
    pub(super) servers: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatePath {
    pub(super) listen: Text,
    pub(super) peer: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeartbeatPath {
    pub(super) local: Text,
    pub(super) peer: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) name: Text,
    pub(super) address: OneOrMany,
    pub(super) mode: Option<Text>,
    pub(super) inspect_limit: Option<Spanned<i64>>,
    pub(super) inspect_timeout: Option<Text>,
    pub(super) pool: Option<Text>,
    pub(super) idle_timeout: Option<Text>,
    pub(super) replication: Option<Text>,
    pub(super) without_standby: Option<Text>,
    pub(super) synchronise: Option<Text>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<Route>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) server_name: Option<Text>,
    pub(super) host: Option<Text>,
    pub(super) path_prefix: Option<Text>,
    pub(super) method: Option<Text>,
    pub(super) header: Option<Header>,
    pub(super) alpn: Option<Text>,
    pub(super) first_bytes: Option<Text>,
    pub(super) pool: Text,
    pub(super) action: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: Text,
    pub(super) value: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) name: Text,
    pub(super) servers: Spanned<Vec<Text>>,
    pub(super) balance: Option<Text>,
    pub(super) proxy_protocol: Option<Text>,
    pub(super) connect_timeout: Option<Text>,
    pub(super) retry_after: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) sessions: Option<Spanned<i64>>,
    pub(super) openings: Option<Spanned<i64>>,
    pub(super) half_open: Option<Spanned<i64>>,
    pub(super) terminated_stream_bytes: Option<Spanned<i64>>,
    pub(super) terminated_bytes: Option<Spanned<i64>>,
    pub(super) fast_path: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) time_wait: Option<Text>,
    pub(super) reset_linger: Option<Text>,
    pub(super) handshake: Option<Text>,
}

/// One text, or a list of them.
pub(super) struct OneOrMany(pub(super) Vec<Text>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address with a port, or a list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(Content::Many(texts))
            }
        }
        enum Content {
            One(String),
            Many(Vec<Text>),
        }
        impl<'de> Deserialize<'de> for Content {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Texts)
            }
        }
        // The place of a single text is that of the whole value, which only `Spanned` learns.
        let content = Spanned::<Content>::deserialize(deserializer)?;
        let span = content.span();
        Ok(OneOrMany(match content.into_inner() {
            Content::One(text) => vec![Spanned::new(span, text)],
            Content::Many(texts) => texts,
        }))
    }
}
