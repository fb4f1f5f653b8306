//! How a node is: as JSON for programs, in words for people.

use std::{collections::BTreeMap, fmt, time::Duration};

use outlive_proxy::{
    counters::Counter,
    pair::heartbeat::Role,
    status::{self as core, Status},
};
use serde::{Deserialize, Serialize};

/// An external detector that was not heard for this long, in milliseconds, is not there.
const DETECTOR_SILENCE: u64 = 10_000;

/// How a node is. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// `a` or `b`.
    pub node: String,
    /// For how long it has been running.
    pub uptime_ms: u64,
    /// `joining`, `standby` or `active`.
    pub role: String,
    /// The epoch in which it is that: a number, and the node that began it.
    pub epoch: String,
    /// It stood still for longer than the detection timeout, and asks its peer before it goes on.
    pub unsure: bool,
    /// A planned handover: `none`, `under-way`, or `relaying` if the other node has taken over and late packets are
    /// passed on to it.
    pub handover: String,
    /// Whether the peer obeys the same configuration; `None`: it has not said so.
    pub same_configuration: Option<bool>,
    /// The other node; `None`: there is none in the configuration.
    pub peer: Option<PeerReport>,
    /// External detectors; `None`: none is provided for in the configuration.
    #[serde(default)]
    pub detector: Option<DetectorReport>,
    /// What would happen if the active node failed now.
    pub survival: Survival,
    /// What the core counts.
    pub core: CoreReport,
    /// What the TUN device has passed.
    pub packets: PacketReport,
    /// What was left to the kernel.
    pub fast_path: FastPathReport,
    /// Connections that live at targets, or are about to.
    #[serde(default)]
    pub migrated: u64,
    /// Where connections are migrated to.
    #[serde(default)]
    pub targets: Vec<TargetReport>,
}

/// The other node, as seen from this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Whether it was heard within the detection timeout.
    pub alive: bool,
    /// How long ago it was last heard on any path; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Whether the state connection is open.
    pub connected: bool,
    /// If not: why, as far as that is known.
    pub not_connected_because: Option<String>,
    /// Whether the standby (this node or the other) holds every session.
    pub synchronised: bool,
    /// Each way that heartbeats take.
    pub paths: Vec<PathReport>,
}

/// External detectors, as far as they were heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorReport {
    /// This node becomes active only when a detector says so.
    pub decides: bool,
    /// How long ago one was last heard; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Questions answered, orders among them.
    pub questions: u64,
    /// Orders to take over.
    pub orders: u64,
    /// Datagrams that were not understood, not authentic, or meant for the other node.
    pub refused: u64,
}

/// A heartbeat path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// This node's address.
    pub local: String,
    /// The peer's address.
    pub peer: String,
    /// Whether the peer was heard on it within the detection timeout.
    pub alive: bool,
    /// How long ago the peer was last heard on it; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Heartbeats sent.
    pub sent: u64,
    /// Heartbeats that could not be sent.
    pub send_failures: u64,
    /// Heartbeats received.
    pub received: u64,
    /// Datagrams that were not the peer's heartbeats.
    pub refused: u64,
    /// Heartbeats that were not news.
    pub replayed: u64,
}

/// Whether the connections would outlive the active node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survival {
    /// They would.
    pub survives: bool,
    /// If not, why: half a sentence.
    pub because: Option<String>,
}

/// What the core counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreReport {
    /// Sessions whose handshake is not complete on both sides.
    pub establishing: u64,
    /// Sessions on which data flows.
    pub open: u64,
    /// Sessions that are over, and kept for late segments.
    pub over: u64,
    /// Connections that are being opened.
    pub openings: u64,
    /// Bytes of changes that wait to be sent to the standby.
    pub backlog_bytes: u64,
    /// Sessions that wait for the standby's confirmation.
    #[serde(default)]
    pub unconfirmed: u64,
    /// For how long the first of them has been waiting.
    #[serde(default)]
    pub waiting_ms: Option<u64>,
    /// Every listener, once for each of its addresses.
    #[serde(default)]
    pub listeners: Vec<ListenerReport>,
    /// Every server.
    pub servers: Vec<ServerReport>,
    /// Everything else, each under its name; since the start.
    pub counters: BTreeMap<String, u64>,
}

/// A listener at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Its name in the configuration.
    pub name: String,
    /// Where clients connect to.
    pub address: String,
    /// Sessions that are not over.
    pub sessions: u64,
    /// Sessions established here since the start.
    pub opened: u64,
}

/// A server, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Where it listens.
    pub address: String,
    /// Sessions with it, and attempts.
    pub sessions: u64,
    /// It has not failed lately.
    pub up: bool,
    /// It gets no new sessions of some pool, because an operator said so.
    pub draining: bool,
    /// Connections that it accepted from this node.
    #[serde(default)]
    pub answered: u64,
    /// Connections that it refused, or did not answer.
    #[serde(default)]
    pub failed: u64,
}

/// Established sessions whose packets the kernel translates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathReport {
    /// Sessions that are left to it at the moment.
    pub sessions: u64,
    /// Packets that it has translated, since the start; a super-segment is one.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
    /// If nothing is left to it: why.
    pub unavailable_because: Option<String>,
}

/// The agent of a migration target, as seen from this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub agent: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// If not: why, as far as that is known.
    pub not_connected_because: Option<String>,
    /// Whether connections can be migrated to it: it is connected, and packets have come through the tunnel.
    pub ready: bool,
}

/// What the TUN device has passed since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketReport {
    /// Packets read; a super-segment is one.
    pub read: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Packets written.
    pub written: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Packets that the kernel did not take.
    pub write_failures: u64,
    /// Reads that failed.
    pub read_failures: u64,
}

impl Survival {
    /// In words what the core says.
    pub(crate) fn of(
        status: &Status,
        peer: Option<&PeerReport>,
        detector: Option<&DetectorReport>,
    ) -> Self {
        let undetected = detector.filter(|detector| {
            detector.decides && detector.heard_ms_ago.is_none_or(|ago| ago > DETECTOR_SILENCE)
        });
        let because = match status.survival() {
            _ if status.role == Role::Joining => {
                "this node has just started and looks for its peer".to_owned()
            }
            core::Survival::Yes if undetected.is_some() => {
                "no external detector has been heard lately, and only one may decide that the standby takes over"
                    .to_owned()
            }
            core::Survival::Yes => return Survival { survives: true, because: None },
            core::Survival::NoPeer => "this node has no peer in its configuration".to_owned(),
            core::Survival::PeerGone => match peer.and_then(|peer| peer.heard_ms_ago) {
                Some(ago) => format!("the peer has been silent for {}", span(ago)),
                None => "the peer has never been heard".to_owned(),
            },
            core::Survival::NotConnected => {
                let why = peer.and_then(|peer| peer.not_connected_because.as_deref());
                format!("there is no state connection: {}", why.unwrap_or("it is being made"))
            }
            core::Survival::Synchronising => {
                "the standby does not hold every session yet".to_owned()
            }
        };
        Survival { survives: false, because: Some(because) }
    }
}

impl CoreReport {
    pub(crate) fn of(status: &Status) -> Self {
        let server = |server: &core::ServerStatus| ServerReport {
            address: server.address.to_string(),
            sessions: server.sessions.into(),
            up: server.up,
            draining: server.draining,
            answered: server.answered,
            failed: server.failed,
        };
        let listener = |listener: &core::ListenerStatus| ListenerReport {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            sessions: listener.sessions as u64,
            opened: listener.opened,
        };
        let counter =
            |counter: &Counter| (counter.name().to_owned(), status.counters.value(*counter));
        CoreReport {
            establishing: status.sessions.establishing as u64,
            open: status.sessions.open as u64,
            over: status.sessions.over as u64,
            openings: status.openings as u64,
            backlog_bytes: status.backlog as u64,
            unconfirmed: status.unconfirmed as u64,
            waiting_ms: status.waiting.map(millis),
            listeners: status.listeners.iter().map(listener).collect(),
            servers: status.servers.iter().map(server).collect(),
            counters: Counter::ALL.iter().map(counter).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Node {} is {} in epoch {}, running for {} (version {}).",
            self.node,
            self.role,
            self.epoch,
            span(self.uptime_ms),
            self.version
        )?;
        if self.unsure {
            writeln!(f, "It stood still, and asks its peer before it goes on.")?;
        }
        match self.handover.as_str() {
            "under-way" => writeln!(f, "It is handing over to its peer.")?,
            "relaying" => writeln!(f, "It has handed over, and passes late packets on.")?,
            _ => {}
        }
        if let Some(peer) = &self.peer {
            write!(f, "{peer}")?;
        }
        if let Some(detector) = &self.detector {
            writeln!(f, "{detector}")?;
        }
        let core = &self.core;
        writeln!(
            f,
            "Sessions: {}, and {} that are over; {} more being opened.",
            core.open + core.establishing,
            core.over,
            core.openings
        )?;
        if self.migrated > 0 {
            writeln!(
                f,
                "  {} more live at the targets that they were migrated to.",
                self.migrated
            )?;
        }
        for target in self.targets.iter().filter(|target| !target.ready) {
            match (&target.not_connected_because, target.connected) {
                (_, true) => writeln!(
                    f,
                    "  Target {} gets no connections: nothing has come through the tunnel to it yet.",
                    target.name
                )?,
                (Some(why), _) => {
                    writeln!(f, "  Target {} is not reached: {why}.", target.name)?;
                }
                (None, _) => writeln!(f, "  Target {} is not reached yet.", target.name)?,
            }
        }
        if let Some(because) = &self.fast_path.unavailable_because {
            writeln!(f, "  The kernel translates none of them itself: {because}.")?;
        }
        for server in core.servers.iter().filter(|server| !server.up) {
            writeln!(
                f,
                "  Server {} is passed over: it refused or did not answer.",
                server.address
            )?;
        }
        if self.same_configuration == Some(false) {
            writeln!(
                f,
                "The two nodes have DIFFERENT configurations (or versions): give both the same file, and reload."
            )?;
        }
        for server in core.servers.iter().filter(|server| server.draining) {
            writeln!(
                f,
                "  Server {} is draining: it gets no new sessions, {} left.",
                server.address, server.sessions
            )?;
        }
        match &self.survival {
            Survival { survives: true, .. } if self.role == "active" => {
                write!(f, "If this node failed now, every connection would go on at its peer.")
            }
            Survival { survives: true, .. } => {
                write!(f, "If the active node failed now, every connection would go on here.")
            }
            Survival { because, .. } => write!(
                f,
                "A failure now would NOT be survived: {}.",
                because.as_deref().unwrap_or("for an unknown reason")
            ),
        }
    }
}

impl fmt::Display for PeerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = match (self.alive, self.heard_ms_ago) {
            (true, Some(ago)) => format!("alive, heard {} ago", span(ago)),
            (_, Some(ago)) => format!("silent, last heard {} ago", span(ago)),
            (_, None) => "never heard".to_owned(),
        };
        let alive = self.paths.iter().filter(|path| path.alive).count();
        let connected = match (self.connected, &self.not_connected_because) {
            (true, _) => "connected".to_owned(),
            (false, Some(why)) => format!("not connected ({why})"),
            (false, None) => "not connected".to_owned(),
        };
        let synchronised = if self.synchronised { "synchronised" } else { "not synchronised" };
        writeln!(
            f,
            "Peer: {life}, on {alive} of {} paths; {connected}; {synchronised}.",
            self.paths.len()
        )?;
        for path in self.paths.iter().filter(|path| !path.alive) {
            let heard =
                path.heard_ms_ago.map_or("never".to_owned(), |ago| format!("{} ago", span(ago)));
            writeln!(f, "  Path {} to {} is down: last heard {heard}.", path.local, path.peer)?;
        }
        Ok(())
    }
}

impl fmt::Display for DetectorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decides = if self.decides { ", which decides who is active" } else { "" };
        match self.heard_ms_ago {
            Some(ago) => write!(f, "External detector{decides}: heard {} ago.", span(ago)),
            None => write!(f, "External detector{decides}: never heard."),
        }
    }
}

/// Milliseconds, rounded down.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time as people say it.
fn span(ms: u64) -> String {
    let (s, m, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match () {
        () if s < 1 => format!("{ms} ms"),
        () if m < 2 => format!("{s} s"),
        () if h < 2 => format!("{m} min"),
        () if h < 48 => format!("{h} h {} min", m % 60),
        () => format!("{} days", h / 24),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Report {
        let path = PathReport {
            local: "10.0.0.1:7401".into(),
            peer: "10.0.0.2:7401".into(),
            alive: true,
            heard_ms_ago: Some(12),
            sent: 100,
            send_failures: 0,
            received: 99,
            refused: 0,
            replayed: 0,
        };
        let down = PathReport { alive: false, heard_ms_ago: Some(90_000), ..path.clone() };
        let peer = PeerReport {
            alive: true,
            heard_ms_ago: Some(12),
            connected: true,
            not_connected_because: None,
            synchronised: true,
            paths: vec![path, down],
        };
        let up = ServerReport {
            address: "10.0.0.21:443".into(),
            sessions: 13,
            up: true,
            draining: false,
            answered: 20,
            failed: 0,
        };
        let address = "10.0.0.22:443".into();
        let down = ServerReport {
            address,
            sessions: 0,
            up: false,
            draining: false,
            answered: 0,
            failed: 2,
        };
        let servers = vec![down, up];
        let listeners = vec![ListenerReport {
            name: "web".into(),
            address: "10.0.0.100:443".into(),
            sessions: 12,
            opened: 20,
        }];
        Report {
            version: "0.1.0".into(),
            node: "a".into(),
            uptime_ms: 11_100_000,
            role: "active".into(),
            epoch: "3a".into(),
            unsure: false,
            handover: "none".into(),
            same_configuration: Some(true),
            survival: Survival { survives: true, because: None },
            peer: Some(peer),
            detector: None,
            core: CoreReport {
                establishing: 1,
                open: 11,
                over: 4,
                openings: 1,
                backlog_bytes: 0,
                unconfirmed: 2,
                waiting_ms: Some(3),
                listeners,
                servers,
                counters: [("takeovers".into(), 1)].into(),
            },
            packets: PacketReport::default(),
            fast_path: FastPathReport::default(),
            migrated: 3,
            targets: vec![TargetReport {
                name: "web1".into(),
                agent: "10.0.0.31:7410".into(),
                connected: false,
                not_connected_because: Some("the peer's port refuses connections".into()),
                ready: false,
            }],
        }
    }

    #[test]
    fn people_are_told_what_matters() {
        let mut report = example();
        assert_eq!(
            report.to_string(),
            "Node a is active in epoch 3a, running for 3 h 5 min (version 0.1.0).\n\
             Peer: alive, heard 12 ms ago, on 1 of 2 paths; connected; synchronised.\n\
             \x20 Path 10.0.0.1:7401 to 10.0.0.2:7401 is down: last heard 90 s ago.\n\
             Sessions: 12, and 4 that are over; 1 more being opened.\n\
             \x20 3 more live at the targets that they were migrated to.\n\
             \x20 Target web1 is not reached: the peer's port refuses connections.\n\
             \x20 Server 10.0.0.22:443 is passed over: it refused or did not answer.\n\
             If this node failed now, every connection would go on at its peer."
        );
        report.fast_path.unavailable_because = Some("it is too old".into());
        assert!(
            report
                .to_string()
                .contains("The kernel translates none of them itself: it is too old.\n")
        );
        let detector = DetectorReport {
            decides: true,
            heard_ms_ago: Some(40),
            questions: 9,
            orders: 0,
            refused: 0,
        };
        report.detector = Some(detector);
        let said = report.to_string();
        assert!(
            said.contains("External detector, which decides who is active: heard 40 ms ago.\n")
        );
        report.peer = None;
        report.survival = Survival { survives: false, because: Some("of the moon".into()) };
        assert!(report.to_string().ends_with("A failure now would NOT be survived: of the moon."));
    }

    #[test]
    fn spans_are_told_as_people_say_them() {
        let said = [0, 999, 1_000, 119_000, 120_000, 7_199_000, 7_200_000, 172_800_000].map(span);
        let expected =
            ["0 ms", "999 ms", "1 s", "119 s", "2 min", "119 min", "2 h 0 min", "2 days"];
        assert_eq!(said, expected);
    }
}
