//! A host with a log receiver on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::disk::{Disk, Sync};
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::link::INTERFACE;
use crate::scratch;

/// Lines of a receiver's messages that are shown when something went wrong.
const MOST_LINES: usize = 20;

/// The log's name on its disk.
const LOG: &str = "log";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    A,
    B,
}

/// What a receiver is told to be.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// One of a pair.
    Node {
        name: Name,
        /// The peer's address, without a port.
        peer: std::net::IpAddr,
        key: PathBuf,
    },
    /// Without a standby.
    Alone,
    /// On sockets of the kernel.
    Plain,
}

/// A host, the receiver on it, and its disk.
pub(crate) struct Machine {
    /// Dropped before the host: it is the one that started it.
    running: Option<(Program, Receiver<String>)>,
    /// What the receiver said last.
    standing: String,
    pub(crate) host: Host,
    program: PathBuf,
    service: SocketAddr,
    role: Role,
    disk: Disk,
    /// Of disk and messages.
    directory: TempDir,
}

impl Machine {
    pub(crate) fn new(
        host: Host,
        program: &Path,
        service: SocketAddr,
        role: Role,
        library: Option<&Path>,
    ) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "making a directory".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let disk = Disk::new(directory.path(), library).map_err(failed)?;
        let (program, standing) = (program.to_owned(), String::new());
        Ok(Machine { running: None, standing, host, program, service, role, disk, directory })
    }

    /// The log.
    pub(crate) fn log(&self) -> PathBuf {
        self.disk.path(LOG)
    }

    /// The disk that it is on.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// All synchronisations of the log so far.
    pub(crate) fn syncs(&self) -> Result<Vec<Sync>, LabError> {
        let failed = |error| LabError::Traffic("reading what was synchronised", error);
        self.disk.syncs(LOG).map_err(failed)
    }

    /// Starts the receiver, with the log as it is.
    pub(crate) fn start(&mut self) -> Result<(), LabError> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--listen", &self.service.to_string()]);
        command.arg("--log").arg(self.log());
        match &self.role {
            Role::Plain => drop(command.arg("--plain")),
            Role::Alone | Role::Node { .. } => drop(command.args(["--interface", INTERFACE])),
        }
        if let Role::Node { name, peer, key } = &self.role {
            let own = self.host.socket(self.service.is_ipv6(), 0).ip();
            let both =
                |port| format!("{}={}", SocketAddr::new(own, port), SocketAddr::new(*peer, port));
            command.args(["--node", if *name == Name::A { "a" } else { "b" }]);
            command.args(["--state", &both(7400), "--heartbeat", &both(7401)]);
            command.arg("--key").arg(key);
        }
        let failed = |source| LabError::Program { program: "opening a log".into(), source };
        let path = self.messages_path();
        let messages = File::options().create(true).append(true).open(path).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(messages);
        self.disk.equip(&mut command);
        let mut program = self.host.start(&mut command)?;
        let out = BufReader::new(program.take_stdout().expect("its command has a pipe there"));
        let (say, said) = channel();
        // It ends with the program, which has the other end of the pipe.
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        self.standing.clear();
        self.running = Some((program, said));
        Ok(())
    }

    /// `kill -9`; returns when it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), LabError> {
        self.running.take().map_or(Ok(()), |(mut program, _)| program.kill())
    }

    /// Waits until what the receiver said last is that it is in that standing.
    pub(crate) fn becomes(&mut self, standing: &str, limit: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + limit;
        loop {
            let Some((_, said)) = &self.running else { return Err(self.has_ended()) };
            let last = said.try_iter().last();
            self.standing = last.unwrap_or(std::mem::take(&mut self.standing));
            if self.standing == standing {
                return Ok(());
            }
            match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(said) => self.standing = said,
                Err(RecvTimeoutError::Disconnected) => return Err(self.has_ended()),
                Err(RecvTimeoutError::Timeout) => {
                    let name = self.host.name();
                    let what = format!("{name} to be {standing}: it is {:?}", self.standing);
                    return Err(LabError::TimedOut { what, seconds: limit.as_secs() });
                }
            }
        }
    }

    fn has_ended(&self) -> LabError {
        let program = format!("{} on {}", self.program.display(), self.host.name());
        let source = std::io::Error::other(self.last_words().join(" | "));
        LabError::Program { program, source }
    }

    /// The last of its messages, over all its starts.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let messages = fs::read_to_string(self.messages_path()).unwrap_or_default();
        let lines: Vec<&str> = messages.lines().collect();
        let last = &lines[lines.len().saturating_sub(MOST_LINES)..];
        last.iter().map(ToString::to_string).collect()
    }

    fn messages_path(&self) -> PathBuf {
        self.directory.path().join("messages")
    }
}
