//! What stands between clients and servers: the thing that is tested or compared.

pub mod haproxy;
pub mod keepalived;
pub mod outlive;
pub mod routing;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::LabError;
use crate::host::Host;

/// Something through which clients reach the services of a server.
pub trait Subject {
    /// What it is called in reports.
    fn name(&self) -> &str;

    /// Where a client finds the service of that port.
    fn address(&self, ipv6: bool, port: u16) -> SocketAddr;
}

/// Lines of each log that are shown when something went wrong.
const MOST_LINES: usize = 40;

/// Two machines, one of which serves while the other stands by.
pub trait Cluster: Subject {
    /// Both machines.
    fn machines(&mut self) -> [&mut dyn Machine; 2];

    /// Whether one serves and the other could take over, by what both say.
    fn is_whole(&mut self) -> Result<bool, LabError>;

    /// Which of the machines serves: 0 or 1.
    fn active(&mut self) -> Result<usize, LabError> {
        let [a, b] = self.machines();
        if a.serves()? {
            return Ok(0);
        }
        if b.serves()? { Ok(1) } else { Err(LabError::NobodyActive) }
    }

    /// The last lines that each of the machines has logged, by its name: for a report of something
    /// that went wrong.
    fn last_words(&mut self) -> Map<String, Value> {
        let last = |machine: &mut dyn Machine| {
            let log = machine.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(MOST_LINES)..];
            (machine.host().name().to_owned(), last.into())
        };
        self.machines().into_iter().map(last).collect()
    }

    /// What else there is to say of it in a report.
    fn describe(&mut self) -> Result<Map<String, Value>, LabError>;
}

/// A machine of a cluster: a host and the programs on it, with everything that can be done to them.
pub trait Machine {
    /// Where the programs run.
    fn host(&self) -> &Host;

    /// The same, to be changed.
    fn host_mut(&mut self) -> &mut Host;

    /// Starts what should run and does not.
    fn start(&mut self) -> Result<(), LabError>;

    /// Ends what serves as a crash would, and waits until it is gone.
    fn kill(&mut self) -> Result<(), LabError>;

    /// Ends everything, as a power cut would; nothing must be said to anybody.
    fn kill_all(&mut self) -> Result<(), LabError>;

    /// Asks the programs to stop, and waits until they have.
    fn stop(&mut self) -> Result<(), LabError>;

    /// Asks it to hand over to the other machine, and waits until it has.
    fn hand_over(&mut self) -> Result<(), LabError>;

    /// Freezes the programs: they do nothing, but their sockets and devices stay.
    fn freeze(&self) -> Result<(), LabError>;

    /// Lets frozen programs go on.
    fn thaw(&self) -> Result<(), LabError>;

    /// Whether it says that it serves.
    fn serves(&mut self) -> Result<bool, LabError>;

    /// Everything that its programs have logged so far.
    fn log(&self) -> String;

    /// When it last began to serve in place of the other, on the lab's clock, if it knows.
    fn took_over_at(&self) -> Option<Duration>;
}
