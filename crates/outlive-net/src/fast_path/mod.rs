//! Established sessions in the kernel: an eBPF program at the ingress of the node's interfaces translates
//! their packets, and lets them come out of the TUN device as if the process had written them there.
//!
//! A session is a constant ([`Direction`], once each way), so nothing has to be decided per packet. The program notes how far
//! the streams are ([`Stream`]) in memory that it shares with the process, and says so when a session
//! wants to be looked at ([`FastPath::poll_event`]). Whatever is not an ordinary segment of a session that
//! was [installed](FastPath::install) is left alone: it reaches the process by the TUN device.
//!
//! The program acts only while its lease runs ([`FastPath::serve_until`]); a process that is stopped, or has died,
//! does not prolong it. With the process goes the program: nothing is left behind.
//!
//! Needs Linux 6.6 (`tcx`) and `CAP_BPF` with `CAP_NET_ADMIN`, or root. Interfaces must be Ethernet.

mod assembler;
mod layout;
mod program;
mod ring;
mod syscall;

use std::{
    collections::VecDeque,
    io,
    ops::AddAssign,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
    time::Duration,
};

pub use self::layout::{Direction, Stream, Tuple};
use self::{
    layout::{
        DIRECTION_LEN, DIRECTIONS, ENTRY_LEN, KEY_LEN, OPENING, SERIAL, TARGET_LEN,
        direction as field, octets, sum_change,
    },
    program::Environment,
    ring::Ring,
    syscall::{MapKind, Mapping, attach_ingress, create_map, delete, load, monotonic_ns, update},
};

/// A place that was given up is not given away before: a packet may be under way in the program.
const QUARANTINE: Duration = Duration::from_secs(1);

/// Where an installed session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Less than the number of sessions that there is room for.
    pub index: u32,
    serial: u32,
}

/// What has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets; a super-segment is one.
    pub packets: u64,
    /// Bytes of payload in them.
    pub bytes: u64,
}

impl AddAssign for Passed {
    fn add_assign(&mut self, more: Passed) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// Why established sessions cannot be left to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// A map could not be made; memory, or a privilege.
    #[error("the kernel gives no memory for sessions (bpf): {0}")]
    Map(#[source] io::Error),
    /// The program was refused. The second part is what the kernel's verifier said.
    #[error("the kernel refuses the program (bpf): {0}; {1}")]
    Program(#[source] io::Error, String),
    /// It cannot be attached to an interface; `tcx` came with Linux 6.6.
    #[error("the program cannot be attached to the interface (Linux 6.6 is needed): {0}")]
    Attach(#[source] io::Error),
}

/// The program, its maps, and the interfaces that it is attached to.
#[derive(Debug)]
pub struct FastPath {
    flows: OwnedFd,
    program: OwnedFd,
    lease: Mapping,
    entries: Mapping,
    ring: Ring,
    links: Vec<OwnedFd>,
    /// The keys of what is installed.
    keys: Vec<Option<[[u8; KEY_LEN]; 2]>>,
    free: Vec<u32>,
    /// Given up, and since when (nanoseconds).
    given_up: VecDeque<(u32, u64)>,
    serial: u32,
}

impl FastPath {
    /// Loads the program, with room for so many sessions (264 bytes each, and about 200 more when installed). `device` is the
    /// index of the TUN device. It sees no packet before it is [attached](Self::attach), and acts on none
    /// before it has a [lease](Self::serve_until).
    ///
    /// # Errors
    /// The kernel or the privileges do not allow it. Nothing was changed.
    pub fn load(sessions: u32, device: u32) -> Result<Self, FastPathError> {
        let map = |kind, key, value, entries| {
            create_map(kind, key, value, entries).map_err(FastPathError::Map)
        };
        let lease_map = map(MapKind::Array, 4, 8, 1)?;
        let flows = map(MapKind::Hash, KEY_LEN, TARGET_LEN, 2 * sessions)?;
        let entries_map = map(MapKind::Array, 4, ENTRY_LEN, sessions)?;
        let ring = Ring::new().map_err(FastPathError::Map)?;
        let lease = Mapping::new(lease_map.as_fd(), 0, 8, true).map_err(FastPathError::Map)?;
        let len = sessions as usize * ENTRY_LEN;
        let entries =
            Mapping::new(entries_map.as_fd(), 0, len, true).map_err(FastPathError::Map)?;
        let environment = Environment {
            lease: lease_map.as_fd(),
            flows: flows.as_fd(),
            entries: entries_map.as_fd(),
            events: ring.as_fd(),
            device,
        };
        let program = load(&program::splice(&environment))
            .map_err(|(error, log)| FastPathError::Program(error, log))?;
        Ok(FastPath {
            flows,
            program,
            lease,
            entries,
            ring,
            links: Vec::new(),
            keys: vec![None; sessions as usize],
            free: (0..sessions).rev().collect(),
            given_up: VecDeque::new(),
            serial: 0,
        })
    }

    /// Lets the program see what arrives on an interface, by its index.
    ///
    /// # Errors
    /// The kernel cannot do it; other interfaces stay attached.
    pub fn attach(&mut self, interface: u32) -> Result<(), FastPathError> {
        let link =
            attach_ingress(self.program.as_fd(), interface).map_err(FastPathError::Attach)?;
        self.links.push(link);
        Ok(())
    }

    /// What keeps the program attached.
    pub fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.links.iter().map(AsFd::as_fd)
    }

    /// The program may act until then, by the [monotonic clock](monotonic).
    pub fn serve_until(&self, time: Duration) {
        let until = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.lease.double(0).store(until, Release);
    }

    /// It must not act from now on, until there is a new lease. A packet may still be under way in it.
    pub fn stop(&self) {
        self.lease.double(0).store(0, Release);
    }

    /// Leaves the packets of a session to the program. `directions` and `streams` are those of one end, then of
    /// the other. With `opening` it passes nothing before the first end has acknowledged exactly what the other one's
    /// `acked` says.
    ///
    /// `None`: there is no room (at the moment), or the kernel refused.
    pub fn install(
        &mut self,
        directions: &[Direction; 2],
        streams: &[Stream; 2],
        opening: bool,
    ) -> Option<Place> {
        let index = self.vacancy()?;
        // Zero is nobody's.
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let place = Place { index, serial: self.serial };
        for side in 0..2 {
            self.write(place, side, &directions[side], &streams[side]);
        }
        self.entries.word(entry(index) + OPENING).store(opening.into(), Relaxed);
        self.entries.word(entry(index) + SERIAL).store(place.serial, Release);
        let keys = [directions[0].from.key(), directions[1].from.key()];
        self.keys[index as usize] = Some(keys);
        for (side, key) in keys.iter().enumerate() {
            if update(self.flows.as_fd(), key, &target(place, side)).is_err() {
                self.withdraw(place);
                return None;
            }
        }
        Some(place)
    }

    /// A place that was used before, if it may be used again: fewer of them have to be in the processor's caches.
    fn vacancy(&mut self) -> Option<u32> {
        let recently = || monotonic_ns().saturating_sub(QUARANTINE.as_nanos() as u64);
        let used = self.given_up.pop_front_if(|(_, since)| *since < recently());
        used.map(|(index, _)| index).or_else(|| self.free.pop())
    }

    fn write(&self, place: Place, side: usize, direction: &Direction, stream: &Stream) {
        let word = |offset: usize, value: u32| {
            self.entries.word(base(place.index, side) + offset).store(value, Relaxed);
        };
        let bytes = |offset: usize, bytes: &[u8]| {
            for (i, four) in bytes.chunks_exact(4).enumerate() {
                word(offset + 4 * i, u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
            }
        };
        let (from, to) = (&direction.from, &direction.to);
        let before = [octets(from.source.0), octets(from.destination.0)].concat();
        let after = [octets(to.source.0), octets(to.destination.0)].concat();
        bytes(field::SOURCE, &after);
        bytes(field::PORTS, &to.ports());
        word(field::SEQ_DELTA, direction.seq_delta);
        word(field::ACK_DELTA, direction.ack_delta);
        word(field::VALUE_DELTA, direction.value_delta);
        word(field::ECHO_DELTA, direction.echo_delta);
        word(field::WINDOW_FROM, direction.window_from.into());
        word(field::WINDOW_TO, direction.window_to.into());
        word(field::SEGMENT_LIMIT, direction.segment_limit);
        word(field::ADDRESSES_SUM, sum_change(&before, &after));
        word(field::PORTS_SUM, sum_change(&from.ports(), &to.ports()));
        word(field::NEXT, stream.next);
        word(field::FIN, stream.fin.unwrap_or(0));
        word(field::FIN_SEEN, stream.fin.is_some().into());
        word(field::ACKED, stream.acked);
        word(field::EDGE, stream.edge);
        word(field::FIN_ACKED, stream.fin_acked.into());
        let double = |offset: usize, value: u64| {
            self.entries.double(base(place.index, side) + offset).store(value, Relaxed);
        };
        double(field::BYTES, stream.bytes);
        double(field::LAST_SEEN, 0);
        double(field::PACKETS, 0);
        double(field::PASSED, 0);
    }

    /// How far the session's streams are.
    pub fn streams(&self, place: Place) -> [Stream; 2] {
        [0, 1].map(|side| {
            let word =
                |offset: usize| self.entries.word(base(place.index, side) + offset).load(Acquire);
            Stream {
                next: word(field::NEXT),
                fin: (word(field::FIN_SEEN) != 0).then(|| word(field::FIN)),
                acked: word(field::ACKED),
                edge: word(field::EDGE),
                fin_acked: word(field::FIN_ACKED) != 0,
                bytes: self.entries.double(base(place.index, side) + field::BYTES).load(Acquire),
            }
        })
    }

    /// The process has passed a segment of an installed session itself, and learnt that its streams are this far, and
    /// that it is no longer opening. What the program has learnt meanwhile stays.
    pub fn learn(&self, place: Place, streams: &[Stream; 2]) {
        self.entries.word(entry(place.index) + OPENING).store(0, Release);
        for (side, stream) in streams.iter().enumerate() {
            let raise = |offset: usize, value: u32| {
                let word = self.entries.word(base(place.index, side) + offset);
                if value.wrapping_sub(word.load(Acquire)).cast_signed() > 0 {
                    word.store(value, Release);
                }
            };
            raise(field::NEXT, stream.next);
            raise(field::ACKED, stream.acked);
            raise(field::EDGE, stream.edge);
            let flag = |offset: usize| self.entries.word(base(place.index, side) + offset);
            if let Some(fin) = stream.fin
                && flag(field::FIN_SEEN).load(Acquire) == 0
            {
                flag(field::FIN).store(fin, Relaxed);
                flag(field::FIN_SEEN).store(1, Release);
            }
            if stream.fin_acked {
                flag(field::FIN_ACKED).store(1, Release);
            }
            let bytes = self.entries.double(base(place.index, side) + field::BYTES);
            bytes.fetch_max(stream.bytes, Release);
        }
    }

    /// How long ago the program passed a packet of the session; `None` if it has not yet.
    pub fn idle_for(&self, place: Place) -> Option<Duration> {
        let seen =
            |side| self.entries.double(base(place.index, side) + field::LAST_SEEN).load(Acquire);
        let last = seen(0).max(seen(1));
        (last != 0).then(|| Duration::from_nanos(monotonic_ns().saturating_sub(last)))
    }

    /// What the program has passed since the session was installed.
    pub fn passed(&self, place: Place) -> Passed {
        let count = |field: usize| {
            let of = |side| self.entries.double(base(place.index, side) + field).load(Acquire);
            of(0) + of(1)
        };
        Passed { packets: count(field::PACKETS), bytes: count(field::PASSED) }
    }

    /// Takes a session back: its packets reach the process from now on, but for one that may be under way.
    pub fn withdraw(&mut self, place: Place) {
        let Some(keys) = self.keys[place.index as usize].take() else { return };
        // From here on the program leaves its packets alone, whatever the flows say.
        self.entries.word(entry(place.index) + SERIAL).store(0, Release);
        for key in &keys {
            match delete(self.flows.as_fd(), key) {
                Ok(()) => {}
                // It was never entered.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => debug_assert!(false, "a flow could not be removed: {error}"),
            }
        }
        self.given_up.push_back((place.index, monotonic_ns()));
    }

    /// What the program would do with a frame: what it makes of it, or `None` if it leaves it alone. Nothing is sent;
    /// but the streams of the session follow.
    ///
    /// # Errors
    /// The kernel does not rehearse.
    pub fn rehearse(&self, frame: &[u8]) -> io::Result<Option<Vec<u8>>> {
        const REDIRECTED: u32 = 7;
        let (verdict, frame) = syscall::test_run(self.program.as_fd(), frame)?;
        Ok((verdict == REDIRECTED).then_some(frame))
    }

    /// The next session that wants to be looked at: it is no longer opening, a FIN was acknowledged, or 32 MiB passed. `None` if there
    /// is none. To be asked again and again: nobody is woken up, and what does not fit the ring (65,536) is lost.
    pub fn poll_event(&mut self) -> Option<Place> {
        let (index, serial) = self.ring.poll()?;
        Some(Place { index, serial })
    }
}

/// What the monotonic clock says: the time by which the program acts, or not.
pub fn monotonic() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

fn entry(index: u32) -> usize {
    index as usize * ENTRY_LEN
}

fn base(index: u32, side: usize) -> usize {
    entry(index) + DIRECTIONS + side * DIRECTION_LEN
}

fn target(place: Place, side: usize) -> [u8; TARGET_LEN] {
    let mut target = [0; TARGET_LEN];
    target[..4].copy_from_slice(&place.index.to_ne_bytes());
    target[4..8].copy_from_slice(&place.serial.to_ne_bytes());
    target[8..12].copy_from_slice(&(side as u32).to_ne_bytes());
    target
}
