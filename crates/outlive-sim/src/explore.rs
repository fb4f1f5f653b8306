//! Random worlds: topology, load, links and faults, all from one seed.
//!
//! First anything may fail; then everything is mended, and what was promised has to finish.

mod migration;

use std::{collections::BTreeMap, time::Duration};

use outlive_proxy::config::{
    Limits, NamePattern, Protection, ProxyProtocol, Replication, Route, Synchronise, WithoutStandby,
};
use serde::Serialize;

use crate::{
    content::{BANNER, Preamble},
    crash_points::{COMMAND, run},
    network::{Link, Place},
    rng::Rng,
    scenario::{Scenario, len},
    script::{Pace, Step},
    setup::{Clocks, Fault, Forgery, Setup, Start},
    stack::{Kind, StackSetup},
};

/// Faults happen within this time from the beginning of the load; then everything is mended.
const UNSAFE: Duration = Duration::from_secs(4);

/// Worlds go on for so long after everything, by when one node must serve.
const AFTERMATH: Duration = Duration::from_millis(4_500);

/// The world of a seed.
pub fn setup(seed: u64) -> Setup {
    let mut rng = Rng::new(seed ^ 0x6f75_746c_6976_6500);
    let rng = &mut rng;
    let mut scenario = load(rng);
    if rng.chance(200) {
        scenario = scenario.v6();
    }
    let mut stacks = (stack(rng), stack(rng));
    // With dice of their own, so that the rest of a seed's world stays what it was.
    let mut kinds = Rng::new(seed ^ 0x656e_6470_6f69_6e74);
    for stack in [&mut stacks.0, &mut stacks.1] {
        if kinds.chance(200) {
            stack.kind = Kind::Outlive;
        }
    }
    let paces = (pace(rng), pace(rng));
    let mut link = link(rng);
    if kinds.chance(150) {
        // From 3 to 40 Mbit/s.
        link.rate = *kinds.pick(&[400, 1_500, 5_000]);
    }
    scenario = scenario.stacks(stacks.0, stacks.1).paces(paces.0, paces.1).link(link);
    if rng.chance(200) {
        let at = rng.duration(Duration::from_millis(500));
        scenario = scenario.standby_joins(at);
    }
    scenario = surroundings(scenario, rng);
    for (at, fault) in faults(rng) {
        scenario = scenario.fault(at, fault);
    }
    let fast = rng.chance(500);
    if fast {
        // Sometimes there is not room for all.
        scenario = scenario.fast_path(*rng.pick(&[1, 2, 64]));
    }
    // With dice of its own, so that the rest of a seed's world stays what it was.
    let mut rng = Rng::new(seed ^ 0x7072_6f74_6563_7400);
    for _ in 0..rng.below(3) {
        scenario = scenario.fault(rng.duration(Duration::from_millis(2_500)), Fault::BreakState);
    }
    // Likewise.
    let mut rng = Rng::new(seed ^ 0x7468_6972_6400_0000);
    let is_watched = rng.chance(200);
    if is_watched {
        scenario = watched(scenario, &mut rng);
    }
    let mut protection = protection(&mut rng);
    // Likewise, and only where that leaves no other situation out.
    if !fast && !is_watched && Rng::new(seed ^ 0x656e_6473_0000_0000).chance(400) {
        protection.synchronise = Synchronise::Establishment;
        scenario = scenario.terminate();
    }
    // Likewise.
    let mut rng = Rng::new(seed ^ 0x6d69_6772_6174_6500);
    if scenario.can_migrate() && rng.chance(400) {
        scenario = migration::moved(scenario, &mut rng);
    }
    scenario.aftermath(AFTERMATH).protection(protection).setup(seed)
}

/// An external detector decides, and may be cut off from one of the nodes, or deaf to it.
fn watched(mut scenario: Scenario, rng: &mut Rng) -> Scenario {
    for _ in 0..rng.below(3) {
        let at = rng.duration(Duration::from_millis(2_500));
        let (here, there) = (Place::Detector, Place::Node(rng.below(2) as usize));
        let ways = 1 + rng.below(3);
        if ways & 1 != 0 {
            scenario = scenario.fault(at, Fault::Cut(here, there));
        }
        if ways & 2 != 0 {
            scenario = scenario.fault(at, Fault::Cut(there, here));
        }
        let lasts = rng.duration(Duration::from_millis(900));
        scenario = scenario.fault(at + lasts, Fault::Heal);
    }
    scenario.detector()
}

fn protection(rng: &mut Rng) -> Protection {
    let replication = if rng.chance(250) { Replication::Async } else { Replication::Sync };
    let refuses = rng.chance(150) && replication == Replication::Sync;
    let without_standby = if refuses { WithoutStandby::Refuse } else { WithoutStandby::Serve };
    let late = rng.chance(300);
    let synchronise = if late { Synchronise::FirstData } else { Synchronise::Establishment };
    Protection { replication, without_standby, synchronise }
}

/// Clocks, heartbeat paths, limits.
fn surroundings(scenario: Scenario, rng: &mut Rng) -> Scenario {
    let mut clocks = || Clocks {
        boot: rng.duration(Duration::from_secs(1_000_000)),
        wall_us: rng.below(20_000_000) as i64 - 10_000_000,
    };
    let mut scenario = scenario.clocks([clocks(), clocks()]).paths(1 + rng.below(3) as u8);
    if rng.chance(100) {
        scenario = scenario.wraps();
    }
    if rng.chance(200) {
        scenario = scenario.quiet_time(Duration::from_millis(300 + rng.below(1_000)));
    }
    if rng.chance(150) {
        scenario = scenario.limits(Limits {
            sessions: 40,
            openings: 24,
            half_open: 8,
            ..Limits::default()
        });
    }
    scenario
}

fn load(rng: &mut Rng) -> Scenario {
    let inspect = rng.chance(600);
    let http = Preamble::Http { host: "www.example.org", path: "/a" };
    let tls = Preamble::Tls { server_name: "www.example.org" };
    let preamble = match (inspect, rng.below(3)) {
        (true, 0) => http,
        (true, 1) => tls,
        _ => Preamble::Plain,
    };
    let (client, server) = scripts(rng, len(&preamble), inspect);
    let mut scenario = if inspect { Scenario::inspect(&server) } else { Scenario::direct(&server) };
    if rng.chance(300) {
        let version = *rng.pick(&[ProxyProtocol::V1, ProxyProtocol::V2]);
        scenario = scenario.proxy_protocol(version);
    }
    scenario = match rng.below(4) {
        0 => scenario.servers(&[true, true]),
        1 => scenario.servers(&[false, true]),
        _ => scenario,
    };
    if inspect && rng.chance(300) {
        let name = NamePattern::parse("*.example.org");
        scenario = scenario.route(Route { server_name: name, ..Route::default() });
    }
    let count = 1 + rng.below(6) as usize;
    for i in 0..count {
        if i > 0 && rng.chance(150) {
            scenario = scenario.client_on_first_port(Start::After(0), preamble.clone(), &client);
            break;
        }
        let start = Start::At(rng.duration(Duration::from_millis(1_500)));
        scenario = scenario.client(start, preamble.clone(), &client);
    }
    scenario
}

/// What the client and the server do.
fn scripts(rng: &mut Rng, asked: usize, inspect: bool) -> (Vec<Step>, Vec<Step>) {
    use Step::{Await, AwaitEnd, Close, Send, Sleep};
    let bulk = BANNER + rng.below(80_000) as usize;
    let pause = rng.duration(Duration::from_millis(1_200));
    match rng.below(if inspect { 4 } else { 6 }) {
        0 => (vec![Send(asked), Close, AwaitEnd], vec![Await(asked), Send(bulk), AwaitEnd, Close]),
        1 => {
            let said = asked + bulk;
            (
                vec![Send(said), Await(100), Close, AwaitEnd],
                vec![Await(said), Send(100), AwaitEnd, Close],
            )
        }
        2 => {
            let answer = BANNER + rng.below(5_000) as usize;
            let (mut client, mut server) = (vec![Send(asked)], Vec::new());
            for i in 1..=4 {
                client.extend([Await(i * answer), Sleep(pause / 3), Send(asked)]);
                server.extend([Await(i * asked), Send(answer)]);
            }
            client.extend([Close, AwaitEnd]);
            server.extend([AwaitEnd, Close]);
            (client, server)
        }
        3 => {
            let server = vec![Await(asked), Send(BANNER), Sleep(pause), Send(100), Close, AwaitEnd];
            (vec![Send(asked), Sleep(pause), Send(100), Close, AwaitEnd], server)
        }
        4 => {
            let server =
                vec![Send(200), Await(asked), Send(bulk), Await(2 * asked), Close, AwaitEnd];
            let client =
                vec![Await(200), Send(asked), Await(200 + bulk), Send(asked), AwaitEnd, Close];
            (client, server)
        }
        _ => {
            let both = vec![Send(bulk + asked), Await(bulk + asked), Close, AwaitEnd];
            (both.clone(), both)
        }
    }
}

fn stack(rng: &mut Rng) -> StackSetup {
    StackSetup {
        kind: Kind::Linux,
        receive_buffer: *rng.pick(&[3_000, 16_000, 65_535, 65_535, 300_000, 4 << 20]),
        timestamps: rng.chance(800),
        sack: rng.chance(800),
        mtu: *rng.pick(&[1_500, 1_500, 1_500, 1_280, 9_000]),
        wraps: false,
    }
}

fn pace(rng: &mut Rng) -> Pace {
    match rng.below(4) {
        0 => Pace::Slow {
            bytes: 500 + rng.below(8_000) as usize,
            every: Duration::from_millis(1 + rng.below(10)),
        },
        _ => Pace::Eager,
    }
}

fn link(rng: &mut Rng) -> Link {
    let delay = Duration::from_micros(*rng.pick(&[100, 500, 2_000, 10_000]));
    if rng.chance(400) {
        return Link { delay, ..Link::default() };
    }
    Link {
        delay,
        jitter: rng.duration(delay),
        loss: rng.below(40) as u32,
        duplication: rng.below(30) as u32,
        reordering: rng.below(60) as u32,
        corruption: rng.below(5) as u32,
        rate: 0,
    }
}

fn faults(rng: &mut Rng) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let at = rng.duration(Duration::from_millis(2_500));
        let lasts = Duration::from_millis(10) + rng.duration(Duration::from_millis(1_400));
        match rng.below(4) {
            0 => deaths(rng, at, lasts, &mut faults),
            1 => cuts(rng, at, lasts, &mut faults),
            2 => standstills(rng, at, lasts, &mut faults),
            _ => faults.push((at, Fault::Forge(forgery(rng)))),
        }
    }
    if rng.chance(300) {
        faults.extend(handovers(rng));
    }
    faults.extend([(UNSAFE, Fault::Heal), (UNSAFE, Fault::Links(Link::default()))]);
    for node in 0..2 {
        faults.extend([
            (UNSAFE, Fault::Resume(node)),
            (UNSAFE, Fault::Restart(node)),
            (UNSAFE, Fault::Unwedge(node)),
            (UNSAFE, Fault::SlowState(node, Duration::ZERO)),
        ]);
    }
    faults
}

/// Planned handovers: to and fro, or something goes wrong in the middle of one.
fn handovers(rng: &mut Rng) -> Vec<(Duration, Fault)> {
    let at = rng.duration(Duration::from_millis(2_500));
    let lasts = Duration::from_millis(10) + rng.duration(Duration::from_millis(1_400));
    let (node, who) = (rng.below(2) as usize, rng.below(2) as usize);
    let (this, other) = (Place::Node(node), Place::Node(1 - node));
    let mut faults = vec![(at, Fault::Handover(node))];
    if rng.chance(400) {
        faults.push((at + lasts, Fault::Handover(1 - node)));
        return faults;
    }
    let soon = rng.duration(Duration::from_millis(4));
    let wrong = *rng.pick(&[
        Fault::Kill(who),
        Fault::PowerOff(who),
        Fault::Freeze(who),
        Fault::Cut(this, other),
        Fault::Cut(other, this),
    ]);
    faults.push((at + soon, wrong));
    for mended in [Fault::Resume(who), Fault::Restart(who), Fault::Heal] {
        faults.push((at + lasts, mended));
    }
    faults
}

type Faults = Vec<(Duration, Fault)>;

/// A process or a machine dies; with luck it comes back, perhaps with another idea of the time.
fn deaths(rng: &mut Rng, at: Duration, lasts: Duration, faults: &mut Faults) {
    let node = rng.below(2) as usize;
    faults.push((at, if rng.chance(600) { Fault::Kill(node) } else { Fault::PowerOff(node) }));
    if rng.chance(200) {
        let jump = rng.below(40_000_000) as i64 - 20_000_000;
        faults.push((at, Fault::WallClock(node, jump)));
    }
    if rng.chance(650) {
        faults.push((at + lasts, Fault::Restart(node)));
    }
}

fn cuts(rng: &mut Rng, at: Duration, lasts: Duration, faults: &mut Faults) {
    let node = rng.below(2) as usize;
    let (this, other) = (Place::Node(node), Place::Node(1 - node));
    match rng.below(6) {
        // The nodes do not hear each other, and both hear everybody else.
        0 => faults.extend([(at, Fault::Cut(this, other)), (at, Fault::Cut(other, this))]),
        1 => faults.push((at, Fault::Cut(this, other))),
        // A node's cable.
        2 => {
            for place in [other, Place::Host(0), Place::Host(1), Place::Host(2)] {
                faults.push((at, Fault::Cut(this, place)));
                faults.push((at, Fault::Cut(place, this)));
            }
        }
        3 => faults.push((at, Fault::Cut(Place::Host(0), this))),
        // Heartbeat paths, some of which may not be there.
        4 => {
            for path in 0..1 + rng.below(2) as usize {
                faults.push((at, Fault::CutPath(node, path)));
                faults.extend(rng.chance(500).then_some((at, Fault::CutPath(1 - node, path))));
            }
        }
        _ => {
            let storm = Link { loss: 400, delay: Duration::from_millis(1), ..Link::default() };
            faults.extend([(at, Fault::Links(storm)), (at + lasts, Fault::Links(link(rng)))]);
        }
    }
    faults.push((at + lasts, Fault::Heal));
}

/// A process stands still, or its state connection does.
fn standstills(rng: &mut Rng, at: Duration, lasts: Duration, faults: &mut Faults) {
    let node = rng.below(2) as usize;
    match rng.below(5) {
        0 | 1 => faults.extend([(at, Fault::Freeze(node)), (at + lasts, Fault::Resume(node))]),
        2 => faults.extend([(at, Fault::Wedge(node)), (at + lasts, Fault::Unwedge(node))]),
        3 => {
            let delay = rng.duration(Duration::from_millis(200));
            faults.push((at, Fault::SlowState(node, delay)));
        }
        _ => {
            let breaks = 1 + rng.below(4) as u32;
            faults.extend((0..breaks).map(|i| (at + lasts / 8 * i, Fault::BreakState)));
        }
    }
}

fn forgery(rng: &mut Rng) -> Forgery {
    *rng.pick(&[
        Forgery::ResetInside,
        Forgery::ResetOutside,
        Forgery::Syn,
        Forgery::Stray,
        Forgery::Flood(40),
        Forgery::Unreachable,
        Forgery::FirstWords,
    ])
}

/// What became of many random worlds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Worlds.
    pub seeds: u64,
    /// Those in which a rule was broken.
    pub violations: u64,
    /// Connections in all worlds.
    pub flows: u64,
    /// Those for which nothing was promised.
    pub exempt_flows: u64,
    /// Events in all worlds.
    pub events: u64,
    /// In how many worlds each situation was met.
    pub situations: BTreeMap<String, u64>,
    /// Situations that every large run must meet, and this one did not.
    pub situations_missing: Vec<String>,
    /// The first few violations, each with the command that shows it.
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 20;

/// A run that never met one of these has not shown much.
pub const REQUIRED: &[&str] = &[
    "a migrated connection has ended",
    "a node died in the middle of a migration",
    "a target died after commit",
    "a target died before commit",
    "a target was silent",
    "adopted by another agent",
    "asked again by another node",
    "a clock jumped",
    "a link was full",
    "acknowledged late",
    "both nodes active",
    "cookies_adopted",
    "drop_cookie",
    "drop_unconfirmed",
    "drop_silent",
    "drop_unsure",
    "fast_path_full",
    "flooded with syns",
    "flow exempt",
    "forged reset",
    "forged syn",
    "handed over",
    "handover failed",
    "heartbeat path cut",
    "icmp led to a target",
    "icmp_translated",
    "late_segments_passed",
    "migrated",
    "migrated elsewhere after a refusal",
    "migrations_timeout",
    "old duplicates",
    "packets_relayed_in",
    "passed by the kernel",
    "passed by the kernel of a frozen node",
    "passed by the kernel of a dead node",
    "prefix_repeated",
    "probe_resets_swallowed",
    "reset_outside_window",
    "sequence numbers passed zero",
    "server_refused",
    "sessions_recycled",
    "spliced after a refusal",
    "standby slow",
    "standby_resumed",
    "standby synchronised with sessions",
    "standby wedged",
    "state connection broken",
    "stepped down",
    "still active after a standstill",
    "stood still",
    "strangers in a tunnel",
    "taken over: as planned",
    "taken over: ordered",
    "taken over: process gone",
    "taken over: restarted",
    "taken over: silent",
    "taken over: without everything",
    "timestamps passed zero",
    "wake_ups",
    "went alone",
];

impl Report {
    /// Runs the world of `seed` and adds what became of it.
    pub fn add(&mut self, seed: u64) {
        let outcome = run(setup(seed));
        self.seeds += 1;
        self.flows += outcome.flows as u64;
        self.exempt_flows += outcome.exempt as u64;
        self.events += outcome.events;
        for situation in &outcome.situations {
            *self.situations.entry((*situation).to_owned()).or_default() += 1;
        }
        if let Some(violation) = outcome.violations.first() {
            self.violations += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(format!("{violation}: {COMMAND} explore --seed {seed} --trace"));
            }
        }
    }

    /// Adds another report.
    pub fn merge(&mut self, other: Report) {
        self.seeds += other.seeds;
        self.violations += other.violations;
        self.flows += other.flows;
        self.exempt_flows += other.exempt_flows;
        self.events += other.events;
        for (situation, count) in other.situations {
            *self.situations.entry(situation).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }

    /// Lists what was not met.
    pub fn close(&mut self) {
        let missing = REQUIRED.iter().filter(|s| !self.situations.contains_key(**s));
        self.situations_missing = missing.map(|s| (*s).to_owned()).collect();
    }
}
