//! A client and its server, as far as a model of them is needed to write valid segments and to judge what they
//! get: the bytes of both streams are known, and how far each end has received.

use outlive_tcp::{
    seq::Seq,
    wire::{Endpoint, FourTuple, Offload, Options, TcpPacket, Timestamps},
};

use super::nodes::Left;
use crate::judge::{self, Numbers};

pub(crate) const FIN: u16 = 1;
pub(crate) const SYN: u16 = 2;
pub(crate) const RST: u16 = 4;
pub(crate) const PSH: u16 = 8;
pub(crate) const ACK: u16 = 16;
pub(crate) const URG: u16 = 32;
/// The window field of either end.
const WINDOW: u16 = 20_000;
/// More is not sent without an acknowledgment: it fits the window that a client is shown first.
const MOST_IN_FLIGHT: u32 = 8_000;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";

/// One end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    /// Its initial sequence number.
    pub(crate) iss: Seq,
    /// Bytes it has sent.
    pub(crate) sent: u32,
    /// It has sent its FIN.
    pub(crate) fin: bool,
    /// The initial sequence number that it was shown.
    pub(crate) irs: Seq,
    /// What it expects next; `None` before the handshake.
    pub(crate) rcv: Option<Seq>,
    /// It got the other end's FIN.
    pub(crate) finished: bool,
    /// Its segments carry timestamps.
    timestamps: bool,
}

impl Half {
    fn new(iss: Seq) -> Self {
        let irs = Seq(0);
        Half { iss, sent: 0, fin: false, irs, rcv: None, finished: false, timestamps: false }
    }

    pub(crate) fn next(&self) -> Seq {
        self.iss + 1 + self.sent + u32::from(self.fin)
    }

    /// Whether it looks at a segment at all: one of far away, or that acknowledges what was never sent, is answered
    /// with an acknowledgment at most, and a reset must stand exactly where the stream does (RFC 5961).
    fn heeds(&self, seen: &Seen) -> bool {
        let Some(rcv) = self.rcv else { return true };
        if seen.flags & (ACK | RST) == ACK && seen.ack.after(self.next()) {
            return false;
        }
        let ahead = seen.seq.distance(rcv) as i32;
        let reset = seen.flags & RST != 0;
        if reset { ahead == 0 } else { (-(1 << 20)..1 << 22).contains(&ahead) }
    }

    /// Bytes of the other end that it has.
    fn received(&self) -> u32 {
        self.rcv.map_or(0, |rcv| rcv.distance(self.irs + 1) - u32::from(self.finished))
    }
}

/// A server's end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    /// Of the packets that it sends.
    pub(crate) tuple: FourTuple,
    pub(crate) half: Half,
    /// It has answered the SYN.
    pub(crate) answered: bool,
    /// The SYN has timestamps.
    asked_for_timestamps: bool,
    /// It has acknowledged what it had.
    acknowledged: bool,
}

/// A session, seen from both its ends.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) client: Endpoint,
    pub(crate) listener: Endpoint,
    number: u8,
    pub(crate) half: Half,
    pub(crate) backend: Option<Backend>,
    prefix: Vec<u8>,
    /// Nothing but what an end would do was done to it, so everything must be right.
    pub(crate) pristine: bool,
    /// The client's SYN is out.
    pub(crate) begun: bool,
    /// The server has heard more from the client than a SYN: from now on it goes on whatever happens.
    pub(crate) settled: bool,
    pub(crate) reset: bool,
    /// Its record is on its way to the standby, and does not arrive.
    pub(crate) unrecorded: bool,
    clock: u32,
    /// What the SYN offers.
    offer: u8,
}

impl Conn {
    /// A client that has not said anything yet. `proxy_protocol`: 0 for none.
    pub(crate) fn new(number: u8, listener: Endpoint, proxy_protocol: u8) -> Self {
        let port = 20_000 + u16::from(number);
        let client = if listener.addr.is_ipv4() {
            Endpoint::new([10, 0, 1, number].into(), port)
        } else {
            Endpoint::new([0xfd00, 0, 0, 0, 0, 0, 1, u16::from(number)].into(), port)
        };
        Conn {
            client,
            listener,
            number,
            half: Half::new(Seq(u32::MAX - 700 + 300 * u32::from(number))),
            backend: None,
            prefix: prefix(client, listener, proxy_protocol),
            pristine: false,
            begun: false,
            settled: false,
            reset: false,
            unrecorded: false,
            clock: 1_000,
            offer: 0,
        }
    }

    /// Both ends have closed.
    pub(crate) fn finished(&self) -> bool {
        self.half.finished && self.backend.is_some_and(|b| b.half.finished)
    }

    /// Of the packets that the client sends.
    pub(crate) fn tuple(&self) -> FourTuple {
        FourTuple { source: self.client, destination: self.listener }
    }

    fn client_byte(&self, at: u32) -> u8 {
        let pattern = (at as u8).wrapping_mul(7) ^ (at >> 8) as u8 ^ self.number;
        REQUEST.get(at as usize).copied().unwrap_or(pattern)
    }

    fn server_byte(&self, at: u32) -> u8 {
        (at as u8).wrapping_mul(11) ^ (at >> 8) as u8 ^ self.number.wrapping_add(128)
    }

    // ── what the ends say

    /// A new connection from the client's port; whether it is one that nothing stands in the way of.
    pub(crate) fn syn(&mut self, options: u8, ecn: bool) -> Vec<u8> {
        // One whose last acknowledgment may be missing is still open for the node, which then says so.
        let clean = !self.begun || self.reset && self.pristine;
        let repeated = self.begun && self.half.rcv.is_none() && self.pristine && !self.reset;
        if !repeated {
            self.half = Half::new(self.half.iss + 10_000_000);
            self.backend = None;
            (self.settled, self.reset) = (false, false);
            (self.begun, self.pristine) = (true, clean);
            self.offer = options;
        }
        self.clock += 1;
        let options = syn_options(self.offer, 1_400 + u16::from(self.number), self.clock, 0);
        let flags = SYN | if ecn { 0xc0 } else { 0 };
        let seq = self.half.iss.0;
        judge::tcp(self.tuple(), Numbers { seq, ack: 0, flags, window: WINDOW }, &options, &[])
    }

    /// The client's next segment, or a repetition of all that the server lacks.
    pub(crate) fn client_says(&mut self, len: u32, flags: u16, repeat: bool) -> Option<Vec<u8>> {
        let ack = self.half.rcv?;
        let server_has = self.backend.map_or(0, |b| b.half.received());
        let acked = server_has.saturating_sub(self.prefix.len() as u32);
        let (from, to) = sends(&mut self.half, acked, len, flags, repeat);
        let payload: Vec<u8> = (from..to).map(|at| self.client_byte(at)).collect();
        let fin = if self.half.fin && to == self.half.sent { FIN } else { 0 };
        self.clock += 1;
        let options = stamp(self.half.timestamps, self.clock);
        let seq = (self.half.iss + 1 + from).0;
        let flags = ACK | fin | flags & PSH;
        let numbers = Numbers { seq, ack: ack.0, flags, window: WINDOW };
        Some(judge::tcp(self.tuple(), numbers, &options, &payload))
    }

    /// The server's answer to the SYN.
    pub(crate) fn answer(&mut self, options: u8, refuse: bool) -> Option<Vec<u8>> {
        let clock = self.clock;
        let number = self.number;
        let backend = self.backend.as_mut().filter(|b| !(refuse && b.answered))?;
        let flags = if refuse { RST | ACK } else { SYN | ACK };
        let ack = backend.half.rcv.map_or(backend.half.irs + 1, |rcv| rcv);
        let window = if refuse { 0 } else { WINDOW };
        let numbers = Numbers { seq: backend.half.iss.0, ack: ack.0, flags, window };
        if refuse {
            let tuple = backend.tuple;
            self.backend = None;
            return Some(judge::tcp(tuple, numbers, &[], &[]));
        }
        backend.half.rcv = Some(ack);
        if !backend.answered {
            backend.half.timestamps = options & 4 != 0 && backend.asked_for_timestamps;
        }
        backend.answered = true;
        let options = syn_options(options, 1_300 + u16::from(number), clock + 77_000, clock);
        Some(judge::tcp(backend.tuple, numbers, &options, &[]))
    }

    /// The server's next segment, or a repetition of all that the client lacks. One that was on its way for long
    /// (flagged URG here) acknowledges nothing yet; it does not come after one that does.
    pub(crate) fn server_says(&mut self, len: u32, flags: u16, repeat: bool) -> Option<Vec<u8>> {
        let client_has = self.half.received();
        let clock = self.clock;
        let backend = self.backend.as_mut().filter(|b| b.answered)?;
        let old = flags & URG != 0 && !backend.acknowledged;
        backend.acknowledged |= !old;
        let ack = backend.half.rcv.map(|rcv| if old { backend.half.irs + 1 } else { rcv })?;
        let (from, to) = sends(&mut backend.half, client_has, len, flags, repeat);
        let fin = if backend.half.fin && to == backend.half.sent { FIN } else { 0 };
        let options = stamp(backend.half.timestamps, clock + 77_000);
        let seq = (backend.half.iss + 1 + from).0;
        let flags = ACK | fin | flags & PSH;
        let numbers = Numbers { seq, ack: ack.0, flags, window: WINDOW };
        let tuple = backend.tuple;
        let payload: Vec<u8> = (from..to).map(|at| self.server_byte(at)).collect();
        Some(judge::tcp(tuple, numbers, &options, &payload))
    }

    /// A reset of the end itself, after which it knows nothing more.
    pub(crate) fn resets(&mut self, client: bool) -> Option<Vec<u8>> {
        let (tuple, half) = if client {
            (self.tuple(), self.half)
        } else {
            self.backend.map(|b| (b.tuple, b.half))?
        };
        self.pristine = false;
        let numbers = Numbers { seq: half.next().0, ack: half.rcv?.0, flags: RST | ACK, window: 0 };
        Some(judge::tcp(tuple, numbers, &[], &[]))
    }

    // ── what they get

    /// The client gets a packet.
    pub(crate) fn client_gets(&mut self, left: &Left) {
        let Some(seen) = Seen::of(left) else { return };
        let (iss, has) = (self.half.iss, self.half.received());
        if !self.half.heeds(&seen) {
            return;
        }
        if seen.flags & RST != 0 {
            let live = self.settled && !self.finished();
            assert!(!(self.pristine && live), "a reset out of nothing for {self:?}");
            self.reset = true;
            return;
        }
        if seen.flags & (SYN | ACK) == SYN | ACK && seen.ack == iss + 1 && self.half.rcv.is_none() {
            self.half.irs = seen.seq;
            self.half.rcv = Some(seen.seq + 1);
            self.half.timestamps = seen.timestamps;
            return;
        }
        let server_has = self.backend.map_or(0, |b| b.half.received());
        let server_done = self.backend.is_some_and(|b| b.half.finished);
        if self.pristine && seen.flags & ACK != 0 && self.begun {
            let safe = server_has.saturating_sub(self.prefix.len() as u32) + u32::from(server_done);
            let acked = seen.ack.distance(iss + 1);
            assert!(acked <= safe, "{acked} acknowledged to the client, {safe} safe: {self:?}");
        }
        let Some(rcv) = self.half.rcv else { return };
        let irs = self.half.irs;
        let from = seen.seq.distance(irs + 1);
        if self.pristine {
            for (at, byte) in positions(from).zip(&seen.payload) {
                let new = (at as i32) >= has as i32;
                assert!(
                    !new || *byte == self.server_byte(at),
                    "a wrong byte for the client at {at}"
                );
            }
        }
        take(&mut self.half, rcv, &seen);
    }

    /// The server gets a packet of the connection that it knows.
    pub(crate) fn server_gets(&mut self, left: &Left) {
        let Some(seen) = Seen::of(left) else { return };
        let Some(backend) = self.backend else { return };
        if !backend.half.heeds(&seen) {
            return;
        }
        if seen.flags & RST != 0 {
            let live = self.settled && !self.finished();
            assert!(!(self.pristine && live), "a reset out of nothing for {self:?}");
            self.backend = None;
            return;
        }
        if seen.flags & SYN != 0 || !backend.answered {
            return;
        }
        let effect = !seen.payload.is_empty();
        assert!(
            !(effect && self.unrecorded && self.pristine),
            "an effect before the record: {self:?}"
        );
        self.settled |= seen.flags & ACK != 0;
        let client_has = self.half.received();
        if self.pristine && seen.flags & ACK != 0 {
            let safe = client_has + u32::from(self.half.finished);
            let acked = seen.ack.distance(backend.half.iss + 1);
            assert!(acked <= safe, "{acked} acknowledged to the server, {safe} safe: {self:?}");
        }
        let from = seen.seq.distance(backend.half.irs + 1);
        if self.pristine {
            for (at, byte) in positions(from).zip(&seen.payload) {
                let new = (at as i32) >= backend.half.received() as i32;
                let expected = match self.prefix.get(at as usize) {
                    Some(byte) => *byte,
                    None => self.client_byte(at.wrapping_sub(self.prefix.len() as u32)),
                };
                assert!(!new || *byte == expected, "a wrong byte for the server at {at}: {self:?}");
            }
        }
        let Some(backend) = &mut self.backend else { return };
        let Some(rcv) = backend.half.rcv else { return };
        take(&mut backend.half, rcv, &seen);
    }

    /// A server gets a SYN that is for this connection.
    pub(crate) fn server_asked(&mut self, seen: &Seen) {
        let number = u32::from(self.number);
        let mut half = Half::new(Seq(0x7fff_ff00 + 0x100 * number));
        half.irs = seen.seq;
        let tuple = seen.tuple.reversed();
        let asked_for_timestamps = seen.timestamps;
        self.backend = Some(Backend {
            tuple,
            half,
            answered: false,
            asked_for_timestamps,
            acknowledged: false,
        });
    }

    /// Everything that was sent has arrived, both ways, and both ends are closed.
    pub(crate) fn complete(&self) -> bool {
        let Some(backend) = self.backend else { return false };
        let prefix = self.prefix.len() as u32;
        self.finished()
            && backend.half.received() == self.half.sent + prefix
            && self.half.received() == backend.half.sent
    }
}

/// Positions in a stream from there on; what lies before its beginning is close to 2^32.
fn positions(from: u32) -> impl Iterator<Item = u32> {
    (0..).map(move |i| from.wrapping_add(i))
}

/// What an end sends next: from and to which of its bytes.
fn sends(half: &mut Half, acked: u32, len: u32, flags: u16, repeat: bool) -> (u32, u32) {
    if repeat {
        return (acked.min(half.sent), half.sent);
    }
    let from = half.sent;
    let room = (acked + MOST_IN_FLIGHT).saturating_sub(from);
    if !half.fin {
        half.sent += len.min(room);
        half.fin = flags & FIN != 0;
    }
    (from, half.sent)
}

fn take(half: &mut Half, rcv: Seq, seen: &Seen) {
    let end = seen.seq + seen.payload.len() as u32;
    if seen.seq.at_or_before(rcv) && rcv.at_or_before(end) && !half.finished {
        let fin = seen.flags & FIN != 0;
        half.finished = fin;
        half.rcv = Some(end + u32::from(fin));
    }
}

fn stamp(uses: bool, value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let timestamps = uses.then_some(Timestamps { value, echo: value.wrapping_sub(3) });
    Options { timestamps, ..Options::default() }.emit(&mut out);
    out
}

fn syn_options(bits: u8, mss: u16, value: u32, echo: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let options = Options {
        mss: (bits & 1 != 0).then_some(if bits & 0xe0 == 0xe0 { 1 } else { mss }),
        sack_permitted: bits & 2 != 0,
        timestamps: (bits & 4 != 0).then_some(Timestamps { value, echo }),
        window_scale: (bits & 8 != 0).then_some(bits >> 5),
        ..Options::default()
    };
    options.emit(&mut out);
    if bits & 16 != 0 && out.len() <= 36 {
        out.extend([34, 2, 1, 1]); // Fast Open, which is not passed on.
    }
    out
}

fn prefix(client: Endpoint, listener: Endpoint, version: u8) -> Vec<u8> {
    let (from, to) = (client, listener);
    match version {
        0 => Vec::new(),
        1 => {
            let family = if from.addr.is_ipv4() { 4 } else { 6 };
            let ends = format!("{} {} {} {}", from.addr, to.addr, from.port, to.port);
            format!("PROXY TCP{family} {ends}\r\n").into_bytes()
        }
        _ => {
            let mut out = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
            let addresses = FourTuple { source: from, destination: to }.to_bytes();
            if from.addr.is_ipv4() {
                out.extend([0x11, 0, 12]);
                out.extend([&addresses[12..16], &addresses[28..]].concat());
            } else {
                out.extend([0x21, 0, 36]);
                out.extend(addresses);
            }
            out
        }
    }
}

/// A packet as its receiver reads it.
pub(crate) struct Seen {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    ack: Seq,
    pub(crate) flags: u16,
    payload: Vec<u8>,
    timestamps: bool,
}

impl Seen {
    pub(crate) fn of(left: &Left) -> Option<Seen> {
        let mut bytes = left.packet.clone();
        let end = bytes.len();
        let packet = TcpPacket::parse(&mut bytes, 0, end, Offload::default()).ok()?;
        Some(Seen {
            tuple: packet.tuple(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags().0,
            payload: packet.payload().to_vec(),
            timestamps: packet.timestamps().is_some(),
        })
    }
}
