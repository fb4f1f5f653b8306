//! The TUN device against a real kernel: who holds it, and super-segments both ways.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
};

use outlive_net::{
    netlink::{AddressOptions, Route, RouteTarget},
    netns::Namespace,
    tun::{BUFFER_LEN, GsoType, HeaderFlags, Layer, Offload, Tun, TunError, VirtioNetHeader},
};

fn open(namespace: &Namespace, layer: Layer, name: &str) -> Result<Tun, TunError> {
    namespace.run(|| Tun::open(layer, name, Offload::TCP)).unwrap()
}

/// Waits until the device has a packet.
fn wait(tun: &Tun) {
    let mut poll = libc::pollfd { fd: tun.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, as the count says.
    unsafe { libc::poll(&mut poll, 1, 100) };
}

#[test]
fn names_are_given_and_refused() {
    let Some(namespace) = common::namespace_with_tun() else { return };
    let tun = open(&namespace, Layer::Ip, "outl%d").unwrap();
    assert_eq!(tun.name(), "outl0");
    let held = open(&namespace, Layer::Ip, "outl0").unwrap_err();
    assert_eq!(held, TunError::Held { name: "outl0".to_owned() });
    let wrong = |name: &str| open(&namespace, Layer::Ip, name).unwrap_err();
    assert!(matches!(wrong("lo"), TunError::WrongName { .. }));
    assert!(matches!(wrong("a-name-that-is-too-long"), TunError::WrongName { .. }));
    assert!(matches!(wrong("with/slash"), TunError::WrongName { .. }));

    let tap = open(&namespace, Layer::Ethernet, "tap0").unwrap();
    let netlink = namespace.netlink().unwrap();
    assert!(netlink.link("tap0").unwrap().is_ethernet);
    assert_eq!(netlink.link("outl0").unwrap().mac, None);
    netlink.set_tx_queue_len("outl0", 5000).unwrap();
    assert_eq!(netlink.link("outl0").unwrap().tx_queue_len, 5000);
    drop((tun, tap));
    assert!(netlink.link("outl0").is_err() && netlink.link("tap0").is_err());
}

/// A kernel's TCP sends 8 MiB to an address behind the TUN. Swapping the addresses of each
/// packet makes it its own peer: what it sent to .2 comes back as if .2 had sent it to .1, where
/// the listener is. So both directions of the flow pass the device, untouched but for the
/// addresses (which leave the checksum as it is).
#[test]
fn super_segments_are_read_whole_and_written_back() {
    let Some(namespace) = common::namespace_with_tun() else { return };
    let tun = open(&namespace, Layer::Ip, "outl0").unwrap();
    let netlink = namespace.netlink().unwrap();
    netlink
        .add_address("outl0", "10.9.7.1/32".parse().unwrap(), AddressOptions::default())
        .unwrap();
    netlink.set_up("outl0", true).unwrap();
    let target = RouteTarget::Device("outl0".to_owned());
    netlink.add_route(&Route::new("10.9.7.2/32".parse().unwrap(), target)).unwrap();
    let listener = namespace.run(|| TcpListener::bind("10.9.7.1:0")).unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();

    let data: Vec<u8> =
        (0..8 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let done = AtomicBool::new(false);
    let (largest, partial) = std::thread::scope(|scope| {
        let reflector = scope.spawn(|| reflect(&tun, &done));
        let sender = scope.spawn(|| {
            let connect = || TcpStream::connect(("10.9.7.2", port));
            let mut stream = namespace.run(connect).unwrap().unwrap();
            stream.write_all(&data).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let (mut stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "10.9.7.2");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == data, "the stream arrived changed");
        sender.join().unwrap();
        done.store(true, Ordering::Release);
        reflector.join().unwrap()
    });
    assert!(largest > 10_000, "no super-segment: the largest packet had {largest} bytes");
    assert!(partial > 0);
}

/// Returns the length of the largest packet, and how many had a partial checksum.
fn reflect(tun: &Tun, done: &AtomicBool) -> (usize, usize) {
    let mut buffer = vec![0; BUFFER_LEN];
    let (mut largest, mut partial) = (0, 0);
    while !done.load(Ordering::Acquire) {
        let len = match tun.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                wait(tun);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let (header, packet) = buffer[..len].split_first_chunk_mut().unwrap();
        let header = VirtioNetHeader::parse(header);
        if packet[0] >> 4 != 4 {
            continue;
        }
        if header.gso_type.base() == GsoType::TCP_V4 {
            largest = largest.max(packet.len());
            assert!(header.flags.contains(HeaderFlags::NEEDS_CSUM));
            assert_eq!((header.csum_start, header.csum_offset), (20, 16));
        }
        partial += usize::from(header.flags.contains(HeaderFlags::NEEDS_CSUM));
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        tun.send(&buffer[..len]).unwrap();
    }
    (largest, partial)
}
