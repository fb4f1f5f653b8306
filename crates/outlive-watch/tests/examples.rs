//! The example in the repository's root is what newcomers copy: it must be accepted.

use std::path::Path;

use outlive_watch::settings::Settings;

#[test]
fn the_example_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/watch.toml");
    match Settings::load(&path) {
        Ok(settings) => assert_eq!(settings.switches.len(), 1),
        Err(problems) => panic!("{}", problems[0]),
    }
}
