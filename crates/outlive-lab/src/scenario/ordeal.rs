//! A fault and its end: harm to the active machine, until the other serves; then made good, until the
//! cluster is whole again.

use std::time::Duration;

use super::course::Course;
use super::fault::Fault;
use crate::error::LabError;
use crate::subject::{Cluster, Machine};

/// How long the other machine may take to become active. Generous: what counts is how long the
/// connections waited, and that is measured.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// A fault that has been survived so far, and is not made good yet.
pub struct Ordeal<'a> {
    /// When the harm began.
    pub fault_at: Duration,
    /// When the other machine took over, by what it says; or when it was seen to have.
    pub took_over_at: Duration,
    fault: Fault,
    cluster: &'a mut dyn Cluster,
    /// Which of the machines was harmed.
    harmed: usize,
}

impl<'a> Ordeal<'a> {
    /// Does the harm and waits until the other machine serves, calling `meanwhile` again and again.
    pub fn begin(
        fault: Fault,
        cluster: &'a mut dyn Cluster,
        course: &mut Course<'_>,
        mut meanwhile: impl FnMut(),
    ) -> Result<Self, LabError> {
        let harmed = cluster.active()?;
        let [active, standby] = in_order(cluster, harmed);
        let (name, other) = (active.host().name().to_owned(), standby.host().name().to_owned());
        let fault_at = course.fault(fault.harm(&name), || fault.inflict(active, standby))?;
        course.wait(&format!("{other} to be active"), TAKE_OVER, || {
            meanwhile();
            standby.serves()
        })?;
        let seen_at = course.event(format!("{other} is active"));
        let said = standby.took_over_at().filter(|&at| fault_at <= at && at <= seen_at);
        let took_over_at = said.unwrap_or(seen_at);
        Ok(Self { fault_at, took_over_at, fault, cluster, harmed })
    }

    /// Makes the harm good.
    pub fn heal(self, course: &mut Course<'_>) -> Result<&'a mut dyn Cluster, LabError> {
        let [active, standby] = in_order(self.cluster, self.harmed);
        self.fault.heal(active, standby)?;
        course.event(self.fault.healing(active.host().name()));
        Ok(self.cluster)
    }

    /// Makes the harm good and waits at most `limit` until the cluster is whole.
    pub fn end(self, course: &mut Course<'_>, limit: Duration) -> Result<(), LabError> {
        let cluster = self.heal(course)?;
        course.wait("the cluster to be whole", limit, || cluster.is_whole())?;
        course.event("the cluster is whole again");
        Ok(())
    }
}

/// Both machines, that one first.
fn in_order(cluster: &mut dyn Cluster, first: usize) -> [&mut dyn Machine; 2] {
    let [a, b] = cluster.machines();
    if first == 0 { [a, b] } else { [b, a] }
}
