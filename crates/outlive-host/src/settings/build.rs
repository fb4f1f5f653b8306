//! From the file as written to settings that can work. All problems that can be found are collected.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use outlive_node::settings::{
    LogFormat, Placed, Problem, Problems, source,
    values::{self, Text, placed},
};
use toml::Spanned;

use super::{
    Service, Settings, Taker,
    file::{self, File},
};

const DOCUMENT: &str = "docs/host.md";
const DEFAULT_TUN: &str = "outlh0";
const DEFAULT_TABLE: u32 = 7410;
const DEFAULT_CONNECTIONS: u32 = 262_144;
const DEFAULT_MTU: u32 = 1_500;
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);
const DEFAULT_OPEN: Duration = Duration::from_secs(3);
const DEFAULT_LINGER: Duration = Duration::from_secs(10);
const DEFAULT_IDLE: Duration = Duration::from_secs(3_600);
/// Stands for the port of the virtual address.
const SAME_PORT: u16 = 0;
const DEFAULT_STATUS: &str = "/run/outlive/host.sock";

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
        let host = &file.host;
        let listen = self.socket(&host.listen);
        let nodes = self.addresses(&host.nodes, "the nodes' addresses");
        let tunnel = self.tunnel(&file.tunnel);
        let tunnel_nodes = self.addresses(&file.tunnel.nodes, "the nodes' tunnel addresses");
        let services = self.services(&file.service);
        let logs = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let log = values::word(self.problems, host.log.as_ref(), &logs);
        let metrics = file.metrics.as_ref().map(|metrics| self.socket(&metrics.listen));
        let number = |problems: &mut Problems<'_>, given: &Option<Spanned<i64>>, range, default| {
            values::number(problems, given.as_ref(), range, default)
        };
        let connections =
            number(self.problems, &file.limits.connections, 1..=4_000_000, DEFAULT_CONNECTIONS);
        let mtu = number(self.problems, &host.mtu, 1_280..=65_535, DEFAULT_MTU);
        let table = number(self.problems, &host.table, 1..=i64::from(u32::MAX), DEFAULT_TABLE);
        let mut time =
            |text: &Option<Text>, default| values::duration(self.problems, text.as_ref(), default);
        let times = &file.timeouts;
        let patience = time(&times.patience, DEFAULT_PATIENCE);
        let open_timeout = time(&times.open, DEFAULT_OPEN);
        let linger = time(&times.linger, DEFAULT_LINGER);
        let idle_timeout = time(&times.idle, DEFAULT_IDLE);
        for service in services.iter().flatten() {
            let ipv4 = service.address.is_ipv4();
            if !tunnel.iter().any(|address| address.is_ipv4() == ipv4) {
                self.problems.at(
                    file.tunnel.addresses.span(),
                    format!("there is no tunnel address for the service {}", service.address),
                    "give one of the same IP version",
                );
            }
        }
        Some(Settings {
            file: self.path.to_owned(),
            listen: listen?,
            key_file: placed(self.source, &host.key_file, self.file(&host.key_file)),
            nodes,
            tun: self.tun(host.tun.as_ref()),
            mtu: u16::try_from(mtu?).ok()?,
            table: table?,
            set_sysctls: host.set_sysctls,
            tunnel,
            tunnel_nodes,
            services: services?,
            connections: connections? as usize,
            patience: patience?,
            open_timeout: open_timeout?,
            linger: linger?,
            idle_timeout: idle_timeout?,
            metrics: match metrics {
                Some(metrics) => Some(metrics?),
                None => None,
            },
            status_socket: match &host.status_socket {
                Some(text) => self.file(text),
                None => PathBuf::from(DEFAULT_STATUS),
            },
            log: log?,
        })
    }

    fn tun(&self, name: Option<&Text>) -> Placed<String> {
        match name {
            Some(text) => placed(self.source, text, text.get_ref().clone()),
            None => Placed { value: DEFAULT_TUN.to_owned(), place: None },
        }
    }

    /// Relative to the configuration's directory.
    fn file(&self, text: &Text) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(text.get_ref())
    }

    fn socket(&mut self, text: &Text) -> Option<Placed<SocketAddr>> {
        let address = values::socket_address(self.problems, text)?;
        Some(placed(self.source, text, address))
    }

    fn addresses(&mut self, list: &Spanned<Vec<Text>>, what: &str) -> Vec<IpAddr> {
        if list.get_ref().is_empty() {
            self.problems.at(
                list.span(),
                format!("{what} are missing"),
                "name them all, of both nodes of the pair",
            );
        }
        list.get_ref().iter().filter_map(|text| values::address(self.problems, text)).collect()
    }

    fn tunnel(&mut self, table: &file::Tunnel) -> Vec<IpAddr> {
        let addresses = self.addresses(&table.addresses, "the agent's tunnel addresses");
        let v4 = addresses.iter().filter(|it| it.is_ipv4()).count();
        if v4 > 1 || addresses.len() - v4 > 1 {
            self.problems.at(
                table.addresses.span(),
                "there is more than one tunnel address of one IP version",
                "give one for IPv4, one for IPv6, or both",
            );
        }
        addresses
    }

    fn services(&mut self, tables: &[Spanned<file::Service>]) -> Option<Vec<Service>> {
        let mut seen = BTreeSet::new();
        let mut services = Vec::new();
        for table in tables {
            let taker = self.taker(table);
            for text in table.get_ref().address.get_ref() {
                let Some(address) = values::socket_address(self.problems, text) else { continue };
                if !seen.insert(address) {
                    self.problems.at(
                        text.span(),
                        format!("{address} is the address of another service, too"),
                        "remove one of them",
                    );
                }
                services.extend(taker.as_ref().map(|taker| Service {
                    address,
                    taker: match taker {
                        Taker::Replay { port: SAME_PORT } => Taker::Replay { port: address.port() },
                        taker => taker.clone(),
                    },
                }));
            }
        }
        if tables.is_empty() {
            self.problems.place(
                None,
                "there is no service",
                "add a [[service]] with the addresses of a listener of the balancer",
            );
        }
        Some(services)
    }

    fn taker(&mut self, table: &Spanned<file::Service>) -> Option<Taker> {
        let service = table.get_ref();
        let words = [("replay", true), ("kernel", false)];
        let replay = values::word(self.problems, Some(&service.mode), &words)?;
        let foreign = if replay {
            service.socket.as_ref().map(|text| (text.span(), "socket"))
        } else {
            service.port.as_ref().map(|number| (number.span(), "port"))
        };
        if let Some((span, key)) = foreign {
            let mode = service.mode.get_ref();
            self.problems.at(
                span,
                format!("a service with the mode \"{mode}\" has no key \"{key}\""),
                "remove the key, or change the mode",
            );
        }
        if replay {
            let default = u32::from(SAME_PORT);
            let port = values::number(self.problems, service.port.as_ref(), 1..=65_535, default)?;
            return Some(Taker::Replay { port: u16::try_from(port).ok()? });
        }
        let Some(socket) = &service.socket else {
            self.problems.at(
                table.span(),
                "a service with the mode \"kernel\" needs a socket",
                "name the Unix socket on which the server accepts: socket = \"/run/hello.sock\"",
            );
            return None;
        };
        Some(Taker::Kernel { socket: self.file(socket) })
    }
}
