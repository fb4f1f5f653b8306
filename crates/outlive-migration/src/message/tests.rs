use outlive_tcp::wire::Endpoint;
use proptest::prelude::*;

use super::*;

const EPOCH: Epoch = Epoch(0x0102);
const ID: MigrationId = MigrationId(0x0a0b_0c0d);

fn flow() -> FlowId {
    FlowId::new(0x8001_0203).unwrap()
}

fn ends() -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    FourTuple::new(end("10.1.2.3:4660"), end("192.0.2.80:443"))
}

/// Each kind, with its bytes as `docs/migration.md` has them.
fn golden() -> Vec<(Message, String)> {
    let head = |kind: &str| format!("{kind} 0000000000000102 000000000a0b0c0d");
    let (epoch, id, flow, ends) = (EPOCH, ID, flow(), ends());
    let hello = |speaker| Message::Hello(Hello { speaker, incarnation: 7, epoch });
    vec![
        (
            hello(Speaker::Balancer(Balancer::B)),
            "01 4f4c4d47 0001 01 0000000000000007 0000000000000102".into(),
        ),
        (hello(Speaker::Target), "01 4f4c4d47 0001 02 0000000000000007 0000000000000102".into()),
        (Message::Serve { epoch }, "02 0000000000000102".into()),
        (Message::Prepare { epoch, id, blob: vec![1, 2, 3] }, head("03") + "010203"),
        (Message::Prepared { epoch, id }, head("04")),
        (
            Message::Commit { epoch, id, flow, ends },
            head("05")
                + "80010203 00000000000000000000ffff0a010203
                   00000000000000000000ffffc0000250 1234 01bb",
        ),
        (Message::Committed { epoch, id }, head("06")),
        (Message::Abort { epoch, id }, head("07")),
        (Message::Refused { epoch, id, reason: Refusal::StaleEpoch }, head("08") + "01"),
        (Message::Refused { epoch, id, reason: Refusal::Draining }, head("08") + "0c"),
        (Message::Ended { epoch, id, flow, how: HowEnded::Lost }, head("09") + "80010203 04"),
        (Message::Gone { epoch, id }, head("0a")),
        (Message::Probe { epoch, id, flow }, head("0b") + "80010203"),
        (Message::Probed { epoch, id, len: 1_500 }, head("0c") + "05dc"),
    ]
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_layouts_are_the_documented_ones() {
    for (message, bytes) in golden() {
        assert_eq!(message.encode(), hex(&bytes), "{message:?}");
        assert_eq!(Message::decode(&hex(&bytes)), Ok(message));
    }
}

#[test]
fn too_few_and_too_many_bytes_are_refused() {
    for (message, bytes) in golden() {
        let bytes = hex(&bytes);
        let open = matches!(message, Message::Prepare { .. });
        let least = if open { 17 } else { bytes.len() };
        for len in 0..least {
            assert!(Message::decode(&bytes[..len]).is_err(), "{message:?} of {len} bytes");
        }
        if !open {
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Message::decode(&longer), Err(MessageError::Malformed));
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let altered = |at: usize, value: u8, message: Message| {
        let mut bytes = message.encode();
        bytes[at] = value;
        Message::decode(&bytes)
    };
    let (epoch, id) = (EPOCH, ID);
    let refused = Message::Refused { epoch, id, reason: Refusal::Full };
    for code in [0, 13, 255] {
        assert_eq!(altered(17, code, refused.clone()), Err(MessageError::Malformed));
    }
    let probe = Message::Probe { epoch, id, flow: FlowId::new(0x0001_0001).unwrap() };
    assert_eq!(altered(18, 0, probe), Err(MessageError::Malformed));
    let hello = Message::Hello(Hello { speaker: Speaker::Target, incarnation: 1, epoch });
    assert_eq!(altered(1, b'X', hello.clone()), Err(MessageError::Magic));
    assert_eq!(altered(6, 2, hello.clone()), Err(MessageError::Version(2)));
    assert_eq!(altered(7, 3, hello.clone()), Err(MessageError::Malformed));
    assert_eq!(altered(0, 0, hello.clone()), Err(MessageError::Kind(0)));
    assert_eq!(altered(0, 13, hello), Err(MessageError::Kind(13)));
}

#[test]
fn reasons_have_their_numbers() {
    for (place, reason) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(reason.code()), place + 1);
    }
    for (place, how) in HowEnded::ALL.into_iter().enumerate() {
        assert_eq!((how as usize, HowEnded::of(how as u8 + 1)), (place, Some(how)));
    }
}

proptest! {
    #[test]
    fn strange_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
