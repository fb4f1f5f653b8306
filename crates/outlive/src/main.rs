//! The Outlive program: runs a node, checks its configuration, asks it how it is.
//!
//! Every command is a function that prints its outcome and gives the exit status: 0 if all is well, 1 if not,
//! 2 for a wrong command line.
#![forbid(unsafe_code)]

mod check;
mod demo;
mod drain;
mod handover;
mod hold;
mod host;
mod keygen;
mod log;
mod reload;
mod run;
mod status;
mod watch;
mod which;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::which::Which;

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
    /// Run a node until SIGTERM or SIGINT; then hand over to the standby, and remove everything it has set up.
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
        #[command(flatten)]
        which: Which,
        /// Everything, as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Watch a pair from a third machine until SIGTERM or SIGINT: when the active node fails, redirect the packets to
    /// the standby, and tell it to take over. SIGUSR1 has that done now.
    Watch {
        /// The configuration file of the detector.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Only tell what is wrong with it.
        #[arg(long)]
        check: bool,
    },
    /// Make this machine a target, to which the balancers migrate connections, until SIGTERM or SIGINT.
    Host {
        /// The configuration file of the agent.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        instead: host::Instead,
    },
    /// Have both nodes obey their changed files. Established connections go on; a wrong file changes nothing.
    Reload {
        #[command(flatten)]
        which: Which,
    },
    /// Give a server no new sessions; those that it has go on. To be asked on the active node.
    Drain(drain::Options),
    /// Give a server new sessions again.
    Undrain {
        #[command(flatten)]
        which: Which,
        /// The server: POOL/ADDRESS:PORT.
        member: drain::Member,
    },
    /// Move everything from the active node to its standby, without a connection noticing. To be asked on the active node.
    Handover {
        #[command(flatten)]
        which: Which,
    },
    /// What a node runs beside itself: hold what was inherited until standard input ends, and so much longer.
    #[command(hide = true)]
    Hold { microseconds: u64 },
    /// Make a key for a pair; both nodes need a copy of it.
    Keygen {
        /// Where to put it, readable for its owner only; it must not exist. Without: to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Instead of a new one: the key for an external detector, derived from the pair's key in this file. Nothing
        /// but watching can be done with it.
        #[arg(long, value_name = "FILE")]
        watch: Option<PathBuf>,
        /// Instead of a new one: the key for the agent of one target of migrations, derived from the pair's key in this
        /// file. It is of no use for anything or anyone else.
        #[arg(long, value_name = "FILE", requires = "name", conflicts_with = "watch")]
        host: Option<PathBuf>,
        /// The target's name, as the configuration of the nodes has it.
        #[arg(long, requires = "host")]
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => demo::demo(&options),
        Command::Run { config } => run::run(&config),
        Command::Check { config } => check::check(&config),
        Command::Status { which, json } => status::status(which, json),
        Command::Reload { which } => reload::reload(which),
        Command::Drain(options) => drain::drain(options),
        Command::Undrain { which, member } => drain::undrain(which, member),
        Command::Handover { which } => handover::hand_over(which),
        Command::Hold { microseconds } => hold::hold(microseconds),
        Command::Host { config, instead } => host::host(&config, instead),
        Command::Watch { config, check } => watch::watch(&config, check),
        Command::Keygen { output, watch, host, name } => {
            let host = host.as_deref().zip(name.as_deref());
            keygen::keygen(output.as_deref(), watch.as_deref(), host)
        }
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
