//! A host: a TCP with applications that follow scripts.
//!
//! It takes packets and gives packets; what its applications read goes to the ledger. Links, neighbours and
//! faults are the world's.

use std::net::IpAddr;

use outlive_tcp::{
    endpoint::Connection,
    time::Time,
    wire::{Flags, FourTuple, icmp::IcmpError},
};

use crate::{
    content::{self, FlowId, InstanceId},
    endpoint::Endpoints,
    ledger::{Ledger, Rule},
    linux::Linux,
    packet::Seen,
    script::{Pace, Speaker, Step},
    smoltcp::Smoltcp,
    stack::{Ends, Kind, Phase, StackSetup},
    wire::Wire,
};

/// What a server does with each connection to a port.
#[derive(Clone, Debug)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// What it does.
    pub script: Vec<Step>,
    /// How it reads.
    pub pace: Pace,
    /// Length of the PROXY header that it expects.
    pub prefix: usize,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Client(FlowId),
    Server(InstanceId),
}

/// An application at work.
#[derive(Debug)]
struct Conversation {
    who: Who,
    /// The tuple of what it sends.
    tuple: FourTuple,
    speaker: Speaker,
    /// There is nothing left to do.
    over: bool,
}

/// A host.
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    ends: Box<dyn Ends>,
    conversations: Vec<Conversation>,
    services: Vec<Service>,
}

impl Host {
    pub(crate) fn new(address: IpAddr, stack: StackSetup, seed: u64) -> Self {
        let ends: Box<dyn Ends> = match stack.kind {
            Kind::Linux => Box::new(Linux::new(stack, address.is_ipv4(), seed)),
            Kind::Smoltcp => Box::new(Smoltcp::new(address, stack, seed)),
            Kind::Outlive => Box::new(Endpoints::new(stack, seed)),
        };
        Host { address, ends, conversations: Vec::new(), services: Vec::new() }
    }

    /// Accepts connections from now on.
    pub(crate) fn serve(&mut self, service: Service) {
        self.ends.listen(service.port);
        self.services.push(service);
    }

    /// Begins a connection. An earlier one from this port must be over; it gives way.
    pub(crate) fn connect(
        &mut self,
        now: Time,
        flow: FlowId,
        tuple: FourTuple,
        script: &[Step],
        pace: Pace,
    ) {
        for earlier in self.conversations.iter_mut().filter(|c| c.tuple == tuple) {
            earlier.over = true;
        }
        self.ends.forget(&tuple);
        self.ends.connect(now, tuple);
        let speaker = Speaker::new(script, pace, 0);
        self.conversations.push(Conversation {
            who: Who::Client(flow),
            tuple,
            speaker,
            over: false,
        });
    }

    /// A packet arrives.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        mut packet: Vec<u8>,
        ledger: &mut Ledger,
        wire: &Wire,
    ) {
        let reset = Seen::of(&mut packet).filter(|seen| seen.has(Flags::RST));
        let hit = reset.as_ref().and_then(|seen| {
            let tuple = seen.tuple.reversed();
            self.conversations.iter().position(|c| !c.over && c.tuple == tuple)
        });
        let before = hit.map(|i| self.ends.phase(&self.conversations[i].tuple));
        self.ends.receive(now, packet);
        if let (Some(i), Some(seen), Some(before)) = (hit, reset, before)
            && !matches!(before, Phase::Closed | Phase::TimeWait)
            && self.ends.phase(&self.conversations[i].tuple) == Phase::Closed
        {
            self.was_reset(i, &seen, before, ledger, wire);
        }
        self.poll(now, ledger, wire);
    }

    fn was_reset(
        &mut self,
        i: usize,
        seen: &Seen,
        before: Phase,
        ledger: &mut Ledger,
        wire: &Wire,
    ) {
        let conversation = &self.conversations[i];
        // A server's connection that never served a client may be given up.
        let Some(id) = conversation.flow(ledger, wire) else { return };
        let flow = &ledger.flows[id.0];
        // The other end has everything, and has forgotten the connection: so may this one.
        let other_done = match conversation.who {
            Who::Client(_) => flow.server_done,
            Who::Server(_) => flow.client_done,
        };
        let forgotten = before == Phase::LastWords && other_done;
        if !forgotten {
            let detail = format!("flow {}: reset while {before:?}: {seen}", id.0);
            ledger.resets.push((id, detail));
        }
    }

    /// Lets the stack and the applications do what there is to do.
    pub(crate) fn poll(&mut self, now: Time, ledger: &mut Ledger, wire: &Wire) {
        loop {
            self.ends.poll(now);
            self.accept(ledger);
            if !self.talk(now, ledger, wire) {
                break;
            }
        }
    }

    fn accept(&mut self, ledger: &mut Ledger) {
        while let Some(tuple) = self.ends.accepted() {
            let instance = ledger.begin_instance(tuple.source, tuple.destination);
            let port = tuple.source.port;
            let Some(service) = self.services.iter().find(|s| s.port == port) else { continue };
            for earlier in self.conversations.iter_mut().filter(|c| c.tuple == tuple) {
                earlier.over = true;
            }
            self.conversations.push(Conversation {
                who: Who::Server(instance),
                tuple,
                speaker: Speaker::new(&service.script, service.pace, service.prefix),
                over: false,
            });
        }
    }

    /// Lets every application read and write. Whether anything happened that the stack should know.
    fn talk(&mut self, now: Time, ledger: &mut Ledger, wire: &Wire) -> bool {
        let mut busy = false;
        let ends = self.ends.as_mut();
        for conversation in self.conversations.iter_mut().filter(|c| !c.over) {
            busy |= conversation.read(now, ends, ledger, wire);
            busy |= conversation.write(now, ends, ledger);
            let phase = ends.phase(&conversation.tuple);
            if conversation.speaker.left {
                conversation.over = true;
                conversation.finished(ledger, wire);
            } else if conversation.speaker.is_done()
                && matches!(phase, Phase::Closed | Phase::TimeWait)
            {
                // TIME-WAIT stays with the stack; the application has nothing to do with it.
                conversation.over = true;
                conversation.finished(ledger, wire);
                if phase == Phase::Closed {
                    ends.forget(&conversation.tuple);
                }
            }
        }
        busy
    }

    /// Goes on with a connection that was migrated here, and whom it serves, if that is known.
    pub(crate) fn adopt(
        &mut self,
        now: Time,
        connection: Connection,
        flow: Option<FlowId>,
        ledger: &mut Ledger,
    ) {
        let tuple = connection.tuple();
        let Some(service) = self.services.iter().find(|s| s.port == tuple.source.port) else {
            return;
        };
        for earlier in self.conversations.iter_mut().filter(|c| c.tuple == tuple) {
            earlier.over = true;
        }
        self.ends.infuse(now, connection);
        let instance = ledger.begin_instance(tuple.source, tuple.destination);
        ledger.instances[instance.0].migrated = flow;
        self.conversations.push(Conversation {
            who: Who::Server(instance),
            tuple,
            speaker: Speaker::new(&service.script, service.pace, service.prefix),
            over: false,
        });
    }

    /// Where the connection stands that sends packets of this tuple.
    pub(crate) fn phase(&self, tuple: &FourTuple) -> Phase {
        self.ends.phase(tuple)
    }

    /// The program behind a connection has done all that it wanted.
    pub(crate) fn is_satisfied(&self, tuple: &FourTuple) -> bool {
        self.conversations.iter().all(|c| c.tuple != *tuple || c.over)
    }

    /// Removes a connection without a word.
    pub(crate) fn forget(&mut self, tuple: &FourTuple) {
        for conversation in self.conversations.iter_mut().filter(|c| c.tuple == *tuple) {
            conversation.over = true;
        }
        self.ends.forget(tuple);
    }

    /// An ICMP error arrives.
    pub(crate) fn receive_error(&mut self, now: Time, error: &IcmpError) {
        self.ends.receive_error(now, error);
    }

    /// When something happens by itself.
    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        let talking = self.conversations.iter().filter(|c| !c.over);
        let scripts = talking.filter_map(|c| c.speaker.deadline(now)).min();
        [self.ends.deadline(), scripts].into_iter().flatten().min()
    }

    /// The next packet to be sent.
    pub(crate) fn transmit(&mut self) -> Option<Vec<u8>> {
        self.ends.transmit()
    }

    /// How things stand, for a trace.
    pub(crate) fn describe(&self) -> Vec<String> {
        let talking = self.conversations.iter().filter(|c| !c.over);
        let line = |c: &Conversation| {
            format!("{:?} {} {:?} {:?}", c.who, c.tuple, self.ends.phase(&c.tuple), c.speaker)
        };
        talking.map(line).collect()
    }
}

impl Conversation {
    fn flow(&self, ledger: &Ledger, wire: &Wire) -> Option<FlowId> {
        match self.who {
            Who::Client(flow) => Some(flow),
            Who::Server(instance) => {
                let instance = &ledger.instances[instance.0];
                instance.migrated.or_else(|| wire.flow_of(instance.server, instance.own))
            }
        }
    }

    fn read(&mut self, now: Time, ends: &mut dyn Ends, ledger: &mut Ledger, wire: &Wire) -> bool {
        let mut buffer = [0; 4_096];
        let mut busy = false;
        loop {
            let room = self.speaker.may_read(now).min(buffer.len());
            if room == 0 || ends.unread(&self.tuple) == 0 {
                break;
            }
            let count = ends.read(&self.tuple, &mut buffer[..room]);
            let (at, bytes) = (self.speaker.received, &buffer[..count]);
            match (self.who, self.flow(ledger, wire)) {
                (Who::Client(flow), _) => ledger.client_read(flow, at, bytes),
                (Who::Server(instance), Some(flow)) => {
                    ledger.server_read(flow, instance, at, bytes);
                }
                (Who::Server(_), None) if ledger.was_given_up(bytes, at) => {}
                (Who::Server(instance), None) => {
                    let detail = format!("server instance {} reads what nobody said", instance.0);
                    ledger.violate(Rule::Stream, detail);
                }
            }
            self.speaker.has_read(now, count);
            busy = true;
        }
        if !self.speaker.peer_closed && ends.has_ended(&self.tuple) {
            self.speaker.peer_closed = true;
            busy = true;
        }
        busy
    }

    fn write(&mut self, now: Time, ends: &mut dyn Ends, ledger: &Ledger) -> bool {
        self.speaker.advance(now);
        let speaker = &mut self.speaker;
        let mut busy = false;
        let count = ends.room(&self.tuple).min(speaker.to_send - speaker.sent);
        if count > 0 {
            let said = |at| match self.who {
                Who::Client(flow) => content::client_byte(flow, &ledger.flows[flow.0].preamble, at),
                Who::Server(instance) => content::server_byte(instance, at),
            };
            let bytes: Vec<u8> = (speaker.sent..speaker.sent + count).map(said).collect();
            ends.write(&self.tuple, &bytes);
            speaker.sent += count;
            busy = true;
        }
        let open = ends.phase(&self.tuple) == Phase::Open;
        if speaker.wants_close && !speaker.closed && speaker.sent == speaker.to_send && open {
            ends.close(&self.tuple);
            speaker.closed = true;
            busy = true;
        }
        busy
    }

    fn finished(&self, ledger: &mut Ledger, wire: &Wire) {
        let Some(id) = self.flow(ledger, wire) else { return };
        let flow = &mut ledger.flows[id.0];
        match self.who {
            Who::Client(_) => (flow.client_done, flow.client_said) = (true, self.speaker.sent),
            Who::Server(_) => (flow.server_done, flow.server_said) = (true, self.speaker.sent),
        }
        if flow.is_finished() {
            ledger.check_finished(id);
        }
    }
}
