//! The heartbeat thread: one UDP socket for each path, a schedule, and nothing that can block.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, net::UdpSocket};
use outlive_net::privilege;
use outlive_proxy::pair::heartbeat::{Beliefs, HEARTBEAT_LEN, Heartbeat};
use outlive_tcp::time::Time;
use socket2::SockRef;
use tracing::{debug, info, warn};

use super::{
    HeartbeatConfig, Shared, lock,
    replay::{Freshness, Verdict},
};
use crate::clock::Clock;

const WAKER: Token = Token(usize::MAX);
/// Above ordinary threads, below the kernel's own.
const PRIORITY: u8 = 20;
/// DSCP class selector 6 (RFC 4594: network control), so that switches let bulk wait.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Datagrams read of one path before others get their turn.
const BUDGET: usize = 64;
/// What is wrong with what arrives is logged no more often than this.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Beater {
    config: HeartbeatConfig,
    clock: Clock,
    shared: Arc<Shared>,
    /// Wakes the event loop.
    main: Arc<Waker>,
    poll: Poll,
    waker: Arc<Waker>,
    sockets: Vec<Path>,
    freshness: Freshness,
    /// The beliefs that the event loop was last woken for.
    told: Option<Beliefs>,
    last_heard: Time,
    complained: Option<Time>,
    stalled: bool,
}

struct Path {
    socket: UdpSocket,
    peer: SocketAddr,
    readable: bool,
}

impl Beater {
    pub(super) fn new(
        config: HeartbeatConfig,
        clock: Clock,
        shared: Arc<Shared>,
        main: Arc<Waker>,
    ) -> Result<Self, (Option<usize>, io::Error)> {
        let general = |error| (None, error);
        let poll = Poll::new().map_err(general)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(general)?);
        let mut sockets = Vec::new();
        for (number, &(local, peer)) in config.paths.iter().enumerate() {
            let socket = open(&poll, number, local).map_err(|error| (Some(number), error))?;
            sockets.push(Path { socket, peer, readable: true });
        }
        let first = lock(&shared.say).counter + 1;
        Ok(Beater {
            freshness: Freshness::new(config.paths.len(), first),
            config,
            clock,
            shared,
            main,
            poll,
            waker,
            sockets,
            told: None,
            last_heard: Time::ZERO,
            complained: None,
            stalled: false,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub(super) fn run(mut self) {
        if let Err(refusal) = privilege::set_realtime(PRIORITY) {
            info!(%refusal, "heartbeats are sent without real-time priority");
        }
        let mut events = Events::with_capacity(16);
        let mut next = self.clock.now();
        while !self.shared.stop.load(Ordering::Acquire) {
            let busy = self.sockets.iter().any(|path| path.readable);
            let wait = if busy { Duration::ZERO } else { next.since(self.clock.now()) };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "the heartbeat thread cannot wait for its sockets");
                std::thread::sleep(self.config.interval);
            }
            let mut urgent = false;
            for event in &events {
                match self.sockets.get_mut(event.token().0) {
                    Some(path) => path.readable = true,
                    None => urgent = true,
                }
            }
            for path in 0..self.sockets.len() {
                self.receive(path);
            }
            let now = self.clock.now();
            if urgent || now >= next {
                self.beat(now);
                // In step with the schedule, unless that has been missed by far.
                next = if now < next { next } else { (next + self.config.interval).max(now) };
            }
        }
    }

    /// Sends a heartbeat on every path, if the node lives.
    fn beat(&mut self, now: Time) {
        if self.lives(now) {
            let heard = self.freshness.heard();
            for path in 0..self.sockets.len() {
                self.send(path, now, true, heard);
            }
        }
    }

    /// Whether the event loop has made progress lately.
    fn lives(&mut self, now: Time) -> bool {
        let progress = Time::from_micros(self.shared.progress.load(Ordering::Relaxed));
        let still = now.since(progress);
        let stalled = still > self.config.stall_timeout;
        if stalled != self.stalled {
            self.stalled = stalled;
            if stalled {
                warn!(?still, "the event loop stands still: heartbeats are withheld");
            } else {
                info!("the event loop goes on: heartbeats are sent again");
            }
        }
        !stalled
    }

    /// Sends one heartbeat, which asks if it may and asking is wanted.
    fn send(&mut self, path: usize, now: Time, may_ask: bool, heard: u64) {
        let heartbeat = {
            let mut say = lock(&self.shared.say);
            say.counter += 1;
            Heartbeat {
                beliefs: say.outgoing.beliefs,
                asks: say.outgoing.asks && may_ask,
                clock_us: say.outgoing.clock_offset_us.wrapping_add(now.as_micros()),
                counter: say.counter,
                heard,
            }
        };
        let (path, counters) = (&self.sockets[path], &self.shared.counters[path]);
        match path.socket.send_to(&heartbeat.encode(self.config.key), path.peer) {
            Ok(_) => counters.sent.fetch_add(1, Ordering::Relaxed),
            // A path without a cable, or a full queue: silence is what the peer is to notice.
            Err(_) => counters.send_failures.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Reads what has arrived on a path, and answers at once if an answer is wanted.
    fn receive(&mut self, path: usize) {
        let mut answer = None;
        for turn in 1..=BUDGET {
            if !self.sockets[path].readable {
                break;
            }
            // One byte more than a heartbeat shows that a datagram is longer.
            let mut buffer = [0; HEARTBEAT_LEN + 1];
            match self.sockets[path].socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let now = self.clock.now();
                    if let Some(heard) = self.datagram(path, &buffer[..len], from, now) {
                        answer = Some((now, heard));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sockets[path].readable = false;
                }
                // An earlier datagram drew an ICMP error: nobody listens there at the moment. Should it
                // never end, the next datagram tries again: this thread must not spin.
                Err(_) => self.sockets[path].readable = turn < BUDGET,
            }
        }
        // One answer for all that came, and never one that asks: two nodes that both ask would go on
        // answering each other for ever.
        if let Some((now, heard)) = answer
            && self.lives(now)
        {
            self.send(path, now, false, heard);
        }
    }

    /// Handles a datagram. If it wants to be answered at once: the counter to answer with.
    fn datagram(
        &mut self,
        path: usize,
        datagram: &[u8],
        from: SocketAddr,
        now: Time,
    ) -> Option<u64> {
        let shared = self.shared.clone();
        let counters = &shared.counters[path];
        let (outgoing, last_sent) = {
            let say = lock(&shared.say);
            (say.outgoing, say.counter)
        };
        let heartbeat = match Heartbeat::decode(datagram, self.config.key) {
            Ok(heartbeat) if heartbeat.beliefs.node != outgoing.beliefs.node => heartbeat,
            refused => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                self.complain(now, from, refused.err());
                return None;
            }
        };
        match self.freshness.judge(path, &heartbeat, last_sent) {
            Verdict::Replayed => {
                counters.replayed.fetch_add(1, Ordering::Relaxed);
                debug!(%from, counter = heartbeat.counter, "a heartbeat that is not news");
                return None;
            }
            Verdict::Unproven => return Some(heartbeat.counter),
            Verdict::Fresh => {}
        }
        counters.received.fetch_add(1, Ordering::Relaxed);
        counters.last_heard.store(now.as_micros() + 1, Ordering::Relaxed);
        lock(&shared.inbox)[path] = Some((now, heartbeat));
        // Pairs with the event loop's swap before it empties the inbox.
        shared.arrived.store(true, Ordering::Release);

        let silence = now.since(self.last_heard) > self.config.interval * 2;
        self.last_heard = now;
        if silence || outgoing.asks || self.told != Some(heartbeat.beliefs) {
            self.told = Some(heartbeat.beliefs);
            // The event loop looks by itself within a quarter of the detection timeout.
            let _ = self.main.wake();
        }
        // A peer that has not heard us yet learns at once that we hear it.
        (heartbeat.asks || heartbeat.heard == 0).then(|| self.freshness.heard())
    }

    fn complain(
        &mut self,
        now: Time,
        from: SocketAddr,
        why: Option<outlive_proxy::pair::heartbeat::NotAHeartbeat>,
    ) {
        if self.complained.is_some_and(|at| now.since(at) < COMPLAINT_INTERVAL) {
            return;
        }
        self.complained = Some(now);
        match why {
            Some(why) => warn!(%from, %why, "a datagram on a heartbeat path was refused"),
            None => {
                warn!(%from, "a heartbeat of a node with this node's own name: name one \"a\" and the other \"b\"")
            }
        }
    }
}

fn open(poll: &Poll, number: usize, local: SocketAddr) -> io::Result<UdpSocket> {
    let mut socket = UdpSocket::bind(local)?;
    let reference = SockRef::from(&socket);
    // Best effort: heartbeats also work without precedence.
    let _ = match local {
        SocketAddr::V4(_) => reference.set_tos_v4(TRAFFIC_CLASS),
        SocketAddr::V6(_) => reference.set_tclass_v6(TRAFFIC_CLASS),
    };
    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
    Ok(socket)
}
