//! The lab of one test: a client, two servers and a pair of nodes on a switch, and a directory for
//! everything that programs read and write.
//!
//! Owns: whether the test can run here at all, and how many run at once. Does not own: what the
//! programs do (`activity`).

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use outlive_lab::{
    clock::wait_until,
    host::Host,
    link::{Cut, LinkKind},
    node::{DIRECTORY, Node, Status},
    subject::outlive::{SOURCE, VIRTUAL},
    topology::{Lab, addresses},
};
use outlive_net::{netns::Namespace, privilege};
use tempfile::TempDir;

use crate::{
    activity::{Activity, wait_until_under_way},
    program,
};

/// How long anything may take that ought to happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Harm to the active node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its program is killed (`SIGKILL`).
    Kill,
    /// Its cable is cut: frames are dropped both ways, the carrier stays.
    Cut,
}

/// The lab of a test. Fields are dropped in this order.
pub(crate) struct World {
    nodes: Vec<Node>,
    pub(crate) client: Host,
    pub(crate) servers: [Host; 2],
    pub(crate) lab: Lab,
    /// How long each activity lasts at least, in seconds, if it is not held up.
    pub(crate) seconds: u64,
    directory: TempDir,
    _turn: Turn,
}

impl World {
    /// A lab in which all cables are like `links`, for a test that needs these programs. `None`,
    /// and a line that says why, if the test cannot run here.
    pub(crate) fn new(programs: &[&str], links: LinkKind) -> Option<Self> {
        if let Err(reason) = may_run() {
            eprintln!("SKIPPED: this test needs a privileged user: {reason}");
            return None;
        }
        let missing: Vec<_> =
            programs.iter().filter(|name| program::find(name).is_none()).collect();
        if !missing.is_empty() {
            assert!(!is_required(), "these programs must be installed: {missing:?}");
            eprintln!("SKIPPED: this test needs programs that are not installed: {missing:?}");
            return None;
        }
        let turn = Turn::take();
        let lab = Lab::new(1).unwrap();
        let host = |name, number| lab.host(name, number, links.clone()).unwrap();
        Some(World {
            nodes: Vec::new(),
            client: host("client", 10),
            servers: [host("one", 20), host("two", 21)],
            lab,
            seconds: if is_full() { 12 } else { 3 },
            directory: tempfile::Builder::new().prefix("outlive-e2e-").tempdir().unwrap(),
            _turn: turn,
        })
    }

    /// Starts the pair with these listeners and pools, and waits until a failure would be survived.
    pub(crate) fn start_pair(&mut self, links: &LinkKind, listeners_and_pools: &str) {
        let program = Path::new(env!("CARGO_BIN_EXE_outlive"));
        let key = self.path("pair.key");
        let made = Command::new(program).arg("keygen").arg("--output").arg(&key).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        for (name, own, peer) in [("a", 2, 3), ("b", 3, 2)] {
            let host = self.lab.host(&format!("node-{name}"), own, links.clone()).unwrap();
            let config = node_config(name, own, peer, &key) + listeners_and_pools;
            let mut node = Node::new(host, program, &config).unwrap();
            node.start().unwrap();
            self.nodes.push(node);
        }
        self.wait_until_paired();
    }

    /// Waits until one node is active and the other could take over.
    pub(crate) fn wait_until_paired(&mut self) {
        let paired = |status: &Status| {
            status.survival.survives && matches!(&*status.role, "active" | "standby")
        };
        for node in &mut self.nodes {
            wait_for(node, "paired", paired);
        }
    }

    /// The active node, by what it says itself, and the other one.
    pub(crate) fn by_role(&mut self) -> (&mut Node, &mut Node) {
        let [a, b] = &mut self.nodes[..] else { panic!("the pair has not been started") };
        let active = |node: &Node| node.status().is_ok_and(|status| status.role == "active");
        if active(a) {
            return (a, b);
        }
        wait_for(b, "active", |status| status.role == "active");
        (b, a)
    }

    /// Both nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Harms the active node, and waits until the other one has taken over.
    pub(crate) fn harm(&mut self, fault: Fault) {
        let (active, standby) = self.by_role();
        match fault {
            Fault::Kill => active.kill().unwrap(),
            Fault::Cut => active.host().link().cut(Cut::Both).unwrap(),
        }
        wait_for(standby, "active", |status| status.role == "active");
    }

    /// Makes all harm good, and waits until the pair is whole again.
    pub(crate) fn heal(&mut self) {
        for node in &mut self.nodes {
            node.host().link().restore().unwrap();
            node.start().unwrap();
        }
        self.wait_until_paired();
    }

    /// Harms the active node as soon as all activities are under way, and waits until all of them
    /// have ended well.
    pub(crate) fn outlive(&mut self, faults: &[Fault], mut activities: Vec<Activity>) {
        for (nth, &fault) in faults.iter().enumerate() {
            if nth > 0 {
                self.heal();
            }
            wait_until_under_way(&mut activities, nth + 1);
            self.harm(fault);
        }
        activities.into_iter().for_each(Activity::finish);
    }

    /// Bytes per second for a transfer of `len` bytes.
    pub(crate) fn rate_for(&self, len: usize) -> u64 {
        len as u64 / self.seconds
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a directory in the test's directory.
    pub(crate) fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                eprintln!("log of {}:\n{}", node.host().name(), node.log());
                eprintln!("status: {:?}", node.status());
            }
            return;
        }
        for node in &self.nodes {
            let log = node.log();
            let error = log.lines().find(|line| line.contains(" ERROR "));
            assert_eq!(error, None, "{} has logged an error", node.host().name());
        }
    }
}

/// Waits until the node's status is as `wanted`; `what` says what that is.
pub(crate) fn wait_for(node: &mut Node, what: &str, wanted: impl Fn(&Status) -> bool) {
    let is = wait_until(PATIENCE, || node.is(&wanted).unwrap());
    assert!(is, "{} is not {what}: {:?}", node.host().name(), node.status());
}

/// A number of what the node says of itself, such as `["packets", "read"]`.
pub(crate) fn number(status: &Status, path: &[&str]) -> u64 {
    let value = path[1..].iter().fold(&status.more[path[0]], |value, &key| &value[key]);
    value.as_u64().unwrap_or_else(|| panic!("no number at {path:?} in {status:?}"))
}

/// Something that the node's core counts.
pub(crate) fn counter(status: &Status, name: &str) -> u64 {
    number(status, &["core", "counters", name])
}

/// The virtual address with a port.
pub(crate) fn virtual_address(ipv6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(addresses(VIRTUAL)[usize::from(ipv6)], port)
}

/// A listener at this port of both virtual addresses, with further lines.
pub(crate) fn listener(port: u16, mode: &str, pool: &str, more: &str) -> String {
    let addresses = [false, true].map(|ipv6| format!("\"{}\"", virtual_address(ipv6, port)));
    format!(
        "\n[[listener]]\nname = \"port-{port}\"\naddress = [{}]\nmode = \"{mode}\"\n\
         pool = \"{pool}\"\n{more}\n",
        addresses.join(", ")
    )
}

/// A pool of these hosts, at this port of both their addresses, with further lines.
pub(crate) fn pool(name: &str, hosts: &[&Host], port: u16, more: &str) -> String {
    let mut servers = String::new();
    for (host, ipv6) in hosts.iter().flat_map(|host| [(host, false), (host, true)]) {
        // Writing to a string cannot fail.
        let _ = write!(servers, "\"{}\", ", host.socket(ipv6, port));
    }
    format!("\n[[pool]]\nname = \"{name}\"\nservers = [{servers}]\n{more}\n")
}

/// Whether this run moves as much as the project promises.
pub(crate) fn is_full() -> bool {
    is_set("OUTLIVE_E2E_FULL", "1")
}

/// Megabytes to move: as many as are promised in a full run, otherwise `short`.
pub(crate) fn megabytes(short: usize, full: usize) -> usize {
    (if is_full() { full } else { short }) * 1_000_000
}

fn is_required() -> bool {
    is_set("OUTLIVE_E2E_REQUIRE", "1") || is_set("CI", "true")
}

fn is_set(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|is| is == value)
}

fn may_run() -> Result<(), String> {
    if let Some(missing) = privilege::missing().first() {
        return Err(missing.to_string());
    }
    Namespace::create().map(drop).map_err(|error| error.to_string())
}

fn node_config(name: &str, own: u8, peer: u8, key: &Path) -> String {
    let [own, peer] = [own, peer].map(|number| addresses(number)[0]);
    let sources = addresses(SOURCE).map(|address| format!("\"{address}\"")).join(", ");
    // The machine may be busy with other tests: a takeover without a fault would be no error, but
    // it would make the tests less clear.
    format!(
        r#"[node]
name = "{name}"
interfaces = ["eth0"]
set_sysctls = true
source_addresses = [{sources}]
admin_socket = "{DIRECTORY}/admin.sock"

[timeouts]
reset_linger = "1s"

[peer]
state = {{ listen = "{own}:7400", peer = "{peer}:7400" }}
heartbeat = [{{ local = "{own}:7401", peer = "{peer}:7401" }}]
key_file = "{}"
detection_timeout = "200ms"
"#,
        key.display()
    )
}

/// The right to run now: more than two labs at once would only wait for each other.
struct Turn(Instant);

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(|held| held.into_inner());
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken >= 2)
            .unwrap_or_else(|held| held.into_inner());
        *taken += 1;
        Turn(Instant::now())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Shown with --nocapture.
        let test = thread::current();
        eprintln!("{}: {:.1} s", test.name().unwrap_or("?"), self.0.elapsed().as_secs_f64());
        *TAKEN.lock().unwrap_or_else(|held| held.into_inner()) -= 1;
        GIVEN_BACK.notify_one();
    }
}
