//! Whether two nodes were told the same.

use std::{fmt, hash::Hasher};

use siphasher::sip::SipHasher24;

use super::Config;

impl Config {
    /// A number that is the same on both nodes if they were told the same: everything but what a node is told
    /// of itself and of its peer. Comparable between programs of the same version only, for it is made of the text that
    /// [`Debug`] gives.
    pub fn fingerprint(&self) -> u64 {
        struct Digest(SipHasher24);
        impl fmt::Write for Digest {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let Config { listeners, pools, source_addresses, timeouts, limits, migration, .. } = self;
        let mut digest = Digest(SipHasher24::new());
        let shared = (listeners, pools, source_addresses, timeouts, limits, &migration.agents);
        // Hashing cannot fail.
        let _ = fmt::write(&mut digest, format_args!("{shared:?}"));
        digest.0.finish()
    }
}
