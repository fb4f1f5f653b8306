//! What the tests in namespaces share.

use outlive_net::{netns::Namespace, tun};

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

/// The same for tests that need a TUN device.
#[allow(dead_code, reason = "each test file has its own copy of this module")]
pub(crate) fn namespace_with_tun() -> Option<Namespace> {
    match tun::check_driver() {
        Ok(()) => namespace(),
        Err(error) => {
            eprintln!("SKIPPED: this test needs a TUN device: {error}");
            None
        }
    }
}
