//! Connections moved between the kernels of two namespaces, under a client that does not notice.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use outlive_net::{
    netlink::{AddressOptions, Netlink, Route, RouteTarget},
    netns::Namespace,
    repair::{Connection, ReceiveHalf, RepairError, Scales, SendHalf, capture, infuse},
};
use socket2::{Domain, SockRef, Socket, Type};

const CLIENT: [&str; 2] = ["10.7.0.1", "fd07::1"];
const SERVER: [&str; 2] = ["10.7.9.9", "fd07:9::9"];
const PORT: u16 = 8080;
/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client and two machines that have the server's address, only one of which is led to.
struct World {
    client: Namespace,
    servers: [Namespace; 2],
    netlink: Netlink,
}

fn world() -> Option<World> {
    let client = common::namespace()?;
    let servers = [common::namespace()?, common::namespace()?];
    let netlink = client.netlink().unwrap();
    let add = |netlink: &Netlink, dev: &str, address: &str, prefix: u8| {
        let net = ipnet::IpNet::new(address.parse().unwrap(), prefix).unwrap();
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        netlink.add_address(dev, net, options).unwrap();
    };
    for address in CLIENT {
        add(&netlink, "lo", address, if address.contains(':') { 128 } else { 32 });
    }
    for (index, server) in servers.iter().enumerate() {
        let near = format!("to{index}");
        netlink.add_veth(&near, "eth0", Some(server)).unwrap();
        let there = server.netlink().unwrap();
        let (v4, v6) = (format!("10.7.{}", index + 1), format!("fd07:{}:", index + 1));
        add(&netlink, &near, &format!("{v4}.1"), 24);
        add(&netlink, &near, &format!("{v6}:1"), 64);
        add(&there, "eth0", &format!("{v4}.2"), 24);
        add(&there, "eth0", &format!("{v6}:2"), 64);
        netlink.set_up(&near, true).unwrap();
        there.set_up("eth0", true).unwrap();
        add(&there, "lo", SERVER[0], 32);
        add(&there, "lo", SERVER[1], 128);
        for (address, via) in [(CLIENT[0], format!("{v4}.1")), (CLIENT[1], format!("{v6}:1"))] {
            there.add_route(&host_route(address, &via)).unwrap();
        }
    }
    let world = World { client, servers, netlink };
    world.lead_to(0);
    Some(world)
}

fn host_route(address: &str, via: &str) -> Route {
    let address: IpAddr = address.parse().unwrap();
    Route::new(address.into(), RouteTarget::Gateway { address: via.parse().unwrap(), device: None })
}

impl World {
    /// The client's packets go to this server from now on.
    fn lead_to(&self, index: usize) {
        let vias = [format!("10.7.{}.2", index + 1), format!("fd07:{}::2", index + 1)];
        for (address, via) in SERVER.into_iter().zip(vias) {
            let address: IpAddr = address.parse().unwrap();
            // Not in place of: for IPv6 that would add a second next hop.
            for other in self.netlink.routes().unwrap() {
                if other.destination.addr() == address {
                    self.netlink.delete_route(&other).unwrap();
                }
            }
            self.netlink.add_route(&host_route(&address.to_string(), &via)).unwrap();
        }
    }

    /// Nothing of the client's reaches a server.
    fn cut(&self) {
        for address in SERVER {
            let address: IpAddr = address.parse().unwrap();
            for other in self.netlink.routes().unwrap() {
                if other.destination.addr() == address {
                    self.netlink.delete_route(&other).unwrap();
                }
            }
            self.netlink.add_route(&Route::blackhole(address, 0)).unwrap();
        }
    }

    fn infuse_at_client(&self, connection: &Connection) -> TcpStream {
        let mute = self.client.run(|| infuse(connection)).unwrap().unwrap();
        blocking(mute.speak().unwrap())
    }

    fn infuse_at_server(&self, index: usize, connection: &Connection) -> TcpStream {
        let mute = self.servers[index].run(|| infuse(connection)).unwrap().unwrap();
        blocking(mute.speak().unwrap())
    }

    /// Takes a connection from one server to the other, while the client's packets go nowhere.
    fn migrate(&self, stream: TcpStream, to: usize, change: impl Fn(&mut Connection)) -> TcpStream {
        self.cut();
        let (mut connection, old) = capture(stream).unwrap();
        drop(old);
        change(&mut connection);
        let stream = self.infuse_at_server(to, &connection);
        self.lead_to(to);
        stream
    }
}

fn blocking(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn bytes(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// `len` bytes each way at once, compared.
fn exchange(one: &mut TcpStream, other: &mut TcpStream, len: usize) {
    let (there, back) = (bytes(len, 1), bytes(len, 2));
    thread::scope(|scope| {
        for (stream, out, expected) in [(&*one, &there, &back), (&*other, &back, &there)] {
            scope.spawn(move || {
                let mut stream = stream;
                stream.write_all(out).unwrap()
            });
            scope.spawn(move || {
                let mut stream = stream;
                let mut found = vec![0; expected.len()];
                stream.read_exact(&mut found).unwrap();
                assert!(found == *expected, "the bytes are not those that were sent");
            });
        }
    });
}

/// What both ends of a connection agree on.
#[derive(Clone)]
struct Kind {
    ipv6: bool,
    mss: u16,
    scales: Option<[u8; 2]>,
    sack: bool,
    timestamps: Option<[u32; 2]>,
    /// SND.NXT of the client, of the server.
    sequences: [u32; 2],
    port: u16,
}

impl Default for Kind {
    fn default() -> Self {
        Kind {
            ipv6: false,
            mss: 1_460,
            scales: Some([7, 7]),
            sack: true,
            timestamps: Some([1_000, 2_000]),
            sequences: [100, 200],
            port: 40_000,
        }
    }
}

impl Kind {
    /// The two ends of an idle connection.
    fn ends(&self) -> [Connection; 2] {
        let at = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        let family = usize::from(self.ipv6);
        let ends = [at(CLIENT[family], self.port), at(SERVER[family], PORT)];
        [0, 1].map(|me| {
            let other = 1 - me;
            Connection {
                local: ends[me],
                remote: ends[other],
                send_mss: self.mss,
                scales: self.scales.map(|it| Scales { send: it[other], receive: it[me] }),
                sack: self.sack,
                timestamp: self.timestamps.map(|it| it[me]),
                send: SendHalf {
                    unacknowledged: self.sequences[me],
                    sent: vec![],
                    unsent: vec![],
                    window: 16_384,
                    largest_window: 16_384,
                    window_from: self.sequences[other].wrapping_sub(1),
                },
                receive: ReceiveHalf {
                    next: self.sequences[other],
                    data: vec![],
                    acknowledged: self.sequences[other],
                    window: 16_384,
                },
            }
        })
    }
}

/// Made from nothing in both kernels, used, moved with data in all queues, used again.
fn moves(world: &World, kind: &Kind) {
    let [client, server] = kind.ends();
    let mut client = world.infuse_at_client(&client);
    let mut server = world.infuse_at_server(0, &server);
    // Not the default. The kernel's number leaves room for timestamps, whether they are used or not.
    let path = if kind.ipv6 { 1_440 } else { 1_460 };
    for stream in [&client, &server] {
        let found = SockRef::from(stream).tcp_mss().unwrap();
        assert_eq!(found, u32::from(kind.mss).min(path) - 12, "segment size");
    }
    exchange(&mut client, &mut server, 300_000);

    client.write_all(b"asked before").unwrap();
    wait_for(&server, 12);
    world.cut();
    client.write_all(b", asked meanwhile").unwrap();
    server.write_all(b"answered before").unwrap();
    let mut server = world.migrate(server, 1, |_| ());
    let mut found = [0; 29];
    server.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"asked before, asked meanwhile");
    let mut found = [0; 15];
    client.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"answered before");
    exchange(&mut client, &mut server, 300_000);

    drop(client);
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0, "the FIN");
    drop(server);
    world.lead_to(0);
}

/// Until so many bytes wait to be read.
fn wait_for(stream: &TcpStream, len: usize) {
    let begin = Instant::now();
    while stream.peek(&mut vec![0; len]).unwrap() < len {
        assert!(begin.elapsed() < PATIENCE, "{len} bytes do not come");
        thread::yield_now();
    }
}

#[test]
fn an_accepted_connection_goes_on_elsewhere() {
    let Some(world) = world() else { return };
    for ends in [Kind::default().ends(), Kind { ipv6: true, ..Kind::default() }.ends()] {
        let [Connection { local: client, .. }, Connection { local: address, .. }] = ends;
        let bind = || TcpListener::bind(address).unwrap();
        let listener = world.servers[0].run(bind).unwrap();
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.bind(&client.into()).unwrap();
            socket.connect(&address.into()).unwrap();
            socket.into()
        };
        let mut client = blocking(world.client.run(connect).unwrap());
        let (server, peer) = listener.accept().unwrap();
        let mut server = blocking(server);
        exchange(&mut client, &mut server, 100_000);
        for to in [1, 0, 1, 0] {
            server = world.migrate(server, to, |_| ());
            assert_eq!(server.peer_addr().unwrap(), peer);
            exchange(&mut client, &mut server, 100_000);
        }
    }
}

#[test]
fn whatever_was_negotiated_is_kept() {
    let Some(world) = world() else { return };
    let plain = Kind { scales: None, sack: false, timestamps: None, ..Kind::default() };
    let kinds = [
        Kind::default(),
        plain.clone(),
        Kind { mss: 536, ..Kind::default() },
        Kind { mss: 536, ..plain },
        Kind { scales: Some([14, 14]), ..Kind::default() },
        Kind { scales: Some([0, 14]), ..Kind::default() },
        Kind { scales: Some([14, 0]), sack: false, ..Kind::default() },
        Kind { timestamps: None, ..Kind::default() },
        Kind { sequences: [u32::MAX - 10, u32::MAX - 200_000], ..Kind::default() },
        Kind { timestamps: Some([u32::MAX - 3, u32::MAX - 8]), ..Kind::default() },
    ];
    for (index, kind) in kinds.iter().enumerate() {
        for ipv6 in [false, true] {
            let port = 40_000 + index as u16;
            moves(&world, &Kind { ipv6, port, ..kind.clone() });
        }
    }
}

/// The other end throws away what seems older than what it has seen (RFC 7323, section 5): the clock
/// may be ahead, by up to 2^31, and must not be behind.
#[test]
fn the_clock_of_a_connection_goes_on() {
    let Some(world) = world() else { return };
    let [client, server] = Kind::default().ends();
    let mut client = world.infuse_at_client(&client);
    let mut server = world.infuse_at_server(0, &server);
    exchange(&mut client, &mut server, 1_000);
    // Round the circle, and a bit more.
    for hop in 0..6 {
        server = world.migrate(server, (hop + 1) % 2, |connection| {
            let clock = connection.timestamp.as_mut().unwrap();
            *clock = clock.wrapping_add(1 << 30);
        });
        exchange(&mut client, &mut server, 1_000);
    }
    let (before, mute) = capture(server).unwrap();
    let server = mute.speak().unwrap();
    let (after, _) = capture(server).unwrap();
    let passed = after.timestamp.unwrap().wrapping_sub(before.timestamp.unwrap());
    assert!(passed < PATIENCE.as_millis() as u32, "the clock jumped by {passed}");
}

#[test]
fn a_capture_is_what_was_infused() {
    let Some(world) = world() else { return };
    world.cut();
    let [_, mut connection] =
        Kind { scales: Some([3, 11]), sequences: [5, u32::MAX - 5], ..Kind::default() }.ends();
    connection.receive.data = bytes(70_000, 3);
    connection.receive.next = 70_005;
    connection.receive.window = 80_000;
    connection.send.sent = bytes(10_000, 4);
    let mute = world.servers[0].run(|| infuse(&connection)).unwrap().unwrap();
    let (mut found, _mute) = capture(mute.speak().unwrap()).unwrap();
    let clock = found.timestamp.unwrap().wrapping_sub(connection.timestamp.unwrap());
    assert!(clock < PATIENCE.as_millis() as u32, "the clock jumped by {clock}");
    found.timestamp = connection.timestamp;
    assert_eq!(found, connection);
}

#[test]
fn a_dropped_connection_says_nothing() {
    let Some(world) = world() else { return };
    let [client, server] = Kind::default().ends();
    let mut client = world.infuse_at_client(&client);
    let mute = world.servers[0].run(|| infuse(&server)).unwrap().unwrap();
    // The same may be infused again once the first is gone, not before.
    let twice = world.servers[0].run(|| infuse(&server)).unwrap();
    assert_eq!(twice.unwrap_err(), RepairError::InUse(server.local));
    drop(mute);
    let mut server = world.infuse_at_server(0, &server);
    exchange(&mut client, &mut server, 1_000);
}

/// What was never sent goes out when the socket may speak, and a listener on the port is not
/// disturbed, before or after.
#[test]
fn what_waits_is_sent_on_leave() {
    let Some(world) = world() else { return };
    let [client, mut server] = Kind::default().ends();
    let (address, local) = (server.local, &world.servers[0]);
    let listener = local.run(|| TcpListener::bind(address)).unwrap().unwrap();
    server.send.unsent = b"never sent".to_vec();
    let mut client = world.infuse_at_client(&client);
    let server = world.infuse_at_server(0, &server);
    let mut found = [0; 10];
    client.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"never sent");
    drop(listener);
    let again = local.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let fresh = world.client.run(connect).unwrap();
    assert_eq!(again.accept().unwrap().1, fresh.local_addr().unwrap());
    drop(server);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let Some(world) = world() else { return };
    let [_, sound] = Kind::default().ends();
    let refused = |change: &dyn Fn(&mut Connection)| {
        let mut connection = sound.clone();
        change(&mut connection);
        world.servers[0].run(|| infuse(&connection).map(drop)).unwrap().unwrap_err()
    };
    let elsewhere: SocketAddr = "10.7.9.10:80".parse().unwrap();
    assert_eq!(refused(&|it| it.local = elsewhere), RepairError::NotLocal(elsewhere));
    let unreachable: SocketAddr = "192.0.2.1:80".parse().unwrap();
    assert_eq!(refused(&|it| it.remote = unreachable), RepairError::NoRoute(unreachable));
    for wrong in [
        refused(&|it| it.remote = "[fd07::1]:80".parse().unwrap()),
        refused(&|it| it.send_mss = 0),
        refused(&|it| it.scales = Some(Scales { send: 15, receive: 0 })),
        refused(&|it| it.send.largest_window = 1),
        refused(&|it| it.receive.acknowledged = it.receive.next.wrapping_add(1)),
        refused(&|it| it.receive.next = it.receive.next.wrapping_add(it.receive.window + 1)),
    ] {
        assert!(matches!(wrong, RepairError::Invalid(_)), "{wrong}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(client);
    assert_eq!(server.peek(&mut [0]).map_err(|it| it.kind()), Ok::<_, ErrorKind>(0));
    assert_eq!(capture(server).unwrap_err(), RepairError::NotEstablished);
}

/// As many as a busy server has, on one address and port beside its listener.
#[test]
fn many_connections_share_one_port() {
    let Some(world) = world() else { return };
    let ends = |port: u16| Kind { port, ..Kind::default() }.ends();
    let [_, first] = ends(10_000);
    let listener = world.servers[0].run(|| TcpListener::bind(first.local)).unwrap().unwrap();
    let held = world.servers[0]
        .run(|| (10_000..12_000).map(|port| infuse(&ends(port)[1]).unwrap()).collect::<Vec<_>>());
    assert_eq!(held.unwrap().len(), 2_000);
    drop(listener);
}
