//! `outlive keygen`: a new key for a pair, or the one that an external detector of a pair needs.

use std::{io, path::Path, process::ExitCode};

use outlive_node::key::PairKey;

pub(crate) fn keygen(output: Option<&Path>, pair: Option<&Path>) -> ExitCode {
    match pair {
        Some(pair) => watch(output, pair),
        None => new(output),
    }
}

fn new(output: Option<&Path>) -> ExitCode {
    let key = match PairKey::generate() {
        Ok(key) => key,
        Err(error) => {
            eprintln!("the operating system has no random numbers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Some(path) = output else {
        print!("{}", key.to_text());
        return ExitCode::SUCCESS;
    };
    told(path, key.save(path), "Copy it to the other node, readable for its owner only.")
}

fn watch(output: Option<&Path>, pair: &Path) -> ExitCode {
    let key = match PairKey::load(pair) {
        Ok(key) => key.watch(),
        Err(error) => {
            eprintln!("{}: {error}\n  help: {}", pair.display(), error.help(pair));
            return ExitCode::FAILURE;
        }
    };
    let Some(path) = output else {
        print!("{}", key.to_text());
        return ExitCode::SUCCESS;
    };
    let next = "Copy it to the machine that watches the pair; the nodes need no copy.";
    told(path, key.save(path), next)
}

fn told(path: &Path, saved: io::Result<()>, next: &str) -> ExitCode {
    let path = path.display();
    match saved {
        Ok(()) => {
            eprintln!("{path} is written. {next}");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            eprintln!("{path} exists and was not touched: a key in use is not overwritten");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{path} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
