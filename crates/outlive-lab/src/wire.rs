//! The thread between the two TAP devices of an impaired link.
//!
//! Owns: both devices and the clock of their link. What happens to a frame is decided in
//! [`impairment`](crate::impairment).

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use outlive_net::netns::Namespace;
use outlive_net::tun::{BUFFER_LEN, Layer, Offload, Tun, VirtioNetHeader};

use crate::error::LabError;
use crate::impairment::{Direction, Impairment, Tally};
use crate::segment;

/// Packets in the queue of each device, for bursts that come while the thread does not run. The
/// default of 500 lets bulk transfers lose packets here, which no impairment asked for.
const QUEUE_LEN: u32 = 10_000;

/// Bytes of a frame that are overheard: Ethernet, IP and TCP headers.
const OVERHEARD_LEN: usize = 128;

/// Overheard frames that wait to be looked at.
const MOST_UNHEARD: usize = 1 << 16;

const WAKER: Token = Token(2);

/// Frames taken from one side before the other has its turn.
const BATCH: usize = 64;

/// An impaired cable. Dropping it removes both devices.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// From the first end to the second, and back.
    directions: [Mutex<Lane>; 2],
    /// Where copies of the headers of frames from the first end go.
    ear: Mutex<Option<SyncSender<Vec<u8>>>>,
    stop: AtomicBool,
}

/// One direction, and whether its super-segments must be cut up.
struct Lane {
    direction: Direction<Vec<u8>>,
    split: bool,
}

impl Wire {
    /// Lays a wire between a new interface of that name in each of the namespaces.
    pub(crate) fn new(
        (one, one_name): (&Namespace, &str),
        (other, other_name): (&Namespace, &str),
        out: Impairment,
        back: Impairment,
        seed: u64,
    ) -> Result<Self, LabError> {
        let taps = [open(one, one_name)?, open(other, other_name)?];
        let failed = |error| LabError::Traffic("starting the thread of a link", error);
        let poll = Poll::new().map_err(failed)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed)?;
        for (index, tap) in taps.iter().enumerate() {
            let mut source = SourceFd(&tap.as_raw_fd());
            let interest = Interest::READABLE;
            poll.registry().register(&mut source, Token(index), interest).map_err(failed)?;
        }
        let lane = |impairment: Impairment, seed| {
            let split = impairment.strikes_segments();
            Mutex::new(Lane { direction: Direction::new(impairment, seed), split })
        };
        let directions = [lane(out, seed), lane(back, !seed)];
        let shared =
            Arc::new(Shared { directions, ear: Mutex::default(), stop: AtomicBool::new(false) });
        let runner = Runner { poll, taps, shared: shared.clone(), start: Instant::now() };
        let name = format!("wire-{other_name}");
        let thread = thread::Builder::new().name(name).spawn(move || runner.run());
        Ok(Self { shared, waker, thread: Some(thread.map_err(failed)?) })
    }

    /// Cuts (or restores) the way from the first end, and the way back.
    pub(crate) fn set_cut(&self, out: bool, back: bool) {
        for (lane, cut) in self.shared.directions.iter().zip([out, back]) {
            lane.lock().expect("no holder panics").direction.set_cut(cut);
        }
    }

    /// Copies of the headers of all frames that enter at the first end from now on.
    pub(crate) fn overhear(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = sync_channel(MOST_UNHEARD);
        *self.shared.ear.lock().expect("no holder panics") = Some(sender);
        receiver
    }

    /// What became of the frames from the first end, and of those on the way back.
    pub(crate) fn tallies(&self) -> [Tally; 2] {
        let tally = |index: usize| {
            self.shared.directions[index].lock().expect("no holder panics").direction.tally()
        };
        [tally(0), tally(1)]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(namespace: &Namespace, name: &str) -> Result<Tun, LabError> {
    let tap = namespace.run(|| Tun::open(Layer::Ethernet, name, Offload::TCP))??;
    namespace.netlink()?.set_tx_queue_len(name, QUEUE_LEN)?;
    Ok(tap)
}

/// What the thread works with.
struct Runner {
    poll: Poll,
    taps: [Tun; 2],
    shared: Arc<Shared>,
    start: Instant,
}

impl Runner {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; BUFFER_LEN];
        let mut more = false;
        while !self.shared.stop.load(Relaxed) {
            let timeout = if more { Some(Duration::ZERO) } else { self.until_next() };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return;
            }
            // Readiness is reported once; so both sides are looked at whatever the event was.
            more = false;
            for from in 0..2 {
                more |= self.pass(from, &mut buffer);
            }
        }
    }

    /// Takes frames from one end and delivers those that have arrived at the other; whether there
    /// may be more to take.
    fn pass(&self, from: usize, buffer: &mut [u8]) -> bool {
        let mut lane = self.shared.directions[from].lock().expect("no holder panics");
        let mut taken = 0;
        while taken < BATCH {
            // An error means: nothing there, or the interface is (not yet, no longer) up.
            let Ok(len) = self.taps[from].recv(buffer) else { break };
            taken += 1;
            if from == 0 {
                self.whisper(&buffer[..len]);
            }
            let (packet, now) = (buffer[..len].to_vec(), self.start.elapsed());
            if lane.split {
                for segment in segment::split(packet) {
                    let len = segment::wire_len(&segment);
                    lane.direction.push(now, segment, len);
                }
            } else {
                let len = segment::wire_len(&packet);
                lane.direction.push(now, packet, len);
            }
        }
        let now = self.start.elapsed();
        while let Some(packet) = lane.direction.pop(now) {
            // What the kernel does not take is lost, as at any interface that is down.
            let _ = self.taps[1 - from].send(&packet);
        }
        taken == BATCH
    }

    fn whisper(&self, packet: &[u8]) {
        let ear = self.shared.ear.lock().expect("no holder panics");
        if let (Some(ear), Some(frame)) = (&*ear, packet.get(VirtioNetHeader::LEN..)) {
            // An ear that is full, or gone, misses it.
            let _ = ear.try_send(frame[..frame.len().min(OVERHEARD_LEN)].to_vec());
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let next = self
            .shared
            .directions
            .iter()
            .filter_map(|lane| lane.lock().expect("no holder panics").direction.next_due())
            .min()?;
        Some(next.saturating_sub(self.start.elapsed()))
    }
}
