//! What a node may say at all, whatever the streams are: how long a segment may be, when a reset may be
//! sent, from which ports servers are asked, what an ICMP error may quote.

use outlive_tcp::wire::{
    Flags, FourTuple, addresses,
    icmp::{IcmpMessage, parse_icmp},
};

use super::{Sender, Wire, is_reused, leg::Leg};
use crate::{
    content::FlowId,
    ledger::{Ledger, Rule},
    packet::Seen,
};

/// Where the second node's half of the source ports begins.
const MIDDLE: u16 = 33_280;
/// A node's own probe may lie so far before the first byte.
const PROBED: i64 = 2;
/// The least segment size that everybody takes (RFC 9293, section 3.7.1).
pub(super) const DEFAULT_MSS: u16 = 536;

impl Wire {
    pub(super) fn check_manners(&self, ledger: &mut Ledger, seen: &Seen, sender: &Sender<'_>) {
        let to = seen.tuple.reversed();
        if seen.has(Flags::SYN) && seen.ack.is_none() {
            let half = usize::from(seen.tuple.source.port >= MIDDLE);
            if half != sender.node {
                let detail = format!("node {} uses a port of the other's: {seen}", sender.node);
                ledger.violate(Rule::Ports, detail);
            }
        }
        let Some(leg) = self.clients.get(&to).or_else(|| self.servers.get(&to)) else { return };
        let other = leg.flow.and_then(|id| self.other_end(&to, id));
        check_length(ledger, leg, other, seen);
        if seen.has(Flags::RST) {
            self.check_reset(ledger, &to, leg, seen, sender);
        }
    }

    /// A living connection is reset only if its other end was.
    fn check_reset(
        &self,
        ledger: &mut Ledger,
        to: &FourTuple,
        leg: &Leg,
        seen: &Seen,
        sender: &Sender<'_>,
    ) {
        let Some(id) = leg.flow.filter(|_| leg.host_isn.is_some()) else { return };
        let believed = leg.of_own(seen.seq).is_some_and(|at| at >= leg.acked);
        if self.both_acted && believed {
            // What the nodes know now counts, not what they know when it arrives.
            ledger.resets_sent.push(id);
        }
        let flow = &ledger.flows[id.0];
        let other = self.other_end(to, id);
        let opening = leg.own_isn.is_none() || other.is_none_or(|other| !other.told && !leg.told);
        if opening || flow.is_finished() || leg.reset || other.is_some_and(|other| other.reset) {
            return;
        }
        // What an end will not believe is passed on to it, for it is the end that judges; but not the answer to
        // a probe, of which it knows nothing.
        if sender.relays && !believed {
            if other.is_some_and(Leg::was_probed) {
                let detail =
                    format!("node {} passes an answer to its probe on: {seen}", sender.node);
                ledger.violate(Rule::Silence, detail);
            }
            return;
        }
        let to_client = self.clients.contains_key(to);
        let other_is_done = if to_client { flow.server_done } else { flow.client_done };
        let detail = format!("node {} resets flow {}: {seen}", sender.node, id.0);
        // Where both nodes acted, this one may have an earlier connection from the same port, which is over at the
        // other end: it is no stranger that it resets.
        let earlier = self.both_acted && is_reused(ledger, flow.client);
        if sender.quiet && !sender.relays && !earlier {
            ledger.violate(Rule::Silence, detail);
        } else if !self.both_acted && !other_is_done {
            // (Two nodes that act may each have made a connection for the client. And when the other end has
            // everything, and has closed, what counts is whether this one still wants something.)
            ledger.resets.push((id, detail));
        }
    }

    /// The connection that the one of `key` is spliced to.
    fn other_end(&self, key: &FourTuple, id: FlowId) -> Option<&Leg> {
        let server = self.by_flow.get(&id)?;
        if server != key {
            return self.servers.get(server);
        }
        self.clients.values().find(|leg| leg.flow == Some(id))
    }

    /// A node sends something that is not TCP.
    pub(crate) fn node_says_otherwise(&self, ledger: &mut Ledger, packet: &[u8]) {
        let error = match parse_icmp(packet) {
            Ok(IcmpMessage::Error(error)) => error,
            Ok(_) => return,
            Err(why) => {
                return ledger.violate(Rule::WellFormed, format!("neither TCP nor ICMP: {why}"));
            }
        };
        let quoted = error.quoted;
        let told = addresses(packet).is_ok_and(|(_, to)| to == quoted.source.addr);
        let leg = self.clients.get(&quoted).or_else(|| self.servers.get(&quoted));
        let Some(leg) = leg else {
            // Of a stranger.
            return;
        };
        let flow = leg.flow.map(|id| &ledger.flows[id.0]);
        let prefix = flow.map_or(0, |flow| flow.prefix.len() as i64);
        // Where a port was used again, the error may be an old one; its receiver looks at the number.
        // (Whose a server's connection is that nobody has said anything on, is not known.)
        let reused = match flow {
            Some(flow) => is_reused(ledger, flow.client),
            None => ledger.flows.iter().any(|flow| is_reused(ledger, flow.client)),
        };
        let (at, said) = (leg.of_host(error.quoted_seq), leg.said);
        let own = -prefix - PROBED..=said;
        if !told || !reused && !self.both_acted && !at.is_some_and(|at| own.contains(&at)) {
            let detail = format!("an error about {quoted} at {at:?}, of {said} bytes said");
            ledger.violate(Rule::Quotation, detail);
        }
    }
}

/// No segment is longer than its receiver said it takes (RFC 6691: timestamps count, and blanked ones, too; for
/// SACK blocks hosts here leave no room).
fn check_length(ledger: &mut Ledger, leg: &Leg, other: Option<&Leg>, seen: &Seen) {
    let limit = usize::from(leg.host.mss.unwrap_or(DEFAULT_MSS));
    let ip = if seen.tuple.source.addr.is_ipv4() { 20 } else { 40 };
    let stamps = [Some(leg), other].into_iter().flatten().any(Leg::has_timestamps);
    let options = if stamps { (seen.payload.start - ip - 20).min(12) } else { 0 };
    if seen.len() > 0 && seen.len() + options > limit {
        let detail = format!("{} bytes for an end that takes {limit}: {seen}", seen.len());
        ledger.violate(Rule::SegmentSize, detail);
    }
}
