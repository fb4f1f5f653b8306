//! Outlive's own TCP endpoint against the kernel's, in both roles.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use outlive_tcp::endpoint::{Algorithm, Config};
use serde_json::json;

use super::Settings;
use crate::clock::wait_until;
use crate::endpoint::{Job, Meter, Seen, Stack, kernel};
use crate::error::LabError;
use crate::host::Host;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::report::{Report, milliseconds};
use crate::synthetic::{CLIENTS, SERVERS};
use crate::topology::Lab;

/// Nothing in a lab takes so long, however busy the machine: with one packet in a hundred lost, a
/// timer that has doubled five times is not to be seen.
const STALL: Duration = Duration::from_secs(10);
/// Connections of each kind that run beside each other: single ones owe too much to chance.
const FLOWS: usize = 12;
/// Before anything is measured, in seconds: the beginning is another question.
const WARM_UP: f64 = 5.0;
/// Pairs of connections that share a link each. For so short a time, it is a matter of luck who has
/// more of it.
const PAIRS: u64 = 5;
/// More than any connection can send.
const ENDLESS: u64 = 1 << 50;

/// A TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linux,
    Outlive,
}
use Kind::{Linux, Outlive};

/// Two machines, each with both kinds of TCP. What is between them is at the western one's cable.
struct Arena {
    /// First, for they end with their hosts.
    stacks: [Stack; 2],
    hosts: [Host; 2],
    next_port: u16,
}

/// Who is at both ends of a connection, and how they find each other.
#[derive(Debug, Clone, Copy)]
struct Pairing {
    /// In the west, in the east.
    kinds: [Kind; 2],
    west_connects: bool,
    ipv6: bool,
}

impl Arena {
    fn build(lab: &Lab, link: LinkKind, congestion: Algorithm) -> Result<Self, LabError> {
        let hosts = [lab.host("west", 10, link)?, lab.host("east", 20, LinkKind::Plain)?];
        if congestion == Algorithm::NewReno {
            for host in &hosts {
                host.sysctl("net/ipv4/tcp_congestion_control", "reno")?;
            }
        }
        let config = Config { congestion, ..Config::default() };
        let stacks =
            [Stack::start(&hosts[0], CLIENTS, config)?, Stack::start(&hosts[1], SERVERS, config)?];
        SERVERS.route(&hosts[0], hosts[1].number())?;
        CLIENTS.route(&hosts[1], hosts[0].number())?;
        Ok(Arena { stacks, hosts, next_port: 5_000 })
    }

    /// Begins a transfer of so many bytes from the west and from the east. Gives what both ends see.
    fn transfer(
        &mut self,
        pairing: Pairing,
        (west, east): (u64, u64),
        seed: u64,
    ) -> Result<[Arc<Meter>; 2], LabError> {
        let port = self.next_port;
        self.next_port += 1;
        let (west, east) = Job::pair((west, east), seed ^ u64::from(port));
        let meters = [west.meter.clone(), east.meter.clone()];
        let mut jobs = [Some(west), Some(east)];
        let connecting = usize::from(!pairing.west_connects);
        let listening = 1 - connecting;
        let (listener, stack) = (&self.hosts[listening], &self.stacks[listening]);
        let job = jobs[listening].take().expect("both have one");
        let address = match pairing.kinds[listening] {
            Linux => {
                let address = listener.socket(pairing.ipv6, port);
                kernel::listen(listener, address, job)?;
                address
            }
            Outlive => {
                stack.listen(pairing.ipv6, port, job);
                (stack.address(pairing.ipv6), port).into()
            }
        };
        let job = jobs[connecting].take().expect("both have one");
        match pairing.kinds[connecting] {
            Linux => kernel::connect(&self.hosts[connecting], address, job)?,
            Outlive => self.stacks[connecting].connect(port, address, job),
        }
        Ok(meters)
    }
}

/// Streams in both directions at once, over a link that loses, doubles, reorders and delays.
pub(super) fn streams(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let mut report = Report::new("endpoint-streams", &lab);
    add_streams(&lab, &mut report)?;
    Ok(report)
}

/// The same, and what becomes of bandwidth.
pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let mut report = Report::new("endpoint", &lab);
    add_streams(&lab, &mut report)?;
    add_goodput(&lab, settings, &mut report)?;
    add_fairness(settings, &mut report)?;
    Ok(report)
}

fn add_streams(lab: &Lab, report: &mut Report) -> Result<(), LabError> {
    const BYTES: u64 = 1 << 20;
    let mut arena = Arena::build(lab, LinkKind::impaired(Impairment::bad()), Algorithm::Cubic)?;
    let mut meters = Vec::new();
    for ipv6 in [false, true] {
        for west_connects in [false, true] {
            for kinds in [[Linux, Outlive], [Outlive, Linux], [Outlive, Outlive]] {
                let pairing = Pairing { kinds, west_connects, ipv6 };
                for _ in 0..2 {
                    let meter = arena.transfer(pairing, (BYTES, BYTES), lab.seed())?;
                    meters.extend(meter.map(|meter| (pairing, meter)));
                }
            }
        }
    }
    let over = |seen: Seen| seen.complete || seen.failure.is_some();
    wait_until(Duration::from_secs(120), || meters.iter().all(|(_, meter)| over(meter.seen())));
    report.connections += meters.len() as u64 / 2;
    let mut longest = Duration::ZERO;
    for (pairing, meter) in &meters {
        let seen = meter.seen();
        report.bytes_verified += seen.received;
        report.bytes_wrong += seen.wrong;
        longest = longest.max(seen.longest_wait);
        let whole = seen.complete && seen.received == BYTES && seen.wrong == 0;
        report.connections_lost += u64::from(!whole);
        report.require(whole && seen.failure.is_none(), || format!("{pairing:?}: {seen:?}"));
    }
    report.measure("longest_stall_ms", milliseconds(longest));
    report.require(longest < STALL, || format!("nothing came for {longest:?}"));
    Ok(())
}

/// Each kind sends to each over 50 ms with 1 % loss both ways: how much arrives.
fn add_goodput(lab: &Lab, settings: &Settings, report: &mut Report) -> Result<(), LabError> {
    let mut rows = Vec::new();
    for congestion in [Algorithm::Cubic, Algorithm::NewReno] {
        let link = Impairment { loss: 0.01, ..Impairment::delayed(Duration::from_millis(25)) };
        let mut arena = Arena::build(lab, LinkKind::impaired(link), congestion)?;
        let all = [[Linux, Linux], [Outlive, Linux], [Linux, Outlive], [Outlive, Outlive]];
        let mut groups = Vec::new();
        for kinds in all {
            let pairing = Pairing { kinds, west_connects: true, ipv6: false };
            groups.push(
                (0..FLOWS)
                    .map(|_| Ok(arena.transfer(pairing, (ENDLESS, 0), lab.seed())?[1].clone()))
                    .collect::<Result<Vec<_>, LabError>>()?,
            );
        }
        let rates = measure(&groups, 20.0 * settings.seconds, report);
        for (kinds, rate) in all.iter().zip(&rates) {
            let ratio = rate / rates[0];
            rows.push(json!({
                "congestion": format!("{congestion:?}").to_lowercase(),
                "sender": format!("{:?}", kinds[0]).to_lowercase(),
                "receiver": format!("{:?}", kinds[1]).to_lowercase(),
                "mbit_s": rate / FLOWS as f64,
                "ratio": ratio,
            }));
            report.require(ratio >= 0.8, || {
                format!("{congestion:?}, {kinds:?}: {ratio:.2} of Linux to Linux")
            });
        }
    }
    report.measure("goodput", rows);
    Ok(())
}

/// Two connections through one narrow place: Outlive's and Linux's; two of Linux for comparison. Each
/// pair has a lab of its own, and all run at the same time.
fn add_fairness(settings: &Settings, report: &mut Report) -> Result<(), LabError> {
    let back = Impairment::delayed(Duration::from_millis(20));
    // As many bytes may wait as are on the way. Where chance may strike, super-segments are cut:
    // whole in the queue, they would be lost whole, and who sends the smaller ones would win.
    let (rate, loss) = (Some(20_000_000), 1e-9);
    let out = Impairment { rate, loss, queue: 100_000, ..back.clone() };
    let mut arenas = Vec::new();
    let mut groups = Vec::new();
    for other in [Linux, Outlive] {
        for pair in 0..PAIRS {
            let lab = Lab::new(settings.seed + pair)?;
            let link = LinkKind::Impaired { out: out.clone(), back: back.clone() };
            let mut arena = Arena::build(&lab, link, Algorithm::Cubic)?;
            for kind in [Linux, other] {
                let pairing = Pairing { kinds: [kind, Linux], west_connects: true, ipv6: false };
                groups.push(vec![arena.transfer(pairing, (ENDLESS, 0), lab.seed())?[1].clone()]);
            }
            arenas.push((arena, lab));
        }
    }
    let rates = measure(&groups, 40.0 * settings.seconds, report);
    let mut shares: Vec<f64> =
        rates.chunks_exact(2).map(|pair| pair[1] / (pair[0] + pair[1])).collect();
    let mut rows = Vec::new();
    for (other, shares) in [Linux, Outlive].iter().zip(shares.chunks_exact_mut(PAIRS as usize)) {
        shares.sort_by(f64::total_cmp);
        let median = shares[shares.len() / 2];
        rows.push(json!({
            "beside_linux": format!("{other:?}").to_lowercase(),
            "share": median,
            "shares": shares,
        }));
        report.require((0.25..=0.75).contains(&median), || {
            format!("{other:?} beside Linux had {median:.2} of the link")
        });
    }
    report.measure("fairness", rows);
    Ok(())
}

/// What groups of connections receive in `seconds`, in Mbit/s each.
fn measure(groups: &[Vec<Arc<Meter>>], seconds: f64, report: &mut Report) -> Vec<f64> {
    thread::sleep(Duration::from_secs_f64(WARM_UP.min(seconds)));
    let count = || groups.iter().map(|group| received(group)).collect::<Vec<u64>>();
    let before = count();
    thread::sleep(Duration::from_secs_f64(seconds));
    let after = count();
    for seen in groups.iter().flatten().map(|meter| meter.seen()) {
        report.connections += 1;
        report.bytes_verified += seen.received;
        report.bytes_wrong += seen.wrong;
        let fine = seen.failure.is_none() && seen.wrong == 0 && seen.longest_wait < STALL;
        report.connections_lost += u64::from(seen.failure.is_some());
        report.require(fine, || format!("{seen:?}"));
    }
    let rate = |(before, after): (&u64, &u64)| (after - before) as f64 * 8e-6 / seconds;
    before.iter().zip(&after).map(rate).collect()
}

fn received(group: &[Arc<Meter>]) -> u64 {
    group.iter().map(|meter| meter.seen().received).sum()
}
