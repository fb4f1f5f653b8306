//! The examples in the repository's root are what newcomers copy: each must be accepted.

use std::{fs, path::Path};

use outlive_node::settings::Settings;

#[test]
fn every_example_is_accepted() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut accepted = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        // Those are an external detector's and an agent's, and tested there.
        let is_node = !path.ends_with("watch.toml") && !path.ends_with("host.toml");
        if is_node && path.extension().is_some_and(|extension| extension == "toml") {
            match Settings::load(&path) {
                Ok(settings) => assert!(!settings.proxy.listeners.is_empty()),
                Err(problems) => panic!("{}", problems[0]),
            }
            accepted += 1;
        }
    }
    assert!(accepted >= 5, "only {accepted} examples in {}", directory.display());
}
