//! A connection in front of a local server that knows nothing of it, without I/O.
//!
//! The server gets an ordinary connection, opened in the client's name with what the client had negotiated elsewhere; from then on each
//! packet is translated: the server's sequence numbers and timestamps become those that the client knows. The client's own numbers
//! stay what they are.
//!
//! ```text
//!          opening ── SYN-ACK ──▶ ready ── speak ──▶ speaking ── FINs, RST ──▶ ended
//!             │ RST, or a SYN-ACK that does not suffice: refused
//! ```
//!
//! Until it may speak nothing is sent but the SYN: the server program is not told of the connection, and to forget it takes one reset, which
//! only the local kernel sees. The handshake is completed with the data that was received elsewhere. Whatever of that gets lost the client
//! repeats, since nobody has acknowledged it.
//!
//! A server with fewer options than the client was shown is bridged: windows are rescaled, timestamps made up, SACK left out, segments cut
//! where an option has to be inserted.

mod close;
mod path;
#[cfg(test)]
mod tests;

use outlive_migration::{
    blob::Blob,
    message::{HowEnded, Refusal},
};
use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    time::Time,
    translation::{TimestampTranslation, Translation, Untranslatable},
    wire::{Endpoint, Flags, FourTuple, Options, TcpPacket, Timestamps, icmp::IcmpReaddress},
};

use self::{close::Closing, path::Path};

/// No client is taken at its word when it announces a smaller segment size: see CVE-2019-11479.
const MIN_MSS: u16 = 88;
/// What inserted timestamps take.
const TIMESTAMPS_LEN: u16 = 12;
/// The data that comes with a connection is given to the server in pieces that any server takes.
const PIECE: usize = 1_400;

/// A connection before a local server.
#[derive(Clone, Debug)]
pub struct Replay {
    blob: Blob,
    /// As the server has it: the client, and the local address and port.
    inner: FourTuple,
    phase: Phase,
    closing: Closing,
    path: Path,
    /// The client's latest TSval, for timestamps that are made up.
    recent: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Opening,
    Ready(Server),
    Speaking { server: Server, since: Time },
}

/// What the server said in its SYN-ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Server {
    /// Its first byte's sequence number.
    first: Seq,
    scale: Option<u8>,
    sack: bool,
    timestamp: Option<u32>,
}

/// What becomes of a server's answer to the SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// The server is ready; the connection may speak when it is told to.
    Ready,
    /// It is not to be. Nothing of the connection is left at the server once [`reset`](Replay::reset) was sent.
    Refused(Refusal),
    /// Not an answer to the SYN.
    NotYet,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was translated: send it on.
    Forward,
    /// Drop it.
    Drop(Dropped),
    /// The server has not heard what completes the handshake: drop it, and say [`introduction`](Replay::introduction) again.
    IntroduceAgain,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dropped {
    /// The connection may not speak yet.
    Mute,
    /// It cannot be translated.
    Untranslatable(Untranslatable),
}

impl Replay {
    /// A connection to the server that listens at the connection's own address, on `port`.
    pub fn new(blob: Blob, port: u16) -> Self {
        let server = Endpoint::new(blob.ends.destination.addr, port);
        let recent = blob.tcp.timestamps.map_or(0, |it| it.recent);
        Replay {
            inner: FourTuple::new(blob.ends.source, server),
            phase: Phase::Opening,
            closing: Closing::default(),
            path: Path::new(blob.tcp.snd_nxt),
            recent,
            blob,
        }
    }

    /// The ends of the client's packets.
    pub fn ends(&self) -> FourTuple {
        self.blob.ends
    }

    /// The ends of packets to the server.
    pub fn inner(&self) -> FourTuple {
        self.inner
    }

    /// Appends the SYN. To be repeated until there is an answer.
    pub fn syn(&self, out: &mut Vec<u8>) {
        let tcp = &self.blob.tcp;
        let options = Options {
            mss: Some(tcp.client_mss.max(MIN_MSS)),
            window_scale: tcp.scales.map(|it| it.snd),
            sack_permitted: tcp.sack,
            timestamps: tcp.timestamps.map(|it| Timestamps { value: it.recent, echo: 0 }),
            ..Options::default()
        };
        let window = u16::try_from(tcp.snd_wnd).unwrap_or(u16::MAX);
        self.segment(self.first() - 1, None, Flags::SYN, window, options, &[]).emit(out);
    }

    /// Looks at a packet of the server while there is no connection yet.
    pub fn open(&mut self, packet: &TcpPacket<'_>) -> Opened {
        let flags = packet.flags();
        let answers = flags.contains(Flags::ACK) && packet.ack() == self.first();
        if !matches!(self.phase, Phase::Opening) || !answers {
            return Opened::NotYet;
        }
        if flags.contains(Flags::RST) {
            return Opened::Refused(Refusal::NoServer);
        }
        if !flags.contains(Flags::SYN) {
            return Opened::NotYet;
        }
        // The window of a SYN-ACK is not scaled. What does not fit into it could not be handed over.
        if usize::from(packet.window()) < self.blob.data.len() {
            return Opened::Refused(Refusal::Options);
        }
        let options = packet.options();
        self.phase = Phase::Ready(Server {
            first: packet.seq() + 1,
            scale: options.window_scale.filter(|_| self.blob.tcp.scales.is_some()),
            sack: options.sack_permitted && self.blob.tcp.sack,
            timestamp: options.timestamps.map(|it| it.value),
        });
        Opened::Ready
    }

    /// Whether the server has answered.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Opening)
    }

    /// From now on packets are translated. To be followed by the [`introduction`](Self::introduction). False if the server has not
    /// answered.
    #[must_use]
    pub fn speak(&mut self, now: Time) -> bool {
        match self.phase {
            Phase::Opening => false,
            Phase::Ready(server) => {
                self.phase = Phase::Speaking { server, since: now };
                true
            }
            Phase::Speaking { .. } => true,
        }
    }

    /// The packets that complete the handshake and bring the data that the client has sent so far, in the client's name.
    pub fn introduction(&self) -> Vec<Vec<u8>> {
        let (Phase::Ready(server) | Phase::Speaking { server, .. }) = self.phase else {
            return Vec::new();
        };
        let tcp = &self.blob.tcp;
        let scale = if server.scale.is_some() { tcp.scales.map_or(0, |it| it.snd) } else { 0 };
        let window = u16::try_from(tcp.snd_wnd >> scale).unwrap_or(u16::MAX);
        let timestamps =
            server.timestamp.map(|echo| Timestamps { value: self.blob_recent(), echo });
        let options = Options { timestamps, ..Options::default() };
        let data = &self.blob.data;
        let mut packets = Vec::with_capacity(1 + data.len() / PIECE);
        let mut at = 0;
        loop {
            let piece = &data[at..data.len().min(at + PIECE)];
            let flags = if piece.is_empty() { Flags::NONE } else { Flags::PSH };
            let seq = self.first() + at as u32;
            let mut packet = Vec::new();
            self.segment(seq, Some(server.first), flags, window, options, piece).emit(&mut packet);
            packets.push(packet);
            at += piece.len();
            if at == data.len() {
                return packets;
            }
        }
    }

    /// Appends what makes the server's kernel forget the connection, in the client's name.
    pub fn reset(&self, out: &mut Vec<u8>) {
        let server = match self.phase {
            Phase::Opening => None,
            Phase::Ready(server) | Phase::Speaking { server, .. } => Some(server),
        };
        let timestamps = server.and_then(|server| {
            server.timestamp.map(|echo| Timestamps { value: self.recent, echo })
        });
        let options = Options { timestamps, ..Options::default() };
        let seq = self.closing.expected_by_server().unwrap_or(self.first());
        let ack = server.map(|server| server.first);
        self.segment(seq, ack, Flags::RST, 0, options, &[]).emit(out);
    }

    /// Translates a packet of the client, whose ends are [`ends`](Self::ends).
    pub fn client_packet(&mut self, now: Time, packet: &mut TcpPacket<'_>) -> Verdict {
        let Phase::Speaking { server, .. } = self.phase else {
            return Verdict::Drop(Dropped::Mute);
        };
        if let Some(timestamps) = packet.timestamps()
            && (timestamps.value.wrapping_sub(self.recent) as i32) > 0
        {
            self.recent = timestamps.value;
        }
        if packet.flags().contains(Flags::ACK) {
            self.path.acknowledged(packet.ack());
        }
        let translation = self.to_server(&server);
        match packet.translate(&translation) {
            Ok(()) => {
                self.closing.after_client(now, packet);
                Verdict::Forward
            }
            Err(why) => Verdict::Drop(Dropped::Untranslatable(why)),
        }
    }

    /// Translates a packet of the server, whose ends are the reverse of [`inner`](Self::inner).
    pub fn server_packet(&mut self, now: Time, packet: &mut TcpPacket<'_>) -> Verdict {
        let Phase::Speaking { server, since } = self.phase else {
            return Verdict::Drop(Dropped::Mute);
        };
        if packet.flags().contains(Flags::SYN) {
            return Verdict::IntroduceAgain;
        }
        // Before the translation: the closing is followed in the server's numbers.
        let closing = self.closing.after_server(now, packet);
        let translation = self.to_client(&server, now.since(since).as_millis() as u32);
        let inserts = matches!(translation.timestamps, TimestampTranslation::Insert { .. });
        if inserts {
            packet.limit_segments(self.blob.tcp.client_mss.max(MIN_MSS) - TIMESTAMPS_LEN);
        }
        self.path.fit(packet, if inserts { TIMESTAMPS_LEN } else { 0 });
        match packet.translate(&translation) {
            Ok(()) => {
                self.closing = closing;
                self.path.sent(packet.seq() + packet.segment_len());
                Verdict::Forward
            }
            Err(why) => Verdict::Drop(Dropped::Untranslatable(why)),
        }
    }

    /// A router says that a packet to the client was longer than its path takes. The local kernel need not know: its packets are cut from now
    /// on. Whether that is believed; `seq` is the packet's, as quoted.
    pub fn too_big(&mut self, seq: Seq, mtu: u32) -> bool {
        self.path.too_big(seq, mtu, self.blob.ends.source.addr.is_ipv6())
    }

    /// How another ICMP error about a packet to the client becomes one about the server's packet: it comes from `source`, and quotes the
    /// reverse of [`ends`](Self::ends). `None` before the connection speaks.
    pub fn error_for_server(&self, source: std::net::IpAddr) -> Option<IcmpReaddress> {
        let Phase::Speaking { server, .. } = self.phase else { return None };
        Some(IcmpReaddress {
            source,
            destination: self.inner.destination.addr,
            quoted: self.inner.reversed(),
            seq_delta: server.first.distance(self.blob.tcp.snd_nxt),
            mtu_reduction: 0,
        })
    }

    /// How the connection has ended, and when, if it has. After a while nobody will repeat anything of it.
    pub fn ended(&self) -> Option<(HowEnded, Time)> {
        self.closing.ended()
    }

    /// The client's sequence number at which the server's knowledge begins.
    fn first(&self) -> Seq {
        self.blob.tcp.rcv_acked
    }

    fn blob_recent(&self) -> u32 {
        self.blob.tcp.timestamps.map_or(0, |it| it.recent)
    }

    fn to_server(&self, server: &Server) -> Translation {
        let tcp = &self.blob.tcp;
        let client_scale = tcp.scales.map_or(0, |it| it.snd);
        let timestamps = match (tcp.timestamps, server.timestamp) {
            (Some(client), Some(server)) => TimestampTranslation::Shift {
                value_delta: 0,
                echo_delta: server.wrapping_sub(client.echoed),
            },
            (Some(_), None) => TimestampTranslation::Strip,
            (None, _) => TimestampTranslation::Shift { value_delta: 0, echo_delta: 0 },
        };
        Translation {
            tuple: self.inner,
            seq_delta: 0,
            ack_delta: server.first.distance(tcp.snd_nxt),
            ack_floor: None,
            timestamps,
            sack: server.sack,
            window_from: client_scale,
            window_to: if server.scale.is_some() { client_scale } else { 0 },
        }
    }

    /// `elapsed_ms` since the connection may speak.
    fn to_client(&self, server: &Server, elapsed_ms: u32) -> Translation {
        let tcp = &self.blob.tcp;
        let timestamps = match (tcp.timestamps, server.timestamp) {
            // What the client echoes of the time before is the server's first timestamp: an echo that the server never
            // sent would be dropped.
            (Some(client), Some(server)) => TimestampTranslation::Shift {
                value_delta: client.echoed.wrapping_sub(server),
                echo_delta: 0,
            },
            (Some(client), None) => TimestampTranslation::Insert {
                value: client.clock.wrapping_add(elapsed_ms),
                echo: self.recent,
            },
            (None, _) => TimestampTranslation::Shift { value_delta: 0, echo_delta: 0 },
        };
        Translation {
            tuple: self.blob.ends.reversed(),
            seq_delta: tcp.snd_nxt.distance(server.first),
            ack_delta: 0,
            ack_floor: None,
            timestamps,
            sack: tcp.sack,
            window_from: server.scale.unwrap_or(0),
            window_to: tcp.scales.map_or(0, |it| it.rcv),
        }
    }

    fn segment<'a>(
        &self,
        seq: Seq,
        ack: Option<Seq>,
        flags: Flags,
        window: u16,
        options: Options,
        payload: &'a [u8],
    ) -> Segment<'a> {
        Segment {
            tuple: self.inner,
            seq,
            ack,
            flags,
            window,
            options,
            payload,
            hop_limit: DEFAULT_HOP_LIMIT,
        }
    }
}
