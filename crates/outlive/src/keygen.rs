//! `outlive keygen`: a new key for a pair, or one that is derived from it: for an external detector, for a target of migrations.

use std::{io, path::Path, process::ExitCode};

use outlive_node::key::PairKey;

pub(crate) fn keygen(
    output: Option<&Path>,
    watch: Option<&Path>,
    host: Option<(&Path, &str)>,
) -> ExitCode {
    match (watch, host) {
        (Some(pair), _) => derived(pair, output, |pair| {
            let key = pair.watch();
            let next = "Copy it to the machine that watches the pair; the nodes need no copy.";
            (key.to_text(), Box::new(move |path| key.save(path)), next)
        }),
        (None, Some((pair, name))) => derived(pair, output, |pair| {
            let key = pair.host(name);
            let next = "Copy it to the target of that name; the nodes need no copy.";
            (key.to_text(), Box::new(move |path| key.save(path)), next)
        }),
        (None, None) => new(output),
    }
}

/// A key as text, how it is saved, and what to do with the file.
type Derived = (String, Box<dyn Fn(&Path) -> io::Result<()>>, &'static str);

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

fn derived(
    pair: &Path,
    output: Option<&Path>,
    derive: impl FnOnce(PairKey) -> Derived,
) -> ExitCode {
    let (text, save, next) = match PairKey::load(pair) {
        Ok(key) => derive(key),
        Err(error) => {
            eprintln!("{}: {error}\n  help: {}", pair.display(), error.help(pair));
            return ExitCode::FAILURE;
        }
    };
    let Some(path) = output else {
        print!("{text}");
        return ExitCode::SUCCESS;
    };
    told(path, save(path), next)
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
