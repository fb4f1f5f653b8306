//! Random faults for a given time under a mixed load, everything checked.
//!
//! The seed decides what is done, when, and for how long; not what comes of it: to whom it is done
//! depends on who is active then. Now and then the next fault comes before the standby has been told
//! of everything. What is lost then is lost because it could not be known, and is counted apart.

mod excuse;
mod step;

use std::time::Duration;

use serde::Serialize;

use self::excuse::Excuses;
use self::step::{Steps, Strike};
use super::Settings;
use super::course::{Course, Nobody};
use super::fault::Fault;
use super::mix;
use super::ordeal::Ordeal;
use super::rig::{PORT, Rig};
use crate::error::LabError;
use crate::link::{Cut, LinkKind};
use crate::report::{Report, as_seconds};
use crate::subject::{Cluster, Machine};

/// The largest of the transfers that each step begins, in bytes.
const BULK: u64 = 1 << 20;

/// How long the pair may take to be whole again after a fault.
const WHOLE: Duration = Duration::from_secs(30);

/// Something that was done.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(serialize_with = "as_seconds")]
    at: Duration,
    what: Strike,
    /// Whether the standby held everything at that moment.
    synchronised: bool,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let options = settings.pair_options(&[PORT]);
    let mut rig = Rig::new(settings.program()?, settings.seed, &LinkKind::Plain, &options)?;
    let observer = &mut Nobody;
    let mut course = Course::with_book(&rig.lab, &rig.book, observer);
    open_lasting(&rig);
    course.wait_established(Duration::from_secs(30))?;
    course.event("all lasting connections are established");

    let mut chaos = Chaos { excuses: Excuses::default(), done: Vec::new() };
    let end = rig.lab.clock().now() + settings.time();
    for step in Steps::new(settings.seed) {
        if rig.lab.clock().now() >= end {
            break;
        }
        for ipv6 in [false, true] {
            mix::transfers(&rig.client, rig.service(ipv6), BULK);
        }
        course.run_for(step.steady);
        chaos.strike(&step, &mut rig, &mut course)?;
    }
    course.wait("the pair to be whole", WHOLE, || rig.pair.is_whole())?;
    // Some ends of what was lost are never told.
    rig.close(&mut course, Duration::from_secs(20));

    let mut report = course.findings("chaos", &rig.lab);
    let verdict = chaos.excuses.judge(&rig.book);
    report.connections_lost = verdict.lost.len() as u64;
    report.lost = verdict.lost.into_iter().take(20).collect();
    let lost = report.connections_lost;
    report.require(lost == 0, || format!("{lost} connections lost that the standby knew of"));
    report.measure("minutes", settings.minutes);
    report.measure("lost_as_the_standby_could_not_know", verdict.excused);
    report.measure("steps", chaos.done);
    report.add_logs(&mut rig.pair);
    Ok(report)
}

fn open_lasting(rig: &Rig) {
    for ipv6 in [false, true] {
        mix::endless(&rig.client, rig.service(ipv6));
    }
}

struct Chaos {
    excuses: Excuses,
    done: Vec<Done>,
}

impl Chaos {
    fn strike(
        &mut self,
        step: &step::Step,
        rig: &mut Rig,
        course: &mut Course<'_>,
    ) -> Result<(), LabError> {
        let synchronised = rig.pair.is_whole()?;
        let at = rig.lab.clock().now();
        self.done.push(Done { at, what: step.strike, synchronised });
        match step.strike {
            Strike::Fault(fault) => self.fault(fault, synchronised, step, rig, course)?,
            Strike::Standby => {
                let standby = 1 - rig.pair.active()?;
                let machines = rig.pair.machines();
                let standby: &mut dyn Machine = &mut *machines[standby];
                let name = standby.host().name().to_owned();
                course.fault(format!("the program of {name}, the standby, is killed"), || {
                    standby.kill()
                })?;
                course.run_for(step.outage);
                standby.start()?;
                course.event(format!("{name}'s program is started again"));
            }
            Strike::Burst(at) => {
                let hosts = rig.hosts.iter().chain([rig.pair.a.host(), rig.pair.b.host()]);
                let link = hosts.map(|host| host.link()).nth(at);
                if let Some(link) = link {
                    link.cut(Cut::Both)?;
                    std::thread::sleep(step.burst);
                    link.restore()?;
                }
            }
        }
        if step.patient {
            course.wait("the pair to be whole", WHOLE, || rig.pair.is_whole())?;
        }
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        synchronised: bool,
        step: &step::Step,
        rig: &mut Rig,
        course: &mut Course<'_>,
    ) -> Result<(), LabError> {
        let ordeal = Ordeal::begin(fault, &mut rig.pair, course, || ())?;
        let (from, until) = (ordeal.fault_at, ordeal.took_over_at);
        if !synchronised {
            self.excuses.open_in(from, until);
        }
        course.run_for(step.outage);
        ordeal.heal(course)?;
        if !synchronised {
            // In place of those that are lost now.
            open_lasting(rig);
        }
        if fault == Fault::Partition {
            // Both nodes serve, and one of them will have to yield: what is begun at that one is not known
            // to the other.
            course.wait("the pair to be whole", WHOLE, || rig.pair.is_whole())?;
            self.excuses.begun_in(from, rig.lab.clock().now());
        }
        Ok(())
    }
}
