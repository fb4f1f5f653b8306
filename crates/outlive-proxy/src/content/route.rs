//! Which pool the content leads to.

use super::Content;
use crate::config::{Listener, Route};

/// The first route of `listener` that `content` matches.
pub(crate) fn choose<'a>(listener: &'a Listener, content: &Content) -> Option<&'a Route> {
    listener.routes.iter().find(|route| matches(route, content))
}

fn matches(route: &Route, content: &Content) -> bool {
    let (server_name, host, path) = match content {
        Content::Tls { server_name } => (server_name.as_deref(), None, None),
        Content::Http { host, path } => (None, host.as_deref(), Some(path.as_str())),
        Content::Unknown => (None, None, None),
    };
    let holds = |pattern: &Option<crate::config::NamePattern>, name: Option<&str>| {
        pattern.as_ref().is_none_or(|p| name.is_some_and(|n| p.matches(n)))
    };
    holds(&route.server_name, server_name)
        && holds(&route.host, host)
        && route
            .path_prefix
            .as_ref()
            .is_none_or(|p| path.is_some_and(|path| path.starts_with(p.as_str())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{NamePattern, OpeningMode, PoolId};

    fn listener() -> Listener {
        let name = |text| NamePattern::parse(text);
        let route = |server_name, host, path: Option<&str>, pool| Route {
            server_name,
            host,
            path_prefix: path.map(str::to_owned),
            pool: PoolId(pool),
            migrate: false,
        };
        Listener {
            name: "l".into(),
            address: "10.0.0.1:80".parse::<std::net::SocketAddr>().unwrap().into(),
            opening: OpeningMode::Inspect { limit: 1, timeout: Duration::ZERO },
            routes: vec![
                route(name("a.org"), None, None, 1),
                route(name("*.a.org"), None, None, 2),
                route(None, name("h.org"), Some("/x"), 3),
                route(None, name("h.org"), None, 4),
            ],
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::ZERO,
            protection: Default::default(),
            termination: Default::default(),
        }
    }

    fn tls(name: &str) -> Content {
        Content::Tls { server_name: Some(name.into()) }
    }

    fn http(host: &str, path: &str) -> Content {
        Content::Http { host: Some(host.into()), path: path.into() }
    }

    #[test]
    fn the_first_match_decides() {
        let listener = listener();
        for (content, pool) in [
            (tls("A.org"), 1),
            (tls("b.c.A.org."), 2),
            (tls("xa.org"), 0),
            (http("h.org", "/x/y"), 3),
            (http("H.ORG", "/y"), 4),
            (http("a.org", "/"), 0),
            (Content::Unknown, 0),
        ] {
            let route = choose(&listener, &content).map(|route| route.pool);
            assert_eq!(route.unwrap_or_default(), PoolId(pool), "{content:?}");
        }
    }
}
