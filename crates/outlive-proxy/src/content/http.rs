//! The head of an HTTP/1 request (RFC 9112).

use httparse::{EMPTY_HEADER, Request, Status};

use super::{Content, Inspection};

/// More header lines than this, and the request counts as unknown.
const MAX_HEADERS: usize = 100;

pub(super) fn inspect(data: &[u8]) -> Inspection {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(data) {
        Ok(Status::Partial) => Inspection::Incomplete,
        Err(_) => Inspection::Found(Content::Unknown),
        Ok(Status::Complete(_)) => Inspection::Found(describe(&request)),
    }
}

fn describe(request: &Request<'_, '_>) -> Content {
    let target = request.path.unwrap_or("/");
    // An absolute target ("GET http://host/path") takes precedence over the header (RFC 9112, 3.2.2).
    let absolute = target
        .split_once("://")
        .filter(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        })
        .map(|(_, rest)| rest);
    let (authority, path) = match absolute {
        Some(rest) => match rest.find('/') {
            Some(slash) => (Some(&rest[..slash]), &rest[slash..]),
            None => (Some(rest), "/"),
        },
        None => (None, target),
    };
    let header = || {
        let host = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("host"))?;
        std::str::from_utf8(host.value).ok()
    };
    let host = authority.or_else(header).map(|h| without_port(h.trim()).to_owned());
    let headers = request.headers.iter().filter_map(|header| {
        let value = std::str::from_utf8(header.value).ok()?;
        Some((header.name.to_owned(), value.trim().to_owned()))
    });
    Content::Http {
        method: request.method.unwrap_or_default().to_owned(),
        host: host.filter(|h| !h.is_empty()),
        path: path.to_owned(),
        headers: headers.collect(),
    }
}

/// `example.org:80` and `[::1]:80` without what follows the last colon outside of brackets.
fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.find(']').map_or(authority, |end| &rest[..end]);
    }
    authority.split(':').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(data: &str) -> Content {
        match inspect(data.as_bytes()) {
            Inspection::Found(content) => content,
            Inspection::Incomplete => panic!("incomplete: {data:?}"),
        }
    }

    /// Host and path of what was found.
    fn http(host: Option<&str>, path: &str) -> (Option<String>, String) {
        (host.map(str::to_owned), path.to_owned())
    }

    fn place(data: &str) -> (Option<String>, String) {
        let Content::Http { host, path, .. } = found(data) else { panic!("not HTTP: {data}") };
        (host, path)
    }

    #[test]
    fn host_and_path() {
        assert_eq!(
            place("GET /a?b HTTP/1.1\r\nHost: x.org:81\r\n\r\nbody"),
            http(Some("x.org"), "/a?b")
        );
        assert_eq!(
            place("GET / HTTP/1.1\r\nhost:[fd00::1]:80\r\n\r\n"),
            http(Some("fd00::1"), "/")
        );
        assert_eq!(place("GET / HTTP/1.0\r\n\r\n"), http(None, "/"));
        assert_eq!(
            place("GET http://y.org:8/p HTTP/1.1\r\nHost: x\r\n\r\n"),
            http(Some("y.org"), "/p")
        );
        assert_eq!(place("GET http://y.org HTTP/1.1\r\nHost: x\r\n\r\n"), http(Some("y.org"), "/"));
    }

    #[test]
    fn method_and_headers() {
        let Content::Http { method, headers, .. } =
            found("POST / HTTP/1.1\r\nHost: x\r\nX-Shard:  7 \r\n\r\n")
        else {
            panic!("not HTTP")
        };
        assert_eq!(method, "POST");
        assert_eq!(headers[1], ("X-Shard".to_owned(), "7".to_owned()));
    }

    #[test]
    fn every_beginning_is_incomplete_and_nothing_panics() {
        let request = b"POST /upload HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\n";
        for end in 1..request.len() {
            assert_eq!(inspect(&request[..end]), Inspection::Incomplete, "{end}");
        }
    }

    #[test]
    fn what_is_not_http_is_unknown() {
        assert_eq!(found("SSH-2.0-OpenSSH_9.2\r\n"), Content::Unknown);
        assert_eq!(found("GET / HTTP/9.9\r\n\r\n"), Content::Unknown);
    }
}
