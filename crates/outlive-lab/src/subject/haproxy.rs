//! HAProxy in TCP mode: what people use today.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Subject;
use crate::clock::wait_until;
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::scratch;

/// No logging, no health checks, no stickiness: nothing that the other subjects do not do either.
/// Splicing is on, because it is HAProxy at its best.
pub(super) const DEFAULTS: &str = "defaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  \
                                   timeout client 1h\n  timeout server 1h\n";

/// A running HAProxy.
pub struct HaProxy {
    name: String,
    addresses: [SocketAddr; 2],
    program: Program,
    _directory: TempDir,
}

impl HaProxy {
    /// Starts it on `node` with that many threads, in front of the services at `ports` of
    /// `server`.
    pub fn start(
        node: &Host,
        server: &Host,
        threads: usize,
        ports: &[u16],
    ) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "haproxy".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let config = directory.path().join("haproxy.cfg");
        let text = config_text(node, server, threads, ports);
        std::fs::write(&config, text).map_err(failed)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = node.start(&mut command)?;
        let subject = Self {
            name: format!("haproxy, {threads} thread{}", if threads == 1 { "" } else { "s" }),
            addresses: [node.socket(false, 0), node.socket(true, 0)],
            program,
            _directory: directory,
        };
        subject.wait_until_it_answers(node, ports)?;
        Ok(subject)
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.program.id()
    }

    fn wait_until_it_answers(&self, node: &Host, ports: &[u16]) -> Result<(), LabError> {
        let limit = Duration::from_secs(5);
        let answers = node.enter(|| {
            wait_until(limit, || {
                ports.iter().all(|&port| TcpStream::connect(self.address(false, port)).is_ok())
            })
        })?;
        let what = "haproxy to accept connections".to_owned();
        let seconds = limit.as_secs();
        answers.then_some(()).ok_or(LabError::TimedOut { what, seconds })
    }
}

impl Subject for HaProxy {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[usize::from(ipv6)].ip(), port)
    }
}

/// IPv4 goes to IPv4 and IPv6 to IPv6.
fn config_text(node: &Host, server: &Host, threads: usize, ports: &[u16]) -> String {
    let mut text = format!(
        "global\n  nbthread {threads}\n  maxconn 4000\n\
         {DEFAULTS}"
    );
    for &port in ports {
        for ipv6 in [false, true] {
            let (front, back) = (node.socket(ipv6, port), server.socket(ipv6, port));
            // Writing to a string cannot fail.
            let _ = write!(text, "listen p{port}-{ipv6}\n  bind {front}\n  server s {back}\n");
        }
    }
    text
}
