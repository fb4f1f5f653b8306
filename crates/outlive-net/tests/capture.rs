//! What passes an interface is seen, with its time.

mod common;

use std::{
    net::UdpSocket,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use outlive_net::capture::Capture;

const WORD: &[u8] = b"a word that passes";

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[test]
fn frames_are_seen_with_the_time_at_which_they_passed() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.set_up("lo", true).unwrap();
    let link = netlink.link("lo").unwrap().index;
    let (capture, sockets) = namespace
        .run(|| {
            let capture = Capture::open(link, Duration::from_millis(10)).unwrap();
            (capture, [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap()))
        })
        .unwrap();
    let mut buffer = [0; 2048];
    assert_eq!(capture.receive(&mut buffer).unwrap(), None, "nothing has passed");

    let before = now();
    sockets[0].send_to(WORD, sockets[1].local_addr().unwrap()).unwrap();
    let captured = loop {
        if let Some(captured) = capture.receive(&mut buffer).unwrap() {
            break captured;
        }
    };
    assert!(buffer[..captured.len].ends_with(WORD));
    assert!((before..=now()).contains(&captured.at), "{captured:?}");
    assert_eq!(capture.missed().unwrap(), 0);

    // Of one that is too long, the beginning is there.
    while capture.receive(&mut buffer).unwrap().is_some() {}
    sockets[0].send_to(WORD, sockets[1].local_addr().unwrap()).unwrap();
    assert_eq!(capture.receive(&mut buffer[..30]).unwrap().unwrap().len, 30);
}
