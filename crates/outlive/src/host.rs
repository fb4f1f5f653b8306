//! `outlive host`: parse, check everything, and only then be a target of migrations.

use std::{io, path::Path, process::ExitCode, thread};

use outlive_host::{
    agent::{self, Agent, Stopper},
    settings::{Settings, Taker},
    status,
};
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tracing::{error, info};

/// What else than run is wanted.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Instead {
    /// Only tell what is wrong with the configuration, and what this machine lacks for it.
    #[arg(long, conflicts_with = "status")]
    check: bool,
    /// Only tell how the running agent is, as JSON.
    #[arg(long)]
    status: bool,
}

pub(crate) fn host(path: &Path, instead: Instead) -> ExitCode {
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(problems) => return crate::report(&problems),
    };
    if instead.status {
        return tell_status(&settings);
    }
    let problems = agent::inspect(&settings);
    if !problems.is_empty() {
        return crate::report(&problems);
    }
    if instead.check {
        describe(path, &settings);
        return ExitCode::SUCCESS;
    }
    crate::log::begin(settings.log);
    let agent = match Agent::start(settings.clone()) {
        Ok(agent) => agent,
        Err(error) => return crate::report(&[error.problem(&settings)]),
    };
    if let Err(error) = obey_signals(agent.stopper()) {
        error!(%error, "signals cannot be received");
        return ExitCode::FAILURE;
    }
    // Only systemd listens; without it this does nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    match agent.run() {
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

fn tell_status(settings: &Settings) -> ExitCode {
    match status::ask(&settings.status_socket) {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let socket = settings.status_socket.display();
            eprintln!("no agent answers at {socket}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(path: &Path, settings: &Settings) {
    println!("{}: the configuration is fine.", path.display());
    for service in &settings.services {
        match &service.taker {
            Taker::Replay { port } => {
                println!("  {} goes to the server on port {port}, replayed", service.address);
            }
            Taker::Kernel { socket } => {
                println!("  {} goes to the server at {}", service.address, socket.display());
            }
        }
    }
}

fn obey_signals(stopper: Stopper) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            stopper.stop();
        }
    })?;
    Ok(())
}
