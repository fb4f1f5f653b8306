//! A pair and the agents of two targets, whose messages pass when the test says so.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::collections::{BTreeMap, VecDeque};

use outlive_migration::{
    blob::Blob,
    id::{Balancer, Epoch, MigrationId},
    message::{HowEnded, Message, Refusal},
    target::{Action, Limits, Target},
};
use outlive_proxy::{
    config::{Agent, Config, Migration, OpeningMode, Pool, PoolId, Route, Server},
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    wire::{Endpoint, Flags, FourTuple},
};

use crate::duo::{CLIENT_ISN, Duo, Out, client, config, listener, segment};

/// The nodes' address in the tunnel (tests give both the same).
pub(crate) const TUNNEL: [u8; 4] = [10, 9, 0, 1];
pub(crate) const REQUEST: &[u8] = b"GET /moved HTTP/1.1\r\nHost: h\r\n\r\n";

pub(crate) fn server(target: usize) -> Endpoint {
    Endpoint::new([10, 0, 0, 30 + target as u8].into(), 80)
}

pub(crate) fn control(target: usize) -> Endpoint {
    Endpoint::new([10, 0, 0, 30 + target as u8].into(), 7_400)
}

pub(crate) fn tunnel(target: usize) -> std::net::IpAddr {
    [10, 9, 0, 30 + target as u8].into()
}

/// An inspecting listener; requests for "/moved" are migrated to the two targets.
pub(crate) fn migrating() -> Config {
    let mut config = config(Default::default());
    config.pools.push(Pool {
        name: "moved".into(),
        servers: vec![Server { address: server(0) }, Server { address: server(1) }],
        ..config.pools[0].clone()
    });
    let web = &mut config.listeners[0];
    web.opening = OpeningMode::Inspect { limit: 1_000, timeout: std::time::Duration::from_secs(1) };
    let path_prefix = Some("/moved".into());
    web.routes = vec![Route { path_prefix, pool: PoolId(1), migrate: true, ..Route::default() }];
    let agent = |target| Agent {
        server: server(target),
        control: control(target),
        tunnel: vec![tunnel(target)],
    };
    config.migration = Migration { tunnel: vec![TUNNEL.into()], agents: vec![agent(0), agent(1)] };
    config
}

/// An agent that does what it is told at once.
pub(crate) struct TestAgent {
    target: Target,
    /// With whom it talks.
    connected: [bool; 2],
    /// What it was told to infuse is answered with this.
    pub(crate) refuses: Option<Refusal>,
    pub(crate) infused: BTreeMap<MigrationId, Blob>,
    pub(crate) speaking: Vec<MigrationId>,
    pub(crate) removed: Vec<MigrationId>,
    /// Messages under way from it.
    said: VecDeque<(usize, Message)>,
    /// What it has heard.
    pub(crate) heard: Vec<Message>,
}

impl TestAgent {
    fn new(incarnation: u64) -> Self {
        TestAgent {
            target: Target::new(Limits::default(), incarnation, false),
            connected: [false; 2],
            refuses: None,
            infused: BTreeMap::new(),
            speaking: Vec::new(),
            removed: Vec::new(),
            said: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    fn hear(&mut self, duo: &Duo, from: usize, message: Message) {
        self.heard.push(message.clone());
        let balancer = [Balancer::A, Balancer::B][from];
        if let Message::Probe { flow, .. } = message {
            self.target.handle(duo.now, balancer, message);
            // As if the packet had come right behind it; of an old epoch it is not expected.
            self.target.probe_arrived(flow, 1_500);
        } else {
            self.target.handle(duo.now, balancer, message);
        }
        self.act(duo);
    }

    /// Hears that a node serves in that epoch.
    pub(crate) fn serve(&mut self, duo: &Duo, from: usize, epoch: Epoch) {
        self.hear(duo, from, Message::Serve { epoch });
        self.said.clear();
    }

    fn act(&mut self, duo: &Duo) {
        while let Some(action) = self.target.poll_action() {
            match action {
                Action::Send(to, message) => self.said.push_back((to.index(), message)),
                Action::Infuse { id, blob } => {
                    let result = self.refuses.map_or(Ok(()), Err);
                    if result.is_ok() {
                        self.infused.insert(id, *blob);
                    }
                    self.target.infused(duo.now, id, result);
                }
                Action::Speak { id } => self.speaking.push(id),
                Action::Remove { id } => self.removed.push(id),
                Action::Adopt { id, .. } => self.target.adopted(id, false),
            }
        }
    }
}

pub(crate) struct World {
    pub(crate) duo: Duo,
    pub(crate) agents: [TestAgent; 2],
}

impl World {
    /// A pair, and both agents in conversation with both nodes.
    pub(crate) fn new() -> Self {
        let mut world = Self::unreached();
        for target in [0, 1] {
            world.reach(target);
        }
        world
    }

    /// Nobody talks to an agent yet.
    pub(crate) fn unreached() -> Self {
        World { duo: Duo::paired(migrating()), agents: [TestAgent::new(100), TestAgent::new(200)] }
    }

    /// Both nodes get a connection with the agent; the packets that follow from what they say.
    pub(crate) fn reach(&mut self, target: usize) -> Vec<Out> {
        let now = self.duo.now;
        for node in [0, 1] {
            if let Some(node) = self.duo.living(node) {
                node.handle_agent_connected(now, control(target));
            }
            self.agents[target].connected[node] = true;
            let hello = self.agents[target].target.hello();
            self.agents[target].said.push_back((node, hello));
        }
        self.talk()
    }

    /// The connections with the agent break; what is under way is lost.
    pub(crate) fn cut(&mut self, target: usize) -> Vec<Out> {
        let now = self.duo.now;
        self.agents[target].said.clear();
        self.agents[target].connected = [false; 2];
        let mut out = Vec::new();
        for node in [0, 1] {
            if let Some(node) = self.duo.living(node) {
                node.handle_agent_closed(now, control(target));
            }
            out.extend(self.duo.transmitted(node));
        }
        out
    }

    /// Another process in place of the agent, which knows nothing; not reached yet.
    pub(crate) fn restart(&mut self, target: usize) {
        self.cut(target);
        self.agents[target] = TestAgent::new(900);
    }

    /// The agents hear what there is to say, and say nothing yet.
    pub(crate) fn ask(&mut self) {
        for node in [0, 1] {
            while let Some((to, bytes)) =
                self.duo.living(node).and_then(|node| node.poll_agent_message())
            {
                let target = usize::from(to == control(1));
                let agent = &mut self.agents[target];
                if agent.connected[node] {
                    agent.hear(&self.duo, node, Message::decode(&bytes).unwrap());
                }
            }
        }
    }

    /// The nodes hear what the agents have said; the packets that follow.
    pub(crate) fn answer(&mut self) -> Vec<Out> {
        let now = self.duo.now;
        for agent in 0..2 {
            while let Some((to, message)) = self.agents[agent].said.pop_front() {
                if let Some(node) = self.duo.living(to) {
                    node.handle_agent_message(now, control(agent), &message.encode()).unwrap();
                }
            }
        }
        [0, 1].iter().flat_map(|node| self.duo.transmitted(*node)).collect()
    }

    /// Nodes and agents say and hear everything; the packets that follow. The nodes say nothing to each other.
    pub(crate) fn talk(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        for _ in 0..8 {
            self.ask();
            out.extend(self.answer());
        }
        out
    }

    /// Everybody says everything to everybody.
    pub(crate) fn settle(&mut self) -> Vec<Out> {
        let mut out = self.talk();
        out.extend(self.duo.exchange());
        out.extend(self.talk());
        out.extend(self.arrived(0));
        out.extend(self.arrived(1));
        out.extend(self.duo.exchange());
        out
    }

    /// Packets that were kept come again.
    fn arrived(&mut self, node: usize) -> Vec<Out> {
        let now = self.duo.now;
        let mut out = Vec::new();
        loop {
            let mut packet = Vec::new();
            let Some(living) = self.duo.living(node) else { return out };
            if living.poll_arrived(now, &mut packet).is_none() {
                return out;
            }
            out.extend(self.duo.send_bytes(node, &packet));
        }
    }

    /// The client completes the handshake at `node` and makes a request.
    pub(crate) fn request(&mut self, node: usize, number: u16) -> (Seq, Vec<Out>) {
        let syn_ack = self.duo.syn(node, number).remove(0);
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
        let first = from_client(number, 0, syn_ack.seq, Flags::PSH);
        let out = self.duo.send(node, Segment { payload: REQUEST, ..first });
        (syn_ack.seq, out)
    }

    /// The connection that lives at the target, or is to.
    pub(crate) fn end(&mut self, target: usize, id: MigrationId, how: HowEnded) {
        self.agents[target].target.ended(id, how);
        self.agents[target].act(&self.duo);
    }

    pub(crate) fn migrated(&self, node: usize) -> usize {
        self.duo.node(node).migrated()
    }

    pub(crate) fn count(&self, node: usize, counter: Counter) -> u64 {
        self.duo.counter(node, counter)
    }
}

/// A segment of a client that has said `said` bytes, and was shown `iss`.
pub(crate) fn from_client(number: u16, said: usize, iss: Seq, flags: Flags) -> Segment<'static> {
    let seq = CLIENT_ISN + 1 + said as u32;
    segment(client(number), listener(), seq, Some(iss + 1), flags)
}

/// The ends of a packet of that migration in the tunnel.
pub(crate) fn tunnelled(target: usize, blob: &Blob) -> FourTuple {
    let (upper, lower) = blob.mapping.flow.ports();
    FourTuple::new(Endpoint::new(TUNNEL.into(), upper), Endpoint::new(tunnel(target), lower))
}
