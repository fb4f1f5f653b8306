//! Two log receivers, ordinary senders, and one death after the other: every record is in the logs once.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outlive_node::key::PairKey;
use tempfile::TempDir;

use super::Settings;
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::receiver::machine::{Machine, Name, Role};
use crate::receiver::records::{Reader, Tally};
use crate::receiver::senders::Senders;
use crate::report::Report;
use crate::scratch;
use crate::subject::outlive::VIRTUAL;
use crate::topology::{Lab, addresses};

/// Where the receivers listen.
const PORT: u16 = 514;

/// Between two deaths at least.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two records of a sender, roughly.
const EVERY: Duration = Duration::from_millis(10);

/// Against hanging, and for nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let program = settings.receiver()?;
    let lab = Lab::new(settings.seed)?;
    let host = |name, number| lab.host(name, number, LinkKind::Plain);
    let clients = host("senders", 10)?;
    let mut pair = Pair::start(program, [host("recv-a", 2)?, host("recv-b", 3)?])?;
    let mut report = Report::new("log-receiver", &lab);

    let senders = Senders::start(&clients, service(), settings.senders, EVERY)?;
    report.measure("senders", senders.kinds());
    let begun = Instant::now();
    let mut died = begun;
    for _ in 0..settings.cycles {
        std::thread::sleep(PAUSE.saturating_sub(died.elapsed()));
        pair.machines[pair.active].becomes(PROTECTED, PATIENCE)?;
        died = Instant::now();
        pair.replace_active()?;
    }
    pair.machines[pair.active].becomes(PROTECTED, PATIENCE)?;
    report.measure("cycles", settings.cycles);
    report.measure("seconds", begun.elapsed().as_secs_f64());
    let (given, failures) = senders.finish(PATIENCE);

    report.connections = given.len() as u64;
    report.connections_lost = failures.len() as u64;
    report.require(failures.is_empty(), || failures.join("; "));
    let (tally, bytes) = merged(program, &pair, given)?;
    report.bytes_verified = bytes;
    report.require(tally.is_clean(), || tally.findings.join("; "));
    report.measure_all(&tally);
    if !report.ok {
        report.measure("logs", pair.machines.each_ref().map(Machine::last_words));
    }
    Ok(report)
}

/// What a receiver says that serves, and whose standby holds everything.
const PROTECTED: &str = "Protected";

/// Where senders connect to.
fn service() -> SocketAddr {
    SocketAddr::new(addresses(VIRTUAL)[0], PORT)
}

/// Two receivers. Dropped in this order.
struct Pair {
    machines: [Machine; 2],
    active: usize,
    _key: TempDir,
}

impl Pair {
    /// Starts both and waits until one serves and the other holds everything.
    fn start(program: &Path, hosts: [Host; 2]) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "making a key".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let key = directory.path().join("pair.key");
        PairKey::generate().and_then(|made| made.save(&key)).map_err(failed)?;
        let [a, b] = hosts;
        let addresses = [a.socket(false, 0).ip(), b.socket(false, 0).ip()];
        let machine = |host, name, peer| {
            let role = Role { name, peer, key: key.clone() };
            Machine::new(host, program, service(), role)
        };
        let machines = [machine(a, Name::A, addresses[1])?, machine(b, Name::B, addresses[0])?];
        let mut pair = Pair { machines, active: 0, _key: directory };
        pair.machines.iter_mut().try_for_each(Machine::start)?;
        // The first node of two that start at the same time is the one that serves.
        pair.machines[0].becomes(PROTECTED, PATIENCE)?;
        Ok(pair)
    }

    /// Kills the one that serves, and starts it again beside the other.
    fn replace_active(&mut self) -> Result<(), LabError> {
        let dead = &mut self.machines[self.active];
        dead.kill()?;
        dead.start()?;
        self.active = 1 - self.active;
        Ok(())
    }
}

/// What the logs together hold of the records that senders were `given`; and how many bytes that are.
fn merged(program: &Path, pair: &Pair, given: Vec<u64>) -> Result<(Tally, u64), LabError> {
    let failed = |source| LabError::Program { program: program.display().to_string(), source };
    let mut command = Command::new(program);
    command.arg("merge").args(pair.machines.each_ref().map(Machine::log));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut lines = BufReader::new(child.stdout.take().expect("its command has a pipe there"));
    let mut reader = Reader::new(given);
    let (mut line, mut bytes) = (Vec::new(), 0);
    while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        bytes += line.len() as u64;
        reader.line(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(std::io::Error::other(said)));
    }
    Ok((reader.finish(), bytes))
}
