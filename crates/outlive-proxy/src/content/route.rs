//! Which route the first data of a connection takes.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Content, Inspection, inspect};
use crate::config::{Listener, NamePattern, Route};

/// What the data so far leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    /// More of it may change that.
    Undecided,
    /// This route. `content` is the hash of what was found, if that tells anything.
    Route { route: &'a Route, content: Option<u64> },
    /// No route matches.
    Default { content: Option<u64> },
}

/// The first route of `listener` that `data` matches. `exhausted`: there will be no more data, or no more is looked at.
pub(crate) fn choose<'a>(listener: &'a Listener, data: &[u8], exhausted: bool) -> Choice<'a> {
    if let Some(choice) = by_bytes(listener, data, exhausted) {
        return choice;
    }
    let content = match inspect(data) {
        Inspection::Incomplete if !exhausted => return Choice::Undecided,
        Inspection::Incomplete => Content::Unknown,
        Inspection::Found(content) => content,
    };
    let hash = hash(&content);
    let mut matching = listener.routes.iter().filter(|route| matches(route, &content));
    match matching.find(|route| begins(route, data) != Some(false)) {
        // The first route that could match may do so with a few bytes more.
        Some(route) if begins(route, data).is_none() && !exhausted => Choice::Undecided,
        Some(route) if begins(route, data) == Some(true) => Choice::Route { route, content: hash },
        _ => Choice::Default { content: hash },
    }
}

/// The choice that is made by the routes at the beginning that ask for nothing but bytes, if they make it: what the
/// content is need not be known for it.
fn by_bytes<'a>(listener: &'a Listener, data: &[u8], exhausted: bool) -> Option<Choice<'a>> {
    for route in listener.routes.iter().take_while(|route| wants_only_bytes(route)) {
        match begins(route, data) {
            Some(true) => return Some(Choice::Route { route, content: None }),
            None if !exhausted => return Some(Choice::Undecided),
            _ => {}
        }
    }
    None
}

fn wants_only_bytes(route: &Route) -> bool {
    let Route { server_name, host, path_prefix, method, header, alpn, first_bytes, .. } = route;
    let tls = server_name.is_some() || alpn.is_some();
    let http = host.is_some() || path_prefix.is_some() || method.is_some() || header.is_some();
    first_bytes.is_some() && !tls && !http
}

/// Whether the data begins as the route wants; `None` if it is too short to tell.
fn begins(route: &Route, data: &[u8]) -> Option<bool> {
    let Some(wanted) = &route.first_bytes else { return Some(true) };
    let len = wanted.len().min(data.len());
    if data[..len] != wanted[..len] { Some(false) } else { (len == wanted.len()).then_some(true) }
}

/// Whether the content is what the route wants, its first bytes apart.
fn matches(route: &Route, content: &Content) -> bool {
    let holds = |pattern: &Option<NamePattern>, name: Option<&str>| {
        pattern.as_ref().is_none_or(|p| name.is_some_and(|n| p.matches(n)))
    };
    let no_tls = route.server_name.is_none() && route.alpn.is_none();
    let no_http = route.host.is_none()
        && route.path_prefix.is_none()
        && route.method.is_none()
        && route.header.is_none();
    match content {
        Content::Tls { server_name, alpn } => {
            no_http
                && holds(&route.server_name, server_name.as_deref())
                && route.alpn.as_ref().is_none_or(|wanted| alpn.contains(wanted))
        }
        Content::Http { method, host, path, headers } => {
            let has = |(name, value): &(String, Option<String>)| {
                headers.iter().any(|(n, v)| {
                    n.eq_ignore_ascii_case(name) && value.as_ref().is_none_or(|value| value == v)
                })
            };
            no_tls
                && holds(&route.host, host.as_deref())
                && route.path_prefix.as_ref().is_none_or(|p| path.starts_with(p.as_str()))
                && route.method.as_ref().is_none_or(|wanted| wanted == method)
                && route.header.as_ref().is_none_or(has)
        }
        Content::Unknown => no_tls && no_http,
    }
}

/// What tells one content from another: the server name, or host and path. The same on both nodes, so without a key; names
/// are compared without case.
fn hash(content: &Content) -> Option<u64> {
    let mut hasher = SipHasher13::new();
    let mut write = |text: &str| {
        hasher.write(text.as_bytes());
        hasher.write_u8(0);
    };
    match content {
        Content::Tls { server_name: Some(name), .. } => write(&name.to_ascii_lowercase()),
        Content::Http { host, path, .. } => {
            write(&host.as_deref().unwrap_or_default().to_ascii_lowercase());
            write(path);
        }
        _ => return None,
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{OpeningMode, PoolId};

    fn listener(routes: Vec<Route>) -> Listener {
        let numbered = routes.into_iter().zip(1..);
        Listener {
            name: "l".into(),
            address: "10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap().into(),
            opening: OpeningMode::Inspect { limit: 1, timeout: Duration::ZERO },
            routes: numbered.map(|(route, pool)| Route { pool: PoolId(pool), ..route }).collect(),
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::ZERO,
            protection: Default::default(),
            termination: Default::default(),
        }
    }

    fn name(text: &str) -> Option<NamePattern> {
        NamePattern::parse(text)
    }

    fn tls(name: &str) -> Content {
        Content::Tls { server_name: Some(name.into()), alpn: vec!["h2".into()] }
    }

    fn http(host: &str, path: &str) -> Content {
        Content::Http {
            method: "GET".into(),
            host: Some(host.into()),
            path: path.into(),
            headers: vec![("X-Shard".into(), "7".into())],
        }
    }

    /// The number of the first route that the content matches, or 0.
    fn first(listener: &Listener, content: &Content) -> u16 {
        let route = listener.routes.iter().find(|route| matches(route, content));
        route.map_or(0, |route| route.pool.0)
    }

    #[test]
    fn the_first_match_decides() {
        let route = |server_name, host, path: Option<&str>| Route {
            server_name,
            host,
            path_prefix: path.map(str::to_owned),
            ..Route::default()
        };
        let listener = listener(vec![
            route(name("a.org"), None, None),
            route(name("*.a.org"), None, None),
            route(None, name("h.org"), Some("/x")),
            route(None, name("h.org"), None),
        ]);
        for (content, pool) in [
            (tls("A.org"), 1),
            (tls("b.c.A.org."), 2),
            (tls("xa.org"), 0),
            (http("h.org", "/x/y"), 3),
            (http("H.ORG", "/y"), 4),
            (http("a.org", "/"), 0),
            (Content::Unknown, 0),
        ] {
            assert_eq!(first(&listener, &content), pool, "{content:?}");
        }
    }

    #[test]
    fn methods_headers_and_protocols() {
        let header = |value: Option<&str>| Route {
            header: Some(("x-shard".into(), value.map(str::to_owned))),
            ..Route::default()
        };
        let alpn = |alpn: &str| Route { alpn: Some(alpn.into()), ..Route::default() };
        let method = |method: &str| Route { method: Some(method.into()), ..Route::default() };
        let of = |route: Route, content: &Content| first(&listener(vec![route]), content) == 1;
        assert!(of(header(Some("7")), &http("h", "/")) && of(header(None), &http("h", "/")));
        assert!(!of(header(Some("8")), &http("h", "/")) && !of(header(None), &tls("h")));
        assert!(of(alpn("h2"), &tls("h")) && !of(alpn("h3"), &tls("h")));
        assert!(!of(alpn("h2"), &http("h", "/")));
        assert!(of(method("GET"), &http("h", "/")) && !of(method("POST"), &http("h", "/")));
    }

    #[test]
    fn first_bytes_are_waited_for_as_long_as_they_fit() {
        let bytes = |text: &str| Route { first_bytes: Some(text.into()), ..Route::default() };
        let host = Route { host: name("h"), ..Route::default() };
        let listener = listener(vec![bytes("SSH-"), host, bytes("\x05\x01")]);
        let chosen = |data: &[u8], exhausted| match choose(&listener, data, exhausted) {
            Choice::Undecided => None,
            Choice::Route { route, .. } => Some(route.pool.0),
            Choice::Default { .. } => Some(0),
        };
        assert_eq!(chosen(b"SS", false), None);
        assert_eq!(chosen(b"SS", true), Some(0));
        assert_eq!(chosen(b"SSH-2", false), Some(1), "before the line is complete");
        assert_eq!(chosen(b"SET / HTTP/1.1\r\nHost: h\r\n\r\n", false), Some(2));
        assert_eq!(chosen(b"\x05", false), None);
        assert_eq!(chosen(b"\x05\x01", false), Some(3));
        assert_eq!(chosen(b"\x05\x02", false), Some(0));
    }

    #[test]
    fn the_same_content_has_the_same_hash() {
        assert_eq!(hash(&http("H", "/a")), hash(&http("h", "/a")));
        assert_ne!(hash(&http("h", "/a")), hash(&http("h", "/b")));
        assert_eq!((hash(&tls("A")), hash(&Content::Unknown)), (hash(&tls("a")), None));
    }
}
