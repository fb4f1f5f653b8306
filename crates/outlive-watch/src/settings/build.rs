//! From the file as written to settings that can work. All problems that can be found are collected.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use outlive_net::netlink::TABLE_MAIN;
use outlive_node::settings::{
    LogFormat, Problem, Problems, source,
    values::{self, Text, placed},
};
use toml::Spanned;

use super::{
    Settings, SwitchSettings,
    file::{self, File},
};
use crate::{
    check::CheckConfig,
    decide::{CheckRule, Rules, StandbyHears},
};

const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
const DEFAULT_FORCE_AFTER: Duration = Duration::from_secs(10);
const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_millis(500);
const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_FAILURES: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(5);
const DOCUMENT: &str = "docs/external-detector.md";

pub(super) fn settings(path: &Path, source: &str) -> Result<Settings, Vec<Problem>> {
    source::check(path, source, DOCUMENT, |file: &File, problems| {
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
        let watch = &file.watch;
        let nodes = [self.addresses(&file.node.a), self.addresses(&file.node.b)];
        self.nodes_differ(&file.node, &nodes);
        let check = file.check.as_ref().map(|check| self.check(check));
        let (check, check_rule) = match check {
            None => (None, None),
            Some((config, rule)) => (Some(config?), Some(rule?)),
        };
        let rules = self.rules(watch, check_rule);
        let switches: Vec<_> =
            file.switch.iter().filter_map(|switch| self.switch(switch)).collect();
        let logs = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let log = values::word(self.problems, watch.log.as_ref(), &logs);
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let key_file = &watch.key_file;
        Some(Settings {
            file: self.path.to_owned(),
            key_file: placed(self.source, key_file, directory.join(key_file.get_ref())),
            rules: rules?,
            nodes,
            check,
            switches,
            log: log?,
        })
    }

    fn rules(&mut self, watch: &file::Watch, check: Option<CheckRule>) -> Option<Rules> {
        let interval = self.time(watch.interval.as_ref(), DEFAULT_INTERVAL);
        let timeout = self.time(watch.timeout.as_ref(), interval.unwrap_or(DEFAULT_INTERVAL));
        let failures = self.failures(watch.failures.as_ref());
        let force_after = match &watch.force_after {
            Some(never) if never.get_ref() == "never" => Some(None),
            text => values::duration(self.problems, text.as_ref(), DEFAULT_FORCE_AFTER).map(Some),
        };
        let words = [("wait", StandbyHears::Wait), ("switch", StandbyHears::Switch)];
        let standby_hears = values::word(self.problems, watch.when_standby_hears.as_ref(), &words);
        Some(Rules {
            interval: interval?,
            timeout: timeout?,
            failures: failures?,
            force_after: force_after?,
            standby_hears: standby_hears?,
            check,
        })
    }

    /// A time that the machine can keep.
    fn time(&mut self, text: Option<&Text>, default: Duration) -> Option<Duration> {
        let time = values::duration(self.problems, text, default)?;
        if time < SHORTEST {
            let span = text.map(Spanned::span).unwrap_or_default();
            self.problems.at(span, "the time is too short", "give at least 5ms");
            return None;
        }
        Some(time)
    }

    fn failures(&mut self, number: Option<&Spanned<i64>>) -> Option<u32> {
        values::number(self.problems, number, 1..=1_000, DEFAULT_FAILURES)
    }

    fn addresses(&mut self, node: &file::Node) -> Vec<SocketAddr> {
        let list = &node.addresses;
        if list.get_ref().is_empty() || list.get_ref().len() > 8 {
            self.problems.at(
                list.span(),
                "the number of addresses must be from 1 to 8",
                "name those in the node's own [watch] table: addresses = [\"10.1.0.1:7402\"]",
            );
        }
        (list.get_ref().iter())
            .filter_map(|text| values::socket_address(self.problems, text))
            .collect()
    }

    fn nodes_differ(&mut self, file: &file::Nodes, nodes: &[Vec<SocketAddr>; 2]) {
        let [a, b] = nodes;
        if b.iter().any(|address| a.contains(address)) {
            self.problems.at(
                file.b.addresses.span(),
                "both nodes have the same address",
                "name the addresses of node a under [node.a], and those of node b here",
            );
        }
    }

    fn check(&mut self, check: &file::Check) -> (Option<CheckConfig>, Option<CheckRule>) {
        let address = values::socket_address(self.problems, &check.address);
        let interval = self.time(check.interval.as_ref(), DEFAULT_CHECK_INTERVAL);
        let timeout = self.time(check.timeout.as_ref(), interval.unwrap_or_default());
        let failures = self.failures(check.failures.as_ref());
        let words = [("confirm", false), ("take-over", true)];
        let decides = values::word(self.problems, check.on_failure.as_ref(), &words);
        let config = || {
            Some(CheckConfig {
                address: address?,
                interval: interval?,
                timeout: timeout?,
                send: check.send.clone(),
            })
        };
        let rule = || Some(CheckRule { failures: failures?, decides: decides? });
        (config(), rule())
    }

    fn switch(&mut self, switch: &Spanned<file::Switch>) -> Option<SwitchSettings> {
        let table = switch.get_ref();
        let words = [("route", true), ("exec", false)];
        let route = values::word(self.problems, Some(&table.driver), &words)?;
        let of_route = [
            table.destinations.as_ref().map(|key| (key.span(), "destinations")),
            table.via.as_ref().map(|key| (key.span(), "via")),
            table.table.as_ref().map(|key| (key.span(), "table")),
            table.metric.as_ref().map(|key| (key.span(), "metric")),
        ];
        let of_exec = [
            table.command.as_ref().map(|key| (key.span(), "command")),
            table.timeout.as_ref().map(|key| (key.span(), "timeout")),
        ];
        let (driver, foreign) =
            if route { ("route", &of_exec[..]) } else { ("exec", &of_route[..]) };
        for (span, key) in foreign.iter().flatten() {
            self.problems.at(
                span.clone(),
                format!("a switch with the driver \"{driver}\" has no key \"{key}\""),
                "remove the key, or change the driver",
            );
        }
        if route { self.route(switch) } else { self.exec(switch) }
    }

    fn route(&mut self, switch: &Spanned<file::Switch>) -> Option<SwitchSettings> {
        let table = switch.get_ref();
        let (Some(destinations), Some(via)) = (&table.destinations, &table.via) else {
            self.problems.at(
                switch.span(),
                "a switch with the driver \"route\" needs destinations and via",
                "destinations = [\"10.9.0.100/32\"], via = { a = [\"10.1.0.1\"], b = [\"10.2.0.1\"] }",
            );
            return None;
        };
        let nets: Vec<IpNet> =
            destinations.get_ref().iter().filter_map(|text| self.net(text)).collect();
        if destinations.get_ref().is_empty() {
            self.problems.at(
                destinations.span(),
                "no destination is named",
                "name the listeners' addresses, and the source addresses of the nodes",
            );
        }
        let mut node = |texts: &[Text]| -> Vec<IpAddr> {
            texts.iter().filter_map(|text| values::address(self.problems, text)).collect()
        };
        let gateways = [node(&via.get_ref().a), node(&via.get_ref().b)];
        for v4 in [true, false] {
            let number = |node: &[IpAddr]| node.iter().filter(|to| to.is_ipv4() == v4).count();
            let needed = nets.iter().any(|net| net.addr().is_ipv4() == v4);
            let version = if v4 { "IPv4" } else { "IPv6" };
            if gateways.iter().any(|node| number(node) > 1 || (needed && number(node) == 0)) {
                self.problems.at(
                    via.span(),
                    format!("each node needs just one {version} address here, if there are {version} destinations"),
                    "name the address at which this router reaches the node",
                );
            }
        }
        let number = |problems: &mut Problems<'_>, given: &Option<Spanned<i64>>, default| {
            values::number(problems, given.as_ref(), 0..=i64::from(u32::MAX), default)
        };
        Some(SwitchSettings::Route {
            destinations: nets,
            via: gateways,
            table: number(self.problems, &table.table, TABLE_MAIN)?,
            metric: number(self.problems, &table.metric, 0)?,
        })
    }

    fn net(&mut self, text: &Text) -> Option<IpNet> {
        let given = text.get_ref();
        let net = given.parse().or_else(|_| given.parse::<IpAddr>().map(IpNet::from));
        if net.is_err() {
            self.problems.at(
                text.span(),
                format!("\"{given}\" is not an address or a network"),
                "write it as 10.9.0.100, 10.9.0.0/24 or fd09::/64",
            );
        }
        net.ok()
    }

    fn exec(&mut self, switch: &Spanned<file::Switch>) -> Option<SwitchSettings> {
        let table = switch.get_ref();
        let command = table.command.as_ref().filter(|command| !command.get_ref().is_empty());
        let timeout = values::duration(self.problems, table.timeout.as_ref(), DEFAULT_EXEC_TIMEOUT);
        let Some(command) = command else {
            self.problems.at(
                switch.span(),
                "a switch with the driver \"exec\" needs a command",
                "name the program, and its first arguments: command = [\"/usr/local/sbin/redirect\"]",
            );
            return None;
        };
        let words = command.get_ref().iter().map(|text| text.get_ref().clone()).collect();
        Some(SwitchSettings::Exec { command: words, timeout: timeout? })
    }
}
