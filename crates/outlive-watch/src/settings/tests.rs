//! Whole files, right and wrong.

use super::*;
use crate::decide::{CheckRule, StandbyHears};

const SMALL: &str = r#"
[watch]
key_file = "watch.key"

[node.a]
addresses = ["10.1.0.1:7402"]

[node.b]
addresses = ["10.2.0.1:7402"]
"#;

const LARGE: &str = r#"
[watch]
key_file = "/etc/outlive/watch.key"
interval = "5ms"
timeout = "20ms"
failures = 4
force_after = "never"
when_standby_hears = "switch"
log = "json"

[node.a]
addresses = ["10.1.0.1:7402", "[fd01::1]:7402"]

[node.b]
addresses = ["10.2.0.1:7402"]

[check]
address = "10.9.0.100:443"
send = "GET / HTTP/1.0\r\n\r\n"
on_failure = "take-over"

[[switch]]
driver = "exec"
command = ["/usr/local/sbin/fence", "--quick"]
timeout = "2s"

[[switch]]
driver = "route"
destinations = ["10.9.0.100", "10.9.1.0/24", "fd09::100"]
via = { a = ["10.1.0.1", "fd01::1"], b = ["10.2.0.1", "fd02::1"] }
table = 100
"#;

fn parse(source: &str) -> Result<Settings, Vec<Problem>> {
    Settings::parse(Path::new("/etc/outlive/watch.toml"), source)
}

#[test]
fn a_small_file_has_defaults() {
    let settings = parse(SMALL).unwrap();
    let ms = Duration::from_millis;
    assert_eq!((settings.rules.interval, settings.rules.timeout), (ms(100), ms(100)));
    assert_eq!(settings.rules.failures, 3);
    assert_eq!(settings.rules.force_after, Some(ms(10_000)));
    assert_eq!(settings.rules.standby_hears, StandbyHears::Wait);
    assert!(settings.switches.is_empty() && settings.check.is_none());
    assert_eq!(settings.key_file.value, Path::new("/etc/outlive/watch.key"));
}

#[test]
fn a_large_file_says_everything() {
    let settings = parse(LARGE).unwrap();
    assert_eq!(settings.rules.force_after, None);
    assert_eq!(settings.rules.check, Some(CheckRule { failures: 3, decides: true }));
    assert_eq!(settings.nodes[0].len(), 2);
    assert_eq!(settings.log, LogFormat::Json);
    let [SwitchSettings::Exec { command, .. }, SwitchSettings::Route { destinations, table, .. }] =
        &settings.switches[..]
    else {
        panic!("{:?}", settings.switches)
    };
    assert_eq!(command, &["/usr/local/sbin/fence", "--quick"]);
    assert_eq!((destinations[0].to_string().as_str(), *table), ("10.9.0.100/32", 100));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (replace, with, line, message) in [
        ("interval = \"5ms\"", "interval = \"1ms\"", 4, "too short"),
        ("interval = \"5ms\"", "intervall = \"5ms\"", 4, "unknown field"),
        ("failures = 4", "failures = 0", 6, "out of range"),
        ("\"never\"", "\"soon\"", 7, "not a time"),
        ("\"switch\"", "\"ignore\"", 8, "not known here"),
        ("10.2.0.1:7402", "10.1.0.1:7402", 15, "both nodes have the same address"),
        ("addresses = [\"10.2.0.1:7402\"]", "addresses = []", 15, "number of addresses"),
        ("10.9.0.100:443", "10.9.0.100", 18, "not an address with a port"),
        ("\"take-over\"", "\"panic\"", 20, "not known here"),
        ("driver = \"exec\"", "driver = \"smoke\"", 23, "not known here"),
        ("timeout = \"2s\"", "metric = 3", 25, "has no key \"metric\""),
        ("10.9.1.0/24", "10.9.1.0/64", 29, "not an address or a network"),
        (", \"fd02::1\"", "", 30, "IPv6"),
        ("table = 100", "table = -1", 31, "out of range"),
    ] {
        assert!(LARGE.contains(replace), "{replace} is not in the file");
        let problems = parse(&LARGE.replacen(replace, with, 1)).unwrap_err();
        let first = &problems[0];
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(first.place.as_ref().map(|place| place.line), Some(line), "{first}");
        assert!(first.message.contains(message), "{first}");
    }
    let incomplete = LARGE.replace("command = [\"/usr/local/sbin/fence\", \"--quick\"]", "");
    assert!(parse(&incomplete).unwrap_err()[0].message.contains("needs a command"));
}
