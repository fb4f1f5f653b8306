//! A chat for anybody who has `nc`, whose talks outlive the machine that carries them.
//!
//! See README.md beside this example. `room` knows who is there and passes on what is said, `session`
//! is the program's state of one connection, `talk` is one connection's task.

mod room;
mod session;
mod talk;

use std::{io::Write, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{Parser, ValueEnum};
use outlive_socket::{Host, HostConfig, Listener, NodeId, PairConfig, PairKey, PeerConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::room::Room;

/// A chat that goes on at the other machine when this one dies.
#[derive(Parser)]
struct Cli {
    /// Where people connect to: a virtual address, and a port.
    #[arg(long)]
    listen: SocketAddr,
    /// The interface on which neighbours ask for the address.
    #[arg(long)]
    interface: String,
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

impl Cli {
    fn config(&self) -> Result<HostConfig> {
        let config = HostConfig::new(self.listen.ip(), &self.interface);
        let (Some(node), Some(key), Some(state)) = (self.node, &self.key, self.state) else {
            return Ok(config);
        };
        let key = PairKey::load(key).with_context(|| key.display().to_string())?;
        let node = match node {
            Node::A => NodeId::A,
            Node::B => NodeId::B,
        };
        let heartbeat = self.heartbeat.clone();
        let watch = PairConfig::default();
        Ok(config.with_peer(PeerConfig { node, key, state, heartbeat, watch }))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let host = Host::start(cli.config()?)?;
    let listener = host.listen(cli.listen)?;
    let mut standing = host.standing();
    tokio::spawn(async move {
        loop {
            // For whoever waits for it: a test, or an operator.
            println!("{:?}", *standing.borrow_and_update());
            let _ = std::io::stdout().flush();
            if standing.changed().await.is_err() {
                return;
            }
        }
    });
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        result = welcome(&listener) => result?,
    }
    // Before the tasks end: so their talks go on at the other node.
    host.shutdown();
    Ok(())
}

/// Takes everybody in who comes.
async fn welcome(listener: &Listener) -> Result<()> {
    let room = Room::default();
    loop {
        // After a takeover they all come at once. Each is in the room before any of them speaks: what is
        // said is for everybody.
        let mut arrivals = vec![listener.accept().await?];
        while let Some(stream) = listener.try_accept()? {
            arrivals.push(stream);
        }
        let arrivals: Vec<_> =
            arrivals.into_iter().map(|stream| (room.enter(stream.id()), stream)).collect();
        for (inbox, stream) in arrivals {
            let room = room.clone();
            tokio::spawn(async move {
                let (id, peer) = (stream.id(), stream.peer_addr());
                if let Err(error) = talk::talk(stream, &room, inbox).await {
                    eprintln!("{id} from {peer}: {error}");
                }
                room.leave(id);
            });
        }
    }
}
