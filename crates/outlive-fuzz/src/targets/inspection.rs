//! First data: a ClientHello, a request, or anything. What is found must not depend on where the data was cut,
//! and the beginning of something undecided must not be decided differently later.

use outlive_proxy::content::{Content, Inspection, inspect};

/// Looks at every beginning of `data`.
pub fn run(data: &[u8]) {
    let mut decided: Option<(usize, Inspection)> = None;
    for end in 0..=data.len() {
        let look = inspect(&data[..end]);
        match (&decided, &look) {
            (Some((at, before)), _) => assert_eq!(
                &look, before,
                "the first {at} bytes said the one, the first {end} the other"
            ),
            (None, Inspection::Found(_)) => decided = Some((end, look)),
            (None, Inspection::Incomplete) => {}
        }
    }
    match &decided {
        Some((_, Inspection::Found(Content::Tls { server_name: Some(name), .. }))) => {
            assert!(name.is_ascii());
            assert_eq!(data.first(), Some(&22));
        }
        Some((_, Inspection::Found(Content::Http { host, path, .. }))) => {
            assert!(host.as_ref().is_none_or(|host| !host.is_empty()));
            assert!(path.len() <= data.len());
        }
        _ => {}
    }
}
