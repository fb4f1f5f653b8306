//! A receiver of newline-delimited records that says "received" when they are on the disk.
//!
//! See README.md beside this example. `receiver` is the network's side, `log` the disk's, `merge` puts
//! the logs of two nodes together.

mod log;
mod merge;
mod plain;
mod receiver;

use std::{
    io::{BufWriter, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use outlive_socket::{HostConfig, NodeId, PairConfig, PairKey, PeerConfig};

#[derive(Parser)]
#[command(
    about = "Receives log records, and acknowledges them on the TCP level once they are on the disk"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receives records until it is told to stop.
    Run(Run),
    /// Prints every record in these logs once, in order for each connection.
    Merge {
        /// The logs of all nodes.
        #[arg(required = true)]
        logs: Vec<PathBuf>,
        /// Each record with its connection in front.
        #[arg(long)]
        connections: bool,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Where senders connect to: a virtual address, and a port.
    #[arg(long)]
    listen: SocketAddr,
    /// The interface on which neighbours ask for the address.
    #[arg(long, required_unless_present = "plain")]
    interface: Option<String>,
    /// Where the records go.
    #[arg(long)]
    log: PathBuf,
    /// Which node of a pair this is.
    #[arg(long, requires_all = ["key", "state", "heartbeat"])]
    node: Option<Node>,
    /// The pair's key, made by `outlive keygen`.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Own and peer's address of the state connection.
    #[arg(long, value_name = "OWN=PEER", value_parser = addresses)]
    state: Option<(SocketAddr, SocketAddr)>,
    /// Own and peer's address of a path of heartbeats. May be given several times.
    #[arg(long, value_name = "OWN=PEER", value_parser = addresses)]
    heartbeat: Vec<(SocketAddr, SocketAddr)>,
    /// For comparison: sockets of the kernel, which acknowledges on receipt. The address is one of this machine's.
    #[arg(long, conflicts_with_all = ["interface", "node"])]
    plain: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Node {
    A,
    B,
}

fn addresses(text: &str) -> Result<(SocketAddr, SocketAddr)> {
    let (own, peer) = text.split_once('=').ok_or_else(|| anyhow!("not OWN=PEER"))?;
    Ok((own.parse()?, peer.parse()?))
}

impl Run {
    fn config(&self, interface: &str) -> Result<HostConfig> {
        let mut config = HostConfig::new(self.listen.ip(), interface);
        if let (Some(node), Some(key), Some(state)) = (self.node, &self.key, self.state) {
            let key = PairKey::load(key).with_context(|| key.display().to_string())?;
            let node = match node {
                Node::A => NodeId::A,
                Node::B => NodeId::B,
            };
            let heartbeat = self.heartbeat.clone();
            config.peer =
                Some(PeerConfig { node, key, state, heartbeat, watch: PairConfig::default() });
        }
        Ok(config)
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(run) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let runtime = tokio::runtime::Runtime::new()?;
            let Some(interface) = &run.interface else {
                return runtime.block_on(plain::run(run.listen, &run.log));
            };
            let config = run.config(interface)?;
            runtime.block_on(receiver::run(config, run.listen, &run.log))
        }
        Command::Merge { logs, connections } => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            merge::merge(&logs, connections, &mut out)?;
            Ok(out.flush()?)
        }
    }
}
