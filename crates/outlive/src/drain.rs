//! `outlive drain` and `outlive undrain`: a server gets no new sessions, or some again.

use std::{net::SocketAddr, path::Path, process::ExitCode, str::FromStr, thread, time::Duration};

use clap::Args;
use outlive_node::admin::{AskError, Request, ask, order};

use crate::which::Which;

const PAUSE: Duration = Duration::from_millis(500);

/// A server of a pool, as the command line names it.
#[derive(Clone)]
pub(crate) struct Member {
    pool: String,
    server: SocketAddr,
}

impl FromStr for Member {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let help =
            "write it as POOL/ADDRESS:PORT, for example web/10.0.0.21:80 or web/[fd00::21]:80";
        let (pool, server) = text.rsplit_once('/').ok_or(help)?;
        let server = server.parse().map_err(|_| help)?;
        Ok(Member { pool: pool.to_owned(), server })
    }
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// The server: POOL/ADDRESS:PORT.
    member: Member,
    /// Wait until the server has no sessions any more.
    #[arg(long)]
    wait: bool,
}

pub(crate) fn drain(options: Options) -> ExitCode {
    let Options { which, member, wait } = options;
    let Member { pool, server } = member;
    tell(which, Request::Drain { pool, server }, |socket, sessions| {
        println!("{server} gets no new sessions; {sessions} left.");
        if wait { await_end(socket, server) } else { Ok(()) }
    })
}

pub(crate) fn undrain(which: Which, member: Member) -> ExitCode {
    let Member { pool, server } = member;
    tell(which, Request::Undrain { pool, server }, |_, sessions| {
        println!("{server} gets new sessions again; it has {sessions}.");
        Ok(())
    })
}

fn tell(
    which: Which,
    request: Request,
    then: impl FnOnce(&Path, String) -> Result<(), AskError>,
) -> ExitCode {
    let socket = match which.socket() {
        Ok(socket) => socket,
        Err(status) => return status,
    };
    match order(&socket, &request).and_then(|sessions| then(&socket, sessions)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error} ({})", socket.display());
            ExitCode::FAILURE
        }
    }
}

fn await_end(socket: &Path, server: SocketAddr) -> Result<(), AskError> {
    let address = server.to_string();
    loop {
        let (report, _) = ask(socket)?;
        let left =
            report.core.servers.iter().find(|s| s.address == address).map_or(0, |s| s.sessions);
        if left == 0 {
            println!("{server} has no sessions any more.");
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}
