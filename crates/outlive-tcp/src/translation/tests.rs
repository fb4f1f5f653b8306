//! A translation is judged by what a receiver reads, and by the checksums that it would verify.

mod golden;

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    testing::{
        HEADROOM, Raw, any_packet, any_tuple, assert_sound, buffer, hex, parse, tuple, tuple_of,
    },
    wire::{Flags, SackBlock, SackBlocks, Timestamps},
};

/// Adds nothing to anything: a base for translations that do one thing.
fn identity(tuple: FourTuple) -> Translation {
    Translation {
        tuple,
        seq_delta: 0,
        ack_delta: 0,
        ack_floor: None,
        timestamps: TimestampTranslation::Shift { value_delta: 0, echo_delta: 0 },
        sack: true,
        window_from: 0,
        window_to: 0,
    }
}

fn any_timestamps() -> impl Strategy<Value = TimestampTranslation> {
    any::<(u32, u32, u8)>().prop_map(|(a, b, which)| match which % 3 {
        0 => TimestampTranslation::Shift { value_delta: a, echo_delta: b },
        1 => TimestampTranslation::Insert { value: a, echo: b },
        _ => TimestampTranslation::Strip,
    })
}

/// Any translation of a packet with this four-tuple and acknowledgment number.
fn any_translation(like: FourTuple, ack: u32) -> impl Strategy<Value = Translation> {
    let tuple = tuple_of(like.source.addr.is_ipv4());
    let deltas = (any::<u32>(), any::<u32>());
    // Floors around the acknowledgment, where they matter, and anywhere.
    let floor = proptest::option::of(prop_oneof![any::<i32>(), -2000i32..2000]);
    (tuple, deltas, floor, any_timestamps(), any::<bool>(), 0u8..17, 0u8..17).prop_map(
        move |(tuple, (seq_delta, ack_delta), floor, timestamps, sack, window_from, window_to)| {
            let ack_floor =
                floor.map(|above| Seq(ack.wrapping_add(ack_delta).wrapping_add_signed(above)));
            Translation {
                tuple,
                seq_delta,
                ack_delta,
                ack_floor,
                timestamps,
                sack,
                window_from,
                window_to,
            }
        },
    )
}

fn any_packet_and_translation() -> impl Strategy<Value = (Raw, Translation)> {
    any_packet().prop_flat_map(|raw| {
        let translation = any_translation(raw.tuple, raw.ack);
        (Just(raw), translation)
    })
}

fn any_checksum() -> impl Strategy<Value = Checksum> {
    prop_oneof![Just(Checksum::Full), Just(Checksum::Verified), Just(Checksum::Partial)]
}

/// What SACK blocks become, said without regard to where they stand.
fn expected_blocks(blocks: &[SackBlock], translation: &Translation) -> Vec<SackBlock> {
    let shifted = blocks.iter().map(|block| SackBlock {
        start: block.start + translation.ack_delta,
        end: block.end + translation.ack_delta,
    });
    let Some(floor) = translation.ack_floor else { return shifted.collect() };
    shifted
        .filter(|block| block.end.after(floor) && block.end != floor)
        .map(|block| SackBlock { start: block.start.later(floor), ..block })
        .collect()
}

fn expected_timestamps(
    had: Option<Timestamps>,
    flags: Flags,
    how: TimestampTranslation,
) -> Option<Timestamps> {
    match (how, had) {
        (TimestampTranslation::Insert { value, echo }, _) => Some(Timestamps { value, echo }),
        (TimestampTranslation::Shift { value_delta, echo_delta }, Some(had)) => Some(Timestamps {
            value: had.value.wrapping_add(value_delta),
            echo: if flags.contains(Flags::ACK) {
                had.echo.wrapping_add(echo_delta)
            } else {
                had.echo
            },
        }),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_receiver_reads_what_it_should(
        (raw, translation) in any_packet_and_translation(),
        checksum in any_checksum(),
    ) {
        let before = raw.build(checksum);
        let mut bytes = buffer(&before);
        let mut packet = parse(&mut bytes, checksum).unwrap();
        let (ip_header_len, had) = (packet.ip_header_len(), packet.options());
        let header_len = packet.headers_len() - ip_header_len;
        if let Err(error) = packet.translate(&translation) {
            // Only options that leave no room for another may keep a packet from being translated.
            prop_assert_eq!(error, Untranslatable::HeaderFull);
            prop_assert!(header_len + 12 > 60);
            prop_assert_eq!(packet.bytes(), &before[..]);
            return Ok(());
        }

        assert_sound(packet.bytes(), ip_header_len, checksum);
        let after = packet.bytes().to_vec();
        let mut bytes = buffer(&after);
        let read = parse(&mut bytes, checksum).unwrap();
        // What the view remembers is what a new look finds.
        prop_assert_eq!(read.places, packet.places);
        let end = HEADROOM + before.len();
        prop_assert_eq!(packet.range(), end - after.len()..end);

        let flags = read.flags();
        prop_assert_eq!(flags, Flags(raw.flags));
        prop_assert_eq!(read.tuple(), translation.tuple);
        prop_assert_eq!(read.seq(), Seq(raw.seq) + translation.seq_delta);
        prop_assert_eq!(read.payload(), &raw.payload[..]);
        prop_assert_eq!(read.ip_header_len(), ip_header_len);

        let mut raised = 0;
        if flags.contains(Flags::ACK) {
            let ack = Seq(raw.ack) + translation.ack_delta;
            let expected = translation.ack_floor.map_or(ack, |floor| ack.later(floor));
            raised = expected.distance(ack);
            prop_assert_eq!(read.ack(), expected);
        } else {
            prop_assert_eq!(read.ack(), Seq(raw.ack));
        }
        if flags.contains(Flags::SYN) {
            prop_assert_eq!(read.window(), raw.window);
        } else {
            let (from, to) = (translation.window_from.min(14), translation.window_to.min(14));
            let promised = (u64::from(raw.window) << from).saturating_sub(raised.into());
            let granted = u64::from(read.window()) << to;
            prop_assert!(granted <= promised, "invented");
            prop_assert!(read.window() == u16::MAX || promised - granted < 1 << to, "lost");
        }

        let options = read.options();
        prop_assert_eq!(
            options.timestamps,
            expected_timestamps(had.timestamps, flags, translation.timestamps)
        );
        let mut blocks = expected_blocks(had.sack.as_slice(), &translation);
        if !translation.sack {
            blocks.clear();
        }
        if after.len() < before.len() + 12 {
            // Blocks may have made room for inserted timestamps.
            blocks.truncate(options.sack.as_slice().len().max(1));
        }
        prop_assert_eq!(options.sack.as_slice(), &blocks[..]);

        // The rest of both headers stays. (Lengths and checksums have been looked at.)
        let tcp = ip_header_len;
        let kept = if after[0] >> 4 == 4 { [0..2, 4..10, 20..tcp] } else { [0..4, 6..8, 40..tcp] };
        for range in kept {
            prop_assert_eq!(&after[range.clone()], &before[range]);
        }
        prop_assert_eq!(&after[tcp + 18..tcp + 20], &before[tcp + 18..tcp + 20]);
    }

    #[test]
    fn there_and_back_is_no_change(
        (raw, translation) in any_packet_and_translation(),
        (value_delta, echo_delta) in any::<(u32, u32)>(),
        checksum in any_checksum(),
    ) {
        let there = Translation {
            ack_floor: None,
            timestamps: TimestampTranslation::Shift { value_delta, echo_delta },
            sack: true,
            window_from: translation.window_to,
            ..translation
        };
        let back = Translation {
            tuple: raw.tuple,
            seq_delta: there.seq_delta.wrapping_neg(),
            ack_delta: there.ack_delta.wrapping_neg(),
            timestamps: TimestampTranslation::Shift {
                value_delta: value_delta.wrapping_neg(),
                echo_delta: echo_delta.wrapping_neg(),
            },
            ..there
        };
        let before = raw.build(checksum);
        let mut bytes = buffer(&before);
        let mut packet = parse(&mut bytes, checksum).unwrap();
        packet.translate(&there).unwrap();
        packet.translate(&back).unwrap();
        prop_assert_eq!(packet.bytes(), &before[..]);
    }

    #[test]
    fn other_ends_are_all_that_a_new_address_changes(
        (raw, tuple, checksum) in any_packet().prop_flat_map(|raw| {
            let tuple = tuple_of(raw.tuple.source.addr.is_ipv4());
            (Just(raw), tuple, any_checksum())
        }),
    ) {
        let mut bytes = buffer(&raw.build(checksum));
        parse(&mut bytes, checksum).unwrap().readdress(&tuple).unwrap();
        let expected = Raw { tuple, ..raw }.build(checksum);
        prop_assert_eq!(&bytes[HEADROOM..], &expected[..]);
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right(
        (raw, translation) in any_packet_and_translation(),
        error in 1u16..0xffff,
    ) {
        let mut bytes = buffer(&raw.build(Checksum::Full));
        let at = parse(&mut bytes, Checksum::Full).unwrap().ip_header_len() + HEADROOM + 16;
        let field = u16_at(&bytes, at);
        put_u16(&mut bytes, at, field ^ error);
        // Both representations of zero are right.
        prop_assume!((field, error) != (0, 0xffff));
        let mut packet = parse(&mut bytes, Checksum::Full).unwrap();
        if packet.translate(&translation).is_ok() {
            prop_assert!(!packet.checksum_ok());
        }
    }

    #[test]
    fn no_damage_and_no_headroom_makes_it_panic(
        (raw, translation) in any_packet_and_translation(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        headroom in 0usize..14,
        other_tuple in any_tuple(),
    ) {
        let mut bytes = vec![0; headroom];
        bytes.extend(raw.build(Checksum::Full));
        for (at, value) in damage {
            let at = headroom + at.index(raw.build(Checksum::Full).len().min(100));
            bytes[at] = value;
        }
        for tuple in [translation.tuple, other_tuple] {
            let mut bytes = bytes.clone();
            let end = bytes.len();
            let Ok(mut packet) = TcpPacket::parse(&mut bytes, headroom, end, Default::default())
            else { continue };
            let before = packet.bytes().to_vec();
            if packet.translate(&Translation { tuple, ..translation }).is_err() {
                prop_assert_eq!(packet.bytes(), &before[..]);
            } else {
                let len = packet.payload().len() + packet.headers_len();
                prop_assert_eq!(len, packet.bytes().len());
            }
        }
    }
}

/// The packet after this translation, read anew.
fn translated<R>(raw: &Raw, translation: &Translation, read: impl Fn(&TcpPacket<'_>) -> R) -> R {
    let mut bytes = buffer(&raw.build(Checksum::Full));
    let mut packet = parse(&mut bytes, Checksum::Full).unwrap();
    packet.translate(translation).unwrap();
    let mut bytes = buffer(packet.bytes());
    let packet = parse(&mut bytes, Checksum::Full).unwrap();
    assert!(packet.checksum_ok());
    read(&packet)
}

fn v4() -> Raw {
    Raw::plain(tuple("10.0.0.1:4000", "10.0.0.2:80"))
}

fn blocks(blocks: &[(u32, u32)]) -> SackBlocks {
    let mut sack = SackBlocks::default();
    for &(start, end) in blocks {
        assert!(sack.push(SackBlock { start: Seq(start), end: Seq(end) }));
    }
    sack
}

/// Options with SACK blocks as Linux writes them.
fn sack_option(edges: &[(u32, u32)]) -> Vec<u8> {
    let options = crate::wire::Options { sack: blocks(edges), ..Default::default() };
    let mut bytes = vec![];
    options.emit(&mut bytes);
    bytes
}

#[test]
fn the_window_saturates_and_rounds_down() {
    let window = |window: u16, window_from: u8, window_to: u8| {
        let raw = Raw { window, ..v4() };
        let translation = Translation { window_from, window_to, ..identity(raw.tuple) };
        translated(&raw, &translation, |packet| packet.window())
    };
    assert_eq!(window(1000, 7, 7), 1000);
    assert_eq!(window(65_535, 7, 0), 65_535); // More than the field can say: not zero.
    assert_eq!(window(512, 7, 0), 65_535);
    assert_eq!(window(511, 7, 0), 65_408);
    assert_eq!(window(1000, 0, 7), 7);
    assert_eq!(window(127, 0, 7), 0);
    assert_eq!(window(65_535, 255, 14), 65_535);
}

#[test]
fn the_window_of_a_syn_is_not_scaled() {
    let raw = Raw { flags: 0x12, window: 64_240, ..v4() };
    let translation = Translation { window_from: 7, ..identity(raw.tuple) };
    assert_eq!(translated(&raw, &translation, |packet| packet.window()), 64_240);
}

/// The server has acknowledged 30 of 100 bytes that a node inserted, and has room for 1000 more.
#[test]
fn a_raised_acknowledgment_grants_no_more_than_was_promised() {
    let raw = Raw { ack: 5030, window: 1000, ..v4() };
    let translation = Translation {
        ack_delta: 1000u32.wrapping_sub(5100),
        ack_floor: Some(Seq(1000)),
        ..identity(raw.tuple)
    };
    translated(&raw, &translation, |packet| {
        assert_eq!(packet.ack(), Seq(1000));
        assert_eq!(packet.window(), 930);
    });
    let past_the_prefix = Raw { ack: 5101, ..raw.clone() };
    translated(&past_the_prefix, &translation, |packet| {
        assert_eq!((packet.ack(), packet.window()), (Seq(1001), 1000));
    });
    let nearly_full = Raw { window: 69, ..raw };
    translated(&nearly_full, &translation, |packet| assert_eq!(packet.window(), 0));
}

#[test]
fn sack_blocks_below_the_floor_are_removed() {
    let floor = |edges: &[(u32, u32)], left: &[(u32, u32)]| {
        let raw = Raw { ack: 90, options: sack_option(edges), ..v4() };
        let translation = Translation { ack_floor: Some(Seq(100)), ..identity(raw.tuple) };
        translated(&raw, &translation, |packet| {
            assert_eq!(packet.options().sack, blocks(left));
            assert_eq!(packet.headers_len(), 40 + raw.options.len());
        });
    };
    floor(&[(200, 300), (150, 160)], &[(200, 300), (150, 160)]);
    floor(&[(80, 95), (200, 300), (90, 100)], &[(200, 300)]);
    floor(&[(80, 120), (200, 300)], &[(100, 120), (200, 300)]);
    floor(&[(80, 95)], &[]);
}

#[test]
fn sack_blocks_of_a_receiver_that_did_not_permit_them_vanish() {
    let raw = Raw { options: sack_option(&[(1, 2), (5, 6)]), ..v4() };
    let translation = Translation { sack: false, ..identity(raw.tuple) };
    translated(&raw, &translation, |packet| {
        assert_eq!(packet.bytes()[40..60], [1; 20]);
    });
}

#[test]
fn timestamps_without_an_ack_keep_their_empty_echo() {
    let raw = Raw { flags: 0x04, options: hex("0101080a 0000000a 00000000"), ..v4() };
    let timestamps = TimestampTranslation::Shift { value_delta: 5, echo_delta: 7 };
    let translation = Translation { timestamps, ..identity(raw.tuple) };
    let read = translated(&raw, &translation, |packet| packet.timestamps());
    assert_eq!(read, Some(Timestamps { value: 15, echo: 0 }));
}

#[test]
fn inserted_timestamps_spare_the_first_sack_blocks() {
    let four = [(10, 11), (20, 21), (30, 31), (40, 41)];
    let insert = TimestampTranslation::Insert { value: 7, echo: 8 };
    let raw = Raw { options: sack_option(&four), ..v4() };
    let translation = Translation { timestamps: insert, ..identity(raw.tuple) };
    translated(&raw, &translation, |packet| {
        assert_eq!(packet.options().sack, blocks(&four[..3]));
        assert_eq!(packet.timestamps(), Some(Timestamps { value: 7, echo: 8 }));
        assert_eq!(packet.headers_len(), 80);
    });
    // Blocks that the floor removes make the room alone.
    let translation = Translation { ack_floor: Some(Seq(35)), ..translation };
    translated(&raw, &translation, |packet| {
        assert_eq!(packet.options().sack, blocks(&four[3..]));
    });
}

#[test]
fn what_cannot_be_translated_is_left_alone() {
    let insert = TimestampTranslation::Insert { value: 7, echo: 8 };
    let refused = |raw: &Raw, headroom: usize, translation: &Translation| {
        let before = raw.build(Checksum::Full);
        let mut bytes = [vec![0; headroom], before.clone()].concat();
        let end = bytes.len();
        let mut packet = TcpPacket::parse(&mut bytes, headroom, end, Default::default()).unwrap();
        let error = packet.translate(translation).unwrap_err();
        assert_eq!(packet.bytes(), before);
        error
    };
    let raw = v4();
    let inserting = Translation { timestamps: insert, ..identity(raw.tuple) };
    assert_eq!(refused(&raw, 11, &inserting), Untranslatable::Headroom);

    let other_version = identity(tuple("[fd00::1]:4000", "[fd00::2]:80"));
    assert_eq!(refused(&raw, 12, &other_version), Untranslatable::Version);

    let full = Raw { options: [&[254, 30][..], &[0; 30]].concat(), ..v4() };
    assert_eq!(refused(&full, 12, &inserting), Untranslatable::HeaderFull);

    // One SACK block, and options that mean nothing: nothing can be spared.
    let one_block = sack_option(&[(10, 11)])[2..].to_vec();
    let full = Raw { options: [&[254, 26][..], &[0; 24], &one_block].concat(), ..v4() };
    assert_eq!(refused(&full, 12, &inserting), Untranslatable::HeaderFull);

    let long = Raw { payload: vec![0; 65_535 - 40 - 11], ..v4() };
    assert_eq!(refused(&long, 12, &inserting), Untranslatable::TooLong);
}

/// IPv6 counts its header out, so a packet may be longer than its length field can say.
#[test]
fn an_ipv6_packet_may_get_shorter_by_an_insertion() {
    let four = [(10, 11), (20, 21), (30, 31), (40, 41)];
    let raw = Raw {
        options: [&[1; 4], &sack_option(&four)[..]].concat(),
        payload: vec![3; 65_539 - 100],
        ..Raw::plain(tuple("[fd00::1]:4000", "[fd00::2]:80"))
    };
    let insert = TimestampTranslation::Insert { value: 7, echo: 8 };
    let translation = Translation { timestamps: insert, ..identity(raw.tuple) };
    translated(&raw, &translation, |packet| {
        assert_eq!(packet.bytes().len(), 65_535);
        assert_eq!(packet.options().sack, blocks(&four[..2]));
    });
}

#[test]
fn a_super_segment_stays_whole() {
    let raw = Raw { payload: (0..=255).cycle().take(65_000).collect(), ..v4() };
    let timestamps = TimestampTranslation::Insert { value: 7, echo: 8 };
    let translation = Translation {
        tuple: raw.tuple.reversed(),
        seq_delta: 77,
        timestamps,
        ..identity(raw.tuple)
    };
    translated(&raw, &translation, |packet| assert_eq!(packet.payload(), raw.payload));
}
