use outlive_tcp::wire::Endpoint;
use proptest::prelude::*;

use super::*;

fn end(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

fn example() -> Blob {
    Blob {
        tcp: TcpState {
            iss: Seq(0x0102_0304),
            snd_una: Seq(0x0102_0305),
            snd_nxt: Seq(0x0102_0305),
            snd_wnd: 64_240,
            snd_wnd_max: 65_535,
            snd_wl1: Seq(0xa0a0_a0a1),
            snd_wl2: Seq(0x0102_0305),
            irs: Seq(0xa0a0_a0a0),
            rcv_acked: Seq(0xa0a0_a0a1),
            rcv_nxt: Seq(0xa0a0_a0a6),
            rcv_wnd: 16_384,
            client_mss: 1_460,
            own_mss: 1_400,
            scales: Some(Scales { snd: 7, rcv: 8 }),
            sack: true,
            timestamps: Some(TimestampState {
                recent: 0x1111_2222,
                echoed: 0x3333_4444,
                clock: 0x3333_4450,
            }),
        },
        ends: FourTuple::new(end("10.1.2.3:4660"), end("192.0.2.80:443")),
        mapping: Mapping {
            flow: FlowId::new(0x8001_0203).unwrap(),
            tunnel: "10.9.0.7".parse().unwrap(),
        },
        data: b"hello".to_vec(),
    }
}

/// The example of `docs/migration.md`.
const GOLDEN: &str = "
    4f4c4d42 0001 000e 00000099 00000005
    01020304 01020305 01020305 0000faf0 0000ffff a0a0a0a1 01020305
    a0a0a0a0 a0a0a0a1 a0a0a0a6 00004000
    05b4 0578 07 08 0000 11112222 33334444 33334450 00000000
    00000000000000000000ffff0a010203 00000000000000000000ffffc0000250 1234 01bb
    80010203 00000000000000000000ffff0a090007
    68656c6c6f";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_layout_is_the_documented_one() {
    let bytes = example().encode().unwrap();
    let (body, sum) = bytes.split_at(bytes.len() - 8);
    assert_eq!(body, hex(GOLDEN));
    assert_eq!(sum, hex("b82e1c36c524da5b"));
    assert_eq!(Blob::decode(&bytes), Ok(example()));
}

#[test]
fn an_idle_connection_fits_into_256_bytes() {
    let idle = Blob {
        data: vec![],
        tcp: TcpState { rcv_nxt: Seq(0xa0a0_a0a1), ..example().tcp },
        ..example()
    };
    assert_eq!(idle.encode().unwrap().len(), FIXED_LEN);
    const { assert!(FIXED_LEN <= 256) };
}

#[test]
fn everything_survives_over_ipv6_and_without_options() {
    let plain = Blob {
        tcp: TcpState { scales: None, sack: false, timestamps: None, ..example().tcp },
        ends: FourTuple::new(end("[2001:db8::1]:1"), end("[2001:db8::2]:65535")),
        mapping: Mapping { tunnel: "fd00::7".parse().unwrap(), ..example().mapping },
        ..example()
    };
    assert_eq!(Blob::decode(&plain.encode().unwrap()), Ok(plain));
}

#[test]
fn what_is_wrong_is_said() {
    let good = example().encode().unwrap();
    let damaged = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        Blob::decode(&bytes)
    };
    assert_eq!(damaged(0), Err(BlobError::Magic));
    assert_eq!(damaged(5), Err(BlobError::Version(0x41)));
    assert_eq!(damaged(11), Err(BlobError::Length));
    for at in (12..good.len()).chain([6, 7]) {
        assert_eq!(damaged(at), Err(BlobError::Checksum), "byte {at}");
    }
    for len in 0..good.len() {
        assert!(Blob::decode(&good[..len]).is_err(), "{len} bytes");
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(Blob::decode(&longer), Err(BlobError::Length));
}

#[test]
fn contradictions_are_neither_written_nor_read() {
    let contradictions: [fn(&mut Blob); 12] = [
        |blob| blob.tcp.rcv_nxt += 1,
        |blob| blob.tcp.rcv_wnd = 4,
        |blob| blob.tcp.snd_wnd = 65_536,
        |blob| blob.tcp.snd_wnd_max = (1 << 30) + 1,
        |blob| blob.tcp.snd_nxt += 65_536,
        |blob| blob.tcp.snd_una = blob.tcp.iss,
        |blob| blob.tcp.client_mss = 0,
        |blob| blob.tcp.scales = Some(Scales { snd: 15, rcv: 0 }),
        |blob| blob.mapping.tunnel = "fd00::7".parse().unwrap(),
        |blob| blob.ends.source = end("[::1]:1"),
        |blob| blob.ends.destination.port = 0,
        |blob| blob.data.resize(MAX_DATA + 1, 0),
    ];
    for (number, contradict) in contradictions.iter().enumerate() {
        let mut blob = example();
        contradict(&mut blob);
        assert_eq!(blob.encode(), Err(BlobError::Invalid), "number {number}");
    }
}

#[test]
fn clocks_and_sequence_numbers_may_be_about_to_wrap() {
    let mut blob = example();
    blob.tcp.iss = Seq(u32::MAX);
    (blob.tcp.snd_una, blob.tcp.snd_nxt) = (Seq(0), Seq(0));
    (blob.tcp.irs, blob.tcp.rcv_acked, blob.tcp.rcv_nxt) =
        (Seq(u32::MAX - 2), Seq(u32::MAX - 1), Seq(3));
    blob.tcp.timestamps =
        Some(TimestampState { recent: u32::MAX, echoed: u32::MAX - 3, clock: 12 });
    assert_eq!(Blob::decode(&blob.encode().unwrap()), Ok(blob));
}

proptest! {
    #[test]
    fn strange_bytes_are_refused_without_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        plausible: bool,
    ) {
        if plausible && bytes.len() >= FIXED_LEN {
            let len = bytes.len();
            bytes[..6].copy_from_slice(b"OLMB\0\x01");
            bytes[8..12].copy_from_slice(&(len as u32).to_be_bytes());
            let sum = layout::checksum(&bytes[..len - 8]);
            bytes[len - 8..].copy_from_slice(&sum);
        }
        if let Ok(blob) = Blob::decode(&bytes) {
            prop_assert_eq!(blob.encode(), Ok(bytes));
        }
    }
}
