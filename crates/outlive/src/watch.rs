//! `outlive watch`: parse, check everything, and only then watch a pair from a third machine.

use std::{io, path::Path, process::ExitCode, thread};

use outlive_watch::{
    settings::{Settings, SwitchSettings},
    watcher::{Stopper, Watcher},
};
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tracing::error;

pub(crate) fn watch(path: &Path, only_check: bool) -> ExitCode {
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(problems) => return crate::report(&problems),
    };
    if !only_check {
        crate::log::begin(settings.log);
    }
    let watcher = match Watcher::start(&settings) {
        Ok(watcher) => watcher,
        Err(error) => return crate::report(&[error.problem(&settings)]),
    };
    if only_check {
        describe(path, &settings);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = stop_on_signal(watcher.stopper()) {
        error!(%error, "signals cannot be received");
        return ExitCode::FAILURE;
    }
    // Only systemd listens; without it this does nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    match watcher.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the event loop cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn describe(path: &Path, settings: &Settings) {
    println!("{}: the configuration is fine.", path.display());
    for (name, addresses) in ["a", "b"].into_iter().zip(&settings.nodes) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        println!("  node {name} is asked at {}", addresses.join(", "));
    }
    for switch in &settings.switches {
        match switch {
            SwitchSettings::Route { destinations, .. } => {
                let nets: Vec<String> = destinations.iter().map(ToString::to_string).collect();
                println!("  routes of this machine lead {}", nets.join(", "));
            }
            SwitchSettings::Exec { command, .. } => println!("  {} redirects", command.join(" ")),
        }
    }
}

fn stop_on_signal(stopper: Stopper) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            stopper.stop();
        }
    })?;
    Ok(())
}
