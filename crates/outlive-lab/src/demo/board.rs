//! What can be seen of a demo from outside: written by the thread that plays, read by the one that
//! shows.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::report::{as_seconds, milliseconds};
use crate::scenario::course::{Event, Observer, Stalls};
use crate::traffic::Group;

/// The two faults of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Harm {
    /// The node's program is killed.
    Kill,
    /// The node's cable is cut; its carrier stays.
    Cut,
}

impl Harm {
    /// In words.
    pub(super) fn to(self, node: &str) -> String {
        match self {
            Self::Kill => format!("SIGKILL to {node}"),
            Self::Cut => format!("{node}'s cable cut"),
        }
    }
}

/// A fault, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fault {
    /// In words.
    pub(super) what: String,
    /// Which kind.
    pub(super) kind: Harm,
    /// The node that was active, and was harmed.
    pub(super) node: String,
    /// When it began.
    #[serde(serialize_with = "as_seconds")]
    pub(super) at: Duration,
    /// The other node, once it was active.
    pub(super) taken_over_by: Option<String>,
    /// How long that took.
    #[serde(rename = "takeover_ms", serialize_with = "optional_milliseconds")]
    pub(super) takeover: Option<Duration>,
    /// Both transfers were under way when it happened, and went on afterwards.
    pub(super) transfers_went_on: bool,
    /// Connections lost between this fault and the next one.
    pub(super) connections_lost: u64,
    /// Taken over, gone on, nothing lost.
    pub(super) survived: bool,
    /// How long each kind of connection waited.
    pub(super) stalls: Vec<Stalls>,
}

impl Fault {
    pub(super) fn new(kind: Harm, node: &str, at: Duration) -> Self {
        Self {
            what: kind.to(node),
            kind,
            node: node.to_owned(),
            at,
            taken_over_by: None,
            takeover: None,
            transfers_went_on: false,
            connections_lost: 0,
            survived: false,
            stalls: Vec::new(),
        }
    }
}

/// Why a play is to end before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody wants it.
    Interrupted,
    /// It has had time enough.
    TimeIsUp,
}

/// A node, as the play knows it. What it says of itself, it must be asked.
#[derive(Debug, Clone)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) admin_socket: PathBuf,
    /// Its program was killed and has not been started again.
    pub(super) killed: bool,
    /// Its cable is cut.
    pub(super) cut: bool,
}

/// The demo at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// The lab's clock, once there is a lab.
    pub(super) clock: Option<Clock>,
    /// How long the transfers will last if nothing holds them up.
    pub(super) planned: Duration,
    /// When the transfers began.
    pub(super) begun: Option<Duration>,
    /// Bytes of each transfer.
    pub(super) size: u64,
    /// What is going on, in words.
    pub(super) step: String,
    pub(super) events: Vec<Event>,
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) nodes: Vec<NodeView>,
    pub(super) faults: Vec<Fault>,
    /// Why it was told to end early.
    pub(super) told_to_end: Option<Reason>,
}

impl Snapshot {
    /// Time since the lab was built.
    pub(super) fn now(&self) -> Duration {
        self.clock.map_or(Duration::ZERO, Clock::now)
    }

    /// The end of what pictures show: when the transfers should be over, or later.
    pub(super) fn horizon(&self, now: Duration) -> Duration {
        now.max(self.begun.unwrap_or_default() + self.planned + Duration::from_secs(1))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    snapshot: Mutex<Snapshot>,
    /// Set by signals, too.
    give_up: Arc<AtomicBool>,
}

impl Board {
    pub(super) fn new(give_up: Arc<AtomicBool>, planned: Duration) -> Self {
        let snapshot = Snapshot {
            planned,
            step: "building the lab: seven network namespaces".to_owned(),
            ..Snapshot::default()
        };
        Self { snapshot: Mutex::new(snapshot), give_up }
    }

    /// A copy of everything on it.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Changes what is on it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.lock())
    }

    /// Says what is going on.
    pub(super) fn step(&self, step: impl Into<String>) {
        self.lock().step = step.into();
    }

    /// The play is to end: somebody wants it.
    pub(super) fn interrupt(&self) {
        self.give_up.store(true, Relaxed);
    }

    /// The play is to end: it has had time enough.
    pub(super) fn time_is_up(&self) {
        self.lock().told_to_end = Some(Reason::TimeIsUp);
        self.give_up.store(true, Relaxed);
    }

    /// Whether the play is to end.
    pub(super) fn is_given_up(&self) -> bool {
        let given_up = self.give_up.load(Relaxed);
        if given_up {
            self.lock().told_to_end.get_or_insert(Reason::Interrupted);
        }
        given_up
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().expect("no holder panics")
    }
}

/// Puts everything that a course tells on a board.
pub(super) struct Scribe(pub(super) Arc<Board>);

impl Observer for Scribe {
    fn event(&mut self, event: &Event) {
        self.0.change(|board| board.events.push(event.clone()));
    }

    fn progress(&mut self, _: Duration, groups: &[Arc<Group>]) {
        self.0.change(|board| board.groups = groups.to_vec());
    }

    fn gives_up(&self) -> bool {
        self.0.is_given_up()
    }
}

fn optional_milliseconds<S: serde::Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(milliseconds).serialize(serializer)
}
