//! The program: what the kernel does with a packet that arrives on one of the node's interfaces.
//!
//! ```text
//! lease over, not TCP, fragment, SYN, RST, odd options, unknown tuple, segment too long, client's handshake not
//! completed by it, segments before it have not passed
//!     └─▶ left alone: it goes on to the TUN device and the process
//! else: note how far the streams are, translate the header in place, and let the packet come out of the TUN
//!     device, exactly as if the process had written it there
//! ```
//!
//! The same in pure Rust, which the tests hold against it, is the translation of `outlive-tcp` and the
//! streams of `outlive-proxy`. Every decision to leave a packet alone falls before the first write.

use std::os::fd::BorrowedFd;

use super::{
    assembler::{Assembler, Helper, If, Label, Op, Reg, Reg::*, Size},
    layout::{DIRECTION_LEN, DIRECTIONS, OPENING, SERIAL, direction::*},
};

/// The maps that the program works on, and where its packets come out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment<'a> {
    /// One 64-bit number: until when, by the monotonic clock, it may act.
    pub(super) lease: BorrowedFd<'a>,
    /// From key to target.
    pub(super) flows: BorrowedFd<'a>,
    /// The entries of sessions.
    pub(super) entries: BorrowedFd<'a>,
    /// Where it says that a session wants to be looked at: place and serial.
    pub(super) events: BorrowedFd<'a>,
    /// Index of the TUN device.
    pub(super) device: u32,
}

/// Bits of a position that change when the standby has to be told: every 32 MiB.
const PROGRESS_SHIFT: i32 = 25;

/// Offsets in the context (`struct __sk_buff`).
mod context {
    pub(super) const LEN: usize = 0;
    pub(super) const PACKET_TYPE: usize = 4;
    pub(super) const PROTOCOL: usize = 16;
    pub(super) const VLAN_PRESENT: usize = 20;
    pub(super) const DATA: usize = 76;
    pub(super) const DATA_END: usize = 80;
    pub(super) const GSO_SIZE: usize = 176;
}

/// Offsets on the stack.
mod local {
    pub(super) const KEY: i16 = -48;
    pub(super) const NOW: i16 = -56;
    /// Place and serial, as they go into the ring.
    pub(super) const EVENT: i16 = -64;
    pub(super) const EVENT_SERIAL: i16 = -60;
    /// Bytes of payload.
    pub(super) const PAYLOAD: i16 = -68;
    /// 1 if the segment has a FIN.
    pub(super) const FIN: i16 = -72;
    /// 1 if there is something to tell.
    pub(super) const TELL: i16 = -80;
    pub(super) const SIDE: i16 = -84;
    /// SACK blocks.
    pub(super) const BLOCKS: i16 = -88;
    /// 1 if there are timestamps, before the SACK blocks.
    pub(super) const TIMESTAMPS: i16 = -92;
    /// 1 if the receiver looks at the segment.
    pub(super) const ACCEPTABLE: i16 = -96;
    /// The entry of the session.
    pub(super) const ENTRY: i16 = -104;
}

const ETHERNET: usize = 14;
/// Offsets in the TCP header.
const SEQ: usize = 4;
const ACK: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;
const TIMESTAMPS_LEN: usize = 12;

/// As everybody writes them: two NOPs, kind, length.
const TIMESTAMPS_HEAD: [u8; 4] = [1, 1, 8, 10];
const fn sack_head(blocks: usize) -> [u8; 4] {
    [1, 1, 5, 2 + 8 * blocks as u8]
}

/// `TCX_NEXT`: whoever comes after.
const LEAVE_ALONE: i32 = -1;
const REDIRECT_TO_INGRESS: i32 = 1;
const PSEUDO_HEADER: i32 = 0x10;
/// The process looks by itself, often enough; to wake it for each session that ends would cost more than the session.
const NO_WAKEUP: i32 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    fn tcp(self) -> usize {
        ETHERNET
            + match self {
                Version::V4 => 20,
                Version::V6 => 40,
            }
    }

    fn ethertype(self) -> i32 {
        let number: u16 = match self {
            Version::V4 => 0x0800,
            Version::V6 => 0x86dd,
        };
        i32::from(number.to_be())
    }
}

/// The instructions.
pub(super) fn splice(environment: &Environment<'_>) -> Vec<u8> {
    let mut a = Assembler::default();
    let leave = a.label();
    let v6 = a.label();

    a.mov(R6, R1);
    a.call(Helper::KtimeNs);
    a.store(Size::Double, Fp, local::NOW, R0);
    a.map_value(R1, environment.lease);
    a.load(Size::Double, R1, R1, 0);
    a.jump_if(R0, If::Above, R1, leave);
    // Somebody else's, seen in promiscuous mode; or of a VLAN, whose interface is another.
    a.load(Size::Word, R2, R6, context::PACKET_TYPE);
    a.jump_if(R2, If::NotEqual, 0, leave);
    a.load(Size::Word, R2, R6, context::VLAN_PRESENT);
    a.jump_if(R2, If::NotEqual, 0, leave);
    a.load(Size::Word, R2, R6, context::PROTOCOL);
    a.jump_if(R2, If::Equal, Version::V6.ethertype(), v6);
    a.jump_if(R2, If::NotEqual, Version::V4.ethertype(), leave);
    for version in [Version::V4, Version::V6] {
        if version == Version::V6 {
            a.place(v6);
        }
        let mut part = Part { a: &mut a, environment, version, leave };
        part.pull_headers();
        match version {
            Version::V4 => part.parse_ipv4(),
            Version::V6 => part.parse_ipv6(),
        }
        part.parse_tcp();
        part.find_session();
        part.check_opening();
        part.parse_options();
        part.leave_what_overtakes();
        part.note_sent();
        part.note_acknowledged();
        part.translate();
        part.finish();
    }
    a.place(leave);
    a.mov(R0, LEAVE_ALONE);
    a.exit();
    a.finish()
}

/// The part for one IP version. All the way `R6` is the context and `R7` the packet; once the session is known, `R8`
/// is the direction of the packet and `R9` the other.
struct Part<'a, 'e> {
    a: &'a mut Assembler,
    environment: &'a Environment<'e>,
    version: Version,
    leave: Label,
}

impl Part<'_, '_> {
    /// Lets `R7` point to the packet, with headers up to the timestamps in one piece.
    fn pull_headers(&mut self) {
        const MOST: i32 = 128;
        let Part { a, leave, version, .. } = self;
        let (in_one_piece, short) = (a.label(), a.label());
        let wanted = (version.tcp() + OPTIONS + TIMESTAMPS_LEN) as i32;
        let bare = (version.tcp() + OPTIONS) as i32;

        a.load(Size::Word, R7, R6, context::DATA);
        a.load(Size::Word, R3, R6, context::DATA_END);
        a.mov(R2, R7);
        a.alu(Op::Add, R2, wanted);
        let pull = a.label();
        a.jump_if(R2, If::Above, R3, pull);
        a.jump(in_one_piece);
        a.place(pull);
        a.load(Size::Word, R2, R6, context::LEN);
        a.jump_if(R2, If::Above, MOST, short);
        let call = a.label();
        a.jump(call);
        a.place(short);
        a.mov(R2, MOST);
        a.place(call);
        a.mov(R1, R6);
        a.call(Helper::PullData);
        a.load(Size::Word, R7, R6, context::DATA);
        a.load(Size::Word, R3, R6, context::DATA_END);
        a.place(in_one_piece);
        a.mov(R2, R7);
        a.alu(Op::Add, R2, bare);
        a.jump_if(R2, If::Above, R3, *leave);
    }

    /// The addresses go into the key, the length of the segment into `R2`.
    fn parse_ipv4(&mut self) {
        let Part { a, leave, .. } = self;
        // Version 4, no options.
        a.load(Size::Byte, R2, R7, ETHERNET);
        a.jump_if(R2, If::NotEqual, 0x45, *leave);
        a.load(Size::Byte, R2, R7, ETHERNET + 9);
        a.jump_if(R2, If::NotEqual, 6, *leave);
        // More fragments, or not the first.
        a.load(Size::Half, R2, R7, ETHERNET + 6);
        a.jump_if(R2, If::AnyBitOf, i32::from(0x3fffu16.to_be()), *leave);
        for (field, place) in [(12, local::KEY), (16, local::KEY + 16)] {
            a.store(Size::Double, Fp, place, 0);
            a.store(Size::Word, Fp, place + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
            a.load(Size::Word, R3, R7, ETHERNET + field);
            a.store(Size::Word, Fp, place + 12, R3);
        }
        a.load(Size::Half, R2, R7, ETHERNET + 2);
        a.swap(R2, 16);
        a.alu(Op::Sub, R2, 20);
    }

    /// Likewise.
    fn parse_ipv6(&mut self) {
        let Part { a, leave, .. } = self;
        a.load(Size::Byte, R2, R7, ETHERNET + 6);
        a.jump_if(R2, If::NotEqual, 6, *leave);
        for at in (0..32).step_by(8) {
            a.load(Size::Double, R3, R7, ETHERNET + 8 + at);
            a.store(Size::Double, Fp, local::KEY + at as i16, R3);
        }
        a.load(Size::Half, R2, R7, ETHERNET + 4);
        a.swap(R2, 16);
    }

    /// `R2` is the length of the segment. Ports, flags, length of the payload.
    fn parse_tcp(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, leave, .. } = self;
        // ACK, and neither SYN nor RST.
        a.load(Size::Byte, R3, R7, tcp + FLAGS);
        a.mov(R4, R3);
        a.alu(Op::And, R4, 0x16);
        a.jump_if(R4, If::NotEqual, 0x10, *leave);
        a.alu(Op::And, R3, 1);
        a.store(Size::Word, Fp, local::FIN, R3);
        a.load(Size::Byte, R4, R7, tcp + DATA_OFFSET);
        a.alu(Op::ShiftRight, R4, 4);
        a.alu(Op::ShiftLeft, R4, 2);
        a.jump_if(R4, If::SignedLess, OPTIONS as i32, *leave);
        a.alu(Op::Sub, R2, R4);
        a.jump_if(R2, If::SignedLess, 0, *leave);
        a.store(Size::Word, Fp, local::PAYLOAD, R2);
        a.load(Size::Word, R3, R7, tcp);
        a.store(Size::Word, Fp, local::KEY + 32, R3);
        a.store(Size::Word, Fp, local::KEY + 36, 0);
    }

    fn find_session(&mut self) {
        let Part { a, leave, environment, .. } = self;
        a.map(R1, environment.flows);
        a.mov(R2, Fp);
        a.alu(Op::Add, R2, i32::from(local::KEY));
        a.call(Helper::MapLookup);
        a.jump_if(R0, If::Equal, 0, *leave);
        a.load(Size::Word, R2, R0, 0);
        a.store(Size::Word, Fp, local::EVENT, R2);
        a.load(Size::Word, R9, R0, 4);
        a.store(Size::Word, Fp, local::EVENT_SERIAL, R9);
        a.load(Size::Word, R2, R0, 8);
        a.store(Size::Word, Fp, local::SIDE, R2);
        a.map(R1, environment.entries);
        a.mov(R2, Fp);
        a.alu(Op::Add, R2, i32::from(local::EVENT));
        a.call(Helper::MapLookup);
        a.jump_if(R0, If::Equal, 0, *leave);
        // The place may have been given to another session since.
        a.load(Size::Word, R2, R0, SERIAL);
        a.jump_if(R2, If::NotEqual, R9, *leave);
        a.store(Size::Double, Fp, local::ENTRY, R0);
        a.load_local(Size::Word, R2, local::SIDE);
        a.alu(Op::And, R2, 1);
        a.mov(R3, R2);
        a.alu(Op::Xor, R3, 1);
        for (register, side) in [(R8, R2), (R9, R3)] {
            a.alu(Op::Mul, side, DIRECTION_LEN as i32);
            a.mov(register, R0);
            a.alu(Op::Add, register, DIRECTIONS as i32);
            a.alu(Op::Add, register, side);
        }
    }

    /// A session that has still to be opened: only what opens it. `R0` is its entry.
    fn check_opening(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, leave, .. } = self;
        let open = a.label();
        a.load(Size::Word, R2, R0, OPENING);
        a.jump_if(R2, If::Equal, 0, open);
        a.load_local(Size::Word, R2, local::SIDE);
        a.jump_if(R2, If::NotEqual, 0, *leave);
        a.load(Size::Word, R2, R7, tcp + ACK);
        a.swap(R2, 32);
        a.load(Size::Word, R3, R8, ACK_DELTA);
        a.alu32(Op::Add, R2, R3);
        a.load(Size::Word, R1, R9, ACKED);
        distance(a, R4, R2, R1);
        a.jump32_if(R4, If::NotEqual, 0, *leave);
        a.place(open);
    }

    /// Segments that the receiver can take; options exactly as Linux and everybody else arranges them.
    fn parse_options(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, leave, .. } = self;
        let (segmented, arranged, no_timestamps, known) =
            (a.label(), a.label(), a.label(), a.label());
        a.load(Size::Word, R2, R6, context::GSO_SIZE);
        a.jump_if(R2, If::NotEqual, 0, segmented);
        a.load_local(Size::Word, R2, local::PAYLOAD);
        a.place(segmented);
        a.load(Size::Word, R3, R8, SEGMENT_LIMIT);
        a.jump_if(R2, If::Above, R3, *leave);

        // R4: words of options that are still to be understood.
        a.store(Size::Word, Fp, local::BLOCKS, 0);
        a.store(Size::Word, Fp, local::TIMESTAMPS, 0);
        a.load(Size::Byte, R4, R7, tcp + DATA_OFFSET);
        a.alu(Op::ShiftRight, R4, 4);
        a.alu(Op::Sub, R4, 5);
        a.jump_if(R4, If::Equal, 0, arranged);
        a.load(Size::Word, R5, R6, context::DATA_END);
        a.mov(R2, R7);
        a.alu(Op::Add, R2, (tcp + OPTIONS + TIMESTAMPS_LEN) as i32);
        a.jump_if(R2, If::Above, R5, *leave);
        a.load(Size::Word, R3, R7, tcp + OPTIONS);
        a.jump32_if(R3, If::NotEqual, i32::from_ne_bytes(TIMESTAMPS_HEAD), no_timestamps);
        a.store(Size::Word, Fp, local::TIMESTAMPS, 1);
        a.alu(Op::Sub, R4, 3);
        a.jump_if(R4, If::Equal, 0, arranged);
        a.jump_if(R4, If::SignedLess, 0, *leave);
        for (after_timestamps, most) in [(true, 3), (false, 4)] {
            let place = tcp + OPTIONS + if after_timestamps { TIMESTAMPS_LEN } else { 0 };
            if !after_timestamps {
                a.place(no_timestamps);
            }
            for blocks in 1..=most {
                let other = a.label();
                a.jump_if(R4, If::NotEqual, 1 + 2 * blocks as i32, other);
                a.mov(R2, R7);
                a.alu(Op::Add, R2, (place + 4 + 8 * blocks) as i32);
                a.jump_if(R2, If::Above, R5, *leave);
                a.load(Size::Word, R3, R7, place);
                a.jump32_if(R3, If::NotEqual, i32::from_ne_bytes(sack_head(blocks)), *leave);
                a.store(Size::Word, Fp, local::BLOCKS, blocks as i32);
                a.jump(known);
                a.place(other);
            }
            a.jump(*leave);
        }
        a.place(known);
        a.place(arranged);
    }

    /// A segment behind a gap stays with the process: what is missing may be on its way there, and would be overtaken.
    fn leave_what_overtakes(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, leave, .. } = self;
        a.load(Size::Word, R2, R7, tcp + SEQ);
        a.swap(R2, 32);
        a.load(Size::Word, R3, R8, NEXT);
        distance(a, R4, R2, R3);
        a.jump32_if(R4, If::SignedGreater, 0, *leave);
    }

    /// What the segment says of the stream it belongs to; see `Stream::sent` of the proxy.
    fn note_sent(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, .. } = self;
        let (beyond, noted) = (a.label(), a.label());
        a.load_local(Size::Double, R2, local::NOW);
        a.store(Size::Double, R8, LAST_SEEN as i16, R2);
        a.load(Size::Double, R2, R8, PACKETS);
        a.alu(Op::Add, R2, 1);
        a.store(Size::Double, R8, PACKETS as i16, R2);
        a.load(Size::Double, R2, R8, PASSED);
        a.load_local(Size::Word, R3, local::PAYLOAD);
        a.alu(Op::Add, R2, R3);
        a.store(Size::Double, R8, PASSED as i16, R2);
        a.store(Size::Word, Fp, local::TELL, 0);
        let open = a.label();
        a.load_local(Size::Double, R1, local::ENTRY);
        a.load(Size::Word, R2, R1, OPENING);
        a.jump_if(R2, If::Equal, 0, open);
        a.store(Size::Word, R1, OPENING as i16, 0);
        a.store(Size::Word, Fp, local::TELL, 1);
        a.place(open);

        // R2: where the payload ends; R3: and the FIN; R5: right edge of the window.
        a.load(Size::Word, R2, R7, tcp + SEQ);
        a.swap(R2, 32);
        a.load_local(Size::Word, R3, local::PAYLOAD);
        a.alu32(Op::Add, R2, R3);
        a.mov(R3, R2);
        a.load_local(Size::Word, R4, local::FIN);
        a.alu32(Op::Add, R3, R4);
        a.load(Size::Word, R5, R8, EDGE);
        self.note_acceptable();
        let Part { a, .. } = self;
        distance(a, R4, R3, R5);
        a.jump32_if(R4, If::SignedGreater, 2, beyond);
        a.load(Size::Word, R1, R8, NEXT);
        distance(a, R4, R3, R1);
        a.jump32_if(R4, If::SignedLess, 1, beyond);
        a.store(Size::Word, R8, NEXT as i16, R3);
        a.place(beyond);

        a.load_local(Size::Word, R4, local::FIN);
        a.jump_if(R4, If::Equal, 0, noted);
        a.load(Size::Word, R4, R8, FIN_SEEN);
        a.jump_if(R4, If::NotEqual, 0, noted);
        a.load(Size::Word, R3, R8, ACKED);
        distance(a, R4, R2, R3);
        a.jump32_if(R4, If::SignedLess, 0, noted);
        distance(a, R4, R5, R2);
        a.jump32_if(R4, If::SignedLess, 0, noted);
        a.store(Size::Word, R8, FIN as i16, R2);
        a.store(Size::Word, R8, FIN_SEEN as i16, 1);
        a.place(noted);
    }

    /// Whether the receiver looks at the segment at all; see `Stream::accepts` of the proxy. `R2` is where the payload
    /// ends, `R5` the right edge, both left as they are, and so is `R3`.
    fn note_acceptable(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, .. } = self;
        let (edge_is_later, judged) = (a.label(), a.label());
        a.store(Size::Word, Fp, local::ACCEPTABLE, 0);
        a.load(Size::Word, R1, R8, ACKED);
        distance(a, R4, R2, R1);
        a.jump32_if(R4, If::SignedLess, 0, judged);
        a.mov(R0, R5);
        a.load(Size::Word, R1, R8, NEXT);
        distance(a, R4, R1, R5);
        a.jump32_if(R4, If::SignedLess, 1, edge_is_later);
        a.mov(R0, R1);
        a.place(edge_is_later);
        a.load(Size::Word, R1, R7, tcp + SEQ);
        a.swap(R1, 32);
        distance(a, R4, R1, R0);
        a.jump32_if(R4, If::SignedGreater, 1, judged);
        a.store(Size::Word, Fp, local::ACCEPTABLE, 1);
        a.place(judged);
    }

    /// What it says of the other stream; see `Stream::acknowledged` of the proxy.
    fn note_acknowledged(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, .. } = self;
        let (edge_is_later, noted, same_edge, near, tell) =
            (a.label(), a.label(), a.label(), a.label(), a.label());
        a.load_local(Size::Word, R2, local::ACCEPTABLE);
        a.jump_if(R2, If::Equal, 0, noted);
        // R2: what is acknowledged; R1: what was.
        a.load(Size::Word, R2, R7, tcp + ACK);
        a.swap(R2, 32);
        a.load(Size::Word, R3, R8, ACK_DELTA);
        a.alu32(Op::Add, R2, R3);
        a.load(Size::Word, R1, R9, ACKED);
        distance(a, R4, R2, R1);
        a.jump32_if(R4, If::SignedLess, 0, noted);
        // R3: the highest that can be true; R5: right edge.
        a.load(Size::Word, R5, R9, EDGE);
        a.mov(R3, R5);
        a.load(Size::Word, R0, R9, NEXT);
        distance(a, R4, R0, R5);
        a.jump32_if(R4, If::SignedLess, 1, edge_is_later);
        a.mov(R3, R0);
        a.place(edge_is_later);
        distance(a, R4, R3, R2);
        a.jump32_if(R4, If::SignedLess, 0, noted);

        a.load(Size::Double, R3, R9, BYTES);
        distance(a, R4, R2, R1);
        a.alu(Op::Add, R3, R4);
        a.store(Size::Double, R9, BYTES as i16, R3);
        a.store(Size::Word, R9, ACKED as i16, R2);
        a.load(Size::Half, R3, R7, tcp + WINDOW);
        a.swap(R3, 16);
        scale(a, R3, R4, WINDOW_FROM, Op::ShiftLeft);
        a.alu32(Op::Add, R3, R2);
        distance(a, R4, R3, R5);
        a.jump32_if(R4, If::SignedLess, 1, same_edge);
        a.store(Size::Word, R9, EDGE as i16, R3);
        a.place(same_edge);

        a.alu32(Op::Xor, R1, R2);
        a.alu32(Op::ShiftRight, R1, PROGRESS_SHIFT);
        a.jump_if(R1, If::Equal, 0, near);
        a.store(Size::Word, Fp, local::TELL, 1);
        a.place(near);
        a.load(Size::Word, R3, R9, FIN_SEEN);
        a.jump_if(R3, If::Equal, 0, noted);
        a.load(Size::Word, R3, R9, FIN_ACKED);
        a.jump_if(R3, If::NotEqual, 0, noted);
        a.load(Size::Word, R3, R9, FIN);
        distance(a, R4, R2, R3);
        a.jump32_if(R4, If::SignedGreater, 0, tell);
        a.jump(noted);
        a.place(tell);
        a.store(Size::Word, R9, FIN_ACKED as i16, 1);
        a.store(Size::Word, Fp, local::TELL, 1);
        a.place(noted);
    }

    /// Rewrites the headers. `R5` gathers by how much the TCP header's sum has changed.
    fn translate(&mut self) {
        let tcp = self.version.tcp();
        let Part { a, .. } = self;
        let (no_timestamps, done) = (a.label(), a.label());
        a.load(Size::Word, R5, R8, PORTS_SUM);
        a.load(Size::Word, R2, R8, PORTS);
        a.store(Size::Word, R7, tcp as i16, R2);
        add_to_field(a, tcp + SEQ, SEQ_DELTA);
        add_to_field(a, tcp + ACK, ACK_DELTA);

        a.load(Size::Half, R2, R7, tcp + WINDOW);
        a.mov(R3, R2);
        a.swap(R3, 16);
        scale(a, R3, R4, WINDOW_FROM, Op::ShiftLeft);
        scale(a, R3, R4, WINDOW_TO, Op::ShiftRight);
        let fits = a.label();
        let large = a.label();
        a.jump_if(R3, If::Above, 0xffff, large);
        a.jump(fits);
        a.place(large);
        a.mov(R3, 0xffff);
        a.place(fits);
        a.swap(R3, 16);
        a.store(Size::Half, R7, (tcp + WINDOW) as i16, R3);
        a.alu(Op::Xor, R2, 0xffff);
        a.alu(Op::Add, R5, R2);
        a.alu(Op::Add, R5, R3);

        // That the options are within the packet has to be said again, for the verifier.
        let bare = a.label();
        a.load_local(Size::Word, R2, local::TIMESTAMPS);
        a.load_local(Size::Word, R3, local::BLOCKS);
        a.alu(Op::Or, R2, R3);
        a.jump_if(R2, If::Equal, 0, bare);
        a.load(Size::Word, R1, R6, context::DATA_END);
        a.load_local(Size::Word, R2, local::TIMESTAMPS);
        a.jump_if(R2, If::Equal, 0, no_timestamps);
        within(a, tcp + OPTIONS + TIMESTAMPS_LEN, done);
        add_to_field(a, tcp + OPTIONS + 4, VALUE_DELTA);
        add_to_field(a, tcp + OPTIONS + 8, ECHO_DELTA);
        for (after_timestamps, most) in [(true, 3), (false, 4)] {
            let place = tcp + OPTIONS + if after_timestamps { TIMESTAMPS_LEN } else { 0 };
            if !after_timestamps {
                a.place(no_timestamps);
            }
            for block in 0..most {
                a.load_local(Size::Word, R2, local::BLOCKS);
                a.jump_if(R2, If::SignedLess, block as i32 + 1, done);
                let at = place + 4 + 8 * block;
                within(a, at + 8, done);
                add_to_field(a, at, ACK_DELTA);
                add_to_field(a, at + 4, ACK_DELTA);
            }
            a.jump(done);
        }
        a.place(bare);
        a.place(done);
        match self.version {
            Version::V4 => self.replace_ipv4_addresses(),
            Version::V6 => self.replace_ipv6_addresses(),
        }
    }

    fn replace_ipv4_addresses(&mut self) {
        let Part { a, .. } = self;
        for (from, field) in [(SOURCE, 12), (DESTINATION, 16)] {
            a.load(Size::Word, R2, R8, from + 12);
            a.store(Size::Word, R7, (ETHERNET + field) as i16, R2);
        }
        // RFC 1624, equation 3.
        a.load(Size::Half, R2, R7, ETHERNET + 10);
        a.alu(Op::Xor, R2, 0xffff);
        a.load(Size::Word, R3, R8, ADDRESSES_SUM);
        a.alu(Op::Add, R2, R3);
        for _ in 0..3 {
            a.mov(R3, R2);
            a.alu(Op::ShiftRight, R3, 16);
            a.alu(Op::And, R2, 0xffff);
            a.alu(Op::Add, R2, R3);
        }
        a.alu(Op::Xor, R2, 0xffff);
        a.store(Size::Half, R7, (ETHERNET + 10) as i16, R2);
    }

    fn replace_ipv6_addresses(&mut self) {
        let Part { a, .. } = self;
        for at in (0..32).step_by(8) {
            a.load(Size::Double, R2, R8, SOURCE + at);
            a.store(Size::Double, R7, (ETHERNET + 8 + at) as i16, R2);
        }
    }

    /// The checksum, what there is to tell, and the packet's further way.
    fn finish(&mut self) {
        let checksum = (self.version.tcp() + CHECKSUM) as i32;
        let Part { a, environment, .. } = self;
        // The helper takes 32 bits.
        for _ in 0..2 {
            a.mov(R2, R5);
            a.alu(Op::ShiftRight, R2, 32);
            a.alu32(Op::Move, R5, R5);
            a.alu(Op::Add, R5, R2);
        }
        a.mov(R1, R6);
        a.mov(R2, checksum);
        a.mov(R3, 0);
        a.mov(R4, R5);
        a.mov(R5, 0);
        a.call(Helper::L4ChecksumReplace);
        a.mov(R1, R6);
        a.mov(R2, checksum);
        a.mov(R3, 0);
        a.load(Size::Word, R4, R8, ADDRESSES_SUM);
        a.mov(R5, PSEUDO_HEADER);
        a.call(Helper::L4ChecksumReplace);

        let quiet = a.label();
        a.load_local(Size::Word, R2, local::TELL);
        a.jump_if(R2, If::Equal, 0, quiet);
        a.map(R1, environment.events);
        a.mov(R2, Fp);
        a.alu(Op::Add, R2, i32::from(local::EVENT));
        a.mov(R3, 8);
        a.mov(R4, NO_WAKEUP);
        a.call(Helper::RingOutput);
        a.place(quiet);
        a.mov(R1, environment.device as i32);
        a.mov(R2, REDIRECT_TO_INGRESS);
        a.call(Helper::Redirect);
        a.exit();
    }
}

/// `to = a - b`, as 32 bits: how far `a` is ahead of `b` in sequence space.
fn distance(a: &mut Assembler, to: Reg, ahead: Reg, behind: Reg) {
    a.mov(to, ahead);
    a.alu32(Op::Sub, to, behind);
}

/// Shifts `register` by a number of the direction, at most 14.
fn scale(a: &mut Assembler, register: Reg, scratch: Reg, shift: usize, op: Op) {
    a.load(Size::Word, scratch, R8, shift);
    a.alu(Op::And, scratch, 15);
    a.alu(op, register, scratch);
}

/// Adds a number of the direction to a field of the packet, and the change to the sum in `R5`.
fn add_to_field(a: &mut Assembler, field: usize, delta: usize) {
    a.load(Size::Word, R2, R7, field);
    a.mov(R3, R2);
    a.swap(R3, 32);
    a.load(Size::Word, R4, R8, delta);
    a.alu32(Op::Add, R3, R4);
    a.swap(R3, 32);
    a.store(Size::Word, R7, field as i16, R3);
    a.alu32(Op::Xor, R2, -1);
    a.alu(Op::Add, R5, R2);
    a.alu(Op::Add, R5, R3);
}

/// Goes on only if the packet, whose end is in `R1`, has `len` bytes.
fn within(a: &mut Assembler, len: usize, otherwise: Label) {
    a.mov(R2, R7);
    a.alu(Op::Add, R2, len as i32);
    a.jump_if(R2, If::Above, R1, otherwise);
}
