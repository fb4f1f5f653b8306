//! Two receivers, ordinary senders, and deaths: what the logs have in common is what was sent.
//!
//! In network namespaces that the test makes; without the privileges for that it says so and ends.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use outlive_net::{
    netlink::{AddressOptions, BridgeOptions},
    netns::Namespace,
    program::end_with_starter,
    tun,
};

/// Against hanging, and for nothing else.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "10.9.61.100:514";
const PROGRAM: &str = env!("CARGO_BIN_EXE_log-receiver");

/// A switch; `None`, with a line that says so, if this user may make none.
fn switch() -> Option<Namespace> {
    if let Err(error) = tun::check_driver() {
        eprintln!("SKIPPED: this test needs a TUN device: {error}");
        return None;
    }
    let switch = Namespace::create()
        .inspect_err(|error| eprintln!("SKIPPED: this test needs a privileged user: {error}"))
        .ok()?;
    let netlink = switch.netlink().unwrap();
    netlink.add_bridge("br0", BridgeOptions { multicast_snooping: false }).unwrap();
    netlink.set_up("br0", true).unwrap();
    Some(switch)
}

fn machine(switch: &Namespace, number: u8) -> Namespace {
    let machine = Namespace::create().unwrap();
    let port = format!("port{number}");
    let netlink = switch.netlink().unwrap();
    netlink.add_veth(&port, "eth0", Some(&machine)).unwrap();
    netlink.set_master(&port, Some("br0")).unwrap();
    netlink.set_up(&port, true).unwrap();
    let netlink = machine.netlink().unwrap();
    let address = format!("10.9.61.{number}/24").parse().unwrap();
    netlink.add_address("eth0", address, AddressOptions::default()).unwrap();
    netlink.set_up("eth0", true).unwrap();
    machine
}

/// A receiver, killed when it is dropped.
struct Receiver {
    process: Child,
    said: mpsc::Receiver<String>,
}

impl Receiver {
    fn start(machine: &Namespace, number: u8, directory: &Path) -> Self {
        let (own, peer) = (format!("10.9.61.{number}"), format!("10.9.61.{}", 3 - number));
        let mut command = Command::new(PROGRAM);
        command
            .args(["run", "--interface", "eth0", "--listen", SERVICE, "--log"])
            .arg(log_of(directory, number))
            .args(["--node", if number == 1 { "a" } else { "b" }, "--key"])
            .arg(directory.join("key"))
            .args(["--state", &format!("{own}:7001={peer}:7001")])
            .args(["--heartbeat", &format!("{own}:7002={peer}:7002")])
            .stdout(Stdio::piped());
        machine.enclose(end_with_starter(&mut command));
        let mut process = command.spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        Receiver { process, said }
    }

    fn becomes(&self, standing: &str) {
        loop {
            let said = self.said.recv_timeout(PATIENCE);
            let said = said.unwrap_or_else(|_| panic!("never {standing}"));
            if said.starts_with(standing) {
                return;
            }
        }
    }
}

impl Drop for Receiver {
    /// `kill -9`.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log_of(directory: &Path, number: u8) -> PathBuf {
    directory.join(format!("log{number}"))
}

/// An ordinary sender: numbered records, one after the other, until it is told to stop. Gives how many.
fn send(sender: usize, stop: &AtomicBool, sent: &mpsc::Sender<()>) -> usize {
    let service: SocketAddr = SERVICE.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        let padding = "x".repeat(count % 300);
        stream.write_all(format!("{sender} {count} {padding}.\n").as_bytes()).unwrap();
        count += 1;
        // Nobody counts any more when it is told to stop.
        let _ = sent.send(());
        std::thread::sleep(Duration::from_micros(500));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "everything was acknowledged");
    count
}

/// What the logs have in common: for each sender its records.
fn merged(directory: &Path) -> BTreeMap<usize, Vec<usize>> {
    let logs = [1, 2].map(|number| log_of(directory, number));
    let output = Command::new(PROGRAM).arg("merge").args(logs).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut records: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for record in String::from_utf8(output.stdout).unwrap().lines() {
        let fields: Vec<&str> = record.split(' ').collect();
        let [sender, number, padding] = fields[..] else { panic!("torn: {record:?}") };
        let number = number.parse().unwrap();
        assert_eq!(padding.len(), number % 300 + 1, "torn: {record:?}");
        records.entry(sender.parse().unwrap()).or_default().push(number);
    }
    records
}

#[test]
fn every_record_is_there_once_whoever_dies() {
    let Some(switch) = switch() else { return };
    let machines = [1, 2].map(|number| machine(&switch, number));
    let clients = machine(&switch, 3);
    let directory = tempfile::tempdir().unwrap();
    let key = outlive_socket::PairKey::generate().unwrap();
    key.save(&directory.path().join("key")).unwrap();
    let start =
        |number: u8| Receiver::start(&machines[usize::from(number) - 1], number, directory.path());

    let mut active = (1, start(1));
    let mut standby = (2, start(2));
    active.1.becomes("Protected");

    let stop = Arc::new(AtomicBool::new(false));
    let (sent, records) = mpsc::channel();
    let senders: Vec<_> = (0..20)
        .map(|sender| {
            let (stop, sent) = (stop.clone(), sent.clone());
            clients.spawn("sender", move || send(sender, &stop, &sent)).unwrap()
        })
        .collect();
    for _ in 0..4 {
        // A thousand from now on.
        while records.try_recv().is_ok() {}
        for _ in 0..1_000 {
            records.recv_timeout(PATIENCE).expect("the senders go on");
        }
        let (number, dead) = active;
        drop(dead);
        active = standby;
        standby = (number, start(number));
        active.1.becomes("Protected");
    }
    stop.store(true, Ordering::Release);
    let counts: Vec<usize> = senders.into_iter().map(|s| s.join().unwrap().unwrap()).collect();

    let records = merged(directory.path());
    for (sender, count) in counts.iter().enumerate() {
        let numbers = records.get(&sender).map_or(&[][..], Vec::as_slice);
        assert!(numbers.iter().copied().eq(0..*count), "sender {sender}: {count} sent");
    }
    assert_eq!(records.len(), counts.len());
}
