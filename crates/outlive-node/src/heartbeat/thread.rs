//! The heartbeat thread: one UDP socket for each path, a schedule, and nothing that can block.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, net::UdpSocket, unix::SourceFd};
use outlive_net::{
    arrival::{self, Arrival},
    privilege,
};
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
    /// As many as there are sockets.
    paths: Vec<Path>,
    freshness: Freshness,
    /// The beliefs that the event loop was last woken for.
    told: Option<Beliefs>,
    last_heard: Time,
    complained: Option<Time>,
    stalled: bool,
}

struct Path {
    peer: SocketAddr,
    readable: bool,
    /// When there was last nothing to read: what is read next has not arrived before.
    empty: Time,
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
        let now = clock.now();
        let mut paths = Vec::new();
        for (number, &(_, peer)) in config.paths.iter().enumerate() {
            let descriptor = shared.sockets[number].as_raw_fd();
            let registry = poll.registry();
            registry
                .register(&mut SourceFd(&descriptor), Token(number), Interest::READABLE)
                .map_err(|error| (Some(number), error))?;
            paths.push(Path { peer, readable: true, empty: now });
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
            paths,
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
            let busy = self.paths.iter().any(|path| path.readable);
            let wait = if busy { Duration::ZERO } else { next.since(self.clock.now()) };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "the heartbeat thread cannot wait for its sockets");
                std::thread::sleep(self.config.interval);
            }
            let mut urgent = false;
            for event in &events {
                match self.paths.get_mut(event.token().0) {
                    Some(path) => path.readable = true,
                    None => urgent = true,
                }
            }
            for path in 0..self.paths.len() {
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
            for path in 0..self.paths.len() {
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
        let (socket, counters) = (&self.shared.sockets[path], &self.shared.counters[path]);
        match socket.send_to(&heartbeat.encode(self.config.key), self.paths[path].peer) {
            Ok(_) => counters.sent.fetch_add(1, Ordering::Relaxed),
            // A path without a cable, or a full queue: silence is what the peer is to notice.
            Err(_) => counters.send_failures.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Reads what has arrived on a path, and answers at once if an answer is wanted.
    fn receive(&mut self, path: usize) {
        let mut answer = None;
        for turn in 1..=BUDGET {
            if !self.paths[path].readable {
                break;
            }
            // One byte more than a heartbeat shows that a datagram is longer.
            let mut buffer = [0; HEARTBEAT_LEN + 1];
            let before = self.clock.now();
            match arrival::receive(&self.shared.sockets[path], &mut buffer) {
                Ok(Arrival { len, from, age }) => {
                    let now = self.clock.now();
                    let at = arrived(now, age, self.paths[path].empty);
                    if let Some(heard) = self.datagram(path, &buffer[..len], from, at) {
                        answer = Some((now, heard));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.paths[path].readable = false;
                    self.paths[path].empty = before;
                }
                // An earlier datagram drew an ICMP error: nobody listens there at the moment. Should it
                // never end, the next datagram tries again: this thread must not spin.
                Err(_) => self.paths[path].readable = turn < BUDGET,
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

    /// Handles a datagram that arrived at `at`. If it wants to be answered at once: the counter to answer with.
    fn datagram(
        &mut self,
        path: usize,
        datagram: &[u8],
        from: SocketAddr,
        at: Time,
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
                self.complain(at, from, refused.err());
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
        counters.last_heard.store(at.as_micros() + 1, Ordering::Relaxed);
        lock(&shared.inbox)[path] = Some((at, heartbeat));
        // Pairs with the event loop's swap before it empties the inbox.
        shared.arrived.store(true, Ordering::Release);

        let silence = at.since(self.last_heard) > self.config.interval * 2;
        self.last_heard = at;
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

/// When a datagram arrived that was read at `now`, at which it had lain there for `age`, and not yet at `empty`. The
/// wall clock, by which ages are told, may be set at any time; the bounds hold in any case.
fn arrived(now: Time, age: Option<Duration>, empty: Time) -> Time {
    (now - age.unwrap_or_default()).max(empty).min(now)
}

/// The socket of a path.
pub(super) fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let reference = SockRef::from(&socket);
    // Best effort: heartbeats also work without precedence, and without the times of their arrival.
    let _ = match local {
        SocketAddr::V4(_) => reference.set_tos_v4(TRAFFIC_CLASS),
        SocketAddr::V6(_) => reference.set_tclass_v6(TRAFFIC_CLASS),
    };
    let _ = arrival::enable(&socket);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_late_counts_from_when_it_arrived() {
        let ms = |ms: u64| Time::from_micros(ms * 1_000);
        let age = |ms| Some(Duration::from_millis(ms));
        assert_eq!(arrived(ms(500), age(80), ms(100)), ms(420));
        assert_eq!(arrived(ms(500), None, ms(100)), ms(500));
        // The wall clock was set forward by an hour meanwhile.
        assert_eq!(arrived(ms(500), age(3_600_000), ms(100)), ms(100));
    }
}
