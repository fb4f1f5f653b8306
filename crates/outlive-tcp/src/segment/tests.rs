//! Segments that are written are read as what they were.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    testing::{Raw, any_tuple, assert_sound, buffer, hex, parse, tuple},
    wire::{Checksum, SackBlock, Timestamps},
};

fn any_options() -> impl Strategy<Value = Options> {
    let timestamps = proptest::option::of(
        any::<(u32, u32)>().prop_map(|(value, echo)| Timestamps { value, echo }),
    );
    let mss = proptest::option::of(1u16..);
    let scale = proptest::option::of(0u8..=14);
    (mss, scale, any::<bool>(), timestamps, vec(any::<(u32, u32)>(), 0..=4)).prop_map(
        |(mss, window_scale, sack_permitted, timestamps, blocks)| {
            let mut options =
                Options { mss, window_scale, sack_permitted, timestamps, ..Options::default() };
            for (start, end) in blocks {
                options.sack.push(SackBlock { start: Seq(start), end: Seq(end) });
            }
            options
        },
    )
}

proptest! {
    #[test]
    fn a_segment_reads_as_it_was_written(
        tuple in any_tuple(),
        (seq, ack) in any::<(u32, Option<u32>)>(),
        (flags, window) in (0u16..0x1000, any::<u16>()),
        options in any_options(),
        payload in vec(any::<u8>(), 0..40),
    ) {
        let (seq, ack, flags) = (Seq(seq), ack.map(Seq), Flags(flags));
        let segment =
            Segment { tuple, seq, ack, flags, window, options, payload: &payload, hop_limit: 64 };
        let mut out = vec![0xaa; 3];
        segment.emit(&mut out);
        prop_assert_eq!(out.len(), 3 + segment.len());
        let ip_header_len = if tuple.source.addr.is_ipv4() { 20 } else { 40 };
        assert_sound(&out[3..], ip_header_len, Checksum::Full);

        let mut bytes = buffer(&out[3..]);
        let packet = parse(&mut bytes, Checksum::Full).unwrap();
        prop_assert_eq!((packet.tuple(), packet.seq()), (tuple, seq));
        prop_assert_eq!(packet.flags().contains(Flags::ACK), ack.is_some());
        prop_assert_eq!(packet.ack(), ack.unwrap_or_default());
        prop_assert_eq!(packet.flags() | Flags::ACK, flags | Flags::ACK);
        prop_assert_eq!((packet.window(), packet.payload()), (window, &payload[..]));

        // All of the options, but for SACK blocks that had no room.
        let (written, read) = (options.sack.as_slice(), packet.options());
        prop_assert_eq!(Options { sack: options.sack, ..read }, options);
        prop_assert!(written.starts_with(read.sack.as_slice()));
        let fits = packet.headers_len() - ip_header_len <= 60 - 8;
        prop_assert!(read.sack == options.sack || !fits);
    }
}

/// The order and padding of a Linux SYN, with and without timestamps.
#[test]
fn syn_options_look_like_those_of_linux() {
    let mut options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 1, echo: 0 }),
        ..Options::default()
    };
    let written = |options: &Options| {
        let mut out = vec![];
        options.emit(&mut out);
        out
    };
    assert_eq!(written(&options), hex("020405b4 0402 080a 00000001 00000000 01 030307"));
    options.timestamps = None;
    assert_eq!(written(&options), hex("020405b4 0101 0402 01 030307"));
}

#[test]
fn a_segment_never_outgrows_ip() {
    let payload = vec![1; 70_000];
    for tuple in [tuple("10.0.0.1:1", "10.0.0.2:2"), tuple("[fd00::1]:1", "[fd00::2]:2")] {
        let segment = Segment {
            tuple,
            seq: Seq(0),
            ack: None,
            flags: Flags::NONE,
            window: 0,
            options: Options::default(),
            payload: &payload,
            hop_limit: 1,
        };
        let mut out = vec![];
        segment.emit(&mut out);
        assert_eq!(out.len(), 65_535);
        assert!(parse(&mut buffer(&out), Checksum::Full).unwrap().checksum_ok());
    }
}

/// RFC 9293, section 3.10.7.1.
#[test]
fn resets_are_believable_to_their_receiver() {
    let tuple = tuple("10.0.0.1:4000", "10.0.0.2:80");
    let reset = |flags: u16| {
        let raw = Raw { flags, seq: 1000, ack: 2000, ..Raw::plain(tuple) };
        let mut bytes = buffer(&raw.build(Checksum::Full));
        reset_for(&parse(&mut bytes, Checksum::Full).unwrap())
    };
    let to_ack = reset(0x10).unwrap();
    assert_eq!((to_ack.tuple, to_ack.flags), (tuple.reversed(), Flags::RST));
    assert_eq!((to_ack.seq, to_ack.ack), (Seq(2000), None));
    let to_syn = reset(0x02).unwrap();
    assert_eq!((to_syn.seq, to_syn.ack), (Seq(0), Some(Seq(1008)))); // 7 bytes and the SYN.
    assert!(reset(0x04).is_none() && reset(0x14).is_none());
}
