//! The lab as a command: runs one scenario and reports.

use std::process::ExitCode;

use clap::Parser;
use outlive_lab::scenario::{SCENARIOS, Scenario, Settings};

/// Runs a scenario of the Outlive lab: hosts, links and faults in network namespaces.
#[derive(Parser)]
#[command(after_help = scenarios())]
struct Arguments {
    /// The scenario to run
    #[arg(value_parser = scenario)]
    scenario: &'static Scenario,
    /// Prints the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Decides everything that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = Settings { seed: arguments.seed };
    match arguments.scenario.run(&settings) {
        Ok(report) => {
            if arguments.json {
                println!("{}", report.to_json());
            } else {
                print!("{report}");
            }
            if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{}: {error}", arguments.scenario.name);
            ExitCode::from(2)
        }
    }
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("there is no such scenario\n\n{}", scenarios()))
}

fn scenarios() -> String {
    let mut list = "Scenarios:".to_owned();
    for scenario in SCENARIOS {
        list += &format!("\n  {:<12} {}", scenario.name, scenario.about);
    }
    list
}
