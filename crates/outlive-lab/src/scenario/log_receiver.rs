//! Two log receivers, ordinary senders, and one death after the other: every record is in the logs once.

mod speed;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outlive_node::key::PairKey;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::Settings;
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::receiver::evidence::{Evidence, Log};
use crate::receiver::machine::{Machine, Name, Role};
use crate::receiver::records::{Reader, Tally};
use crate::receiver::senders::Senders;
use crate::receiver::tap::Tap;
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
    if settings.compare {
        return speed::run(settings);
    }
    let program = settings.receiver()?;
    let library = match (settings.power_cut || settings.wire, &settings.powercut) {
        (false, _) => None,
        (true, Some(library)) => Some(library.as_path()),
        (true, None) => return Err(LabError::NoPowerCut),
    };
    let lab = Lab::new(settings.seed)?;
    let host = |name, number| lab.host(name, number, LinkKind::Plain);
    let clients = host("senders", 10)?;
    let mut pair = Pair::start(program, library, [host("recv-a", 2)?, host("recv-b", 3)?])?;
    let mut report = Report::new("log-receiver", &lab);

    let tap = settings.wire.then(|| Tap::on(&clients, service())).transpose()?;
    let clock = WallClock::look();
    let senders = Senders::start(&clients, service(), settings.senders, EVERY)?;
    report.measure("senders", senders.kinds());
    let begun = Instant::now();
    let mut died = begun;
    let mut cut = Vec::new();
    for _ in 0..settings.cycles {
        std::thread::sleep(PAUSE.saturating_sub(died.elapsed()));
        pair.machines[pair.active].becomes(PROTECTED, PATIENCE)?;
        died = Instant::now();
        cut.extend(pair.replace_active(settings.power_cut)?);
    }
    pair.machines[pair.active].becomes(PROTECTED, PATIENCE)?;
    report.measure("cycles", settings.cycles);
    report.measure("seconds", begun.elapsed().as_secs_f64());
    let (given, failures) = senders.finish(&clients, service(), PATIENCE)?;

    report.connections = given.len() as u64;
    report.connections_lost = failures.len() as u64;
    report.require(failures.is_empty(), || failures.join("; "));
    let (tally, bytes) = merged(program, &pair, given)?;
    report.bytes_verified = bytes;
    report.require(tally.is_clean(), || tally.findings.join("; "));
    report.measure_all(&tally);
    if settings.power_cut {
        report.measure("power_cuts", cut.len());
        report.measure("power_cuts_with_loss", cut.iter().filter(|bytes| **bytes > 0).count());
        report.measure("bytes_cut", cut.iter().sum::<u64>());
    }
    if let Some(tap) = tap {
        report.require(clock.is_steady(), || "the machine's clock was set meanwhile".to_owned());
        add_evidence(&mut report, tap, &pair)?;
    }
    if !report.ok {
        report.measure("logs", pair.machines.each_ref().map(Machine::last_words));
    }
    Ok(report)
}

/// Holds what was heard on the wire against what was durable.
fn add_evidence(report: &mut Report, tap: Tap, pair: &Pair) -> Result<(), LabError> {
    let (heard, missed) = tap.finish()?;
    let failed = |error| LabError::Traffic("reading a log", error);
    let log = |machine: &Machine| -> Result<Log, LabError> {
        let bytes = std::fs::read(machine.log()).map_err(failed)?;
        Ok(Log { bytes, syncs: machine.syncs()? })
    };
    let logs = [log(&pair.machines[0])?, log(&pair.machines[1])?];
    let evidence = Evidence::of(&heard, &logs);
    report.measure("frames_missed", missed);
    report.measure_all(&evidence);
    report.require(evidence.violations == 0, || evidence.findings.join("; "));
    let all = report.connections;
    report.require(evidence.acknowledgments > all, || {
        format!("only {} acknowledgments were heard", evidence.acknowledgments)
    });
    // Whoever was not heard from the beginning on could have been acknowledged anything.
    report.require(evidence.unheard == 0, || {
        format!("the beginnings of {} connections were not heard", evidence.unheard)
    });
    Ok(())
}

/// How far the wall clock, by which frames and synchronisations are stamped, is ahead of one that nobody sets.
struct WallClock(Duration);

impl WallClock {
    fn look() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
        };
        // The closer its two neighbours are to each other, the better is the look between them.
        let look = |_| {
            let [before, wall, after] =
                [ClockId::Monotonic, ClockId::Realtime, ClockId::Monotonic].map(read);
            (after.saturating_sub(before), wall.saturating_sub(before))
        };
        let best = (0..50).map(look).min().unwrap_or_default();
        WallClock(best.1)
    }

    /// Whether it was not set since.
    fn is_steady(&self) -> bool {
        Self::look().0.abs_diff(self.0) < Duration::from_millis(10)
    }
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
    fn start(program: &Path, library: Option<&Path>, hosts: [Host; 2]) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "making a key".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let key = directory.path().join("pair.key");
        PairKey::generate().and_then(|made| made.save(&key)).map_err(failed)?;
        let [a, b] = hosts;
        let addresses = [a.socket(false, 0).ip(), b.socket(false, 0).ip()];
        let machine = |host, name, peer| {
            let role = Role::Node { name, peer, key: key.clone() };
            Machine::new(host, program, service(), role, library)
        };
        let machines = [machine(a, Name::A, addresses[1])?, machine(b, Name::B, addresses[0])?];
        let mut pair = Pair { machines, active: 0, _key: directory };
        pair.machines.iter_mut().try_for_each(Machine::start)?;
        // The first node of two that start at the same time is the one that serves.
        pair.machines[0].becomes(PROTECTED, PATIENCE)?;
        Ok(pair)
    }

    /// Kills the one that serves, and starts it again beside the other; with a `power_cut`, how many bytes it has lost.
    fn replace_active(&mut self, power_cut: bool) -> Result<Option<u64>, LabError> {
        let dead = &mut self.machines[self.active];
        dead.kill()?;
        let failed = |error| LabError::Traffic("cutting the power of a disk", error);
        let lost = power_cut.then(|| dead.disk().cut()).transpose().map_err(failed)?;
        dead.start()?;
        self.active = 1 - self.active;
        Ok(lost)
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
