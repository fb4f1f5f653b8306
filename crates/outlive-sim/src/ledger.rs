//! Who said what to whom: the flows of clients, the connections that servers accepted, and the rules that
//! were broken.
//!
//! The ledger knows what every byte has to be ([`crate::content`]) and is told of every byte that an
//! application reads. What is seen on the wire is judged in `wire`, which uses the ledger.

use std::fmt;

use outlive_tcp::{time::Time, wire::Endpoint};

use crate::content::{self, BANNER, FlowId, InstanceId};

/// A rule of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What is read is a prefix of what was said.
    Stream,
    /// A server gets each client's words once.
    AtMostOnce,
    /// No reset reaches an end of a connection that should live.
    Reset,
    /// No acknowledgment goes to a sender before the other end has given it.
    TruthfulAcknowledgment,
    /// In a paired epoch nothing reaches a server, and no client of a direct listener is answered, before
    /// the standby holds the record.
    RecordBeforeEffect,
    /// A sender sees the window that the receiver shows, up to the steps of its scale.
    Window,
    /// What is reported as received was reported by the receiver.
    Selective,
    /// The clocks of a connection never run back, whichever node serves it.
    Clock,
    /// No segment is longer than its receiver takes.
    SegmentSize,
    /// An ICMP error quotes what its receiver has sent.
    Quotation,
    /// What a node sends on a connection is what the other end said.
    Payload,
    /// After a takeover unknown connections are met with silence.
    Silence,
    /// A node asks servers from ports of its own half.
    Ports,
    /// An epoch belongs to one node, and is followed by higher ones.
    Epoch,
    /// Of two nodes that hear each other, one acts; one that stood still asks first.
    OneActs,
    /// A takeover has its reasons: no path is heard, and a standby that does not hold everything waits.
    Takeover,
    /// A node sends only well-formed packets.
    WellFormed,
    /// What the node's own assertions say.
    Invariant,
    /// Memory is bounded.
    Memory,
    /// A node wakes up only so often.
    TimerStorm,
    /// Once faults have stopped, everything finishes.
    Liveness,
    /// A message on the state connection is obeyed by the other node.
    StateConnection,
    /// A migrated connection is silent until its target is told to speak, and from then on nobody but the target speaks.
    Mute,
    /// What comes through a tunnel is the client's, and from a balancer; a flow identifier means one connection.
    Tunnel,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Time,
    /// Which rule.
    pub rule: Rule,
    /// How, for people.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}: {}", self.at, self.rule, self.detail)
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) client: Endpoint,
    pub(crate) listener: Endpoint,
    /// What the client says first.
    pub(crate) preamble: Vec<u8>,
    /// What the server has to see before that.
    pub(crate) prefix: Vec<u8>,
    /// The first bytes that the client received.
    start: Vec<u8>,
    /// Whom the client talks to, by the banner.
    pub(crate) instance: Option<InstanceId>,
    /// Nothing is promised for it: its node died without a synchronised standby.
    pub(crate) exempt: bool,
    /// Two nodes that could not know of each other have opened it at two servers, and the client hears both.
    pub(crate) opened_twice: bool,
    pub(crate) client_done: bool,
    pub(crate) server_done: bool,
    pub(crate) client_said: usize,
    pub(crate) client_heard: usize,
    pub(crate) server_said: usize,
    pub(crate) server_heard: usize,
}

impl Flow {
    /// The byte at `at` of what the server must read.
    pub(crate) fn expected_at_server(&self, id: FlowId, at: usize) -> u8 {
        match self.prefix.get(at) {
            Some(byte) => *byte,
            None => content::client_byte(id, &self.preamble, at - self.prefix.len()),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.client_done && self.server_done
    }
}

/// A connection that a server accepted, or was asked for.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) server: Endpoint,
    /// The node's end of it; of a migrated one the client's.
    pub(crate) own: Endpoint,
    /// Whom it serves, if it was migrated.
    pub(crate) migrated: Option<FlowId>,
}

/// Everything that was said.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) now: Time,
    pub(crate) flows: Vec<Flow>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) violations: Vec<Violation>,
    /// Resets that reached a living connection, to be judged by who knows what the nodes know.
    pub(crate) resets: Vec<(FlowId, String)>,
    /// Flows that a node resets while both act, to be judged likewise.
    pub(crate) resets_sent: Vec<FlowId>,
}

/// More are not kept: one is enough to fail.
const VIOLATIONS: usize = 16;

impl Ledger {
    pub(crate) fn violate(&mut self, rule: Rule, detail: String) {
        if self.violations.len() < VIOLATIONS {
            self.violations.push(Violation { at: self.now, rule, detail });
        }
    }

    pub(crate) fn begin_flow(
        &mut self,
        client: Endpoint,
        listener: Endpoint,
        preamble: &content::Preamble,
        prefix: Vec<u8>,
    ) -> FlowId {
        let id = FlowId(self.flows.len());
        self.flows.push(Flow {
            client,
            listener,
            preamble: preamble.bytes(id),
            prefix,
            start: Vec::new(),
            instance: None,
            exempt: false,
            opened_twice: false,
            client_done: false,
            server_done: false,
            client_said: 0,
            client_heard: 0,
            server_said: 0,
            server_heard: 0,
        });
        id
    }

    pub(crate) fn begin_instance(&mut self, server: Endpoint, own: Endpoint) -> InstanceId {
        self.instances.push(Instance { server, own, migrated: None });
        InstanceId(self.instances.len() - 1)
    }

    /// Whether these are the words of a client that went away: nothing was promised for its flow, and its port
    /// may be used again. Or a header for one whose flow another node has brought to an end.
    pub(crate) fn was_given_up(&self, bytes: &[u8], at: usize) -> bool {
        let says = |(i, flow): (usize, &Flow)| {
            let said =
                |(j, byte): (usize, &u8)| flow.expected_at_server(FlowId(i), at + j) == *byte;
            let header = at + bytes.len() <= flow.prefix.len();
            (flow.exempt || flow.is_finished() && header) && bytes.iter().enumerate().all(said)
        };
        self.flows.iter().enumerate().any(says)
    }

    /// Whether the first `len` bytes that a server gets of this flow could be those of another one.
    pub(crate) fn is_ambiguous(&self, id: FlowId, len: usize) -> bool {
        let flow = &self.flows[id.0];
        let same = |other: &&Flow| other.client == flow.client;
        len <= flow.prefix.len() && self.flows.iter().filter(same).count() > 1
    }

    /// The client of `id` read `bytes`, the first of which is number `at`.
    pub(crate) fn client_read(&mut self, id: FlowId, at: usize, bytes: &[u8]) {
        let flow = &mut self.flows[id.0];
        flow.client_heard = at + bytes.len();
        if flow.opened_twice {
            return;
        }
        if flow.start.len() < BANNER {
            flow.start.extend(bytes.iter().take(BANNER - flow.start.len()));
            if flow.start.len() == BANNER {
                flow.instance = content::instance_of(&flow.start);
                if flow.instance.is_none_or(|i| i.0 >= self.instances.len()) {
                    self.violate(Rule::Stream, format!("flow {} reads no server's banner", id.0));
                    return;
                }
            }
        }
        let Some(instance) = self.flows[id.0].instance else { return };
        let said = |at| content::server_byte(instance, at);
        if let Some(wrong) =
            (0..bytes.len()).find(|i| at + i >= BANNER && bytes[*i] != said(at + i))
        {
            let detail = format!("flow {}: the client reads a wrong byte at {}", id.0, at + wrong);
            self.violate(Rule::Stream, detail);
        }
    }

    /// The server of `instance`, which serves `flow`, read `bytes`.
    pub(crate) fn server_read(
        &mut self,
        id: FlowId,
        instance: InstanceId,
        at: usize,
        bytes: &[u8],
    ) {
        let flow = &mut self.flows[id.0];
        flow.server_heard = flow.server_heard.max(at + bytes.len());
        let said = |at| flow.expected_at_server(id, at);
        let wrong = (0..bytes.len()).find(|i| bytes[*i] != said(at + i));
        if let Some(wrong) = wrong.filter(|_| !self.was_given_up(bytes, at)) {
            let detail = format!(
                "flow {}: server instance {} reads a wrong byte at {}",
                id.0,
                instance.0,
                at + wrong
            );
            self.violate(Rule::Stream, detail);
        }
    }

    /// Both ends of a flow are done: they must have heard everything.
    pub(crate) fn check_finished(&mut self, id: FlowId) {
        let flow = &self.flows[id.0];
        let to_server = (flow.client_said + flow.prefix.len(), flow.server_heard);
        let to_client = (flow.server_said, flow.client_heard);
        for (said, heard) in [to_server, to_client] {
            if said != heard {
                let detail = format!("flow {}: {said} bytes said, {heard} heard, and closed", id.0);
                self.violate(Rule::Stream, detail);
            }
        }
    }
}
