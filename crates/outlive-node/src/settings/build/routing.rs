//! Listeners, their routes, and the pools these lead to.

use std::{collections::HashMap, time::Duration};

use data_encoding::HEXLOWER_PERMISSIVE;
use outlive_proxy::config::{
    Balance, Listener, NamePattern, OpeningMode, Pool, PoolId, ProxyProtocol, Route, Server,
    Termination,
};
use toml::Spanned;

use super::Builder;
use crate::settings::{
    file::{self, Text},
    values,
};

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3 * 3_600);
const DEFAULT_INSPECT_LIMIT: u16 = 8_192;
const DEFAULT_INSPECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(10);

/// A pool of the file becomes one pool of the core for each IP version among its servers.
#[derive(Default)]
pub(super) struct PoolIds {
    v4: Option<PoolId>,
    v6: Option<PoolId>,
}

impl Builder<'_, '_> {
    pub(super) fn pools<'f>(
        &mut self,
        file: &'f [Spanned<file::Pool>],
    ) -> (Vec<Pool>, HashMap<&'f str, PoolIds>) {
        let (mut pools, mut ids) = (Vec::new(), HashMap::new());
        for pool in file {
            let pool = pool.get_ref();
            let name = pool.name.get_ref().as_str();
            let mut of_pool = PoolIds::default();
            for one in self.pool(pool) {
                let v4 = one.servers.first().is_none_or(|server| server.address.addr.is_ipv4());
                let slot = if v4 { &mut of_pool.v4 } else { &mut of_pool.v6 };
                *slot = u16::try_from(pools.len()).ok().map(PoolId);
                pools.push(one);
            }
            if ids.insert(name, of_pool).is_some() {
                self.problems.at(
                    pool.name.span(),
                    format!("there are two pools named \"{name}\""),
                    "give each pool a name of its own, or put the servers into one",
                );
            }
        }
        if pools.len() > usize::from(u16::MAX) {
            self.problems.whole("there are more than 65535 pools", "remove some");
        }
        (pools, ids)
    }

    /// One pool for each IP version, or none if something is wrong.
    fn pool(&mut self, pool: &file::Pool) -> Vec<Pool> {
        if pool.servers.get_ref().is_empty() {
            self.problems.at(
                pool.servers.span(),
                format!("pool \"{}\" has no servers", pool.name.get_ref()),
                "name at least one: servers = [\"10.0.0.21:443\"]",
            );
        }
        let mut servers: Vec<Server> = Vec::new();
        for text in pool.servers.get_ref() {
            let Some(address) = values::socket_address(self.problems, text) else { continue };
            let server = Server { address: address.into() };
            if servers.contains(&server) {
                self.problems.at(text.span(), "named twice", "remove one of the two");
            }
            servers.push(server);
        }
        let balance = values::word(
            self.problems,
            pool.balance.as_ref(),
            &[
                ("round-robin", Balance::RoundRobin),
                ("least-connections", Balance::LeastConnections),
                ("content", Balance::Content),
            ],
        );
        let proxy_protocol = pool.proxy_protocol.as_ref().map(|text| {
            let words = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
            values::word(self.problems, Some(text), &words)
        });
        let connect_timeout =
            values::duration(self.problems, pool.connect_timeout.as_ref(), DEFAULT_CONNECT_TIMEOUT);
        let retry_after =
            values::duration(self.problems, pool.retry_after.as_ref(), DEFAULT_RETRY_AFTER);
        let (Some(balance), Some(connect_timeout), Some(retry_after)) =
            (balance, connect_timeout, retry_after)
        else {
            return Vec::new();
        };
        let (v4, v6): (Vec<_>, Vec<_>) =
            servers.into_iter().partition(|s| s.address.addr.is_ipv4());
        let of = |servers: Vec<Server>| Pool {
            name: pool.name.get_ref().clone(),
            balance,
            servers,
            proxy_protocol: proxy_protocol.flatten(),
            connect_timeout,
            retry_after,
        };
        [v4, v6].into_iter().filter(|servers| !servers.is_empty()).map(of).collect()
    }

    pub(super) fn listeners(
        &mut self,
        file: &[Spanned<file::Listener>],
        pools: &HashMap<&str, PoolIds>,
    ) -> Vec<Listener> {
        if file.is_empty() {
            self.problems.whole(
                "there is no listener",
                "add a [[listener]] with an address and a pool; examples/ has whole files",
            );
        }
        let mut all = Vec::new();
        for (number, listener) in file.iter().enumerate() {
            let listener = listener.get_ref();
            let name = &listener.name;
            if file[..number].iter().any(|other| other.get_ref().name.get_ref() == name.get_ref()) {
                self.problems.at(
                    name.span(),
                    format!("there are two listeners named \"{}\"", name.get_ref()),
                    "give each a name of its own, or list the addresses: address = [\"...\", \"...\"]",
                );
            }
            let opening = self.opening(listener);
            let protection = self.protection(listener);
            let idle_timeout = values::duration(
                self.problems,
                listener.idle_timeout.as_ref(),
                DEFAULT_IDLE_TIMEOUT,
            );
            if listener.address.0.is_empty() {
                self.problems.at(
                    name.span(),
                    format!("listener \"{}\" has no address", name.get_ref()),
                    "name at least one: address = \"10.0.0.100:443\"",
                );
            }
            for text in &listener.address.0 {
                let Some(address) = values::socket_address(self.problems, text) else { continue };
                let v4 = address.is_ipv4();
                let default_pool =
                    listener.pool.as_ref().and_then(|pool| self.pool_id(pool, pools, v4));
                let routes = (listener.route.iter())
                    .filter_map(|route| self.route(route, pools, v4))
                    .collect();
                let (Some((opening, termination)), Some(idle_timeout), Some(protection)) =
                    (opening, idle_timeout, protection)
                else {
                    continue;
                };
                all.push(Listener {
                    name: name.get_ref().clone(),
                    address: address.into(),
                    opening,
                    routes,
                    default_pool,
                    idle_timeout,
                    protection,
                    termination,
                });
            }
        }
        all
    }

    /// A listener that terminates looks at data if it is told anything about that.
    fn opening(&mut self, listener: &file::Listener) -> Option<(OpeningMode, Termination)> {
        const DIRECT: (bool, Termination) = (false, Termination::Splice);
        let words = [
            ("direct", DIRECT),
            ("inspect", (true, Termination::Splice)),
            ("terminate", (false, Termination::Terminate)),
        ];
        let (inspect, termination) = values::word(self.problems, listener.mode.as_ref(), &words)?;
        let limit = listener.inspect_limit.as_ref();
        let timeout = listener.inspect_timeout.as_ref();
        let looks = limit.is_some() || timeout.is_some() || !listener.route.is_empty();
        let inspect = inspect || termination == Termination::Terminate && looks;
        if !inspect {
            let keys = [limit.map(Spanned::span), timeout.map(Spanned::span)];
            for span in keys.into_iter().flatten() {
                self.problems.at(
                    span,
                    "a direct listener does not look at data",
                    "add mode = \"inspect\", or remove this key",
                );
            }
            return Some((OpeningMode::Direct, termination));
        }
        let limit = values::number(self.problems, limit, 64..=16_384, DEFAULT_INSPECT_LIMIT);
        let timeout = values::duration(self.problems, timeout, DEFAULT_INSPECT_TIMEOUT);
        Some((OpeningMode::Inspect { limit: limit?, timeout: timeout? }, termination))
    }

    fn route(
        &mut self,
        route: &Spanned<file::Route>,
        pools: &HashMap<&str, PoolIds>,
        v4: bool,
    ) -> Option<Route> {
        let span = route.span();
        let route = route.get_ref();
        let server_name = self.name_pattern(route.server_name.as_ref());
        let host = self.name_pattern(route.host.as_ref());
        let pool = self.pool_id(&route.pool, pools, v4);
        let first_bytes = self.first_bytes(route.first_bytes.as_ref());
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.get_ref().clone());
        let actions = [("proxy", false), ("migrate", true)];
        let migrate = values::word(self.problems, route.action.as_ref(), &actions);
        let tls = route.server_name.is_some() || route.alpn.is_some();
        let http = route.host.is_some()
            || route.path_prefix.is_some()
            || route.method.is_some()
            || route.header.is_some();
        if !tls && !http && route.first_bytes.is_none() {
            self.once(
                span,
                "the route has no condition",
                "add server_name, host, path_prefix, or another, or name the pool in the listener itself",
            );
        } else if tls && http {
            self.once(
                span,
                "the route can never match: a TLS connection shows no HTTP host or path",
                "make two routes of it",
            );
        }
        if let Some(prefix) = route.path_prefix.as_ref()
            && !prefix.get_ref().starts_with('/')
        {
            self.once(
                prefix.span(),
                "the path does not begin with a slash",
                "write it as path_prefix = \"/api/\"",
            );
        }
        Some(Route {
            server_name: server_name?,
            host: host?,
            path_prefix: text(&route.path_prefix),
            method: text(&route.method),
            header: (route.header.as_ref())
                .map(|header| (header.name.get_ref().clone(), text(&header.value))),
            alpn: text(&route.alpn),
            first_bytes: first_bytes?,
            pool: pool?,
            migrate: migrate?,
        })
    }

    /// Bytes as text, or behind `hex:` as digits. `Some(None)` if there is no such condition, `None` if it is wrong.
    fn first_bytes(&mut self, text: Option<&Text>) -> Option<Option<Vec<u8>>> {
        let Some(text) = text else { return Some(None) };
        let bytes = match text.get_ref().strip_prefix("hex:") {
            None => Some(text.get_ref().as_bytes().to_vec()),
            Some(digits) => {
                let digits = digits.replace(' ', "");
                HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()
            }
        };
        // A listener looks at no fewer than 64.
        let bytes = bytes.filter(|bytes| (1..=64).contains(&bytes.len()));
        if bytes.is_none() {
            self.once(
                text.span(),
                "these are not 1 to 64 bytes",
                "write first_bytes = \"SSH-\" or first_bytes = \"hex:05 01\"",
            );
        }
        bytes.map(Some)
    }

    /// `Some(None)` if there is no such condition, `None` if it is wrong.
    fn name_pattern(&mut self, text: Option<&Text>) -> Option<Option<NamePattern>> {
        let Some(text) = text else { return Some(None) };
        let pattern = NamePattern::parse(text.get_ref());
        if pattern.is_none() {
            self.once(
                text.span(),
                format!("\"{}\" is not a name", text.get_ref()),
                "write it as www.example.org, or *.example.org for all names below it",
            );
        }
        pattern.map(Some)
    }

    fn pool_id(&mut self, text: &Text, pools: &HashMap<&str, PoolIds>, v4: bool) -> Option<PoolId> {
        let name = text.get_ref();
        let Some(ids) = pools.get(name.as_str()) else {
            let mut known: Vec<&str> = pools.keys().copied().collect();
            known.sort_unstable();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.once(
                text.span(),
                format!("there is no pool named \"{name}\""),
                format!("add it as a [[pool]], or name one that there is ({known})"),
            );
            return None;
        };
        let id = if v4 { ids.v4 } else { ids.v6 };
        // A pool that is empty because its servers are wrong has been complained of there.
        if id.is_none() && (ids.v4.is_some() || ids.v6.is_some()) {
            let version = if v4 { "IPv4" } else { "IPv6" };
            self.once(
                text.span(),
                format!("the listener has an {version} address, but no server of pool \"{name}\" has"),
                format!("add {version} servers to the pool: addresses are not translated between versions"),
            );
        }
        id
    }
}
