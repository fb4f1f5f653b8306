//! Namespaces of an ordinary user's own.

use std::{env, process::Command};

use outlive_net::{
    netlink::{BridgeOptions, Netlink},
    netns::Namespace,
    user_namespace,
};

const INSIDE: &str = "OUTLIVE_TEST_INSIDE_USER_NAMESPACE";

/// Runs itself once more, inside.
#[test]
fn namespaces_and_links_can_be_made_inside() {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "namespaces_and_links_can_be_made_inside"]).env(INSIDE, "1");
    match user_namespace::enclose(&mut command).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("SKIPPED: this machine allows no user namespace: {error}"),
    }
}

fn inside() {
    let netlink = Netlink::open().unwrap();
    assert!(!netlink.links().unwrap().iter().any(|link| link.is_ethernet && link.is_up));
    netlink.add_bridge("br0", BridgeOptions::default()).unwrap();
    let host = Namespace::create().unwrap();
    netlink.add_veth("port0", "eth0", Some(&host)).unwrap();
    assert!(host.netlink().unwrap().link("eth0").is_ok());
}
