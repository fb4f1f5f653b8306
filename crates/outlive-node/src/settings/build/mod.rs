//! From the file as written to settings that can work.
//!
//! All problems with single values are collected before anything is given back; then what
//! contradicts itself. What the core itself refuses ([`outlive_proxy::config::Invalid`]) is mapped to
//! the place that caused it, so there is one definition of what is valid.

mod migration;
mod pair;
mod protection;
mod routing;

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
};

use outlive_proxy::config::{
    Config, Invalid, Limits, Listener, NodeId, PairConfig, TERMINATED_STREAM_BYTES, Timeouts,
};
use outlive_tcp::wire::Endpoint;
use toml::Spanned;

use super::{
    DEFAULT_ADMIN_SOCKET, DEFAULT_FAST_PATH, DEFAULT_TUN, EdgeKind, LogFormat, Placed, Problem,
    Problems, Settings,
    file::{self, File, Text},
    source,
    values::{self, placed},
};

pub(super) fn settings(path: &Path, source: &str) -> Result<Settings, Vec<Problem>> {
    source::check(path, source, "docs/configuration.md", |file: &File, problems| {
        Builder { path, source, problems }.build(file)
    })
}

struct Builder<'a, 'p> {
    path: &'a Path,
    source: &'a str,
    problems: &'a mut Problems<'p>,
}

impl Builder<'_, '_> {
    fn build(mut self, file: &File) -> Option<Settings> {
        let node = file.node.get_ref();
        let name = self.node_id(file);
        let interfaces = self.interfaces(&node.interfaces);
        let tun = self.tun(node.tun.as_ref());
        let edges = [("neighbours", EdgeKind::Neighbours), ("routed", EdgeKind::Routed)];
        let edge = values::word(self.problems, node.edge.as_ref(), &edges);
        let mtu = values::number(self.problems, node.mtu.as_ref(), 576..=65_535, 0_u16);
        let log = values::word(
            self.problems,
            node.log.as_ref(),
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        );
        let admin_socket = self.file_path(node.admin_socket.as_ref(), DEFAULT_ADMIN_SOCKET);

        let (pools, pool_ids) = self.pools(&file.pool);
        let listeners = self.listeners(&file.listener, &pool_ids);
        let source_addresses = self.source_addresses(&node.source_addresses, &listeners);
        let (pair, peer) = match &file.peer {
            Some(peer) => self.peer(peer)?,
            None => (PairConfig::alone(), None),
        };
        let watch = self.watch(file);
        let metrics = file.metrics.as_ref().and_then(|metrics| {
            let text = &metrics.listen;
            Some(placed(self.source, text, values::socket_address(self.problems, text)?))
        });
        let (migration, targets) = self.migration(file);
        let target_key_file = self.target_key_file(file, &targets, peer.as_ref());
        let timeouts = self.timeouts(&file.timeouts);
        let limits = self.limits(&file.limits);
        let fast_path = values::number(
            self.problems,
            file.limits.fast_path.as_ref(),
            0..=1 << 24,
            DEFAULT_FAST_PATH,
        );

        let mtu = mtu?;
        let proxy = Config {
            node: name?,
            listeners,
            pools,
            source_addresses,
            migration,
            pair,
            timeouts: timeouts?,
            limits: limits?,
            mtu: if mtu == 0 { Settings::DEFAULT_MTU } else { mtu },
        };
        if self.problems.is_empty() {
            if let Err(invalid) = proxy.validate() {
                self.contradiction(file, &invalid);
            }
            self.peer_is_not_virtual(peer.as_ref(), &watch, &proxy);
        }
        Some(Settings {
            file: self.path.to_owned(),
            proxy,
            mtu: (mtu != 0).then_some(mtu),
            interfaces,
            edge: edge?,
            tun: tun?,
            set_sysctls: node.set_sysctls,
            fast_path: fast_path?,
            admin_socket,
            log: log?,
            log_connections: node.log_connections,
            peer,
            watch,
            metrics,
            targets,
            target_key_file,
        })
    }

    fn node_id(&mut self, file: &File) -> Option<NodeId> {
        let node = &file.node;
        if node.get_ref().name.is_none() && file.peer.is_some() {
            self.problems.at(
                node.span(),
                "a node with a peer needs a name",
                "add name = \"a\" here and name = \"b\" on the other node",
            );
            return None;
        }
        let words = [("a", NodeId::A), ("b", NodeId::B)];
        values::word(self.problems, node.get_ref().name.as_ref(), &words)
    }

    fn interfaces(&mut self, list: &Spanned<Vec<Text>>) -> Vec<Placed<String>> {
        if list.get_ref().is_empty() {
            self.problems.at(
                list.span(),
                "no interface is named",
                "name those on which the virtual addresses are to be answered for: interfaces = [\"eth0\"]",
            );
        }
        let mut seen = Vec::new();
        for text in list.get_ref() {
            self.interface_name(text);
            if seen.contains(&text.get_ref()) {
                self.problems.at(text.span(), "named twice", "remove one of the two");
            }
            seen.push(text.get_ref());
        }
        list.get_ref()
            .iter()
            .map(|text| placed(self.source, text, text.get_ref().clone()))
            .collect()
    }

    fn interface_name(&mut self, text: &Text) -> bool {
        let name = text.get_ref();
        let possible = (1..=15).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
            && name != "."
            && name != "..";
        if !possible {
            self.problems.at(
                text.span(),
                format!("\"{name}\" is not possible as the name of an interface"),
                "give 1 to 15 characters without blanks, slashes, colons or percent signs",
            );
        }
        possible
    }

    fn tun(&mut self, text: Option<&Text>) -> Option<Placed<String>> {
        let Some(text) = text else {
            return Some(Placed { value: DEFAULT_TUN.to_owned(), place: None });
        };
        self.interface_name(text).then(|| placed(self.source, text, text.get_ref().clone()))
    }

    /// A path of the file; relative ones start at the file's directory.
    fn file_path(&self, text: Option<&Text>, default: &str) -> Placed<PathBuf> {
        match text {
            None => Placed { value: default.into(), place: None },
            Some(text) => {
                let directory = self.path.parent().unwrap_or(Path::new(""));
                placed(self.source, text, directory.join(text.get_ref()))
            }
        }
    }

    fn source_addresses(&mut self, texts: &[Text], listeners: &[Listener]) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for text in texts {
            let Some(address) = values::address(self.problems, text) else { continue };
            if addresses.contains(&address) {
                self.problems.at(text.span(), "named twice", "remove one of the two");
            }
            addresses.push(address);
        }
        // Without any for an IP version, the listeners' own addresses serve.
        for v4 in [true, false] {
            if !addresses.iter().any(|address| address.is_ipv4() == v4) {
                for listener in listeners.iter().filter(|l| l.address.addr.is_ipv4() == v4) {
                    if !addresses.contains(&listener.address.addr) {
                        addresses.push(listener.address.addr);
                    }
                }
            }
        }
        addresses
    }

    fn timeouts(&mut self, file: &file::Timeouts) -> Option<Timeouts> {
        let default = Timeouts::default();
        let mut time =
            |text: &Option<Text>, default| values::duration(self.problems, text.as_ref(), default);
        let time_wait = time(&file.time_wait, default.time_wait);
        let reset_linger = time(&file.reset_linger, default.reset_linger);
        let handshake = time(&file.handshake, default.handshake);
        Some(Timeouts { time_wait: time_wait?, reset_linger: reset_linger?, handshake: handshake? })
    }

    fn limits(&mut self, file: &file::Limits) -> Option<Limits> {
        let default = Limits::default();
        let mut number = |given: &Option<Spanned<i64>>, max, default| {
            values::number(self.problems, given.as_ref(), 1..=max, default)
        };
        let sessions = number(&file.sessions, 1 << 28, default.sessions);
        let openings = number(&file.openings, 1 << 24, default.openings);
        let half_open = number(&file.half_open, 1 << 24, default.half_open);
        let streams = &TERMINATED_STREAM_BYTES;
        let terminated_stream_bytes = values::number(
            self.problems,
            file.terminated_stream_bytes.as_ref(),
            (*streams.start()).into()..=(*streams.end()).into(),
            default.terminated_stream_bytes,
        );
        // Whatever one stream may hold, all may hold.
        let least = i64::from(terminated_stream_bytes.unwrap_or(default.terminated_stream_bytes));
        let terminated_bytes = values::number(
            self.problems,
            file.terminated_bytes.as_ref(),
            least..=1 << 40,
            default.terminated_bytes,
        );
        Some(Limits {
            sessions: sessions?,
            openings: openings?,
            half_open: half_open?,
            terminated_stream_bytes: terminated_stream_bytes?,
            terminated_bytes: terminated_bytes?,
        })
    }

    /// What the core refuses, at the place that caused it.
    fn contradiction(&mut self, file: &File, invalid: &Invalid) {
        let listener = |name: &str| {
            file.listener.iter().map(Spanned::get_ref).find(|l| l.name.get_ref() == name)
        };
        let of_listener = |name: &str| listener(name).map(|listener| listener.name.span());
        let of_without_standby =
            |name: &str| listener(name)?.without_standby.as_ref().map(Spanned::span);
        let of_pool = |name: &str| {
            (file.pool.iter().map(Spanned::get_ref))
                .find(|pool| pool.name.get_ref() == name)
                .map(|pool| pool.name.span())
        };
        let of_peer = || {
            let peer = file.peer.as_ref()?;
            let times = [&peer.get_ref().detection_timeout, &peer.get_ref().heartbeat_interval];
            let span = times.into_iter().flatten().next().map(Spanned::span);
            span.or(Some(peer.span()))
        };
        let (span, help) = match invalid {
            Invalid::OverlappingListeners(_, name, endpoint) => (
                listener(name).and_then(|listener| {
                    let is_it = |text: &&Text| {
                        text.get_ref()
                            .parse()
                            .is_ok_and(|a: SocketAddr| Endpoint::from(a) == *endpoint)
                    };
                    listener.address.0.iter().rfind(is_it).map(Spanned::span)
                }),
                "give each listener an address and port of its own",
            ),
            Invalid::RoutesOnDirect(name) => {
                (of_listener(name), "add mode = \"inspect\" to the listener, or remove its routes")
            }
            Invalid::Nowhere(name) => {
                (of_listener(name), "add pool = \"...\" to the listener, or routes")
            }
            Invalid::NoSuchPool(name) => (of_listener(name), "name a pool that there is"),
            Invalid::FamilyMismatch(name, _) => {
                (of_listener(name), "put servers of the listener's IP version into the pool")
            }
            Invalid::EmptyPool(name) => (of_pool(name), "name at least one server"),
            Invalid::NoSourceAddress(name, _) => {
                (of_pool(name), "add one of that version to source_addresses in [node]")
            }
            Invalid::TerminatesUntold(name) => (
                listener(name).and_then(|l| l.synchronise.as_ref()).map(Spanned::span),
                "remove this key: the node's own connections must be known before they say anything",
            ),
            Invalid::RefusesAsync(name) => (
                of_without_standby(name),
                "remove replication = \"async\", or this key: an asynchronous listener waits for no standby",
            ),
            Invalid::RefusesAlone(name) => (
                of_without_standby(name),
                "add a [peer], or remove this key: without a standby every connection would be refused",
            ),
            Invalid::DetectionTooShort => (
                of_peer(),
                "raise detection_timeout or lower heartbeat_interval; five intervals are usual",
            ),
            Invalid::NoAgent(name) => {
                (of_listener(name), "name a server of that pool in the servers of a [[target]]")
            }
            Invalid::HeaderOnMigration(name) => {
                (of_listener(name), "remove proxy_protocol, or migrate to another pool")
            }
            Invalid::SourceIsVirtual(_) => (
                Some(file.node.span()),
                "add source_addresses = [\"...\"] here, with addresses that move between the nodes like the virtual ones",
            ),
            // What the core adds to its list of refusals is told as it says it.
            _ => (None, "see docs/configuration.md for the ranges"),
        };
        match span {
            Some(span) => self.problems.at(span, invalid.to_string(), help),
            None => self.problems.whole(invalid.to_string(), help),
        }
    }

    /// Reports what a listener with several addresses would otherwise report for each.
    fn once(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.once(span, message.into(), help.into());
    }
}
