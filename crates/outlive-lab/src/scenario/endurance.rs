//! One change after the other under a mixed load: whatever leaks, or is forgotten, adds up.

use std::time::Duration;

use super::course::{Course, Nobody};
use super::fault::Fault;
use super::ordeal::Ordeal;
use super::rig::{PORT, Rig};
use super::{Settings, mix};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::outlive::{FORMING, PairOptions};

/// What is done to the active node in turn.
const TURNS: [Fault; 4] = [Fault::Kill, Fault::Handover, Fault::Restart, Fault::Handover];

/// How long everything runs undisturbed before a change, and before it is made good.
const STEADY: Duration = Duration::from_millis(400);

/// The largest of the transfers that each cycle begins, in bytes.
const BULK: u64 = 4 << 20;

/// Connections that have ended are remembered for this long (a minute by default); shorter here, so
/// that memory is level after a few cycles.
const TIME_WAIT: &str = "[timeouts]\ntime_wait = \"2s\"\n";

/// What memory may have grown by, beside a quarter: what an allocator keeps at hand.
const SLACK_KB: u64 = 8 << 10;

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let options =
        PairOptions { more_tables: TIME_WAIT.to_owned(), ..settings.pair_options(&[PORT]) };
    let mut rig = Rig::new(settings.program()?, settings.seed, &LinkKind::Plain, &options)?;
    let observer = &mut Nobody;
    let mut course = Course::with_book(&rig.lab, &rig.book, observer);
    for ipv6 in [false, true] {
        mix::endless(&rig.client, rig.service(ipv6));
    }
    course.wait_established(Duration::from_secs(30))?;
    course.event("all lasting connections are established");

    let mut memory = Vec::new();
    for cycle in 0..settings.cycles {
        let mut transfers = Vec::new();
        for ipv6 in [false, true] {
            transfers.extend(mix::transfers(&rig.client, rig.service(ipv6), BULK));
        }
        course.run_for(STEADY);
        let fault = TURNS[cycle as usize % TURNS.len()];
        let ordeal = Ordeal::begin(fault, &mut rig.pair, &mut course, || ())?;
        course.run_for(STEADY);
        ordeal.end(&mut course, FORMING)?;
        course.wait_over(&transfers, Duration::from_secs(60));
        if cycle > 0 {
            memory.push(settled_memory(&rig)?);
        }
    }
    rig.close(&mut course, Duration::from_secs(60));

    let mut report = course.report("endurance", &rig.lab);
    report.measure("cycles", settings.cycles);
    report.measure("memory_kb", &memory);
    if let (Some(first), Some(last)) = (memory.first(), memory.last()) {
        for (node, (first, last)) in first.iter().zip(last).enumerate() {
            report.require(*last <= first + first / 4 + SLACK_KB, || {
                format!("node {node} had {first} kB at the beginning, and {last} kB at the end")
            });
        }
    }
    report.add_logs(&mut rig.pair);
    Ok(report)
}

/// Memory when the connections of the cycle are forgotten.
fn settled_memory(rig: &Rig) -> Result<[u64; 2], LabError> {
    for node in [&rig.pair.a, &rig.pair.b] {
        retry_until(Duration::from_secs(30), "what is over to be forgotten", || {
            Ok(node.status()?.core("over") == Some(0))
        })?;
    }
    Ok(rig.memory_kb())
}
