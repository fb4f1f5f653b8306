//! `outlive run`: parse, check everything, and only then change anything on the machine.

use std::{io, path::Path, process::ExitCode, thread};

use outlive_node::{
    preflight,
    runtime::{Runtime, Stopper},
    settings::Settings,
};
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use tracing::{error, info};

use crate::hold;

pub(crate) fn run(path: &Path) -> ExitCode {
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(problems) => return crate::report(&problems),
    };
    let plan = match preflight::inspect(&settings) {
        Ok(plan) => plan,
        Err(problems) => return crate::report(&problems),
    };
    crate::log::begin(settings.log);
    let mut runtime = match Runtime::start(settings.clone(), &plan) {
        Ok(runtime) => runtime,
        Err(error) => return crate::report(&[error.problem(&settings)]),
    };
    runtime.use_keeper(hold::command);
    if let Err(error) = obey_signals(runtime.stopper()) {
        error!(%error, "signals cannot be received");
        return ExitCode::FAILURE;
    }
    // Only systemd listens; without it this does nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    match runtime.run() {
        Ok(()) => {
            info!("stopped; everything that was set up is removed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(%error, "the event loop cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn obey_signals(stopper: Stopper) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                stopper.reload();
                continue;
            }
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            stopper.stop();
        }
    })?;
    Ok(())
}
