//! A machine of the lab: a network namespace, its interface, and everything that runs in it.
//!
//! Owns: the namespace, the link to the switch, threads and programs started here. All of them
//! end with it.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::{fs, io};

use outlive_net::netlink::{AddressOptions, Route, RouteTarget};
use outlive_net::netns::Namespace;
use outlive_net::program::end_with_starter;
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Clock;
use crate::congestion;
use crate::error::LabError;
use crate::link::{INTERFACE, Link, LinkKind};
use crate::steering;
use crate::topology::{Switch, addresses};
use crate::traffic::engine::{Command as EngineCommand, Engine, Remote};

/// A host on the lab's switch.
pub struct Host {
    name: String,
    number: u8,
    namespace: Namespace,
    /// Nothing while the machine is off.
    link: Option<Link>,
    cable: Cable,
    clock: Clock,
    threads: Mutex<Vec<Thread>>,
}

/// What it takes to plug a host in.
struct Cable {
    kind: LinkKind,
    switch: Arc<Switch>,
    seed: u64,
}

/// A thread in the host's namespace, and how to stop it.
type Thread = (Box<dyn Fn() + Send>, JoinHandle<io::Result<()>>);

/// What every host's kernel is told, besides the congestion control. Nothing is remembered from
/// one connection to the next, so that runs are independent; addresses are usable at once; many
/// connections in a row find a port.
const SETTINGS: &[(&str, &str)] = &[
    ("net/ipv4/tcp_no_metrics_save", "1"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/ip_local_port_range", "10000 65000"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];

impl Host {
    pub(crate) fn new(
        name: &str,
        number: u8,
        kind: LinkKind,
        switch: &Arc<Switch>,
        seed: u64,
        clock: Clock,
    ) -> Result<Self, LabError> {
        let mut host = Self {
            name: name.to_owned(),
            number,
            namespace: boot()?,
            link: None,
            cable: Cable { kind, switch: switch.clone(), seed },
            clock,
            threads: Mutex::default(),
        };
        host.power_on()?;
        Ok(host)
    }

    /// Takes the machine off the network, from one frame to the next: not even a carrier stays.
    /// What runs on it notices nothing else yet.
    pub fn unplug(&mut self) {
        self.link = None;
    }

    /// Throws the machine's network stack away, with everything in it that is not held by a program
    /// that still runs. It comes back, empty, with [`power_on`](Self::power_on).
    pub fn power_off(&mut self) -> Result<(), LabError> {
        self.unplug();
        self.end_threads();
        self.namespace = boot()?;
        Ok(())
    }

    /// Plugs the machine in, with the addresses that it had at first.
    pub fn power_on(&mut self) -> Result<(), LabError> {
        let Cable { kind, switch, seed } = &self.cable;
        let link =
            Link::attach(&self.name, self.number, kind.clone(), switch, &self.namespace, *seed)?;
        self.link = Some(link);
        for address in addresses(self.number) {
            self.add_address(address, if address.is_ipv4() { 24 } else { 64 })?;
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last part of its addresses.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its link to the switch, where the cable can be cut. A machine that is off has none: asking for
    /// it then is a mistake of the scenario, and panics.
    pub fn link(&self) -> &Link {
        self.link.as_ref().expect("the machine is plugged in")
    }

    /// The lab's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Its IPv4 or IPv6 address with a port.
    pub fn socket(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(addresses(self.number)[usize::from(ipv6)], port)
    }

    /// Gives its interface a further address.
    pub fn add_address(&self, address: IpAddr, prefix_len: u8) -> Result<(), LabError> {
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        let net = ipnet::IpNet::new_assert(address, prefix_len);
        Ok(self.namespace.netlink()?.add_address(INTERFACE, net, options)?)
    }

    /// Sends what goes to `destination` through the host that has the address `via`.
    pub fn add_route(&self, destination: ipnet::IpNet, via: IpAddr) -> Result<(), LabError> {
        let target = RouteTarget::Gateway { address: via, device: None };
        Ok(self.namespace.netlink()?.add_route(&Route::new(destination, target))?)
    }

    /// Writes a kernel setting of this host: `net/ipv4/tcp_retries2`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.namespace.run(|| write_sysctl(name, value))?
    }

    /// Makes this host pass on packets that are not for it.
    pub fn forward_packets(&self) -> Result<(), LabError> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// A counter of its IP or TCP, by the name that `/proc/net/netstat` or `/proc/net/snmp` gives it,
    /// such as `TCPTimeouts`, `RetransSegs` or `ForwDatagrams`; nothing if the kernel does not know it.
    pub fn counter(&self, name: &str) -> Result<Option<u64>, LabError> {
        let text = self.namespace.run(|| {
            ["/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"]
                .map(|path| fs::read_to_string(path).unwrap_or_default())
                .concat()
        })?;
        Ok(find_counter(&text, name))
    }

    /// Runs `action` on a thread in this host's namespace and waits for it.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        Ok(self.namespace.run(action)?)
    }

    /// Starts a program on this host. It is killed when the guard is dropped, and also when the
    /// calling thread ends: call it from one that lasts as long as the lab.
    pub fn start(&self, command: &mut Command) -> Result<Program, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        match end_with_starter(self.namespace.enclose(command)).spawn() {
            Ok(child) => Ok(Program { program, child }),
            Err(source) => Err(LabError::Program { program, source }),
        }
    }

    pub(crate) fn run_engine(
        &self,
        name: &str,
        engine: Engine,
        remote: Remote,
    ) -> Result<Arc<Remote>, LabError> {
        let remote = Arc::new(remote);
        let same = remote.clone();
        self.spawn(name, move || same.send(EngineCommand::Stop), move || engine.run())?;
        Ok(remote)
    }

    /// Starts a thread in this host's namespace. When the host is dropped, it calls `stop` and
    /// waits for the thread, which must then end soon.
    pub fn spawn(
        &self,
        name: &str,
        stop: impl Fn() + Send + 'static,
        action: impl FnOnce() + Send + 'static,
    ) -> Result<(), LabError> {
        let thread = self
            .namespace
            .spawn(&format!("{}-{name}", self.name), action)
            .map_err(|error| LabError::Traffic("starting a thread", error))?;
        self.threads.lock().expect("no holder panics").push((Box::new(stop), thread));
        Ok(())
    }

    fn end_threads(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(|held| held.into_inner());
        threads.iter().for_each(|(stop, _)| stop());
        for (_, thread) in threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_threads();
    }
}

/// A fresh namespace with the lab's settings.
fn boot() -> Result<Namespace, LabError> {
    let namespace = Namespace::create()?;
    namespace.run(|| {
        congestion::choose();
        steering::by_flow();
        SETTINGS.iter().try_for_each(|(name, value)| write_sysctl(name, value))
    })??;
    Ok(namespace)
}

/// A program that runs on a host; dropping it kills it.
pub struct Program {
    program: String,
    child: Child,
}

impl Program {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; nothing while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Where it reads from, if its command had a pipe there; once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it writes, if its command had a pipe there; once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The memory that it has in use (resident), in kB; nothing if it has ended.
    pub fn memory_kb(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Sends it a signal. It is a child that nobody else waits for, so its id is its own.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let result = Pid::from_raw(self.child.id() as i32)
            .map_or(Ok(()), |pid| kill_process(pid, signal).map_err(io::Error::from));
        result.map_err(|source| LabError::Program { program: self.program.clone(), source })
    }

    /// Sends it and the processes that it has started a signal.
    pub fn signal_family(&self, signal: Signal) -> Result<(), LabError> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // One that has just ended needs no signal.
            let _ = kill_process(child, signal);
        }
        self.signal(signal)
    }

    /// Ends it and the processes that it has started at once, as the machine's crash would.
    pub fn kill_family(&mut self) -> Result<(), LabError> {
        self.signal_family(Signal::KILL)?;
        self.kill()
    }

    /// Ends it at once, as a crash would (`SIGKILL`), and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), LabError> {
        let result = self.child.kill().and_then(|()| self.child.wait());
        result
            .map(drop)
            .map_err(|source| LabError::Program { program: self.program.clone(), source })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Writes a setting of the namespace that the calling thread is in.
pub(crate) fn write_sysctl(name: &str, value: &str) -> Result<(), LabError> {
    fs::write(format!("/proc/sys/{name}"), value).map_err(|source| LabError::Sysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Both files consist of pairs of lines: names, then values, each after the same first word.
fn find_counter(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    for (names, values) in lines.chunks_exact(2).map(|pair| (pair[0], pair[1])) {
        let mut columns = names.split_whitespace().zip(values.split_whitespace());
        if let Some((_, value)) = columns.find(|&(column, _)| column == name) {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "TcpExt: SyncookiesSent TCPTimeouts\nTcpExt: 3 17\nTcp: RtoMin MaxConn\nTcp: 200 -1\n";
        assert_eq!(find_counter(text, "TCPTimeouts"), Some(17));
        assert_eq!(find_counter(text, "RtoMin"), Some(200));
        assert_eq!(find_counter(text, "MaxConn"), None);
        assert_eq!(find_counter(text, "Nothing"), None);
    }
}
