//! keepalived (VRRP) in front of HAProxy, on two machines: how a standby is usually had.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::haproxy::DEFAULTS;
use super::outlive::{FORMING, VIRTUAL};
use super::{Cluster, Machine, Subject};
use crate::clock::{retry_until, wait_until};
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::link::INTERFACE;
use crate::scratch;
use crate::topology::addresses;

/// Time between two advertisements. keepalived's default is ten times as long; a takeover follows
/// after a little more than three of them are missing.
pub const ADVERTISEMENT: Duration = Duration::from_millis(100);

/// Two machines with keepalived and HAProxy, which share the virtual addresses.
pub struct KeepalivedPair {
    a: ProxyMachine,
    b: ProxyMachine,
}

impl KeepalivedPair {
    /// Starts both programs on both hosts, and waits until one holds the addresses.
    pub fn start((a, b): (Host, Host), servers: &[&Host], ports: &[u16]) -> Result<Self, LabError> {
        let mut pair = Self {
            a: ProxyMachine::new(a, 101, servers, ports)?,
            b: ProxyMachine::new(b, 100, servers, ports)?,
        };
        pair.a.start()?;
        pair.b.start()?;
        retry_until(FORMING, "keepalived to hold the addresses", || pair.is_whole())?;
        Ok(pair)
    }
}

impl Subject for KeepalivedPair {
    fn name(&self) -> &str {
        "keepalived + haproxy"
    }

    fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(addresses(VIRTUAL)[usize::from(ipv6)], port)
    }
}

impl Cluster for KeepalivedPair {
    fn machines(&mut self) -> [&mut dyn Machine; 2] {
        [&mut self.a, &mut self.b]
    }

    fn is_whole(&mut self) -> Result<bool, LabError> {
        let one_serves = self.a.serves()? != self.b.serves()?;
        Ok(one_serves && self.a.runs() && self.b.runs())
    }

    fn describe(&mut self) -> Result<Map<String, Value>, LabError> {
        let every = ADVERTISEMENT.as_millis() as u64;
        Ok(Map::from_iter([("advertisement_interval_ms".to_owned(), every.into())]))
    }
}

/// One of the machines.
struct ProxyMachine {
    /// HAProxy, then keepalived. Dropped before the host: it is the one that started them.
    programs: [Option<Program>; 2],
    host: Host,
    directory: TempDir,
}

impl ProxyMachine {
    fn new(host: Host, priority: u8, servers: &[&Host], ports: &[u16]) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: "keepalived".into(), source };
        let directory = scratch::directory().map_err(failed)?;
        let machine = Self { programs: [None, None], host, directory };
        let write = |name: &str, text: String| fs::write(machine.path(name), text).map_err(failed);
        write("haproxy.cfg", haproxy_config(servers, ports))?;
        write("keepalived.conf", machine.keepalived_config(priority))?;
        let scripts = [
            ("alive", format!("kill -0 $(cat {})", machine.path("haproxy.pid").display())),
            ("master", format!("date +%s.%N > {}", machine.path("since").display())),
        ];
        for (name, line) in scripts {
            write(name, format!("#!/bin/sh\n{line}\n"))?;
            let executable = fs::Permissions::from_mode(0o700);
            fs::set_permissions(machine.path(name), executable).map_err(failed)?;
        }
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runs(&mut self) -> bool {
        self.programs.iter_mut().all(|it| it.as_mut().is_some_and(Program::is_running))
    }

    fn start_program(&self, command: &mut Command) -> Result<Program, LabError> {
        let failed = |source| LabError::Program { program: "opening a log".into(), source };
        let log =
            File::options().create(true).append(true).open(self.path("log")).map_err(failed)?;
        let same = log.try_clone().map_err(failed)?;
        self.host.start(command.stdin(Stdio::null()).stdout(log).stderr(same))
    }

    fn start_haproxy(&self) -> Result<Program, LabError> {
        let failed = |source| LabError::Program { program: "haproxy".into(), source };
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(self.path("haproxy.cfg"));
        let program = self.start_program(&mut command)?;
        fs::write(self.path("haproxy.pid"), program.id().to_string()).map_err(failed)?;
        Ok(program)
    }

    fn start_keepalived(&self) -> Result<Program, LabError> {
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp"]);
        command.arg("--use-file").arg(self.path("keepalived.conf"));
        command.arg("--pid").arg(self.path("keepalived.pid"));
        command.arg("--vrrp_pid").arg(self.path("vrrp.pid"));
        self.start_program(&mut command)
    }

    /// The machine that comes back does not take the addresses back: it would cost the connections
    /// a second time.
    fn keepalived_config(&self, priority: u8) -> String {
        let (alive, master) = (self.path("alive"), self.path("master"));
        let mut text = format!(
            "global_defs {{\n  vrrp_version 3\n  script_user root\n}}\n\
             vrrp_script alive {{\n  script \"{}\"\n  interval 1\n  fall 1\n  rise 1\n}}\n\
             vrrp_sync_group both {{\n  group {{\n    v4\n    v6\n  }}\n  notify_master \"{}\"\n}}\n",
            alive.display(),
            master.display(),
        );
        let [ipv4, ipv6] = addresses(VIRTUAL);
        // Of version 6, the first address must be a link-local one.
        let held =
            [("v4", format!("{ipv4}/24")), ("v6", format!("fe80::{VIRTUAL}/64\n    {ipv6}/64"))];
        for (name, addresses) in held {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "vrrp_instance {name} {{\n  state BACKUP\n  nopreempt\n  interface {INTERFACE}\n  \
                 virtual_router_id 51\n  priority {priority}\n  advert_int {}\n  \
                 virtual_ipaddress {{\n    {addresses}\n  }}\n  track_script {{\n    alive\n  }}\n}}\n",
                ADVERTISEMENT.as_secs_f64(),
            );
        }
        text
    }

    /// Asked to end, keepalived gives the addresses up and takes its other processes along.
    fn end_keepalived(&mut self) {
        if let Some(keepalived) = &mut self.programs[1] {
            let _ = keepalived.signal_family(Signal::CONT);
            let _ = keepalived.signal(Signal::TERM);
            wait_until(Duration::from_secs(2), || !keepalived.is_running());
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        for program in self.programs.iter().flatten() {
            program.signal_family(signal)?;
        }
        Ok(())
    }
}

impl Machine for ProxyMachine {
    fn host(&self) -> &Host {
        &self.host
    }

    fn host_mut(&mut self) -> &mut Host {
        &mut self.host
    }

    fn start(&mut self) -> Result<(), LabError> {
        let running =
            self.programs.each_mut().map(|it| it.as_mut().is_some_and(Program::is_running));
        if !running[0] {
            self.programs[0] = Some(self.start_haproxy()?);
        }
        if !running[1] {
            self.programs[1] = Some(self.start_keepalived()?);
        }
        Ok(())
    }

    /// What serves is HAProxy; keepalived is there to notice.
    fn kill(&mut self) -> Result<(), LabError> {
        self.programs[0].take().map_or(Ok(()), |mut program| program.kill())
    }

    fn kill_all(&mut self) -> Result<(), LabError> {
        self.signal(Signal::KILL)?;
        self.programs = [None, None];
        Ok(())
    }

    fn stop(&mut self) -> Result<(), LabError> {
        self.end_keepalived();
        self.programs = [None, None];
        Ok(())
    }

    /// There is no such thing: what comes next to it is to end keepalived, which gives the addresses up.
    fn hand_over(&mut self) -> Result<(), LabError> {
        self.end_keepalived();
        Ok(())
    }

    fn freeze(&self) -> Result<(), LabError> {
        self.signal(Signal::STOP)
    }

    fn thaw(&self) -> Result<(), LabError> {
        self.signal(Signal::CONT)
    }

    fn serves(&mut self) -> Result<bool, LabError> {
        let addresses_held = self.host.namespace().netlink()?.addresses()?;
        Ok(addresses_held.iter().any(|held| held.address.addr() == addresses(VIRTUAL)[0]))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn took_over_at(&self) -> Option<Duration> {
        let since = fs::read_to_string(self.path("since")).ok()?;
        let since = Duration::try_from_secs_f64(since.trim().parse().ok()?).ok()?;
        Some(self.host.clock().at(SystemTime::UNIX_EPOCH + since))
    }
}

impl Drop for ProxyMachine {
    fn drop(&mut self) {
        self.end_keepalived();
    }
}

/// Connections that fit into 20,000 descriptors: two for each, and a pipe for each fourth.
pub const MOST_CONNECTIONS: u64 = 7_900;

/// Each port leads to the same port of all servers, IPv4 to IPv4 and IPv6 to IPv6.
fn haproxy_config(servers: &[&Host], ports: &[u16]) -> String {
    let mut text = format!("global\n  nbthread 2\n  maxconn {MOST_CONNECTIONS}\n{DEFAULTS}");
    for &port in ports {
        for (ipv6, any, only) in [(false, "0.0.0.0", ""), (true, "[::]", " v6only")] {
            let _ = write!(text, "listen p{port}-{ipv6}\n  bind {any}:{port}{only}\n");
            for server in servers {
                let _ = writeln!(text, "  server {} {}", server.name(), server.socket(ipv6, port));
            }
        }
    }
    text
}
