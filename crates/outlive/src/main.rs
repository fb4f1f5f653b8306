//! The Outlive program: runs a node, checks its configuration, asks it how it is.
//!
//! Every command is a function that prints its outcome and gives the exit status: 0 if all is well, 1 if not,
//! 2 for a wrong command line.
#![forbid(unsafe_code)]

mod check;
mod demo;
mod keygen;
mod log;
mod run;
mod status;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A TCP proxy pair whose connections outlive the machine that carries them.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: a pair in namespaces of its own, traffic through it, the active node killed
    /// and then the other one's cable cut, and nothing lost.
    Demo(demo::Options),
    /// Run a node until SIGTERM or SIGINT; then remove everything it has set up.
    Run {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tell what is wrong with a configuration, and what this machine lacks for it. Changes nothing.
    Check {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tell how the running node is, and whether a failure now would be survived.
    Status {
        /// The configuration file of the node, for the path of its admin socket.
        #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
        config: Option<PathBuf>,
        /// The admin socket of the node.
        #[arg(short, long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Everything, as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Watch a pair from a third machine until SIGTERM or SIGINT: when the active node fails, redirect the packets to
    /// the standby, and tell it to take over.
    Watch {
        /// The configuration file of the detector.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Only tell what is wrong with it.
        #[arg(long)]
        check: bool,
    },
    /// Make a key for a pair; both nodes need a copy of it.
    Keygen {
        /// Where to put it, readable for its owner only; it must not exist. Without: to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Instead of a new one: the key for an external detector, derived from the pair's key in this file. Nothing
        /// but watching can be done with it.
        #[arg(long, value_name = "FILE")]
        watch: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => demo::demo(&options),
        Command::Run { config } => run::run(&config),
        Command::Check { config } => check::check(&config),
        Command::Status { config, socket, json } => status::status(config, socket, json),
        Command::Watch { config, check } => watch::watch(&config, check),
        Command::Keygen { output, watch } => keygen::keygen(output.as_deref(), watch.as_deref()),
    }
}

/// Prints problems of a configuration, and gives the exit status that goes with them.
fn report(problems: &[outlive_node::settings::Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}\n");
    }
    let number = problems.len();
    eprintln!("{number} problem{}", if number == 1 { "" } else { "s" });
    ExitCode::FAILURE
}
