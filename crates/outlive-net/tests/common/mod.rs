//! What the tests in namespaces share.

use outlive_net::netns::Namespace;

/// A new namespace, or `None`, with a line that says so, if this user may make none.
pub(crate) fn namespace() -> Option<Namespace> {
    match Namespace::create() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            eprintln!("SKIPPED: this test needs a privileged user: {error}");
            None
        }
    }
}
