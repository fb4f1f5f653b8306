//! `outlive keygen`: a new key for a pair.

use std::{io, path::Path, process::ExitCode};

use outlive_node::key::PairKey;

pub(crate) fn keygen(output: Option<&Path>) -> ExitCode {
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
    match key.save(path) {
        Ok(()) => {
            let path = path.display();
            eprintln!("{path} is written. Copy it to the other node, readable for its owner only.");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let path = path.display();
            eprintln!("{path} exists and was not touched: a key in use is not overwritten");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{} cannot be written: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
