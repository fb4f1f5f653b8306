//! A proxy node of the lab: a host and the Outlive program on it, with everything that can be done
//! to a program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::clock::wait_until;
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::scratch;

/// In a log, what a line says by which a node takes over.
const TOOK_OVER: &str = " took over ";

/// In a configuration, stands for the node's own directory.
pub const DIRECTORY: &str = "{directory}";

/// A host with the program.
pub struct Node {
    /// Dropped before the host: it is the one that started it.
    running: Option<Program>,
    host: Host,
    program: PathBuf,
    directory: TempDir,
}

/// What a node says of itself. What the lab does not act on is kept in `more`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// `joining`, `standby` or `active`.
    pub role: String,
    /// The epoch, as the program writes it.
    pub epoch: String,
    /// Whether connections would outlive the active node if it failed now.
    pub survival: Survival,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Whether connections would outlive the active node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Survival {
    /// They would.
    pub survives: bool,
    /// If not, why.
    pub because: Option<String>,
}

impl Status {
    /// One of the numbers of the program's core, such as `open`; nothing if it is not told.
    pub fn core(&self, name: &str) -> Option<u64> {
        self.more.get("core")?.get(name)?.as_u64()
    }

    /// What the program has counted under that name since its start.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// What the program has counted since its start, without the zeros.
    pub fn counters(&self) -> Map<String, Value> {
        let counters = self.more.get("core").and_then(|core| core.get("counters"));
        let counted = |(name, count): (&String, &Value)| {
            (count.as_u64() != Some(0)).then(|| (name.clone(), count.clone()))
        };
        counters.and_then(Value::as_object).into_iter().flatten().filter_map(counted).collect()
    }
}

impl Node {
    /// Prepares `program` on `host`. The configuration is written to a directory that goes with
    /// the node; where it says [`DIRECTORY`], that directory's path is put.
    pub fn new(host: Host, program: &Path, config: &str) -> Result<Self, LabError> {
        let failed =
            |source| LabError::Program { program: "writing a configuration".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let node = Self { running: None, host, program: program.to_owned(), directory };
        node.configure(config)?;
        Ok(node)
    }

    /// Writes another configuration, which the program does not read by itself.
    pub fn configure(&self, config: &str) -> Result<(), LabError> {
        let failed =
            |source| LabError::Program { program: "writing a configuration".into(), source };
        let config = config.replace(DIRECTORY, &self.directory.path().to_string_lossy());
        fs::write(self.config_path(), config).map_err(failed)
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its host, to be changed.
    pub fn host_mut(&mut self) -> &mut Host {
        &mut self.host
    }

    /// Its directory, for files that its configuration names.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the program, whose messages go to the end of the log. Without effect if it runs.
    pub fn start(&mut self) -> Result<(), LabError> {
        if self.is_running() {
            return Ok(());
        }
        let failed = |source| LabError::Program { program: "opening a log".into(), source };
        let log =
            File::options().create(true).append(true).open(self.log_path()).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(self.config_path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(self.host.start(&mut command)?);
        Ok(())
    }

    /// Whether the program runs (or is frozen).
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(Program::is_running)
    }

    /// The memory that the program has in use, in kB; nothing if it does not run.
    pub fn memory_kb(&self) -> Option<u64> {
        self.running.as_ref().and_then(Program::memory_kb)
    }

    /// The id of the program's process, if it has been started and not ended by this node.
    pub fn process_id(&self) -> Option<u32> {
        self.running.as_ref().map(Program::id)
    }

    /// Ends the program as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.running.take().map_or(Ok(()), |mut program| program.kill())
    }

    /// Ends the program and what it has started, as the machine's crash would.
    pub fn kill_all(&mut self) -> Result<(), LabError> {
        self.running.take().map_or(Ok(()), |mut program| program.kill_family())
    }

    /// Asks the program to stop (`SIGTERM`) and waits at most `limit` for it.
    pub fn terminate(&mut self, limit: Duration) -> Result<(), LabError> {
        self.signal(Signal::TERM)?;
        let ended = wait_until(limit, || !self.is_running());
        self.running = None;
        ended.then_some(()).ok_or_else(|| LabError::TimedOut {
            what: format!("{} to stop", self.host.name()),
            seconds: limit.as_secs(),
        })
    }

    /// Asks the active node to hand over to its standby, and waits until it has.
    pub fn hand_over(&self) -> Result<(), LabError> {
        self.order("handover")
    }

    /// Asks the node, and through it its peer, to read its configuration again.
    pub fn reload(&self) -> Result<(), LabError> {
        self.order("reload")
    }

    fn order(&self, word: &str) -> Result<(), LabError> {
        let failed = |source| LabError::Program { program: self.asked(), source };
        let mut command = Command::new(&self.program);
        command.args([word, "--config"]).arg(self.config_path()).stdin(Stdio::null());
        let output = self.host.namespace().enclose(&mut command).output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed(std::io::Error::other(said)))
    }

    /// Freezes the program: it does nothing, but its sockets and devices stay.
    pub fn freeze(&self) -> Result<(), LabError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) -> Result<(), LabError> {
        self.signal(Signal::CONT)
    }

    /// When the program last took over, by its log.
    pub fn took_over_at(&self) -> Option<Duration> {
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains(TOOK_OVER))?;
        let time = humantime::parse_rfc3339(line.split_whitespace().next()?).ok()?;
        Some(self.host.clock().at(time))
    }

    /// What the program says of itself.
    pub fn status(&self) -> Result<Status, LabError> {
        let failed = |source| LabError::Program { program: self.asked(), source };
        let mut command = Command::new(&self.program);
        command.args(["status", "--json", "--config"]).arg(self.config_path());
        command.stdin(Stdio::null());
        let output = self.host.namespace().enclose(&mut command).output().map_err(failed)?;
        let invalid = |error: serde_json::Error| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            failed(std::io::Error::other(format!("{error} (it said: {said})")))
        };
        serde_json::from_slice(&output.stdout).map_err(invalid)
    }

    /// Whether the status is as `wanted`. A node that cannot be asked (yet) is not; one whose
    /// program has ended is an error that shows the end of its log.
    pub fn is(&mut self, wanted: impl Fn(&Status) -> bool) -> Result<bool, LabError> {
        match self.status() {
            Ok(status) if wanted(&status) => Ok(true),
            _ if self.is_running() => Ok(false),
            _ => {
                let said = std::io::Error::other(self.last_words());
                Err(LabError::Program { program: self.asked(), source: said })
            }
        }
    }

    /// Everything that the program has logged so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What to show of a program that ended when it should not have.
    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "has ended; its log ends with: {}",
            lines[lines.len().saturating_sub(5)..].join(" | ")
        )
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.running.as_ref().map_or(Ok(()), |program| program.signal(signal))
    }

    fn asked(&self) -> String {
        format!("{} on {}", self.program.display(), self.host.name())
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("node.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}
