//! Short scripts, played as the tool does: through the session.

use std::{sync::Arc, thread, time::Duration};

use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple, Offload, Options, TcpPacket},
};

use crate::{
    session::Session,
    settings::{Settings, SettingsError},
    sockopt::{ACKNOWLEDGE, ACKNOWLEDGE_END},
};

const PORT: u16 = 8_080;

fn tuple() -> FourTuple {
    FourTuple::new(
        Endpoint::new([192, 0, 2, 1].into(), 40_000),
        Endpoint::new([192, 168, 0, 1].into(), PORT),
    )
}

/// A segment from the other end, with `len` bytes.
fn packet(seq: u32, ack: Option<u32>, flags: Flags, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let segment = Segment {
        tuple: tuple(),
        seq: Seq(seq),
        ack: ack.map(Seq),
        flags,
        window: 30_000,
        options: Options { mss: flags.contains(Flags::SYN).then_some(1_000), ..Options::default() },
        payload: &vec![7; len],
        hop_limit: 64,
    };
    segment.emit(&mut out);
    out
}

/// Sequence and acknowledgment number, flags and payload length of what is sent next, and when.
fn sent(session: &Session) -> (Time, u32, u32, Flags, u32) {
    let (time, mut packet) = session.next_packet().expect("nothing is sent");
    let len = packet.len();
    let parsed = TcpPacket::parse(&mut packet, 0, len, Offload::default()).unwrap();
    assert!(parsed.checksum_ok());
    (time, parsed.seq().0, parsed.ack().0, parsed.flags(), parsed.payload_len())
}

/// A listening session, its listener, and after a handshake what the next segment acknowledges.
fn handshake(flags: &str) -> (Session, i32, u32) {
    let session = Session::new(flags.parse().unwrap());
    let listener = session.call(|stack| stack.open(libc::SOCK_STREAM)).unwrap();
    let local = tuple().destination.into();
    session
        .call(|stack| stack.bind(listener, local).and_then(|()| stack.listen(listener)))
        .unwrap();
    session.call(|stack| stack.receive(&packet(0, None, Flags::SYN, 0)));
    let (_, iss, ack, answer, _) = sent(&session);
    assert_eq!((ack, answer), (1, Flags::SYN | Flags::ACK));
    session.call(|stack| stack.receive(&packet(1, Some(iss + 1), Flags::NONE, 0)));
    (session, listener, iss + 1)
}

#[test]
fn a_connection_is_accepted_read_from_and_written_to() {
    let (session, listener, next) = handshake("");
    let (fd, peer) = session.wait(None, |stack| stack.accept(listener)).unwrap();
    assert_eq!(peer, tuple().source.into());
    session.call(|stack| stack.receive(&packet(1, Some(next), Flags::PSH, 500)));
    assert_eq!(session.wait(None, |stack| stack.read(fd, 1_000)).unwrap(), [7; 500]);
    assert_eq!(session.wait(None, |stack| stack.write(fd, b"answer")), Ok(6));
    let (_, seq, ack, _, len) = sent(&session);
    assert_eq!((seq, ack, len), (next, 501, 6));
    session.call(|stack| stack.receive(&packet(501, Some(next + 6), Flags::FIN, 0)));
    assert_eq!(session.wait(None, |stack| stack.read(fd, 1_000)).unwrap(), []);
    session.call(|stack| stack.close(fd)).unwrap();
    assert!(
        std::iter::from_fn(|| Some(sent(&session)))
            .take(2)
            .any(|(_, _, ack, flags, _)| ack == 502 && flags.contains(Flags::FIN))
    );
}

#[test]
fn nothing_is_acknowledged_before_the_option_says_so() {
    let (session, listener, next) = handshake("acknowledge=explicitly");
    let (fd, _) = session.wait(None, |stack| stack.accept(listener)).unwrap();
    session.call(|stack| stack.receive(&packet(1, Some(next), Flags::FIN, 500)));
    let set = |name, count: i32| {
        let option = (libc::IPPROTO_TCP, name);
        session.call(|stack| stack.set_option(fd, option, &count.to_ne_bytes()))
    };
    assert_eq!(set(ACKNOWLEDGE, 500), Err(libc::EINVAL), "it was not read");
    session.wait(None, |stack| stack.read(fd, 1_000)).unwrap();
    assert_eq!(session.wait(None, |stack| stack.read(fd, 1_000)).unwrap(), []);
    assert_eq!(set(ACKNOWLEDGE, 200), Ok(()));
    assert_eq!(sent(&session).2, 201);
    assert_eq!(set(ACKNOWLEDGE, 300), Ok(()));
    assert_eq!(sent(&session).2, 501);
    assert_eq!(set(ACKNOWLEDGE_END, 0), Ok(()));
    assert_eq!(sent(&session).2, 502);
}

/// Without anybody to answer, a SYN is repeated: the tool waits for the packet, and is told when it
/// left.
#[test]
fn waiting_for_a_packet_passes_the_time() {
    let session = Session::new(Settings::default());
    let fd = session.call(|stack| stack.open(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)).unwrap();
    let to = tuple().source.into();
    assert_eq!(session.call(|stack| stack.connect(fd, to)), Err(libc::EINPROGRESS));
    let (first, ..) = sent(&session);
    let (second, ..) = sent(&session);
    assert_eq!(second.since(first), Duration::from_secs(1));
    assert!(session.now() > second);
}

/// A thread that waits in a call is there in time: what it does is done before time goes on.
#[test]
fn a_call_that_waits_returns_at_the_time_of_its_event() {
    let (session, listener, next) = handshake("");
    let (fd, _) = session.wait(None, |stack| stack.accept(listener)).unwrap();
    let session = Arc::new(session);
    let reader = thread::spawn({
        let session = session.clone();
        move || {
            let data = session.wait(None, |stack| stack.read(fd, 1_000));
            (data, session.now())
        }
    });
    while !session.has_waiter() {
        thread::yield_now();
    }
    session.sleep_for(Duration::from_secs(5));
    let arrival = session.now();
    session.call(|stack| stack.receive(&packet(1, Some(next), Flags::PSH, 500)));
    session.sleep_for(Duration::from_secs(5));
    let (data, returned) = reader.join().unwrap();
    assert_eq!((data.unwrap().len(), returned), (500, arrival));
}

#[test]
fn the_first_thread_cannot_wait_for_ever() {
    let (session, listener, _) = handshake("");
    session.wait(None, |stack| stack.accept(listener)).unwrap();
    let again = session.wait(None, |stack| stack.accept(listener));
    assert_eq!(again.unwrap_err(), libc::EDEADLK);
}

#[test]
fn flags_are_understood_or_refused() {
    let settings: Settings = "mtu=1400, sack=false,congestion=reno".parse().unwrap();
    assert_eq!((settings.config.mtu, settings.config.sack), (1_400, false));
    let refused = |flags: &str| flags.parse::<Settings>().unwrap_err();
    assert_eq!(refused("mtu"), SettingsError::NoValue("mtu".into()));
    assert_eq!(refused("colour=red"), SettingsError::Unknown("colour".into()));
    let value = SettingsError::Value { name: "mtu".into(), value: "large".into() };
    assert_eq!(refused("mtu=large"), value);
}
