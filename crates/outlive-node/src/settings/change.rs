//! What of a changed file a running node can obey, and what it cannot.

use outlive_proxy::config::{Agent, Config};

use super::{Placed, Problem, Settings, TargetSettings};

/// What to do about a change that needs another process.
const HELP: &str =
    "put the old value back and reload, or restart the node with the new one (it hands over first)";

impl Settings {
    /// What of `new` a node that runs with these settings cannot obey while it runs: each with the place of the new value.
    pub fn fixed_changes(&self, new: &Settings) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut fixed = |changed: bool, place: Option<&super::Place>, what: &str| {
            if changed {
                found.push(Problem {
                    file: new.file.clone(),
                    place: place.cloned(),
                    message: format!("{what} cannot be changed while the node runs"),
                    help: HELP.to_owned(),
                });
            }
        };
        let names = |list: &[Placed<String>]| -> Vec<String> {
            list.iter().map(|placed| placed.value.clone()).collect()
        };
        fixed(self.proxy.node != new.proxy.node, None, "the node's name");
        let first = new.interfaces.first().and_then(|placed| placed.place.as_ref());
        fixed(names(&self.interfaces) != names(&new.interfaces), first, "interfaces");
        fixed(self.edge != new.edge, None, "edge");
        fixed(self.tun.value != new.tun.value, new.tun.place.as_ref(), "tun");
        fixed(self.mtu != new.mtu, None, "mtu");
        fixed(self.set_sysctls != new.set_sysctls, None, "set_sysctls");
        fixed(self.fast_path != new.fast_path, None, "fast_path");
        let socket = &new.admin_socket;
        fixed(self.admin_socket.value != socket.value, socket.place.as_ref(), "admin_socket");
        fixed(self.log != new.log, None, "log");
        let watch = |of: &Settings| of.watch.iter().map(|placed| placed.value).collect::<Vec<_>>();
        let place = new.watch.first().and_then(|placed| placed.place.as_ref());
        fixed(watch(self) != watch(new), place, "watch");
        let metrics = |of: &Settings| of.metrics.as_ref().map(|placed| placed.value);
        let place = new.metrics.as_ref().and_then(|placed| placed.place.as_ref());
        fixed(metrics(self) != metrics(new), place, "where metrics are asked for");
        let differ = self.proxy.migration.tunnel != new.proxy.migration.tunnel;
        fixed(differ, None, "this node's tunnel addresses");
        let times = "how the nodes watch each other (times and detector in [peer])";
        match (&self.peer, &new.peer) {
            (Some(old), Some(peer)) => {
                let ends = |path: &super::PathSettings| (path.local.value, path.peer);
                let place = peer.state.local.place.as_ref();
                fixed(
                    ends(&old.state) != ends(&peer.state),
                    place,
                    "the state connection's addresses",
                );
                let paths =
                    |of: &super::PeerSettings| of.heartbeat.iter().map(ends).collect::<Vec<_>>();
                let place = peer.heartbeat.first().and_then(|path| path.local.place.as_ref());
                fixed(paths(old) != paths(peer), place, "heartbeat paths");
                let key = &peer.key_file;
                fixed(old.key_file.value != key.value, key.place.as_ref(), "key_file");
                fixed(self.proxy.pair != new.proxy.pair, None, times);
            }
            (None, None) => {}
            _ => fixed(true, None, "whether there is a [peer]"),
        }
        found
    }

    /// In words, what is different in `new` of that which can be changed; empty if nothing is.
    pub fn describe_changes(&self, new: &Settings) -> String {
        let mut words = Vec::new();
        let mut compare = |what: &str, old: Vec<String>, new: Vec<String>, changed: usize| {
            let count = |list: &[String], others: &[String]| {
                list.iter().filter(|name| !others.contains(name)).count()
            };
            let (added, removed) = (count(&new, &old), count(&old, &new));
            for (number, how) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
                if number > 0 {
                    let plural = if number == 1 { "" } else { "s" };
                    words.push(format!("{number} {what}{plural} {how}"));
                }
            }
        };
        let (old, core) = (&self.proxy, &new.proxy);
        let addresses = |of: &Config| -> Vec<String> {
            of.listeners.iter().map(|l| l.address.to_string()).collect()
        };
        let (before, after) = (addresses(old), addresses(core));
        let changed = (core.listeners.iter())
            .filter(|l| old.listeners.iter().any(|o| o.address == l.address && o != *l))
            .count();
        compare("listener", before, after, changed);
        let names =
            |of: &Config| -> Vec<String> { of.pools.iter().map(|p| p.name.clone()).collect() };
        let (before, after) = (names(old), names(core));
        let changed = (core.pools.iter())
            .filter(|p| old.pools.iter().any(|o| o.name == p.name) && !old.pools.contains(p))
            .count();
        compare("pool", before, after, changed);
        let names = |of: &Settings| of.targets.iter().map(|target| target.name.clone()).collect();
        let (before, after): (Vec<String>, _) = (names(self), names(new));
        let changed = (new.targets.iter())
            .filter(|target| {
                let old = self.targets.iter().find(|old| old.name == target.name);
                old.is_some_and(|old| {
                    old != *target || self.agents_at(old) != new.agents_at(target)
                })
            })
            .count();
        compare("target", before, after, changed);
        for (differs, what) in [
            (self.log_connections != new.log_connections, "log_connections"),
            (old.source_addresses != core.source_addresses, "source addresses"),
            (old.limits != core.limits, "limits"),
            (old.timeouts != core.timeouts, "timeouts"),
        ] {
            if differs {
                words.push(format!("{what} changed"));
            }
        }
        words.join(", ")
    }

    /// What the core is told of a target.
    fn agents_at(&self, target: &TargetSettings) -> Vec<&Agent> {
        let control = target.control.into();
        self.proxy.migration.agents.iter().filter(|agent| agent.control == control).collect()
    }
}
