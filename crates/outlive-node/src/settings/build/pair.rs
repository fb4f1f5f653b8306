//! How the other node is reached, and how the two watch each other.

use std::{net::SocketAddr, time::Duration};

use outlive_proxy::config::{Config, Detector, PairConfig};
use toml::Spanned;

use super::Builder;
use crate::settings::{
    PathSettings, PeerSettings, Placed,
    file::{self, File, Text},
    values::{self, placed},
};

impl Builder<'_, '_> {
    pub(super) fn peer(
        &mut self,
        peer: &Spanned<file::Peer>,
    ) -> Option<(PairConfig, Option<PeerSettings>)> {
        let peer = peer.get_ref();
        let state = peer.state.get_ref();
        let state = self.path(&state.listen, &state.peer);
        let paths = peer.heartbeat.get_ref();
        if paths.is_empty() || paths.len() > usize::from(u8::MAX) {
            self.problems.at(
                peer.heartbeat.span(),
                "the number of heartbeat paths must be from 1 to 255",
                "name one path for each network that joins the nodes: heartbeat = [{ local = \"10.0.0.1:7401\", peer = \"10.0.0.2:7401\" }]",
            );
        }
        let mut heartbeat: Vec<PathSettings> = Vec::new();
        for path in paths {
            let span = path.span();
            let Some(path) = self.path(&path.get_ref().local, &path.get_ref().peer) else {
                continue;
            };
            let same = |other: &PathSettings| {
                other.local.value == path.local.value || other.peer == path.peer
            };
            if heartbeat.iter().any(same) {
                self.problems.at(
                    span,
                    "another heartbeat path has the same end",
                    "give each path two addresses, or ports, of its own",
                );
            }
            heartbeat.push(path);
        }
        let default = PairConfig::default();
        let mut time =
            |text: &Option<Text>, default| values::duration(self.problems, text.as_ref(), default);
        let heartbeat_interval = time(&peer.heartbeat_interval, default.heartbeat_interval);
        let detection_timeout = time(&peer.detection_timeout, default.detection_timeout);
        let join_timeout = time(&peer.join_timeout, default.join_timeout);
        let quiet_time = time(&peer.quiet_time, default.quiet_time);
        let confirm_timeout = time(&peer.confirm_timeout, default.confirm_timeout);
        let detectors = [("automatic", Detector::Automatic), ("external", Detector::External)];
        let detector = values::word(self.problems, peer.detector.as_ref(), &detectors);
        if heartbeat_interval.is_some_and(|interval| interval < Duration::from_millis(1)) {
            self.problems.at(
                peer.heartbeat_interval.as_ref()?.span(),
                "the heartbeat interval is less than a millisecond",
                "give at least 1ms; 20ms detects a failure within 100ms",
            );
        }
        let pair = PairConfig {
            enabled: true,
            paths: u8::try_from(paths.len()).unwrap_or(u8::MAX),
            detector: detector?,
            heartbeat_interval: heartbeat_interval?,
            detection_timeout: detection_timeout?,
            join_timeout: join_timeout?,
            quiet_time: quiet_time?,
            confirm_timeout: confirm_timeout?,
        };
        let key_file = self.file_path(Some(&peer.key_file), "");
        Some((pair, Some(PeerSettings { state: state?, heartbeat, key_file })))
    }

    /// Where an external detector asks.
    pub(super) fn watch(&mut self, file: &File) -> Vec<Placed<SocketAddr>> {
        let waits = (file.peer.as_ref())
            .and_then(|peer| peer.get_ref().detector.as_ref())
            .filter(|detector| detector.get_ref() == "external");
        let Some(watch) = &file.watch else {
            if let Some(detector) = waits {
                self.problems.at(
                    detector.span(),
                    "nobody could tell this node to take over",
                    "add a table [watch] with the address at which the detector asks: listen = [\"10.1.0.1:7402\"]",
                );
            }
            return Vec::new();
        };
        if file.peer.is_none() {
            self.problems.at(
                watch.span(),
                "a node without a peer has nothing to be told, and no key",
                "add a table [peer], or remove this one",
            );
        }
        let listen = &watch.get_ref().listen;
        if listen.get_ref().is_empty() {
            self.problems.at(
                listen.span(),
                "no address is named",
                "name at least one of this node: listen = [\"10.1.0.1:7402\"]",
            );
        }
        let mut all: Vec<Placed<SocketAddr>> = Vec::new();
        for text in listen.get_ref() {
            let Some(address) = values::socket_address(self.problems, text) else { continue };
            if all.iter().any(|other| other.value == address) {
                self.problems.at(text.span(), "named twice", "remove one of the two");
            }
            all.push(placed(self.source, text, address));
        }
        all
    }

    fn path(&mut self, local: &Text, peer: &Text) -> Option<PathSettings> {
        let ends = (
            values::socket_address(self.problems, local),
            values::socket_address(self.problems, peer),
        );
        let (Some(here), Some(there)) = ends else { return None };
        if here == there {
            self.problems.at(
                peer.span(),
                "this is the node's own address",
                "name the address of the other node",
            );
        } else if here.is_ipv4() != there.is_ipv4() {
            self.problems.at(
                peer.span(),
                "the two ends are of different IP versions",
                "give both as IPv4 or both as IPv6",
            );
        }
        Some(PathSettings { local: placed(self.source, local, here), peer: there })
    }

    /// The nodes talk to each other past the addresses that move between them.
    pub(super) fn peer_is_not_virtual(
        &mut self,
        peer: Option<&PeerSettings>,
        watch: &[Placed<SocketAddr>],
        proxy: &Config,
    ) {
        let Some(peer) = peer else { return };
        let moving = proxy.virtual_addresses();
        for own in watch.iter().filter(|own| moving.contains(&own.value.ip())) {
            self.problems.place(
                own.place.clone(),
                format!(
                    "{} moves between the nodes, so it says nothing of this one",
                    own.value.ip()
                ),
                "give the node an address of its own for this",
            );
        }
        for path in peer.heartbeat.iter().chain([&peer.state]) {
            for address in [path.local.value.ip(), path.peer.ip()] {
                if moving.contains(&address) {
                    self.problems.place(
                        path.local.place.clone(),
                        format!("{address} moves between the nodes, so they cannot talk over it"),
                        "give each node an address of its own for this",
                    );
                }
            }
        }
    }
}
