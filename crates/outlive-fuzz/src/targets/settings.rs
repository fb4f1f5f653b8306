//! The configuration file: any text gives settings that the core accepts, or problems that name a place in the
//! text, never a panic.

use std::path::Path;

use outlive_node::settings::Settings;

/// Reads the bytes as a configuration, and what is accepted once more.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::parse(Path::new("/etc/outlive/outlive.toml"), text) {
        Ok(settings) => {
            settings.proxy.validate().expect("what is accepted is valid");
            assert!(!settings.interfaces.is_empty());
            assert_eq!(settings.peer.is_some(), settings.proxy.pair.enabled);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused for no reason");
            for problem in problems {
                assert!(!problem.message.is_empty());
                assert!(!problem.to_string().is_empty());
            }
        }
    }
}
