//! What is seen on the wire, judged: from the hosts' packets it is known what each end has said and
//! acknowledged; what a node sends must follow from that.
//!
//! Nothing here asks the nodes. Positions are counted from the first byte of a stream, as 64-bit numbers;
//! a FIN counts as one more byte.

mod leg;
mod manners;
mod passing;

use std::collections::{BTreeMap, BTreeSet};

use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple},
};

use self::{leg::Leg, manners::DEFAULT_MSS};

use crate::{
    content::{self, BANNER, FlowId},
    ledger::{Ledger, Rule},
    network::NodeIndex,
    packet::Seen,
    records::ConnectionName,
    situations::Situations,
};

/// Everything seen so far.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// By the tuple of the client's packets.
    clients: BTreeMap<FourTuple, Leg>,
    /// By the tuple of the server's packets.
    servers: BTreeMap<FourTuple, Leg>,
    /// Server legs by the flow that they serve.
    by_flow: BTreeMap<FlowId, FourTuple>,
    /// Where clients connect to; nothing is known of strangers who do.
    listeners: BTreeSet<Endpoint>,
    /// What was seen.
    pub(crate) situations: Situations,
    /// Clients are answered before the standby is told of them: what counts is the first data.
    pub(crate) first_data: bool,
    /// At some time both nodes were active.
    pub(crate) both_acted: bool,
    /// Flows that two active nodes have opened, each without a chance to know of the other.
    pub(crate) opened_twice: Vec<FlowId>,
    /// Flows of which a target was told to speak.
    /// The node that told it so first, and whether it could not know what the other one did.
    pub(crate) migrated: BTreeMap<FlowId, (NodeIndex, bool)>,
}

/// What the standby is known to hold, if a session's effects have to wait for it.
type Held<'a> = Option<&'a BTreeSet<ConnectionName>>;

/// The node that sends a packet, and how it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) node: NodeIndex,
    /// Which of its processes.
    pub(crate) incarnation: u32,
    /// It has to be silent about what it does not know.
    pub(crate) quiet: bool,
    /// The packet is a translated one.
    pub(crate) relays: bool,
    /// A standby would continue what it begins now.
    pub(crate) paired: bool,
    /// What the standby is known to hold, if a session's effects have to wait for it.
    pub(crate) held: Held<'a>,
    /// What it was told of itself.
    pub(crate) own: &'a BTreeSet<ConnectionName>,
    /// The other node is active, too, and this one has not heard it for as long as it takes to think it dead.
    pub(crate) apart: bool,
}

impl Wire {
    /// A wire to these listeners.
    pub(crate) fn new(listeners: impl Iterator<Item = Endpoint>) -> Self {
        Wire { listeners: listeners.collect(), ..Wire::default() }
    }

    /// The flow that a server's connection serves, once something of it was seen.
    pub(crate) fn flow_of(&self, server: Endpoint, own: Endpoint) -> Option<FlowId> {
        self.servers.get(&FourTuple::new(server, own))?.flow
    }

    /// The tuple of the server's packets that serves the client of this tuple.
    pub(crate) fn server_of(&self, client: FourTuple) -> Option<FourTuple> {
        self.by_flow.get(&self.clients.get(&client)?.flow?).copied()
    }

    /// The process that has opened the connection to the server for the client of this tuple.
    pub(crate) fn opener_of(&self, client: FourTuple) -> Option<(NodeIndex, u32)> {
        self.servers.get(&self.server_of(client)?)?.asker
    }

    /// The process that was the first to pass on what the client of this tuple said.
    pub(crate) fn teller_of(&self, client: FourTuple) -> Option<(NodeIndex, u32)> {
        self.servers.get(&self.server_of(client)?)?.teller
    }

    /// The connection of the client of this tuple.
    pub(crate) fn session_of(&self, client: FourTuple) -> Option<ConnectionName> {
        Some((client, self.clients.get(&client)?.host_isn?.0))
    }

    /// The flow that the connection of a client of this tuple is, if it began with `isn`.
    pub(crate) fn flow_at(&self, client: FourTuple, isn: Seq) -> Option<FlowId> {
        self.clients.get(&client).filter(|leg| leg.host_isn == Some(isn))?.flow
    }

    /// The flow of the client of this tuple.
    pub(crate) fn flow_of_client(&self, client: FourTuple) -> Option<FlowId> {
        self.clients.get(&client)?.flow
    }

    /// The segment size that the client of this tuple takes.
    pub(crate) fn takes(&self, client: FourTuple) -> Option<u16> {
        self.clients.get(&client).map(|leg| leg.host.mss.unwrap_or(DEFAULT_MSS))
    }

    /// Bytes that the client of this tuple has said.
    pub(crate) fn said_by(&self, client: FourTuple) -> i64 {
        self.clients.get(&client).map_or(0, |leg| leg.said)
    }

    /// A server was told what the client of this flow has said by another node, which could not know what `node` does.
    pub(crate) fn was_told_apart(&self, flow: FlowId, node: NodeIndex) -> bool {
        let leg = self.by_flow.get(&flow).and_then(|key| self.servers.get(key));
        leg.is_some_and(|leg| leg.told_apart && leg.asker.is_some_and(|(by, _)| by != node))
    }

    /// A server was told what the client of this flow has said.
    pub(crate) fn was_told(&self, flow: FlowId) -> bool {
        self.by_flow.get(&flow).is_some_and(|key| self.servers[key].told)
    }

    /// Whether the client of this tuple was answered by a node without a synchronised standby.
    pub(crate) fn was_answered_alone(&self, client: FourTuple) -> bool {
        self.clients.get(&client).is_some_and(|leg| leg.answered_alone)
    }

    /// Whether the client of this tuple has taken an answer to its SYN.
    pub(crate) fn has_met(&self, client: FourTuple) -> bool {
        self.clients.get(&client).is_some_and(|leg| leg.own_isn.is_some())
    }

    /// Whether the client of this tuple was answered before `time`.
    pub(crate) fn was_answered_before(&self, client: FourTuple, time: Time) -> bool {
        self.clients.get(&client).is_some_and(|leg| leg.answered_at.is_some_and(|at| at < time))
    }

    /// A flow begins: its client is about to send a SYN from this tuple.
    pub(crate) fn begin_flow(&mut self, tuple: FourTuple, flow: FlowId) {
        self.clients.insert(tuple, Leg { flow: Some(flow), ..Leg::default() });
    }

    /// Whether a packet that a node has sent belongs to the present connection of whoever got it.
    pub(crate) fn is_recent(&self, packet: &[u8]) -> bool {
        Seen::of(&mut packet.to_vec()).is_some_and(|seen| {
            let to = seen.tuple.reversed();
            let leg = self.clients.get(&to).or_else(|| self.servers.get(&to));
            let present = |leg: &&Leg| leg.flow.is_some() && leg.own_isn.is_some();
            leg.filter(present).is_some_and(|leg| leg.looks_at(&seen))
        })
    }

    /// Whether these are the first words of a client.
    pub(crate) fn is_first(&self, seen: &Seen) -> bool {
        seen.len() > 0 && self.is_first_byte(seen.tuple, seen.seq)
    }

    /// Whether the present connection of a client begins there.
    pub(crate) fn is_first_byte(&self, client: FourTuple, seq: Seq) -> bool {
        self.clients.get(&client).is_some_and(|leg| leg.of_host(seq) == Some(0))
    }

    /// Every end of a flow that is alive, with what it says next.
    pub(crate) fn living(&self, ledger: &Ledger) -> Vec<(FourTuple, Seq)> {
        let legs = self.clients.iter().chain(&self.servers);
        let alive = legs.filter(|(_, leg)| leg.own_isn.is_some()).filter(|(_, leg)| {
            leg.flow.is_some_and(|id| {
                let flow = &ledger.flows[id.0];
                !flow.client_done && !flow.server_done
            })
        });
        alive.filter_map(|(key, leg)| Some((*key, leg.host_isn? + 1 + leg.said as u32))).collect()
    }

    /// A client's or server's packet leaves it.
    pub(crate) fn host_sends(&mut self, seen: &Seen) {
        if let Some(leg) = self.clients.get_mut(&seen.tuple) {
            if seen.has(Flags::SYN) {
                leg.offers(seen);
            } else if leg.own_isn.is_none() && !seen.has(Flags::RST) {
                // Its first acknowledgment tells which SYN-ACK it has taken.
                leg.own_isn = seen.ack.map(|ack| ack - 1);
            }
            leg.host_sends(seen);
        } else if let Some(leg) = self.servers.get_mut(&seen.tuple) {
            if seen.has(Flags::SYN) && seen.ack == leg.own_isn.map(|isn| isn + 1) {
                leg.offers(seen);
            }
            leg.host_sends(seen);
        }
        let leg = self.clients.get(&seen.tuple).or_else(|| self.servers.get(&seen.tuple));
        if let Some(leg) = leg {
            self.situations.extend(leg.passed_zero(seen));
        }
    }

    /// A reset reaches a node that seems to be that host's.
    pub(crate) fn forged_reset(&mut self, from: FourTuple) {
        for legs in [&mut self.clients, &mut self.servers] {
            if let Some(leg) = legs.get_mut(&from) {
                leg.reset = true;
            }
        }
    }

    /// A node sends a packet.
    pub(crate) fn node_sends(
        &mut self,
        ledger: &mut Ledger,
        seen: &Seen,
        packet: &[u8],
        sender: Sender<'_>,
    ) {
        if !seen.checksum_ok {
            ledger.violate(Rule::WellFormed, format!("wrong checksum: {seen}"));
        }
        self.check_manners(ledger, seen, &sender);
        let from_host = seen.tuple.reversed();
        if self.clients.contains_key(&from_host) {
            self.sent_to_client(ledger, seen, packet, &sender);
        } else if !self.listeners.contains(&seen.tuple.source) {
            self.sent_to_server(ledger, seen, packet, &sender);
        }
        for legs in [&mut self.clients, &mut self.servers] {
            if let Some(leg) = legs.get_mut(&from_host) {
                leg.is_sent(seen);
            }
        }
    }

    fn sent_to_client(
        &mut self,
        ledger: &mut Ledger,
        seen: &Seen,
        packet: &[u8],
        sender: &Sender<'_>,
    ) {
        let key = seen.tuple.reversed();
        let leg = &self.clients[&key];
        let Some(flow) = leg.flow else { return };
        if seen.has(Flags::RST) {
            return;
        }
        let server_key = self.link_client(ledger, flow, seen, packet);
        // A node that was not told of it may still speak of an earlier connection from this port.
        let reused = is_reused(ledger, ledger.flows[flow.0].client);
        if ledger.flows[flow.0].exempt || ledger.flows[flow.0].is_finished() && reused {
            return;
        }
        if self.migrated.contains_key(&flow) {
            // A client whose connection has ended may be asked whether it knows.
            if !ledger.flows[flow.0].is_finished() {
                let detail = format!("node {} speaks, and the target does: {seen}", sender.node);
                ledger.violate(Rule::Mute, detail);
            }
            return;
        }
        let leg = &self.clients[&key];
        if leg.own_isn.is_none() && !seen.has(Flags::SYN) {
            // The client is in SYN-SENT: this is about an earlier connection (RFC 5961, section 4).
            return;
        }
        let server = server_key.and_then(|key| self.servers.get(&key));
        let prefix = ledger.flows[flow.0].prefix.len() as i64;
        let safe = server.map_or(0, |s| (s.acked - prefix).max(0));
        self.check_ack(ledger, seen, leg, safe);
        // Once the server has the prefix it is an old acknowledgment, and not looked at.
        let has_prefix = server.is_some_and(|s| s.acked >= prefix);
        let before = seen.ack.and_then(|ack| leg.of_host(ack)).filter(|_| !has_prefix);
        if before.is_some_and(|at| (-prefix..0).contains(&at)) {
            let detail = format!("the prefix is acknowledged to the client: {seen}");
            ledger.violate(Rule::TruthfulAcknowledgment, detail);
        }
        if let (Some(server), Some(at)) = (server, leg.of_own(seen.seq)) {
            let Some(instance) = ledger.flows[flow.0].instance.or_else(|| {
                ledger
                    .instances
                    .iter()
                    .rposition(|i| {
                        FourTuple::new(i.server, i.own) == server_key.expect("there is a server")
                    })
                    .map(content::InstanceId)
            }) else {
                return;
            };
            let said = |at| content::server_byte(instance, at);
            check_payload(ledger, seen, packet, at, leg.acked, server.said, said);
        }
        if seen.has(Flags::SYN) && self.clients[&key].own_isn.is_none() {
            let leg = self.clients.get_mut(&key).expect("it was looked up above");
            leg.shows(seen);
            leg.answered_alone = !sender.paired || self.first_data;
            leg.answered_paired = sender.paired;
            leg.answered_at = Some(ledger.now);
        }
        let server = server_key.and_then(|key| self.servers.get(&key));
        let answers = seen.ack == self.clients[&key].host_isn.map(|isn| isn + 1);
        let answered = seen.has(Flags::SYN) && !self.first_data && server_key.is_some() && answers;
        let data = seen.len() > 0 || seen.has(Flags::FIN);
        // What stands before the beginning of this connection belongs to an earlier one from this port.
        let earlier = reused && self.clients[&key].of_own(seen.seq).is_none_or(|at| at < 0);
        if let Some(held) = sender.held.filter(|_| data && !earlier)
            && !self.clients[&key].is_in(key, held)
        {
            let detail = format!("the client is told, and the standby knows nothing: {seen}");
            ledger.violate(Rule::RecordBeforeEffect, detail);
        }
        if let Some(held) = sender.held.filter(|_| answered)
            && !self.clients[&key].is_in(key, held)
            && server.is_some_and(|s| s.host_isn == Some(seen.seq))
        {
            let detail = format!("the client is answered, and the standby knows nothing: {seen}");
            ledger.violate(Rule::RecordBeforeEffect, detail);
        }
    }

    /// The server leg of a client's flow; found by the banner if it is not known.
    fn link_client(
        &mut self,
        ledger: &mut Ledger,
        flow: FlowId,
        seen: &Seen,
        packet: &[u8],
    ) -> Option<FourTuple> {
        if let Some(key) = self.by_flow.get(&flow) {
            return Some(*key);
        }
        let leg = self.clients.get(&seen.tuple.reversed())?;
        if seen.has(Flags::SYN) {
            // A direct listener shows the server's own number.
            return self
                .servers
                .iter()
                .find(|(_, s)| s.host_isn == Some(seen.seq))
                .map(|(k, _)| *k);
        }
        if leg.of_own(seen.seq) != Some(0) || seen.len() < BANNER {
            return None;
        }
        let instance = content::instance_of(&packet[seen.payload.clone()])?;
        let instance = ledger.instances.get(instance.0)?;
        let key = FourTuple::new(instance.server, instance.own);
        self.link(flow, key);
        Some(key)
    }

    fn link(&mut self, flow: FlowId, key: FourTuple) {
        let Some(leg) = self.servers.get_mut(&key) else { return };
        leg.flow = Some(flow);
        // A server that has seen no more than a PROXY header does not serve the flow.
        let served = self.by_flow.get(&flow).is_some_and(|other| self.servers[other].told);
        if !served {
            self.by_flow.insert(flow, key);
        }
    }

    /// The client's own words go to the server at `key`: for the first time?
    fn tell(&mut self, ledger: &mut Ledger, id: FlowId, key: FourTuple, sender: &Sender<'_>) {
        let Some(leg) = self.servers.get_mut(&key) else { return };
        if std::mem::replace(&mut leg.told, true) {
            return;
        }
        leg.teller = Some((sender.node, sender.incarnation));
        leg.told_apart = sender.apart;
        if let Some(decider) = self.migrated.get(&id).filter(|_| !ledger.flows[id.0].exempt) {
            let flow = &ledger.flows[id.0];
            let session = self.session_of(FourTuple::new(flow.client, flow.listener));
            let told = session.is_some_and(|session| sender.own.contains(&session));
            let (decider, decided_apart) = *decider;
            if (sender.apart || decided_apart) && decider != sender.node && !told {
                return self.opened_twice.push(id);
            }
            let detail = format!("flow {} reaches a server at {key}, and was migrated", id.0);
            ledger.violate(Rule::AtMostOnce, detail);
        }
        let other = self.by_flow.insert(id, key).filter(|other| *other != key);
        let Some(other) = other.filter(|other| self.servers[other].told) else { return };
        let flow = &ledger.flows[id.0];
        // Of two nodes that both act, nothing is promised for what only one of them knows. Otherwise a session
        // may be lost, but nobody goes on with it on a guess.
        if flow.exempt && self.both_acted {
            return;
        }
        if self.could_not_know(FourTuple::new(flow.client, flow.listener), other, sender) {
            self.situations.insert("opened by both nodes");
            self.opened_twice.push(id);
            return;
        }
        let detail = format!("flow {} reaches a server twice: {other} and {key}", id.0);
        ledger.violate(Rule::AtMostOnce, detail);
    }

    /// The one case in which a client may be opened at a second server: the standby had to believe its handshake, which
    /// was answered while the two were a pair; the other node has gone on alone since, opened it, and is
    /// active; and `sender`, active as well, has not heard of that, because it has not heard the other node at all, or
    /// had not when it happened.
    fn could_not_know(&self, client: FourTuple, other: FourTuple, sender: &Sender<'_>) -> bool {
        let by_other = self.servers[&other].asker.is_some_and(|(node, _)| node != sender.node);
        let told = self.session_of(client).is_some_and(|session| sender.own.contains(&session));
        let believed = self.clients.get(&client).is_some_and(|leg| leg.answered_paired);
        (sender.apart || self.servers[&other].told_apart) && by_other && !told && believed
    }

    /// The flow of a client that is done, and whose words these are: said once more by the network to a node that could
    /// not know that the other one has opened it.
    fn opened_again(
        &self,
        ledger: &Ledger,
        bytes: &[u8],
        at: usize,
        sender: &Sender<'_>,
    ) -> Option<FlowId> {
        let says = |id: &FlowId| {
            let flow = &ledger.flows[id.0];
            let said = |(j, byte): (usize, &u8)| flow.expected_at_server(*id, at + j) == *byte;
            let client = FourTuple::new(flow.client, flow.listener);
            let other = self.by_flow.get(id);
            flow.is_finished()
                && bytes.iter().enumerate().all(said)
                && self.clients.get(&client).is_some_and(|leg| leg.flow == Some(*id))
                && other.is_some_and(|other| self.could_not_know(client, *other, sender))
        };
        (0..ledger.flows.len()).map(FlowId).filter(|_| self.both_acted).find(says)
    }

    /// Whether these are the words of a client that has used its port again, passed on as those of the connection
    /// before by a node that could not know that it is over: two nodes act, and the other one was told. The server
    /// takes such words for ones that lie ahead, and what lies before them never comes.
    fn is_of_the_next(&self, ledger: &Ledger, bytes: &[u8], sender: &Sender<'_>) -> bool {
        let is_said = |(client, leg): (&FourTuple, &Leg)| {
            let Some(id) = leg.flow.filter(|_| is_reused(ledger, client.source)) else {
                return false;
            };
            let flow = &ledger.flows[id.0];
            let byte = |at: i64| content::client_byte(id, &flow.preamble, at as usize);
            let unknown = leg.host_isn.is_none_or(|isn| !sender.own.contains(&(*client, isn.0)));
            let said = |from: i64| (from..).zip(bytes).all(|(at, said)| byte(at) == *said);
            unknown && (0..=leg.said - bytes.len() as i64).any(said)
        };
        self.both_acted && sender.relays && self.clients.iter().any(is_said)
    }

    fn sent_to_server(
        &mut self,
        ledger: &mut Ledger,
        seen: &Seen,
        packet: &[u8],
        sender: &Sender<'_>,
    ) {
        let key = seen.tuple.reversed();
        if seen.has(Flags::SYN) {
            let leg = self.servers.entry(key).or_default();
            if leg.own_isn != Some(seen.seq) {
                *leg = Leg::asked(seen, (sender.node, sender.incarnation));
            }
            return;
        }
        let Some(leg) = self.servers.get(&key) else {
            if !seen.has(Flags::RST) {
                ledger.violate(Rule::Payload, format!("a server never asked for: {seen}"));
            }
            return;
        };
        if seen.has(Flags::RST) {
            return;
        }
        let effect = seen.len() > 0 || seen.has(Flags::FIN);
        if effect && sender.held.is_some_and(|held| !leg.is_in(key, held)) {
            let detail = format!("the server is told, and the standby knows nothing: {seen}");
            ledger.violate(Rule::RecordBeforeEffect, detail);
        }
        let Some(at) = leg.of_own(seen.seq) else { return };
        let flow = match leg.flow {
            Some(flow) => Some(flow),
            None if seen.len() > 0 && at >= leg.acked => {
                let bytes = &packet[seen.payload.clone()];
                match self.flow_that_said(ledger, bytes, at as usize) {
                    // A header alone does not tell a client from the one that had its port before.
                    Some(flow) if ledger.is_ambiguous(flow, at as usize + bytes.len()) => None,
                    Some(flow) => {
                        self.link(flow, key);
                        Some(flow)
                    }
                    None => {
                        let ahead = at > leg.acked;
                        if let Some(id) = self.opened_again(ledger, bytes, at as usize, sender) {
                            self.situations.insert("opened by both nodes");
                            self.opened_twice.push(id);
                        } else if !(ledger.was_given_up(bytes, at as usize)
                            || ahead && self.is_of_the_next(ledger, bytes, sender))
                        {
                            ledger.violate(Rule::Payload, format!("nobody said this: {seen}"));
                        }
                        None
                    }
                }
            }
            None => None,
        };
        let Some(flow) = flow else {
            // Nothing of it was seen, so nothing was acknowledged, but by a client of which it is not known yet whose it is.
            // (Where both nodes acted, its client may be another node's, and what it says to that one may come here.)
            let lone = |leg: &&Leg| leg.flow.is_none_or(|flow| !self.by_flow.contains_key(&flow));
            let acked = self.clients.values().filter(lone).map(|leg| leg.acked).max();
            if !self.both_acted {
                self.check_ack(ledger, seen, &self.servers[&key], acked.unwrap_or(0));
            }
            return;
        };
        let prefix = ledger.flows[flow.0].prefix.len() as i64;
        if seen.len() > 0 && at + seen.len() as i64 > prefix {
            self.tell(ledger, flow, key, sender);
        }
        // Two nodes that both act may each have made a connection for the client; one of them leads nowhere.
        if self.by_flow.get(&flow) == Some(&key) {
            self.must_be_the_clients(ledger, flow, key, seen, packet);
        }
    }

    /// A node sends to a server what must be the client's.
    fn must_be_the_clients(
        &self,
        ledger: &mut Ledger,
        id: FlowId,
        key: FourTuple,
        seen: &Seen,
        packet: &[u8],
    ) {
        let (flow, leg) = (&ledger.flows[id.0], &self.servers[&key]);
        let client = self.clients.get(&FourTuple::new(flow.client, flow.listener));
        // Once the client's port is used again, nobody knows what the old connection had acknowledged.
        let Some(client) = client.filter(|c| c.flow == Some(id) && !flow.exempt) else { return };
        let Some(at) = leg.of_own(seen.seq) else { return };
        let said = client.said + flow.prefix.len() as i64;
        let payload = &packet[seen.payload.clone()];
        let wrong = payload.iter().enumerate().map(|(i, byte)| (at + i as i64, *byte)).find(
            |(position, byte)| {
                *position >= leg.acked && *byte != flow.expected_at_server(id, *position as usize)
            },
        );
        if wrong.is_some() && ledger.was_given_up(payload, at as usize) {
            return;
        }
        self.check_ack(ledger, seen, leg, client.acked);
        report_payload(ledger, seen, at, leg.acked, said, wrong.map(|(position, _)| position));
    }

    /// The flow whose client is alive and says these bytes at `at`.
    fn flow_that_said(&self, ledger: &Ledger, bytes: &[u8], at: usize) -> Option<FlowId> {
        let says = |id: FlowId| {
            let flow = &ledger.flows[id.0];
            (0..bytes.len()).all(|i| flow.expected_at_server(id, at + i) == bytes[i])
        };
        (0..ledger.flows.len())
            .map(FlowId)
            .filter(|id| !ledger.flows[id.0].is_finished() && says(*id))
            .find(|id| {
                let flow = &ledger.flows[id.0];
                let leg = self.clients.get(&FourTuple::new(flow.client, flow.listener));
                leg.is_some_and(|leg| leg.flow == Some(*id))
            })
    }

    /// Truthful acknowledgment: `safe` is how much of the host's stream the other end has acknowledged.
    fn check_ack(&self, ledger: &mut Ledger, seen: &Seen, leg: &Leg, safe: i64) {
        let Some(at) = seen.ack.and_then(|ack| leg.of_host(ack)) else { return };
        // An answer to somebody else's SYN is met with a reset (RFC 9293, section 3.10.7.3).
        let foreign = seen.has(Flags::SYN) && leg.own_isn.is_none() && at != 0;
        if at > safe && !foreign && leg.looks_at(seen) {
            let detail = format!("{at} bytes acknowledged, {safe} are safe: {seen}");
            ledger.violate(Rule::TruthfulAcknowledgment, detail);
        }
    }
}

/// Whether a client has used this port more than once.
fn is_reused(ledger: &Ledger, client: Endpoint) -> bool {
    ledger.flows.iter().filter(|flow| flow.client == client).count() > 1
}

fn check_payload(
    ledger: &mut Ledger,
    seen: &Seen,
    packet: &[u8],
    at: i64,
    acked: i64,
    said: i64,
    expected: impl Fn(usize) -> u8,
) {
    let payload = packet[seen.payload.clone()].iter().enumerate();
    let wrong = payload
        .map(|(i, byte)| (at + i as i64, byte))
        .find(|(position, byte)| *position >= acked && **byte != expected(*position as usize))
        .map(|(position, _)| position);
    report_payload(ledger, seen, at, acked, said, wrong);
}

/// What an end has acknowledged it does not look at again: a probe may put anything there.
fn report_payload(
    ledger: &mut Ledger,
    seen: &Seen,
    at: i64,
    acked: i64,
    said: i64,
    wrong: Option<i64>,
) {
    if let Some(position) = wrong {
        ledger.violate(Rule::Payload, format!("wrong byte at {position}: {seen}"));
    }
    let end = at + seen.len() as i64 + i64::from(seen.has(Flags::FIN));
    if end > said && end > acked && end > at {
        let detail = format!("{end} bytes passed on, {said} were said: {seen}");
        ledger.violate(Rule::Payload, detail);
    }
}
