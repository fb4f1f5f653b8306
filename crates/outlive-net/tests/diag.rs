//! Connections that come and go, as the kernel tells.

mod common;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use outlive_net::diag::{Endings, Ends, lives};

/// Waits until there is something to read.
fn wait(endings: &Endings) {
    let mut poll = libc::pollfd { fd: endings.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, as the count says.
    unsafe { libc::poll(&mut poll, 1, 60_000) };
}

/// The next ending of one of these.
fn next(endings: &mut Endings, of: &[Ends]) -> Ends {
    loop {
        match endings.poll() {
            Ok(Some(ended)) if of.contains(&ended) => return ended,
            Ok(Some(_)) => {}
            Ok(None) => wait(endings),
            Err(overflow) => panic!("{overflow:?}"),
        }
    }
}

#[test]
fn a_connection_lives_until_both_have_closed_it() {
    let Some(namespace) = common::namespace() else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (mut client, mut server) = namespace
            .run(|| {
                let listener = TcpListener::bind(address).unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            })
            .unwrap();
        let ends =
            Ends { local: server.local_addr().unwrap(), remote: server.peer_addr().unwrap() };
        let mut endings = namespace.run(Endings::subscribe).unwrap().unwrap();
        let lives = |ends: &Ends| namespace.run(|| lives(ends)).unwrap().unwrap();
        assert!(lives(&ends));
        let mut other = ends;
        other.remote.set_port(1);
        assert!(!lives(&other), "there is none but the listener");
        assert_eq!(endings.poll(), Ok(None));

        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        drop(server);
        assert!(lives(&ends), "the other end has not closed it");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert_eq!(next(&mut endings, &[ends]), ends);
        assert!(!lives(&ends));
    }
}
