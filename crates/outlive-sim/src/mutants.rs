//! Whether the simulator would notice: each deliberate fault is committed in one world after the other until
//! a check names it.
//!
//! Every fault is hunted on the same ground: the scenarios as they are, some of their crash points, random
//! worlds, more crash points. A catch counts only if the same world is without fault when nobody commits one.

use outlive_tcp::fault::{self, Fault};
use serde::Serialize;

use crate::{
    crash_points::{self, AGENT_WAYS, COMMAND, WAYS, crash_point},
    explore, programs,
    scenario::Scenario,
    scenarios,
    setup::Setup,
    targets::FIRST_TARGET,
    world::Outcome,
};

/// Crash points of a scenario in the first round, and in the last.
const SOME: u64 = 16;
const MANY: u64 = 150;
/// Random worlds.
const SEEDS: u64 = 3_000;

/// What became of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// What the code does instead of the right thing.
    pub fault: &'static str,
    /// The check that named it, if one did.
    pub check: Option<String>,
    /// How, for people.
    pub detail: Option<String>,
    /// The command that shows it.
    pub command: Option<String>,
    /// Worlds that were tried.
    pub worlds: u64,
}

/// Hunts `fault`.
pub fn hunt(fault: Fault) -> Mutant {
    let mut mutant = Mutant {
        name: fault.name(),
        fault: fault.meaning(),
        check: None,
        detail: None,
        command: None,
        worlds: 0,
    };
    for (command, world) in grounds() {
        mutant.worlds += 1;
        let outcome = world.run(Some(fault));
        let Some(violation) = outcome.violations.first() else { continue };
        if world.run(None).violations.is_empty() {
            mutant.check = Some(format!("{:?}", violation.rule));
            mutant.detail = Some(violation.to_string());
            mutant.command = Some(format!("{COMMAND} {command} --fault {}", fault.name()));
            break;
        }
    }
    mutant
}

/// The fault of that name.
pub fn named(name: &str) -> Option<Fault> {
    Fault::ALL.iter().copied().find(|fault| fault.name() == name)
}

/// Runs a world in which `fault` is committed.
pub fn run(fault: Option<Fault>, setup: Setup) -> Outcome {
    fault::select(fault);
    let outcome = crash_points::run(setup);
    fault::select(None);
    outcome
}

/// Runs one of hosts with programs.
pub fn run_programs(fault: Option<Fault>, setup: programs::Setup) -> Outcome {
    fault::select(fault);
    let outcome = programs::run(setup);
    fault::select(None);
    outcome
}

/// A world of either kind.
enum World {
    Pair(Box<Setup>),
    Programs(programs::Setup),
}

impl World {
    fn run(&self, fault: Option<Fault>) -> Outcome {
        match self {
            World::Pair(setup) => run(fault, (**setup).clone()),
            World::Programs(setup) => run_programs(fault, setup.clone()),
        }
    }
}

/// The worlds, each with the command that runs it.
fn grounds() -> impl Iterator<Item = (String, World)> {
    let pair = |(command, setup)| (command, World::Pair(Box::new(setup)));
    let calm = scenarios::all()
        .into_iter()
        .map(|(name, scenario)| (format!("run --scenario {name} --trace"), scenario.setup(1)));
    let random =
        (1..=SEEDS).map(|seed| (format!("explore --seed {seed} --trace"), explore::setup(seed)));
    calm.chain(crashes(SOME))
        .map(pair)
        .chain(deaths_of_programs(SOME))
        .chain(random.chain(crashes(MANY)).map(pair))
        .chain(deaths_of_programs(MANY))
}

/// About `count` crash points of each load of hosts with programs.
fn deaths_of_programs(count: u64) -> impl Iterator<Item = (String, World)> {
    programs::all().into_iter().flat_map(move |(name, load)| {
        let counted = Some(crash_point(0, u64::MAX, 0));
        let steps = programs::run(programs::Setup { crash: counted, ..load.setup(1) }).steps;
        let stride = (steps / count).max(1);
        (1..=steps).step_by(stride as usize).enumerate().map(move |(i, point)| {
            let way = i as u64 % WAYS;
            let crash = Some(crash_point(0, point, way));
            let command =
                format!("crash-points --scenario {name} --point {point} --way {way} --trace");
            (command, World::Programs(programs::Setup { crash, ..load.setup(1) }))
        })
    })
}

/// About `count` crash points of each scenario, in turn through the ways to die.
fn crashes(count: u64) -> impl Iterator<Item = (String, Setup)> {
    let nodes = |(name, scenario): (_, Scenario)| {
        let nodes = 0..crash_points::actors(&crash_points::run(scenario.setup(1)));
        let targets = FIRST_TARGET..FIRST_TARGET + scenario.target_count();
        nodes.chain(targets).map(move |node| (name, scenario.clone(), node))
    };
    scenarios::all().into_iter().flat_map(nodes).flat_map(move |(name, scenario, node)| {
        let calm = Setup { crash: Some(crash_point(node, u64::MAX, 0)), ..scenario.setup(1) };
        let steps = crash_points::run(calm).steps;
        let stride = (steps / count).max(1);
        (1..=steps).step_by(stride as usize).enumerate().map(move |(i, point)| {
            let way = i as u64 % if node < FIRST_TARGET { WAYS } else { AGENT_WAYS };
            let crash = Some(crash_point(node, point, way));
            let command = format!(
                "crash-points --scenario {name} --node {node} --point {point} --way {way} --trace"
            );
            (command, Setup { crash, ..scenario.setup(1) })
        })
    })
}
