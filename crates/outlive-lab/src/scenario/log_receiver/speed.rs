//! How fast the log receiver is: as one of a pair, alone, and on sockets of the kernel, which acknowledges on receipt.
//!
//! All three write their logs alike, with an `fsync` for all that waits. What is measured is the time from the first byte
//! to the answer that everybody's last byte is on the disk.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::Settings;
use super::super::arena::median;
use super::{PATIENCE, PORT, PROTECTED, Pair, service};
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::receiver::machine::{Machine, Role};
use crate::receiver::records::record;
use crate::report::Report;
use crate::topology::Lab;

/// Bytes that are sent in a measurement of a second's length.
const BYTES: f64 = (64 << 20) as f64;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Pair,
    Alone,
    Plain,
}

const KINDS: [Kind; 3] = [Kind::Pair, Kind::Alone, Kind::Plain];

/// One of them, in a lab of its own. Dropped in this order.
struct Entrant {
    machines: Machines,
    clients: Host,
    service: SocketAddr,
    lab: Lab,
}

enum Machines {
    Pair(Box<Pair>),
    One(Box<Machine>),
}

impl Entrant {
    fn new(settings: &Settings, kind: Kind) -> Result<Self, LabError> {
        let program = settings.receiver()?;
        let lab = Lab::new(settings.seed)?;
        let host = |name, number| lab.host(name, number, LinkKind::Plain);
        let (clients, a) = (host("senders", 10)?, host("recv-a", 2)?);
        let service = match kind {
            Kind::Plain => a.socket(false, PORT),
            Kind::Pair | Kind::Alone => service(),
        };
        let machines = match kind {
            Kind::Pair => {
                Machines::Pair(Box::new(Pair::start(program, None, [a, host("recv-b", 3)?])?))
            }
            Kind::Alone | Kind::Plain => {
                let role = if kind == Kind::Plain { Role::Plain } else { Role::Alone };
                let mut machine = Machine::new(a, program, service, role, None)?;
                machine.start()?;
                machine.becomes("Alone", PATIENCE)?;
                Machines::One(Box::new(machine))
            }
        };
        Ok(Entrant { machines, clients, service, lab })
    }

    /// Bytes per second that are on the disk.
    fn measure(&mut self, senders: usize, bytes: usize) -> Result<f64, LabError> {
        let machine = match &mut self.machines {
            Machines::Pair(pair) => {
                pair.machines[pair.active].becomes(PROTECTED, PATIENCE)?;
                &pair.machines[pair.active]
            }
            Machines::One(machine) => machine,
        };
        let failed = |error| LabError::Traffic("measuring a log receiver", error);
        let len = || std::fs::metadata(machine.log()).map(|about| about.len()).map_err(failed);
        let before = len()?;
        let connect = || TcpStream::connect(self.service);
        let sockets = (0..senders).map(|_| self.clients.enter(connect)?.map_err(failed));
        let sockets = sockets.collect::<Result<Vec<_>, LabError>>()?;
        let took = send_all(sockets, bytes / senders).map_err(failed)?;
        let written = len()? - before;
        if written < (bytes / senders * senders) as u64 {
            return Err(failed(io::Error::other(format!("only {written} bytes are in the log"))));
        }
        Ok(bytes as f64 / took.as_secs_f64())
    }
}

/// Sends at least so many bytes over each, and waits until all have said that they have them.
fn send_all(sockets: Vec<TcpStream>, bytes: usize) -> io::Result<Duration> {
    let barrier = Barrier::new(sockets.len() + 1);
    thread::scope(|scope| {
        let barrier = &barrier;
        let senders: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(sender, socket)| scope.spawn(move || send(sender, &socket, bytes, barrier)))
            .collect();
        barrier.wait();
        let begun = Instant::now();
        for sender in senders {
            sender.join().unwrap_or_else(|_| Err(io::Error::other("a sender has panicked")))?;
        }
        Ok(begun.elapsed())
    })
}

fn send(sender: usize, mut socket: &TcpStream, bytes: usize, barrier: &Barrier) -> io::Result<()> {
    let mut piece = Vec::new();
    for number in 0.. {
        piece.extend_from_slice((record(sender, number) + "\n").as_bytes());
        if piece.len() >= 64 << 10 {
            break;
        }
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    barrier.wait();
    let mut sent = 0;
    while sent < bytes {
        socket.write_all(&piece)?;
        sent += piece.len();
    }
    socket.shutdown(Shutdown::Write)?;
    // It ends when the last of it is on the disk.
    socket.read_to_end(&mut Vec::new()).map(drop)
}

/// A line of the comparison.
#[derive(Debug, Serialize)]
struct Row {
    subject: Kind,
    mbyte_s: f64,
    /// To the one on the kernel's sockets.
    ratio: f64,
    samples: Vec<f64>,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let bytes = (BYTES * settings.seconds) as usize;
    let mut entrants = Vec::new();
    for kind in KINDS {
        entrants.push(Entrant::new(settings, kind)?);
    }
    let mut report = Report::new("log-receiver", &entrants[0].lab);
    let mut samples = vec![Vec::new(); KINDS.len()];
    for round in 0..settings.rounds {
        for turn in 0..entrants.len() {
            let index = (round + turn) % entrants.len();
            samples[index].push(entrants[index].measure(settings.senders, bytes)? / 1e6);
            report.connections += settings.senders as u64;
        }
    }
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let plain = medians[KINDS.len() - 1];
    let rows = KINDS.into_iter().zip(medians).zip(samples);
    let row =
        |((subject, mbyte_s), samples)| Row { subject, mbyte_s, ratio: mbyte_s / plain, samples };
    report.measure("rounds", settings.rounds);
    report.measure("senders", settings.senders);
    report.measure("bytes", bytes);
    report.measure("rows", rows.map(row).collect::<Vec<Row>>());
    Ok(report)
}
