//! One connection between a host and Outlive, as the packets show it.

use std::collections::BTreeSet;

use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Flags, FourTuple, Options},
};

use crate::{content::FlowId, network::NodeIndex, packet::Seen, records::ConnectionName};

/// Farther than any window here reaches.
const FAR: i64 = 1 << 24;

/// What a SYN says of its sender.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    pub(super) scale: Option<u8>,
    pub(super) mss: Option<u16>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

impl Shown {
    fn of(options: &Options) -> Self {
        Shown {
            scale: options.window_scale,
            mss: options.mss,
            sack: options.sack_permitted,
            timestamps: options.timestamps.is_some(),
        }
    }
}

/// A connection between a host and Outlive, as the host has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Leg {
    /// Initial sequence number of the host.
    pub(super) host_isn: Option<Seq>,
    /// Initial sequence number of Outlive.
    pub(super) own_isn: Option<Seq>,
    /// What the host offered.
    pub(super) host: Shown,
    /// The timestamp of its SYN.
    pub(super) first_stamp: Option<u32>,
    /// What the host was shown, by initial sequence number: several nodes may have answered it.
    pub(super) shown: Vec<(Seq, Shown)>,
    /// Bytes of Outlive's that the host has acknowledged.
    pub(super) acked: i64,
    /// Bytes that the host has said.
    pub(super) said: i64,
    pub(super) flow: Option<FlowId>,
    /// A server: the node, and its process, that asked for the connection.
    pub(super) asker: Option<(NodeIndex, u32)>,
    /// A server that was told what the client said.
    pub(super) told: bool,
    /// The process that has told it so first.
    pub(super) teller: Option<(NodeIndex, u32)>,
    /// It did so while the other node was active, too, and not heard: nobody is going to be told of it.
    pub(super) told_apart: bool,
    /// A client that was answered while no standby would have continued its handshake.
    pub(super) answered_alone: bool,
    /// A client that was answered by a node with a standby, which has to believe its handshake.
    pub(super) answered_paired: bool,
    /// When a client was answered.
    pub(super) answered_at: Option<Time>,
    /// A reset came from here, or seemed to.
    pub(super) reset: bool,
    /// What the constants of its timestamps were seen to be: added to values, and to echoes.
    pub(super) stamps: (Option<u32>, Option<u32>),
    /// The last timestamp that the host was sent.
    pub(super) last_stamp: Option<u32>,
    /// Acknowledgment numbers of the probes that the host was sent last.
    pub(super) probes: Vec<Seq>,
}

impl Leg {
    /// A server that is asked for a connection.
    pub(super) fn asked(syn: &Seen, asker: (NodeIndex, u32)) -> Self {
        let mut leg = Leg { own_isn: Some(syn.seq), asker: Some(asker), ..Leg::default() };
        leg.shows(syn);
        leg
    }

    /// Where `seq` lies in the host's stream.
    pub(super) fn of_host(&self, seq: Seq) -> Option<i64> {
        Some(i64::from(seq.distance(self.host_isn? + 1) as i32))
    }

    /// Where `seq` lies in Outlive's stream.
    pub(super) fn of_own(&self, seq: Seq) -> Option<i64> {
        Some(i64::from(seq.distance(self.own_isn? + 1) as i32))
    }

    /// Whether this connection is among those.
    pub(super) fn is_in(&self, key: FourTuple, held: &BTreeSet<ConnectionName>) -> bool {
        self.host_isn.is_some_and(|isn| held.contains(&(key, isn.0)))
    }

    /// What the host was shown.
    pub(super) fn own(&self) -> Shown {
        let shown = self.shown.iter().rfind(|(isn, _)| Some(*isn) == self.own_isn);
        shown.map_or(Shown::default(), |(_, shown)| *shown)
    }

    /// The scales of the windows that the host shows, and that it is shown.
    pub(super) fn scales(&self) -> (u8, u8) {
        match (self.host.scale, self.own().scale) {
            (Some(host), Some(own)) => (host, own),
            _ => (0, 0),
        }
    }

    /// Whether the host looks at a segment at all: not at what ends before all that it has acknowledged, or begins
    /// far ahead (RFC 9293, section 3.10.7.4), and not at another handshake (RFC 5961, section 4). Old duplicates of an
    /// earlier connection are of that kind, and answers to a stranger who speaks in its name.
    pub(super) fn looks_at(&self, seen: &Seen) -> bool {
        if seen.has(Flags::SYN) && self.own_isn.is_some_and(|isn| isn != seen.seq) {
            return false;
        }
        let len = seen.len() as i64 + i64::from(seen.has(Flags::FIN));
        self.of_own(seen.seq).is_none_or(|at| at + len >= self.acked && at <= self.acked + FAR)
    }

    /// The host was sent a probe.
    pub(super) fn was_probed(&self) -> bool {
        !self.probes.is_empty()
    }

    /// Timestamps are used.
    pub(super) fn has_timestamps(&self) -> bool {
        self.host.timestamps && self.own().timestamps
    }

    /// The host understands SACK blocks.
    pub(super) fn understands_sack(&self) -> bool {
        self.host.sack && self.own().sack
    }

    /// The host is sent a SYN, or a SYN-ACK.
    pub(super) fn shows(&mut self, syn: &Seen) {
        self.shown.push((syn.seq, Shown::of(&syn.options)));
    }

    /// The host says SYN.
    pub(super) fn offers(&mut self, syn: &Seen) {
        self.host_isn = Some(syn.seq);
        self.host = Shown::of(&syn.options);
        self.first_stamp = syn.options.timestamps.map(|t| t.value);
    }

    /// The host sends a packet.
    pub(super) fn host_sends(&mut self, seen: &Seen) {
        if seen.has(Flags::RST) {
            // The answer to a probe says nothing about the stream.
            self.reset |= !self.probes.contains(&seen.seq);
            return;
        }
        if let Some(at) = self.of_host(seen.seq) {
            let end = at + seen.len() as i64 + i64::from(seen.has(Flags::FIN));
            self.said = self.said.max(end);
        }
        if let Some(at) = seen.ack.and_then(|ack| self.of_own(ack)) {
            self.acked = self.acked.max(at);
        }
    }

    /// Which numbers of the host have gone once round when it sends this.
    pub(super) fn passed_zero(&self, seen: &Seen) -> impl Iterator<Item = &'static str> + use<> {
        let later = self.of_host(seen.seq).is_some_and(|at| at > 0);
        let seq = later && self.host_isn.is_some_and(|isn| seen.seq.0 < isn.0);
        let stamps = seen.options.timestamps.zip(self.first_stamp);
        let stamp = stamps.is_some_and(|(stamps, first)| {
            stamps.value < first && (stamps.value.wrapping_sub(first) as i32) > 0
        });
        let seq = seq.then_some("sequence numbers passed zero");
        seq.into_iter().chain(stamp.then_some("timestamps passed zero"))
    }

    /// The host is sent a packet.
    pub(super) fn is_sent(&mut self, seen: &Seen) {
        self.last_stamp = seen.options.timestamps.map(|t| t.value).or(self.last_stamp);
        let below = self.of_own(seen.seq).is_some_and(|at| at < self.acked);
        if seen.len() == 1 && seen.window == 0 && seen.options.timestamps.is_none() && below {
            self.probes.extend(seen.ack);
        }
    }
}
