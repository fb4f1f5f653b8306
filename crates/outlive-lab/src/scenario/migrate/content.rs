//! curl, as it is, through the balancer to three targets by host name and path: nginx, as it is, and both example servers.
//!
//! What is compared: every byte that curl gets; which client the servers have seen; and how many bytes passed the interfaces of
//! both nodes meanwhile, which must be a small part of what the clients got.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::{add_logs, counted};
use crate::error::LabError;
use crate::link::{INTERFACE, LinkKind};
use crate::migration::content::{next_id, wrong};
use crate::migration::site::{CONTENT_PORT, Site, SiteOptions};
use crate::migration::target::ServerKind;
use crate::report::Report;
use crate::scenario::Settings;

/// Which server each of the conditions of the site leads to.
const SERVERS: [ServerKind; 3] = [ServerKind::Nginx, ServerKind::Python, ServerKind::Origin];

/// Bytes of the long answers.
const LONG: usize = 4 << 20;

/// Of what the clients get, the nodes may see less than one in so many bytes: acknowledgments, and what the nodes say to each other.
const CARRIED_AT_MOST: u64 = 10;

pub(crate) fn run(settings: &Settings) -> Result<Report, LabError> {
    let options = SiteOptions { targets: &SERVERS, link: LinkKind::Plain, sizes: &[LONG] };
    let mut site = Site::new(settings.program()?, settings.seed, &options)?;
    let mut report = Report::new("migrate-content", &site.lab);
    let (mut delivered, mut asked) = (0, 0);
    let before = [passed(&site, 0)?, passed(&site, 1)?];
    for ipv6 in &settings.ipv6 {
        for (host, path, server) in [
            ("one.example", format!("/{LONG}?{}", next_id()), 0),
            ("www.two.example", format!("/hello?{}", next_id()), 1),
            ("elsewhere.example", format!("/three/{LONG}?{}", next_id()), 2),
        ] {
            let got = curl(&site, site.address(*ipv6, CONTENT_PORT), host, &path)?;
            asked += 1;
            report.connections += 1;
            let client = site.client.socket(*ipv6, 0).ip();
            let right = match SERVERS[server] {
                ServerKind::Python => {
                    let said = String::from_utf8_lossy(&got);
                    // Its log, so to speak: the client's address, and what was asked.
                    said.starts_with(&format!("hello, {client}:")) && said.contains(&path)
                }
                _ => {
                    report.bytes_wrong += wrong(0, &got);
                    report.bytes_verified += got.len() as u64;
                    let id = path.rsplit_once('?').and_then(|(_, id)| id.parse().ok());
                    let answered = site.targets[server].answered();
                    let seen = id.and_then(|id: u64| answered.get(&id).copied());
                    report.require(seen == Some((1, client)), || {
                        format!("the server of {host}{path} has seen {seen:?}, not {client} once")
                    });
                    got.len() == LONG && wrong(0, &got) == 0
                }
            };
            report.connections_lost += u64::from(!right);
            report
                .require(right, || format!("{host}{path}: a wrong answer of {} bytes", got.len()));
            delivered += got.len() as u64;
        }
    }
    let carried = [passed(&site, 0)? - before[0], passed(&site, 1)? - before[1]];
    let migrated = counted(&site, "migrations_completed")?;
    report.measure("migrated", migrated);
    report.require(migrated == asked, || format!("{migrated} of {asked} were migrated"));
    report.measure("bytes_delivered", delivered);
    report.measure("bytes_at_the_nodes", carried);
    for (name, carried) in ["a", "b"].into_iter().zip(carried) {
        report.require(carried * CARRIED_AT_MOST < delivered, || {
            format!("{carried} bytes passed node {name}, {delivered} were delivered")
        });
    }
    add_logs(&mut report, &mut site);
    Ok(report)
}

/// What curl gets.
fn curl(site: &Site, to: SocketAddr, host: &str, path: &str) -> Result<Vec<u8>, LabError> {
    let failed = |source| LabError::Program { program: "curl".into(), source };
    let (ip, port) = (to.ip(), to.port());
    let at = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let mut command = Command::new("curl");
    command.args(["-sS", "-g", "--fail", "--max-time", "60", "--noproxy", "*"]);
    command.arg("--resolve").arg(format!("{host}:{port}:{at}"));
    command.arg(format!("http://{host}:{port}{path}")).stdin(Stdio::null());
    let output = site.client.namespace().enclose(&mut command).output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(io::Error::other(format!("{host}{path}: {said}"))))
}

/// Bytes that have passed the interface of node a (0) or b (1), both ways together.
fn passed(site: &Site, node: usize) -> Result<u64, LabError> {
    let host = [&site.pair.a, &site.pair.b][node].host();
    let text = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let failed = |source| LabError::Program { program: "counting bytes".into(), source };
    let bytes = text.map(|text| bytes_of(&text, INTERFACE)).map_err(failed)?;
    bytes.ok_or_else(|| failed(io::Error::other("no such interface")))
}

/// Received and sent.
fn bytes_of(text: &str, interface: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, counters) = lines.find(|(name, _)| *name == interface)?;
    let counters: Vec<u64> = counters.split_whitespace().flat_map(str::parse).collect();
    Some(counters.first()? + counters.get(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_counted() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  \
                    eth0: 1000 9 0 0 0 0 0 0 70 3 0 0 0 0 0 0\n";
        assert_eq!(bytes_of(text, "eth0"), Some(1070));
        assert_eq!(bytes_of(text, "eth1"), None);
    }
}
