//! A planned handover under full load: do the peers notice?
//!
//! What they would notice by is that something has to be sent again. So the same transfers run twice,
//! once undisturbed and once with a handover in their midst, and what all kernels have retransmitted
//! is compared. Loss probes are taken off: an end of a transfer draws them without any loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::course::{Course, Nobody};
use super::fault::Fault;
use super::ordeal::Ordeal;
use super::rig::{PORT, Rig};
use super::{Settings, mix};
use crate::error::LabError;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::outlive::FORMING;
use crate::traffic::Group;

/// The largest of the transfers, in bytes.
const BULK: u64 = 128 << 20;

/// What they must have moved before the handover.
const UNDER_WAY: u64 = 4 << 20;

/// Segments that the peers have sent again, in one round.
#[derive(Debug, Serialize)]
struct Round {
    control: u64,
    handover: u64,
    /// What made the kernels send them, by the name that Linux counts it under; what did not happen is left out.
    reasons: BTreeMap<&'static str, u64>,
}

/// What makes a kernel send something again, or shows that it need not have.
const REASONS: [&str; 6] = [
    "TCPFastRetrans",
    "TCPSlowStartRetrans",
    "TCPTimeouts",
    "TCPSynRetrans",
    "TCPLossProbes",
    "TCPDSACKRecv",
];

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let options = settings.pair_options(&[PORT]);
    let mut rig = Rig::new(settings.program()?, settings.seed, &LinkKind::Plain, &options)?;
    let observer = &mut Nobody;
    let mut course = Course::with_book(&rig.lab, &rig.book, observer);
    for ipv6 in [false, true] {
        mix::endless(&rig.client, rig.service(ipv6));
    }
    course.wait_established(Duration::from_secs(30))?;
    course.event("all lasting connections are established");
    let mut rounds = Vec::new();
    let mut in_mid_transfer = true;
    for _ in 0..settings.rounds {
        let before = Counted::now(&rig)?;
        let transfers = begin(&rig, &mut course)?;
        course.wait_over(&transfers, Duration::from_secs(120));
        let control = before.since(&rig)?;

        let before = Counted::now(&rig)?;
        let transfers = begin(&rig, &mut course)?;
        in_mid_transfer &= transfers.iter().any(|group| group.open() > 0);
        let ordeal = Ordeal::begin(Fault::Handover, &mut rig.pair, &mut course, || ())?;
        ordeal.end(&mut course, FORMING)?;
        course.wait_over(&transfers, Duration::from_secs(120));
        let (handover, reasons) = (before.since(&rig)?, before.reasons_since(&rig)?);
        rounds.push(Round { control, handover, reasons });
    }
    rig.close(&mut course, Duration::from_secs(60));

    let mut report = course.report("handover", &rig.lab);
    report.require(in_mid_transfer, || "no transfer was under way at a handover".to_owned());
    let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    let totals = [sum(|round| round.control), sum(|round| round.handover)];
    report.measure("retransmissions_control", totals[0]);
    report.measure("retransmissions_handover", totals[1]);
    report.measure("no_more_than_in_control", totals[1] <= totals[0]);
    report.measure("rounds", rounds);
    report.add_logs(&mut rig.pair);
    Ok(report)
}

/// Begins all transfers and waits until the large ones are under way.
fn begin(rig: &Rig, course: &mut Course<'_>) -> Result<Vec<Arc<Group>>, LabError> {
    let mut transfers = Vec::new();
    for ipv6 in [false, true] {
        transfers.extend(mix::transfers(&rig.client, rig.service(ipv6), BULK));
    }
    // The first two of the mix, of either IP version.
    course.wait_progress(&transfers[..2], UNDER_WAY, Duration::from_secs(30))?;
    Ok(transfers)
}

/// What the kernels of all peers have counted so far.
struct Counted {
    /// Segments sent again.
    again: u64,
    /// Loss probes sent. Some are such segments, others are new data.
    probes: u64,
    reasons: [u64; REASONS.len()],
}

impl Counted {
    fn now(rig: &Rig) -> Result<Self, LabError> {
        let sum = |name| -> Result<u64, LabError> {
            let counters = rig.hosts.iter().map(|host| host.counter(name));
            counters.map(|counter| Ok(counter?.unwrap_or(0))).sum()
        };
        let mut reasons = [0; REASONS.len()];
        for (count, name) in reasons.iter_mut().zip(REASONS) {
            *count = sum(name)?;
        }
        Ok(Self { again: sum("RetransSegs")?, probes: sum("TCPLossProbes")?, reasons })
    }

    /// Segments sent again since then, without loss probes.
    fn since(&self, rig: &Rig) -> Result<u64, LabError> {
        let now = Self::now(rig)?;
        Ok((now.again - self.again).saturating_sub(now.probes - self.probes))
    }

    fn reasons_since(&self, rig: &Rig) -> Result<BTreeMap<&'static str, u64>, LabError> {
        let now = Self::now(rig)?.reasons;
        let counts = now.iter().zip(self.reasons).map(|(now, then)| now - then);
        Ok(REASONS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect())
    }
}
