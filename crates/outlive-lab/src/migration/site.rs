//! Where migrations play: a client, a pair, and targets, all on one switch.
//!
//! | port of the virtual addresses | leads to |
//! |---|---|
//! | [`MIGRATED_PORT`] | any target, to which the connection is handed |
//! | [`SPLICED_PORT`] | the same servers by the same look at the content, but the node translates |
//! | [`CONTENT_PORT`] | the target that host name and path tell |

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::target::{AGENT_PORT, ServerKind, Target};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::node::Node;
use crate::subject::Subject as _;
use crate::subject::outlive::{OWN_TUNNEL, Pair, PairOptions, VIRTUAL};
use crate::topology::{Lab, addresses, tunnel_addresses};

/// See above.
pub(crate) const MIGRATED_PORT: u16 = 80;
/// See above.
pub(crate) const SPLICED_PORT: u16 = 81;
/// See above.
pub(crate) const CONTENT_PORT: u16 = 82;

/// Where the servers listen themselves, at all their addresses.
pub(crate) const SERVER_PORT: u16 = 8080;

/// The hosts of both nodes.
pub(crate) const NODES: [u8; 2] = [2, 3];
const FIRST_TARGET: u8 = 31;
const CLIENT: u8 = 10;

/// What the targets are told by at [`CONTENT_PORT`]: the condition of each, in order.
const CONDITIONS: [&str; 3] =
    ["host = \"one.example\"", "host = \"*.two.example\"", "path_prefix = \"/three/\""];

/// How long agents may take to be reached, and their tunnels to be proved, also over bad links.
const READY: Duration = Duration::from_secs(60);

/// What is built.
#[derive(Debug, Clone)]
pub(crate) struct SiteOptions<'a> {
    /// The servers on the targets.
    pub(crate) targets: &'a [ServerKind],
    /// Every machine's link.
    pub(crate) link: LinkKind,
    /// Lengths of answers.
    pub(crate) sizes: &'a [usize],
}

/// All of it, running.
pub(crate) struct Site {
    pub(crate) pair: Pair,
    pub(crate) targets: Vec<Target>,
    pub(crate) client: Arc<Host>,
    pub(crate) lab: Lab,
}

impl Site {
    /// Builds it, and waits until both nodes can hand connections to every target.
    pub(crate) fn new(
        program: &Path,
        seed: u64,
        options: &SiteOptions<'_>,
    ) -> Result<Self, LabError> {
        let lab = Lab::new(seed)?;
        let link = || options.link.clone();
        let client = Arc::new(lab.host("client", CLIENT, link())?);
        let nodes = (lab.host("node-a", NODES[0], link())?, lab.host("node-b", NODES[1], link())?);
        let mut hosts = Vec::new();
        for (number, _) in (FIRST_TARGET..).zip(options.targets) {
            let host = lab.host(&format!("t{number}"), number, link())?;
            lead(&nodes.0, &host)?;
            lead(&nodes.1, &host)?;
            lead(&host, &nodes.0)?;
            lead(&host, &nodes.1)?;
            hosts.push(host);
        }
        let numbers: Vec<u8> = hosts.iter().map(Host::number).collect();
        let pair = Pair::start(program, nodes, &[], &leading_to(&numbers))?;
        let mut targets = Vec::new();
        for (host, kind) in hosts.into_iter().zip(options.targets) {
            let mut target = Target::new(host, *kind, program, &pair.key_file(), options.sizes)?;
            target.start()?;
            targets.push(target);
        }
        let mut site = Self { pair, targets, client, lab };
        site.wait_ready()?;
        Ok(site)
    }

    /// Has both nodes lead to these of the targets only, by another configuration, while they run.
    pub(crate) fn lead_to(&mut self, targets: &[usize]) -> Result<(), LabError> {
        let numbers: Vec<u8> = targets.iter().map(|it| self.targets[*it].host.number()).collect();
        self.pair.reconfigure(&[], &leading_to(&numbers))?;
        self.wait_ready()
    }

    /// Waits until the pair is whole, and both nodes can hand connections to every target that they know.
    pub(crate) fn wait_ready(&mut self) -> Result<(), LabError> {
        retry_until(READY, "the pair and every target to be ready", || {
            Ok(self.pair.is_whole()?
                && reaches_all(&mut self.pair.a)?
                && reaches_all(&mut self.pair.b)?)
        })
    }

    /// Where a client finds that port of the pair.
    pub(crate) fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        self.pair.address(ipv6, port)
    }

    /// Gives a target back what it lost with its power, and starts it.
    pub(crate) fn revive(&mut self, index: usize) -> Result<(), LabError> {
        let target = &mut self.targets[index];
        target.power_on()?;
        for node in [&self.pair.a, &self.pair.b] {
            lead(&target.host, node.host())?;
        }
        target.start()
    }
}

fn leading_to(targets: &[u8]) -> PairOptions {
    PairOptions { more_tables: tables(targets), ..PairOptions::direct(&[]) }
}

/// Leads packets for the tunnel addresses of `to` there.
fn lead(from: &Host, to: &Host) -> Result<(), LabError> {
    for (tunnel, via) in tunnel_addresses(to.number()).into_iter().zip(addresses(to.number())) {
        from.add_route(tunnel.into(), via)?;
    }
    Ok(())
}

/// Whether connections can be handed to every target, by what the node says.
fn reaches_all(node: &mut Node) -> Result<bool, LabError> {
    node.is(|status| {
        let targets = status.more.get("targets").and_then(|it| it.as_array());
        targets.is_some_and(|targets| targets.iter().all(|target| target["ready"] == true))
    })
}

/// What both nodes are told of targets, pools and listeners.
fn tables(targets: &[u8]) -> String {
    let mut text = format!("[migration]\ntunnel = [{OWN_TUNNEL}]\n");
    let servers = |number: u8| {
        addresses(number).map(|it| format!("\"{}\"", SocketAddr::new(it, SERVER_PORT))).join(", ")
    };
    let pool = |name: &str, servers: String| {
        format!("\n[[pool]]\nname = \"{name}\"\nservers = [{servers}]\n")
    };
    let listener = |name: &str, port: u16| {
        let listen = addresses(VIRTUAL).map(|it| format!("\"{}\"", SocketAddr::new(it, port)));
        let listen = listen.join(", ");
        format!(
            "\n[[listener]]\nname = \"{name}\"\naddress = [{listen}]\nmode = \"inspect\"\npool = \"all\"\n"
        )
    };
    let route = |condition: &str, pool: &str, action: &str| {
        format!("[[listener.route]]\n{condition}\npool = \"{pool}\"\naction = \"{action}\"\n")
    };
    // Writing to a string cannot fail.
    for number in targets {
        let agent = SocketAddr::new(addresses(*number)[0], AGENT_PORT);
        let tunnel = tunnel_addresses(*number).map(|it| format!("\"{it}\"")).join(", ");
        let _ = write!(
            text,
            "\n[[target]]\nname = \"t{number}\"\nagent = \"{agent}\"\ntunnel = [{tunnel}]\nservers = [{}]\n",
            servers(*number)
        );
        text += &pool(&format!("t{number}"), servers(*number));
    }
    text += &pool("all", targets.iter().map(|it| servers(*it)).collect::<Vec<_>>().join(", "));
    let everything = "path_prefix = \"/\"";
    text += &listener("migrated", MIGRATED_PORT);
    text += &route(everything, "all", "migrate");
    text += &listener("spliced", SPLICED_PORT);
    text += &route(everything, "all", "proxy");
    text += &listener("content", CONTENT_PORT);
    for (condition, number) in CONDITIONS.iter().zip(targets) {
        text += &route(condition, &format!("t{number}"), "migrate");
    }
    text
}
