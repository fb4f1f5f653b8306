//! The packet loop: a thread that owns the device, the neighbours, heartbeats and the state
//! connection, and passes what they bring to the stack.
//!
//! A turn reads what has arrived in the order of its weight: heartbeats, the state connection to its
//! end, packets up to a budget; only then may the stack judge that its peer is silent. Then it does and
//! sends what follows from that, and from what the program's tasks have done meanwhile.

use std::{io, sync::Arc, time::Duration};

use mio::{Events, Poll, Token, event::Event as Ready};
use outlive_net::tun::{BUFFER_LEN, VirtioNetHeader};
use outlive_node::{
    heartbeat::{Heartbeats, Outgoing},
    packets::{header_for, offload_of},
    state::{Failure, StateEndpoint, StateEvent},
};
use outlive_stack::{Event, LogEvent, Stack};
use outlive_tcp::{endpoint::Transmit, time::Time};
use tracing::{debug, info, warn};

use crate::{edge::Edge, shared::Shared, target::MigrationTarget};

pub(crate) const WAKER: Token = Token(0);
pub(crate) const STATE: usize = 1;
pub(crate) const EDGE: usize = STATE + StateEndpoint::TOKENS;

/// Packets read, and segments sent, before others get their turn.
const BUDGET: usize = 64;
/// A loop that has nothing to do turns this often.
const IDLE_TURN: Duration = Duration::from_secs(1);
/// Until the next look whether heartbeats that have arrived have been read.
const OVERLOOKED: Duration = Duration::from_millis(1);
/// Turns that the judgement of the peer is put off while the state connection has more to read.
const PATIENT_TURNS: u32 = 16;

/// What the loop reads from and writes to.
pub(crate) struct Sockets {
    pub(crate) edge: Edge,
    pub(crate) state: Option<StateEndpoint>,
    pub(crate) heartbeats: Option<Heartbeats>,
    pub(crate) migration: Option<MigrationTarget>,
}

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    edge: Edge,
    state: Option<StateEndpoint>,
    heartbeats: Option<Heartbeats>,
    migration: Option<MigrationTarget>,
    /// Zero without a peer.
    pub(crate) detection_timeout: Duration,
    pub(crate) poll: Poll,
    buffers: Buffers,
    readable: bool,
    neighbours_wait: bool,
    /// Turns in which the state connection was not read to its end.
    behind: u32,
    overlooked: bool,
}

/// Room for one packet each way.
struct Buffers {
    received: Box<[u8]>,
    sent: Vec<u8>,
    transmits: Vec<Transmit>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sockets: Sockets,
        detection_timeout: Duration,
        poll: Poll,
    ) -> Self {
        let Sockets { edge, state, heartbeats, migration } = sockets;
        Driver {
            shared,
            edge,
            state,
            heartbeats,
            migration,
            detection_timeout,
            poll,
            buffers: Buffers {
                received: vec![0; BUFFER_LEN].into(),
                sent: Vec::with_capacity(BUFFER_LEN),
                transmits: Vec::with_capacity(BUDGET),
            },
            readable: true,
            neighbours_wait: true,
            behind: 0,
            overlooked: false,
        }
    }

    /// Turns until the host is told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.shared.lock().stop {
            match self.poll.poll(&mut events, Some(self.wait())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    warn!(%error, "the packet loop cannot wait for its sockets");
                    return;
                }
                _ => self.turn(&events),
            }
        }
        // What the program has done last.
        let now = self.shared.clock.now();
        self.settle(now);
        if let Some(migration) = &mut self.migration {
            migration.give_up(now, self.poll.registry(), &mut self.shared.lock().stack);
        }
    }

    fn wait(&self) -> Duration {
        if self.readable || self.neighbours_wait || self.behind > 0 {
            return Duration::ZERO;
        }
        if self.overlooked {
            return OVERLOOKED;
        }
        let now = self.shared.clock.now();
        let idle = if self.state.is_some() { self.detection_timeout / 4 } else { IDLE_TURN };
        let state = self.state.as_ref().map(StateEndpoint::deadline);
        let migration = self.migration.as_ref().and_then(MigrationTarget::next_deadline);
        let deadlines = [self.shared.lock().stack.poll_timeout(now), state, migration];
        deadlines.into_iter().flatten().fold(now + idle, Time::min).since(now)
    }

    fn turn(&mut self, events: &Events) {
        let now = self.shared.clock.now();
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.progress(now);
        }
        events.iter().for_each(|event| self.handle_ready(event));
        self.take_heartbeats(now);
        self.read_state(now);
        self.read_migrations(now);
        self.read_packets(now);
        self.neighbours_wait = self.edge.answer_neighbours();
        let behind = self.behind > 0 && self.behind <= PATIENT_TURNS;
        if !behind && !self.overlooks_heartbeats(now) {
            self.shared.lock().stack.handle_timeout(now);
        }
        self.settle(now);
        self.speak(now);
    }

    fn handle_ready(&mut self, event: &Ready) {
        match event.token() {
            WAKER => {}
            Token(STATE..EDGE) => {
                if let Some(state) = &mut self.state {
                    state.handle_ready(event);
                }
            }
            token => {
                if !self.migration.as_mut().is_some_and(|target| target.handle_ready(event)) {
                    self.readable |= self.edge.handle_ready(token);
                }
            }
        }
    }

    fn take_heartbeats(&mut self, now: Time) {
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.take(|path, at, heartbeat| {
                self.shared.lock().stack.handle_heartbeat(now, path, at, heartbeat);
            });
        }
        self.settle(now);
    }

    fn read_state(&mut self, now: Time) {
        let (Some(state), shared) = (&mut self.state, &self.shared) else { return };
        let drained = state.drive(now, &mut |event| {
            let stack = &mut shared.lock().stack;
            match event {
                StateEvent::Connected => stack.handle_state_connected(now),
                StateEvent::Closed(_) => stack.handle_state_closed(now),
                StateEvent::Refused => stack.handle_peer_refused(now),
                StateEvent::Message(message) => {
                    if let Err(error) = stack.handle_state_message(now, message) {
                        warn!(%error, "the peer sent a message that cannot be obeyed");
                        return Err(Failure::Disobeyed);
                    }
                }
            }
            Ok(())
        });
        self.behind = if drained { 0 } else { self.behind + 1 };
        self.settle(now);
    }

    fn read_migrations(&mut self, now: Time) {
        let Some(migration) = &mut self.migration else { return };
        let mut core = self.shared.lock();
        migration.drain(core.draining);
        migration.turn(now, self.poll.registry(), &mut core.stack);
        drop(core);
        self.settle(now);
    }

    fn read_packets(&mut self, now: Time) {
        for _ in 0..BUDGET {
            if !self.readable {
                break;
            }
            match self.edge.tun.recv(&mut self.buffers.received) {
                Ok(len) if len > VirtioNetHeader::LEN => {
                    let (header, rest) = self.buffers.received.split_at_mut(VirtioNetHeader::LEN);
                    let Some(header) = header.first_chunk() else { continue };
                    let offload = offload_of(VirtioNetHeader::parse(header));
                    let packet = &mut rest[..len - VirtioNetHeader::LEN];
                    let stack = &mut self.shared.lock().stack;
                    match &mut self.migration {
                        Some(migration) => migration.packet(now, packet, offload, stack),
                        None => stack.handle_packet(now, packet, offload),
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing there, or the interface is down.
                Err(_) => self.readable = false,
            }
        }
    }

    /// Whether the peer has been silent for the detection timeout as far as is known, but more of it
    /// has arrived.
    fn overlooks_heartbeats(&mut self, now: Time) -> bool {
        let Some(heartbeats) = &self.heartbeats else { return false };
        let silent = now.since(heartbeats.last_heard().unwrap_or(now));
        let judged = silent >= self.detection_timeout && silent < self.detection_timeout * 2;
        self.overlooked = (judged && heartbeats.has_unread()) || heartbeats.has_news();
        self.overlooked
    }

    /// Does what the stack wants done, and sends what it has to send.
    fn settle(&mut self, now: Time) {
        loop {
            let mut orders = Vec::new();
            {
                let core = &mut *self.shared.lock();
                while let Some(event) = core.stack.poll_event() {
                    orders.extend(core.dispatch(event));
                }
                while self.buffers.transmits.len() < BUDGET
                    && let Some(transmit) = core.stack.poll_transmit(now)
                {
                    self.buffers.transmits.push(transmit);
                }
            }
            if orders.is_empty() && self.buffers.transmits.is_empty() {
                return;
            }
            // The addresses are led to the device before the first packet leaves.
            orders.into_iter().for_each(|order| self.obey(now, order));
            for transmit in self.buffers.transmits.drain(..) {
                send(&self.edge, &transmit, &mut self.buffers.sent);
            }
        }
    }

    fn obey(&mut self, now: Time, order: Event) {
        match order {
            Event::Activate(epoch) => {
                debug!(%epoch, "taking the addresses");
                self.edge.activate();
            }
            Event::Deactivate(epoch) => {
                debug!(%epoch, "giving the addresses up");
                self.edge.deactivate();
            }
            Event::Announce => self.edge.announce(),
            Event::CloseStateConnection(reason) => {
                debug!(%reason, "closing the state connection");
                if let Some(state) = &mut self.state {
                    state.close(now);
                }
            }
            Event::Standing(_) => {
                // The latest, not the one of the event: it may be late.
                let standing = self.shared.lock().stack.standing();
                self.shared.standing.send_replace(standing);
            }
            Event::Over(id, closed) => {
                if let Some(migration) = &mut self.migration {
                    migration.over(id, closed);
                }
            }
            Event::Log(event) => log(&event),
            _ => {}
        }
    }

    /// Tells the peer what there is to tell.
    fn speak(&mut self, now: Time) {
        let shared = &self.shared;
        if let Some(migration) = &mut self.migration {
            migration.flush(now, self.poll.registry(), &mut shared.lock().stack);
        }
        if let Some(state) = &mut self.state {
            while state.push_with(|out| shared.lock().stack.poll_state_message(now, out)) {}
            state.flush();
        }
        let Some(heartbeats) = &mut self.heartbeats else { return };
        let said = outgoing(&shared.lock().stack, now);
        if let Some(counter) = heartbeats.publish(said) {
            shared.lock().stack.handle_asked(counter);
        }
    }
}

impl Drop for Driver {
    /// Gives the addresses up, then lets the peer know by falling silent and refusing it; what takes
    /// longer (the device) comes after that, with the fields.
    fn drop(&mut self) {
        self.edge.deactivate();
        self.state = None;
        self.heartbeats = None;
        self.shared.lock().end();
    }
}

/// What heartbeats shall say.
pub(crate) fn outgoing(stack: &Stack, now: Time) -> Outgoing {
    Outgoing {
        beliefs: stack.beliefs(),
        asks: stack.asks(),
        clock_offset_us: stack.clock_us(now).wrapping_sub(now.as_micros()),
    }
}

/// Gives a segment to the device, which completes its checksum, and cuts it if it is a super-segment.
fn send(edge: &Edge, transmit: &Transmit, packet: &mut Vec<u8>) {
    packet.clear();
    packet.resize(VirtioNetHeader::LEN, 0);
    let offload = transmit.emit_headers(packet);
    transmit.payload.iter().for_each(|piece| packet.extend_from_slice(piece));
    let header = header_for(&packet[VirtioNetHeader::LEN..], offload).emit();
    packet[..VirtioNetHeader::LEN].copy_from_slice(&header);
    // What the kernel does not take is lost, as on any network, and repeated.
    let _ = edge.tun.send(packet);
}

fn log(event: &LogEvent) {
    match event {
        LogEvent::NotRestored(id) => {
            warn!(%id, "the state of a connection could not be gone on with");
        }
        LogEvent::StoodStill(time) => warn!(?time, "stood still: asking the peer first"),
        LogEvent::WentAlone(epoch) => {
            warn!(%epoch, "the standby is lost: going on alone, a failure would not be survived");
        }
        LogEvent::SteppedDown(epoch) => warn!(%epoch, "the other node is active: stepping down"),
        LogEvent::TookOver { epoch, cause, connections, complete } => {
            warn!(%epoch, %cause, connections, complete, "took over");
        }
        LogEvent::Started(epoch) => info!(%epoch, "active, without a peer"),
        LogEvent::Joined(epoch) => info!(%epoch, "joined the active node as standby"),
        LogEvent::Synchronised { epoch, connections } => {
            info!(%epoch, connections, "synchronised: a failure would be survived");
        }
        LogEvent::SureAgain => info!("still the active node: going on"),
    }
}
