//! What a client says while its connection is being opened.

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::{Flags, Options, TcpPacket},
};

use super::{Meeting, Opening, cookies::FIRST_WINDOW};
use crate::{
    config::OpeningMode,
    content::route::{self, Choice},
    counters::Counter,
    event::LogEvent,
    flows::{Flow, Side},
    proxy::{Proxy, Verdict},
};

impl Proxy {
    pub(crate) fn insert_opening(&mut self, opening: Opening) -> usize {
        let tuple = opening.tuple;
        let slot = self.openings.insert(opening);
        self.enter_flow(&tuple, Flow::Opening(slot, Side::Client));
        slot
    }

    /// Forgets an opening: nothing of it has had an effect.
    pub(crate) fn remove_opening(&mut self, slot: usize) -> Option<Opening> {
        let opening = self.openings.get(slot)?;
        let client = opening.tuple;
        let server = opening.attempt.as_ref().map(|a| (a.tuple(), a.server));
        if let Some(transfer) = self.openings[slot].transfer.take() {
            self.give_up_transfer(&transfer);
        }
        self.leave_flow(&client, Flow::Opening(slot, Side::Client));
        if let Some((tuple, id)) = server {
            self.leave_flow(&tuple, Flow::Opening(slot, Side::Server));
            self.connection_ended(id, tuple.destination);
        }
        self.openings.remove(slot)
    }

    /// Whether a server was asked for a connection, and has not answered.
    pub(crate) fn is_connecting(&self) -> bool {
        self.openings.slots().iter().any(|slot| {
            let opening = &self.openings[*slot];
            opening.attempt.is_some() || opening.transfer.is_some()
        })
    }

    /// Forgets every opening (this node serves no longer).
    pub(crate) fn remove_all_openings(&mut self) {
        for slot in self.openings.slots() {
            self.remove_opening(slot);
        }
    }

    /// Forgets the openings of clients that have been answered, and whose first data is held.
    pub(crate) fn remove_answered_openings(&mut self) {
        for slot in self.openings.slots() {
            if !self.openings[slot].is_half_open() {
                self.remove_opening(slot);
            }
        }
    }

    /// A SYN at a direct listener: it is held, and the server asked first.
    pub(crate) fn hold(
        &mut self,
        now: Time,
        listener: u16,
        packet: &TcpPacket<'_>,
        options: Options,
    ) {
        let slot = self.insert_opening(Opening {
            tuple: packet.tuple(),
            listener,
            irs: packet.seq(),
            options,
            timestamp: options.timestamps.unwrap_or_default().value,
            window: u32::from(packet.window()),
            meeting: Meeting::Held { ecn: packet.flags().contains(Flags::ECE | Flags::CWR) },
            pool: None,
            tried: Default::default(),
            attempt: None,
            content: None,
            migrate: false,
            transfer: None,
        });
        self.choose_default(now, slot);
    }

    pub(crate) fn opening_client_packet(
        &mut self,
        now: Time,
        slot: usize,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let opening = &self.openings[slot];
        let flags = packet.flags();
        if flags.contains(Flags::RST) {
            return self.opening_reset(slot, packet);
        }
        if flags.contains(Flags::SYN) {
            // A repeated SYN. One of a new connection waits for the end of this one.
            return self.drop(Counter::DropOpening);
        }
        let Meeting::Answered { iss, .. } = &opening.meeting else {
            return self.drop(Counter::DropOpening);
        };
        if !flags.contains(Flags::ACK) || packet.ack() != *iss + 1 {
            return self.drop(Counter::DropOpening);
        }
        if opening.transfer.is_some() {
            return self.keep_moving(slot, packet);
        }
        self.take_data(slot, packet);
        if fault::on(Fault::AcknowledgeEarly) {
            self.acknowledge_early(slot);
        }
        if self.openings[slot].pool.is_none() {
            self.look(now, slot);
        }
        Verdict::Done
    }

    /// [`Fault::AcknowledgeEarly`].
    fn acknowledge_early(&mut self, slot: usize) {
        let opening = &self.openings[slot];
        let Meeting::Answered { iss, data, .. } = &opening.meeting else { return };
        let segment = outlive_tcp::segment::Segment {
            tuple: opening.tuple.reversed(),
            seq: *iss + 1,
            ack: Some(opening.irs + 1 + data.len() as u32),
            flags: Flags::NONE,
            window: FIRST_WINDOW,
            options: Options::default(),
            payload: &[],
            hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }

    /// The client gave up: if the reset is its own, so do we.
    fn opening_reset(&mut self, slot: usize, packet: &TcpPacket<'_>) -> Verdict {
        let opening = &self.openings[slot];
        let valid = match &opening.meeting {
            Meeting::Held { .. } => packet.seq() == opening.irs + 1 || packet.seq() == opening.irs,
            Meeting::Answered { .. } => {
                packet.seq().distance(opening.irs + 1) <= u32::from(FIRST_WINDOW)
            }
        };
        if !valid {
            return self.drop(Counter::ResetOutside);
        }
        self.remove_opening(slot);
        Verdict::Done
    }

    /// Keeps what continues the data without a gap, up to the window that the client was shown, however
    /// little of it is looked at: what is dropped here costs the client a loss. What comes out of order the client will say again, for
    /// nothing is acknowledged.
    pub(crate) fn take_data(&mut self, slot: usize, packet: &TcpPacket<'_>) {
        let opening = &mut self.openings[slot];
        let Meeting::Answered { data, fin, .. } = &opening.meeting else { return };
        let expected = opening.irs + 1 + data.len() as u32;
        let known = expected.distance(packet.seq());
        if known > packet.payload_len() || *fin {
            return;
        }
        if let Some(timestamps) = packet.timestamps() {
            opening.timestamp = timestamps.value;
        }
        opening.window = u32::from(packet.window()) << opening.options.window_scale.unwrap_or(0);
        let news = &packet.payload()[known as usize..];
        let taken = self.openings.append(slot, news, usize::from(FIRST_WINDOW));
        if taken == news.len()
            && packet.flags().contains(Flags::FIN)
            && let Meeting::Answered { fin, .. } = &mut self.openings[slot].meeting
        {
            *fin = true;
        }
    }

    /// Looks at the data so far, and decides if it can.
    fn look(&mut self, now: Time, slot: usize) {
        let opening = &self.openings[slot];
        let Meeting::Answered { data, fin, .. } = &opening.meeting else { return };
        let Some(listener) = self.listener(opening.listener) else { return };
        let OpeningMode::Inspect { limit, .. } = listener.opening else { return };
        let exhausted = data.len() >= usize::from(limit) || *fin;
        let choice = match route::choose(listener, data, exhausted) {
            Choice::Undecided => return,
            Choice::Route { route, content } => (Some(route.pool), route.migrate, content),
            Choice::Default { content } => (listener.default_pool, false, content),
        };
        let (pool, migrate, content) = choice;
        (self.openings[slot].migrate, self.openings[slot].content) = (migrate, content);
        self.pool_chosen(now, slot, pool);
    }

    /// The content cannot be had, or is not looked at: the listener's default.
    pub(crate) fn choose_default(&mut self, now: Time, slot: usize) {
        let listener = self.openings[slot].listener;
        let pool = self.listener(listener).and_then(|l| l.default_pool);
        self.pool_chosen(now, slot, pool);
    }

    fn pool_chosen(&mut self, now: Time, slot: usize, pool: Option<crate::config::PoolId>) {
        match pool {
            Some(pool) => {
                self.openings[slot].pool = Some(pool);
                self.try_server(now, slot);
            }
            None => self.turn_away(slot, Counter::NoRoute),
        }
    }

    /// Refuses the client.
    pub(crate) fn turn_away(&mut self, slot: usize, why: Counter) {
        self.counters.count(why);
        let Some(opening) = self.remove_opening(slot) else { return };
        let (client, listener) = (opening.tuple.source, opening.tuple.destination);
        self.log(LogEvent::TurnedAway { client, listener, why });
        match opening.meeting {
            Meeting::Held { .. } => self.refuse(opening.tuple, opening.irs),
            Meeting::Answered { iss, .. } => self.reset_answered(opening.tuple, iss + 1),
        }
    }
}
