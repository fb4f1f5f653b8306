//! Where connections can be migrated to.

use std::net::{IpAddr, SocketAddr};

use outlive_proxy::config::{Agent, Migration};

use super::Builder;
use crate::settings::{
    PeerSettings, Placed, TargetSettings,
    file::{File, Text},
    values,
};

impl Builder<'_, '_> {
    /// What the core is told, and how the agents are reached.
    pub(super) fn migration(&mut self, file: &File) -> (Migration, Vec<TargetSettings>) {
        let own = file.migration.as_ref();
        let tunnel = own.map_or(Vec::new(), |own| self.addresses(&own.get_ref().tunnel));
        let (mut agents, mut targets): (Vec<Agent>, Vec<TargetSettings>) = Default::default();
        for target in &file.target {
            let (span, target) = (target.span(), target.get_ref());
            if own.is_none() {
                self.once(
                    span,
                    "there is a target, but this node has no tunnel address",
                    "add [migration] with tunnel = [\"...\"], an address of this node's own for that",
                );
            }
            let name = target.name.get_ref();
            let tunnel = self.addresses(&target.tunnel);
            let Some(control) = values::socket_address(self.problems, &target.agent) else {
                continue;
            };
            if targets.iter().any(|other| other.name == *name || other.control == control) {
                self.problems.at(
                    target.name.span(),
                    "there is another target with this name, or this agent",
                    "give each a name and an agent of its own; one may be for several servers",
                );
            }
            for server in target.servers.get_ref() {
                let Some(address) = values::socket_address(self.problems, server) else { continue };
                if agents.iter().any(|agent| SocketAddr::from(agent.server) == address) {
                    self.problems.at(server.span(), "named twice", "remove one of the two");
                }
                let (server, control) = (address.into(), control.into());
                agents.push(Agent { server, control, tunnel: tunnel.clone() });
            }
            targets.push(TargetSettings { name: name.clone(), control });
        }
        (Migration { tunnel, agents }, targets)
    }

    /// The file with the key from which those of the targets are derived.
    pub(super) fn target_key_file(
        &mut self,
        file: &File,
        targets: &[TargetSettings],
        peer: Option<&PeerSettings>,
    ) -> Option<Placed<std::path::PathBuf>> {
        let given = file.migration.as_ref().and_then(|own| own.get_ref().key_file.as_ref());
        if let (Some(text), Some(_)) = (given, peer) {
            self.problems.at(
                text.span(),
                "the targets' keys are derived from that of the pair",
                "remove this key; key_file in [peer] is used",
            );
        }
        match (given, peer) {
            (_, Some(peer)) => Some(peer.key_file.clone()),
            (Some(text), None) => Some(self.file_path(Some(text), "")),
            (None, None) => {
                if let (false, Some(own)) = (targets.is_empty(), file.migration.as_ref()) {
                    self.problems.at(
                        own.span(),
                        "a node without a peer needs a key for its targets",
                        "make one with `outlive keygen`, and add key_file = \"...\" here",
                    );
                }
                None
            }
        }
    }

    fn addresses(&mut self, texts: &[Text]) -> Vec<IpAddr> {
        texts.iter().filter_map(|text| values::address(self.problems, text)).collect()
    }
}
