//! What the first data of a connection says about where it belongs.
//!
//! The data is looked at where it lies and never changed; it is still unacknowledged.

mod http;
pub(crate) mod route;
mod tls;

/// What was found. Names are as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A TLS ClientHello.
    Tls {
        /// The server name indication, if there is one.
        server_name: Option<String>,
        /// The protocols that the client offers (ALPN), in its order; those that are not text are left out.
        alpn: Vec<String>,
    },
    /// The head of an HTTP/1 request.
    Http {
        /// The method.
        method: String,
        /// The host header, without port.
        host: Option<String>,
        /// The path with the query.
        path: String,
        /// The headers in their order; those whose value is not UTF-8 are left out.
        headers: Vec<(String, String)>,
    },
    /// Something else.
    Unknown,
}

/// Result of a look at the data so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// It could still become something.
    Incomplete,
    /// It is this.
    Found(Content),
}

/// Looks at the first bytes of a connection.
pub fn inspect(data: &[u8]) -> Inspection {
    match data.first() {
        None => Inspection::Incomplete,
        Some(&tls::HANDSHAKE) => tls::inspect(data),
        Some(byte) if byte.is_ascii_uppercase() => http::inspect(data),
        Some(_) => Inspection::Found(Content::Unknown),
    }
}
