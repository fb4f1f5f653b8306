//! The example servers, in Rust and in Python: connections of their own and connections handed over, with the same answers.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use outlive_accept::{Announcement, Courier, Migrated, NotHandedOver};

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    address: String,
    socket: PathBuf,
}

impl Server {
    /// Starts it, and waits until it says that it accepts.
    fn start(command: &mut Command, socket: &Path) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |what: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(what).unwrap_or_else(|| panic!("it says {line}")).to_owned()
        };
        let address = said("listening on ");
        said("migrated connections arrive at ");
        // Whatever else it says must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address, socket: socket.to_owned() }
    }

    fn answers_both_kinds(&self) {
        let own = TcpStream::connect(&self.address).unwrap();
        asks(own, "/own");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (there, address) = listener.accept().unwrap();
        // The first data is in the socket's queue before the server has it.
        (&client).write_all(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let announcement = Announcement { client: address, server: there.local_addr().unwrap() };
        Courier::find(&self.socket).unwrap().hand_over(&there, &announcement).unwrap();
        drop(there);
        expects(&client, "/first");
        asks(client, "/second");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asks(mut client: TcpStream, what: &str) {
    write!(client, "GET {what} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    expects(&client, what);
}

fn expects(mut client: &TcpStream, what: &str) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let me = client.local_addr().unwrap();
    let expected = format!("\r\n\r\nhello, {me}, you asked: GET {what} HTTP/1.1\n");
    let mut found = Vec::new();
    while !found.ends_with(expected.as_bytes()) {
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&found));
        found.push(byte[0]);
    }
}

#[test]
fn the_example_in_rust() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hello.sock");
    // Cargo builds it beside this test.
    let program = env::current_exe().unwrap().parent().unwrap().join("../examples/hello");
    let server = Server::start(Command::new(program).arg("127.0.0.1:0").arg(&socket), &socket);
    server.answers_both_kinds();
}

#[test]
fn the_example_in_python() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: this test needs python3");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hello.sock");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.py");
    let mut command = Command::new("python3");
    let server = Server::start(command.args([script, "127.0.0.1", "0"]).arg(&socket), &socket);
    server.answers_both_kinds();
}

#[test]
fn only_a_living_server_has_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    assert!(Courier::find(&path).is_err());
    let migrated = Migrated::bind(&path).unwrap();
    let courier = Courier::find(&path).unwrap();
    assert_eq!(Migrated::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    // What is no announcement is passed over, its sockets closed; so is one without its socket.
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let announcement = Announcement { client: address, server: address };
    stranger.send_to(b"hello", &path).unwrap();
    stranger.send_to(&announcement.encode(), &path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    courier.hand_over(&stream, &announcement).unwrap();
    let (found, said) = migrated.accept().unwrap();
    assert_eq!(found.local_addr().unwrap(), stream.local_addr().unwrap());
    assert_eq!(said, announcement);

    // A busy server says so rather than that the agent would wait.
    let busy = (0..100_000).find_map(|_| courier.hand_over(&stream, &announcement).err());
    assert_eq!(busy, Some(NotHandedOver::Busy));
    drop(migrated);
    assert!(!path.exists());
    assert_eq!(courier.hand_over(&stream, &announcement), Err(NotHandedOver::Gone));

    // A killed one leaves a file, which the next replaces; a file that is no socket stays.
    drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
    assert!(Courier::find(&path).is_err());
    drop(Migrated::bind(&path).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(Migrated::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
