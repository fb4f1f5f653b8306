use super::*;

const EXAMPLE: &str = include_str!("../../../../examples/host.toml");

fn parse(source: &str) -> Result<Settings, Vec<Problem>> {
    Settings::parse(Path::new("/etc/outlive/host.toml"), source)
}

#[test]
fn the_example_is_understood() {
    let settings = parse(EXAMPLE).unwrap();
    assert_eq!(settings.listen.value, "10.0.0.7:7410".parse().unwrap());
    assert_eq!(settings.key_file.value, Path::new("/etc/outlive/web1.key"));
    assert_eq!(settings.tunnel.len(), 2);
    let v4 = "10.0.0.100:80".parse().unwrap();
    let replay = settings.services.iter().find(|it| it.address == v4).unwrap();
    assert_eq!(replay.taker, Taker::Replay { port: 80 });
    assert!(settings.has_kernel_service() && settings.uses(true) && settings.uses(false));
    assert_eq!(settings.linger, Duration::from_secs(10));
}

/// What stands in the example, changed, and what is said about it.
#[test]
fn each_mistake_is_named() {
    for (from, to, said) in [
        ("mode = \"replay\"", "mode = \"replai\"", "replai"),
        ("socket = ", "port = 8080 # ", "has no key \"port\""),
        ("socket = ", "# ", "needs a socket"),
        ("[\"10.9.0.7\", \"fd00:9::7\"]", "[\"10.9.0.7\"]", "no tunnel address for the service"),
        ("[\"10.9.0.7\", \"fd00:9::7\"]", "[\"10.9.0.7\", \"10.9.0.8\"]", "more than one"),
        ("nodes = [\"10.0.0.1\", \"10.0.0.2\"]", "nodes = []", "are missing"),
        ("key_file", "keyfile", "keyfile"),
        ("10.0.0.100:8080", "10.0.0.100:80", "another service"),
        ("listen = \"10.0.0.7:7410\"", "listen = \"web1:7410\"", "not an address with a port"),
    ] {
        assert!(EXAMPLE.contains(from), "{from}");
        let problems = parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
        let text: String = problems.iter().map(ToString::to_string).collect();
        assert!(text.contains(said), "{said}: {text}");
    }
}
