//! A small network for two nodes: a bridge, and a namespace for each host on it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use outlive_net::{
    netlink::{AddressOptions, BridgeOptions, PortState},
    netns::Namespace,
    tun,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const VIRTUAL: &str = "10.77.0.100";
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this user may make what these tests need; if not, a line says so.
pub(crate) fn may() -> bool {
    let namespace = Namespace::create().map(drop).map_err(|error| error.to_string());
    let reason = tun::check_driver().map_err(|error| error.to_string()).and(namespace);
    if let Err(reason) = &reason {
        eprintln!("SKIPPED: this test needs a privileged user: {reason}");
    }
    reason.is_ok()
}

/// The network and the files of a test.
pub(crate) struct Network {
    bridge: Namespace,
    pub(crate) directory: TempDir,
}

impl Network {
    /// An empty one, with a key for a pair; `None` if this user may not.
    pub(crate) fn new() -> Option<Self> {
        may().then(|| {
            let bridge = Namespace::create().unwrap();
            let netlink = bridge.netlink().unwrap();
            netlink.add_bridge("br0", BridgeOptions::default()).unwrap();
            netlink.set_up("br0", true).unwrap();
            let network = Network { bridge, directory: tempfile::tempdir().unwrap() };
            let key = network.path("pair.key");
            let made = outlive().arg("keygen").arg("--output").arg(key).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            network
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A host 10.77.0.`number` (and fd77::`number`) on the bridge.
    pub(crate) fn host(&self, number: u8) -> Namespace {
        let host = Namespace::create().unwrap();
        let (bridge, netlink) = (self.bridge.netlink().unwrap(), host.netlink().unwrap());
        let port = format!("port{number}");
        bridge.add_veth(&port, "eth0", Some(&host)).unwrap();
        bridge.set_master(&port, Some("br0")).unwrap();
        bridge.set_up(&port, true).unwrap();
        netlink.set_up("eth0", true).unwrap();
        for address in [format!("10.77.0.{number}/24"), format!("fd77::{number}/64")] {
            let address: IpNet = address.parse().unwrap();
            let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
            netlink.add_address("eth0", address, options).unwrap();
        }
        host
    }

    /// Lets frames of host `number` pass, or drops them without a change of the carrier.
    pub(crate) fn cable(&self, number: u8, passes: bool) {
        let state = if passes { PortState::Forwarding } else { PortState::Disabled };
        self.bridge.netlink().unwrap().set_port_state(&format!("port{number}"), state).unwrap();
    }

    /// The configuration file of node `name`, host `number`, with its peer on host `peer`.
    pub(crate) fn config(&self, name: &str, number: u8, peer: u8, rest: &str) -> PathBuf {
        let path = self.path(&format!("{name}.toml"));
        let socket = self.path(&format!("{name}.sock"));
        let text = format!(
            r#"
[node]
name = "{name}"
interfaces = ["eth0"]
set_sysctls = true
admin_socket = "{}"

[peer]
state = {{ listen = "10.77.0.{number}:7400", peer = "10.77.0.{peer}:7400" }}
heartbeat = [{{ local = "10.77.0.{number}:7401", peer = "10.77.0.{peer}:7401" }}]
key_file = "pair.key"
detection_timeout = "200ms"
{rest}
"#,
            socket.display()
        );
        fs::write(&path, text).unwrap();
        path
    }
}

/// The program.
pub(crate) fn outlive() -> Command {
    Command::new(env!("CARGO_BIN_EXE_outlive"))
}

/// A running node, killed when dropped.
pub(crate) struct Node {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts a node in `host` with the configuration `config`.
    pub(crate) fn start(host: &Namespace, config: &Path) -> Self {
        Self::launch(host, "run", config)
    }

    /// Starts an external detector in `host` with the configuration `config`.
    pub(crate) fn watch(host: &Namespace, config: &Path) -> Self {
        Self::launch(host, "watch", config)
    }

    fn launch(host: &Namespace, what: &str, config: &Path) -> Self {
        let log = config.with_extension("log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = outlive();
        command.arg(what).arg("--config").arg(config).stdin(Stdio::null()).stderr(file);
        let child = host.enclose(&mut command).spawn().unwrap();
        Node { child, socket: config.with_extension("sock"), log }
    }

    /// What it says of itself; `Null` while it cannot be asked.
    pub(crate) fn status(&self) -> Value {
        let asked =
            outlive().arg("status").arg("--socket").arg(&self.socket).arg("--json").output();
        serde_json::from_slice(&asked.unwrap().stdout).unwrap_or(Value::Null)
    }

    /// Waits until `done` is true of its status.
    pub(crate) fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            if start.elapsed() > PATIENCE {
                panic!("{what} did not come about: {status:#}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn is(&self, role: &str) -> Value {
        self.until(role, |status| status["role"] == role)
    }

    pub(crate) fn is_survivable(&self) -> Value {
        self.until("survivable", |status| status["survival"]["survives"] == true)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.arg("-s").arg(name).arg(self.child.id().to_string());
        assert!(kill.status().unwrap().success());
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of {}:\n{}", self.log.display(), self.log());
        }
    }
}

/// Sends back what each client sends, on `port` of `host`, until its client is done.
pub(crate) fn echo_server(host: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = host.run(|| TcpListener::bind(address)).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || -> io::Result<()> {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let len = stream.read(&mut buffer)?;
                    if len == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..len])?;
                }
            });
        }
    });
}

/// A client's connection from `host`, which gives up on its own only after a long time.
pub(crate) fn connect(host: &Namespace, address: IpAddr, port: u16) -> TcpStream {
    let address = SocketAddr::new(address, port);
    let stream = host.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    let stream = stream.unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `text` and expects it back.
pub(crate) fn say(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}
