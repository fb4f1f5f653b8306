//! `outlive check`: what is wrong, without changing anything.

use std::{path::Path, process::ExitCode};

use outlive_node::{preflight, settings::Settings};

pub(crate) fn check(path: &Path) -> ExitCode {
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(problems) => return crate::report(&problems),
    };
    let plan = match preflight::inspect(&settings) {
        Ok(plan) => plan,
        Err(problems) => return crate::report(&problems),
    };
    println!("{}: the configuration is fine, and this machine has what it needs.", path.display());
    for listener in &settings.proxy.listeners {
        println!("  listener {} on {}", listener.name, listener.address);
    }
    for claim in plan.claims {
        let addresses: Vec<String> = claim.addresses.iter().map(ToString::to_string).collect();
        println!("  {} will answer for {}", claim.interface, addresses.join(", "));
    }
    match &settings.peer {
        Some(peer) => println!("  peer at {}", peer.state.peer),
        None => println!("  no peer: connections will not outlive this node"),
    }
    ExitCode::SUCCESS
}
