//! What happens in the demo, one after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::board::{Board, Fault, Harm, NodeView, Scribe};
use super::verdict::{Played, Verdict};
use super::{Demo, probe};
use crate::error::LabError;
use crate::link::{Cut, LinkKind};
use crate::node::Node;
use crate::scenario::course::Course;
use crate::subject::Subject;
use crate::subject::outlive::{FORMING, Pair, PairOptions};
use crate::topology::Lab;
use crate::traffic::{Client, Group, Plan, Server, Transfer};

const PORT: u16 = 7000;

/// Time between two keys of the interactive session.
const KEYS: Duration = Duration::from_millis(20);

/// How long things may take before the demo calls them failed.
const ESTABLISHING: Duration = Duration::from_secs(15);
const TAKING_OVER: Duration = Duration::from_secs(10);
const GOING_ON: Duration = Duration::from_secs(20);
const WINDING_UP: Duration = Duration::from_secs(15);

/// Plays `demo` and takes everything down again.
pub(super) fn play(demo: &Demo, board: &Arc<Board>) -> Result<Verdict, LabError> {
    let lab = Lab::new(demo.seed)?;
    board.change(|board| (board.clock, board.size) = (Some(lab.clock()), demo.size));
    let mut scribe = Scribe(board.clone());
    let mut course = Course::new(&lab, &mut scribe);
    let outcome = Stage::build(demo, board, &lab, &mut course)?.perform(&mut course);
    board.step("all connections are over");
    let report = course.report("demo", &lab);
    let (stalls, lost) = (course.stalls(), course.book().totals().lost);
    let played = Played { report, stalls, lost, failure: outcome.err() };
    Ok(Verdict::new(demo, &board.snapshot(), played))
}

/// Everybody who takes part.
struct Stage<'a> {
    demo: &'a Demo,
    board: &'a Board,
    // The programs first: they end before their hosts do.
    client: Client,
    servers: Vec<Server>,
    pair: Pair,
    _hosts: Vec<crate::host::Host>,
}

impl<'a> Stage<'a> {
    fn build(
        demo: &'a Demo,
        board: &'a Board,
        lab: &Lab,
        course: &mut Course<'_>,
    ) -> Result<Self, LabError> {
        let host = |name, number| lab.host(name, number, LinkKind::Plain);
        let hosts = vec![host("client", 10)?, host("server-1", 20)?, host("server-2", 21)?];
        let nodes = (host("node-a", 2)?, host("node-b", 3)?);
        let servers = hosts[1..]
            .iter()
            .map(|host| Server::start(host, course.book(), &[PORT]))
            .collect::<Result<Vec<_>, _>>()?;
        course.event("a client, two servers, two nodes, one switch");
        board.step("starting the pair");
        let options = PairOptions::direct(&[PORT]);
        let pair = Pair::start(&demo.program, nodes, &[&hosts[1], &hosts[2]], &options)?;
        board.change(|board| board.nodes = [&pair.a, &pair.b].map(view).to_vec());
        let client = Client::start(&hosts[0], course.book(), demo.seed)?;
        Ok(Self { demo, board, client, servers, pair, _hosts: hosts })
    }

    /// The play itself. Whatever happens in it, afterwards every connection's fate is in the book.
    fn perform(mut self, course: &mut Course<'_>) -> Result<(), LabError> {
        let outcome = self.scenes(course);
        self.client.finish(Duration::ZERO);
        self.servers.iter().for_each(|server| server.finish(Duration::from_secs(2)));
        outcome
    }

    fn scenes(&mut self, course: &mut Course<'_>) -> Result<(), LabError> {
        let (name, other) = {
            let (active, standby) = self.pair.by_role()?;
            (active.host().name().to_owned(), standby.host().name().to_owned())
        };
        course.event(format!("{name} is active, {other} stands by"));
        let transfers = self.open_connections();
        self.board.step("opening connections");
        course.wait_established(ESTABLISHING)?;
        let groups = course.book().groups();
        let number: u64 = groups.iter().map(|group| group.opened.load(Relaxed)).sum();
        course.event(format!("{number} connections opened, over IPv4 and IPv6"));
        let begun = self.board.snapshot().now();
        self.board.change(|board| board.begun = Some(begun));

        self.board.step("everything runs");
        self.run_until(course, begun + self.demo.time.mul_f64(0.2));
        let victim = self.fault(Harm::Kill, &transfers, course)?;
        self.board.step("running on one node: a further failure would not be survived");
        course.run_for(self.demo.time.mul_f64(0.12));
        self.rejoin(&victim, course)?;

        self.board.step("everything runs, and a further failure would be survived");
        course.run_for(self.demo.time.mul_f64(0.1));
        self.run_until(course, begun + self.demo.time.mul_f64(0.55));
        self.fault(Harm::Cut, &transfers, course)?;
        self.board.step("the transfers go on to their end");
        course.wait_over(&transfers, self.demo.time + GOING_ON);
        if transfers.iter().all(went_well) {
            course.event("both transfers complete, hashes equal");
        }
        self.wind_up(&groups, course)
    }

    /// The transfers, which are given back, and everybody else.
    fn open_connections(&self) -> Vec<Arc<Group>> {
        let pace = Some((self.demo.size as f64 / self.demo.time.as_secs_f64()) as u64);
        let size = self.demo.size;
        let down = Transfer { down: size, down_pace: pace, ..Transfer::default() };
        let up = Transfer { up: size, up_pace: pace, ..Transfer::default() };
        let [v4, v6] = [false, true].map(|ipv6| self.pair.address(ipv6, PORT));
        let transfers = vec![
            self.client.open("download, IPv4", 1, v4, &Plan::Transfer(down)),
            self.client.open("upload, IPv6", 1, v6, &Plan::Transfer(up)),
        ];
        self.client.open("typing, IPv4", 1, v4, &Plan::Interactive { every: KEYS });
        self.client.open("idle, IPv4", self.demo.idle.div_ceil(2), v4, &Plan::Idle);
        self.client.open("idle, IPv6", self.demo.idle / 2, v6, &Plan::Idle);
        transfers
    }

    fn run_until(&self, course: &mut Course<'_>, at: Duration) {
        course.run_for(at.saturating_sub(self.board.snapshot().now()));
    }

    /// Harms the active node, and waits until the other one has taken over and the transfers go
    /// on. The name of the harmed one.
    fn fault(
        &mut self,
        harm: Harm,
        transfers: &[Arc<Group>],
        course: &mut Course<'_>,
    ) -> Result<String, LabError> {
        let (board, pair) = (self.board, &mut self.pair);
        // It must be the failure that is survived, not the load of this machine.
        course.wait("the pair to be whole", FORMING, || pair.is_whole())?;
        let under_way = transfers.iter().all(|group| group.open() > 0);
        let (active, standby) = self.pair.by_role()?;
        let (name, other) = (active.host().name().to_owned(), standby.host().name().to_owned());
        let at = board.snapshot().now();
        course.fault(harm.to(&name), || match harm {
            Harm::Kill => active.kill(),
            Harm::Cut => active.host().link().cut(Cut::Both),
        })?;
        let index = board.change(|board| {
            board.step = format!("{other} is to notice, and to take over");
            for node in board.nodes.iter_mut().filter(|node| node.name == name) {
                (node.killed, node.cut) = (harm == Harm::Kill, harm == Harm::Cut);
            }
            board.faults.push(Fault::new(harm, &name, at));
            board.faults.len() - 1
        });
        let socket = admin_socket(standby);
        course.wait(&format!("{other} to take over"), TAKING_OVER, || {
            Ok(probe::ask(&socket).is_some_and(|status| status.role == "active"))
        })?;
        let takeover = board.snapshot().now().saturating_sub(at);
        course.event(format!("{other} has taken over, {} ms later", takeover.as_millis()));
        board.change(|board| {
            board.faults[index].takeover = Some(takeover);
            board.faults[index].taken_over_by = Some(other);
        });
        course.wait_progress(transfers, self.demo.size / 1000, GOING_ON)?;
        board.change(|board| board.faults[index].transfers_went_on = under_way);
        Ok(name)
    }

    /// Starts the killed node again and waits until the pair says that it could survive again.
    fn rejoin(&mut self, name: &str, course: &mut Course<'_>) -> Result<(), LabError> {
        let pair = &mut self.pair;
        let node = if pair.a.host().name() == name { &mut pair.a } else { &mut pair.b };
        node.start()?;
        let socket = admin_socket(node);
        self.board.change(|board| {
            board.step = format!("{name} is to join, and to be told every session");
            board.nodes.iter_mut().for_each(|node| node.killed = false);
        });
        course.event(format!("{name} started again"));
        course.wait("the pair to be whole", FORMING, || pair.is_whole())?;
        let sessions = probe::ask(&socket).map_or(0, |status| status.core.sessions());
        course.event(format!("{name} stands by, holding all {sessions} sessions"));
        Ok(())
    }

    /// Lets every connection that is still open prove that it lives, and close.
    fn wind_up(&self, groups: &[Arc<Group>], course: &mut Course<'_>) -> Result<(), LabError> {
        self.board.step("every idle connection is to prove that it lives");
        self.client.wind_up();
        course.wait_over(groups, WINDING_UP);
        let idle = groups.iter().filter(|group| group.label.starts_with("idle"));
        if idle.clone().all(went_well) {
            let number: u64 = idle.map(|group| group.opened.load(Relaxed)).sum();
            course.event(format!("all {number} idle connections answered an echo"));
        }
        // Fails if the demo was interrupted while it waited for something above.
        course.wait("the end", Duration::from_secs(1), || Ok(true))
    }
}

fn went_well(group: &Arc<Group>) -> bool {
    group.open() == 0 && group.failed.load(Relaxed) == 0
}

fn view(node: &Node) -> NodeView {
    let (name, admin_socket) = (node.host().name().to_owned(), admin_socket(node));
    NodeView { name, admin_socket, killed: false, cut: false }
}

fn admin_socket(node: &Node) -> PathBuf {
    node.directory().join("admin.sock")
}
