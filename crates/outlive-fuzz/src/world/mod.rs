//! A pair of nodes, three clients and their servers, in which an input of the packets target takes place.
//!
//! Packets are written by a model of both ends ([`conn`]) or by somebody who is neither; what leaves the nodes is
//! judged and, where it is for an end, received by the model. A connection that nobody interfered with in a way
//! that its own ends would take for real has to be right to the byte, and to go on to its end.

pub(crate) mod conn;
pub(crate) mod nodes;
pub(crate) mod setup;

use std::time::Duration;

use outlive_tcp::wire::{Checksum, FourTuple, Offload, TcpPacket};

use self::{
    conn::{ACK, Conn, FIN, SYN, Seen},
    nodes::{Left, Nodes, show, trace},
};
use crate::judge::fix_checksums;

/// Clients, each with a port of its own.
pub(crate) const CLIENTS: usize = 3;
/// When the first connection may have been idle for a minute.
const IDLE_AT: Duration = Duration::from_secs(70);
/// Packets that are remembered, for errors about them.
const REMEMBERED: usize = 8;

/// Everything.
pub(crate) struct World {
    pub(crate) nodes: Nodes,
    pub(crate) conns: Vec<Conn>,
    pub(crate) variant: u8,
    /// What left the nodes lately.
    pub(crate) recent: Vec<Left>,
    /// Somebody that the model does not know may have connections.
    strangers: bool,
}

impl World {
    pub(crate) fn new(variant: u8) -> Self {
        let listener = setup::listener(variant);
        let proxy_protocol = match (variant & setup::PROXY_V1 != 0, variant & setup::PROXY_V2 != 0)
        {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        };
        let conns = (0..CLIENTS as u8).map(|n| Conn::new(n, listener, proxy_protocol)).collect();
        let nodes = Nodes::new(variant);
        World { nodes, conns, variant, recent: Vec::new(), strangers: false }
    }

    /// An end says something: the node that serves gets it. `about`: whose connection it is.
    pub(crate) fn says(&mut self, packet: Option<Vec<u8>>, partial: bool, about: usize) {
        let (Some(mut packet), Some(active)) = (packet, self.nodes.active()) else { return };
        let checksum = if partial { Checksum::Partial } else { Checksum::Full };
        if partial {
            fix_checksums(&mut packet, checksum);
        }
        self.nodes.packet(active, &packet, Offload { checksum, ..Offload::default() });
        self.receive(Some(about));
    }

    /// Somebody who is neither end, and may know anything, says something to one of the nodes.
    pub(crate) fn forges(&mut self, packet: &[u8], index: usize, offload: Offload) {
        self.strangers = true;
        let mut bytes = packet.to_vec();
        let end = bytes.len();
        if let Ok(packet) = TcpPacket::parse(&mut bytes, 0, end, Offload::default()) {
            let tuple = packet.tuple();
            for conn in &mut self.conns {
                let backend = conn.backend.is_some_and(|b| b.tuple == tuple);
                conn.pristine &= !(conn.tuple() == tuple || backend);
            }
        }
        self.nodes.packet(index, packet, offload);
        self.receive(None);
    }

    /// Somebody who does not know where the streams stand says something in the name of an end.
    pub(crate) fn guesses(&mut self, packet: &[u8]) {
        let Some(active) = self.nodes.active() else { return };
        self.nodes.packet(active, packet, Offload::default());
        self.receive(None);
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.nodes.advance(time);
        self.receive(None);
    }

    /// Everything known of connections is void: the only node that knew them is gone.
    pub(crate) fn lose_unless_complete(&mut self) {
        if !self.nodes.standby_is_complete() {
            self.conns.iter_mut().for_each(|conn| conn.pristine = false);
        }
    }

    /// The standby holds everything up to now, and hears of nothing that happens.
    pub(crate) fn records_are_stuck(&self) -> bool {
        self.nodes.held && self.nodes.standby_is_complete()
    }

    /// What has left the nodes arrives.
    pub(crate) fn receive(&mut self, about: Option<usize>) {
        if self.variant & setup::SHORT_IDLE != 0 && self.nodes.now > setup::START + IDLE_AT {
            // Some may have been idle for too long, which is a reason to forget them.
            self.conns.iter_mut().for_each(|conn| conn.pristine = false);
        }
        if !self.records_are_stuck() {
            self.conns.iter_mut().for_each(|conn| conn.unrecorded = false);
        }
        for left in std::mem::take(&mut self.nodes.left) {
            trace(|| format!("out comes {}", show(&left.packet)));
            if let Some(seen) = Seen::of(&left) {
                self.route(&left, &seen, about);
            }
            if self.recent.len() >= REMEMBERED {
                self.recent.remove(0);
            }
            self.recent.push(left);
        }
    }

    fn route(&mut self, left: &Left, seen: &Seen, about: Option<usize>) {
        let towards = |tuple: FourTuple| seen.tuple == tuple.reversed();
        if let Some(conn) = self.conns.iter_mut().find(|c| towards(c.tuple())) {
            return conn.client_gets(left);
        }
        let backend = |c: &&mut Conn| c.backend.is_some_and(|b| towards(b.tuple));
        if let Some(conn) = self.conns.iter_mut().find(backend) {
            return conn.server_gets(left);
        }
        if seen.flags & (SYN | ACK) == SYN {
            self.server_asked(seen, about);
        }
    }

    /// A server is asked for a connection: whose is it?
    fn server_asked(&mut self, seen: &Seen, about: Option<usize>) {
        let waits = |conn: &Conn| conn.begun && !conn.settled && !conn.reset;
        let waiting: Vec<usize> = (0..CLIENTS).filter(|i| waits(&self.conns[*i])).collect();
        let whose = about.filter(|i| waiting.contains(i)).or(match waiting[..] {
            [only] if !self.strangers => Some(only),
            _ => None,
        });
        match whose {
            Some(index) => self.conns[index].server_asked(seen),
            // Not known: none of those that wait can be judged.
            None => waiting.into_iter().for_each(|i| self.conns[i].pristine = false),
        }
    }

    /// Every connection that nobody has really interfered with goes on to its end.
    pub(crate) fn finish(mut self) {
        self.nodes.held = false;
        self.advance(setup::DETECTION * 4);
        for index in 0..CLIENTS {
            let conn = &self.conns[index];
            let live = conn.pristine && conn.settled && !conn.reset && !conn.complete();
            let idle = self.variant & setup::SHORT_IDLE != 0;
            if live && !idle && self.nodes.active().is_some() {
                self.close(index);
            }
        }
    }

    fn close(&mut self, index: usize) {
        for _ in 0..10 {
            for flags in [0, FIN] {
                let said = self.conns[index].client_says(0, flags, flags == 0);
                self.says(said, false, index);
                let said = self.conns[index].server_says(0, flags, flags == 0);
                self.says(said, false, index);
            }
            // The last FIN may have to be acknowledged, and repeated.
            let said = self.conns[index].client_says(0, 0, true);
            self.says(said, false, index);
            if self.conns[index].complete() {
                return;
            }
            self.advance(Duration::from_millis(300));
        }
        panic!("a connection that does not go on: {:?}", self.conns[index]);
    }
}
