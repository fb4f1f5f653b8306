//! Every input that ever showed something is run again, and a fixed number of mutations of them.

use std::{fs, path::PathBuf};

use outlive_fuzz::{Target, mutate::Mutator};

/// Mutated inputs of each target: a few seconds of all of them together.
const MUTATIONS: usize = 3_000;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no corpus", target.name);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn replay(name: &str) {
    let target = outlive_fuzz::target(name).unwrap();
    let corpus = corpus(target);
    for input in &corpus {
        run(target, input);
    }
    let mut mutator = Mutator::new(1);
    for _ in 0..MUTATIONS {
        run(target, &mutator.mutate(&corpus, target.max_len));
    }
}

/// Prints the input that fails, so that it can be made a file of the corpus.
fn run(target: &Target, input: &[u8]) {
    struct OnPanic<'a>(&'a str, &'a [u8]);
    impl Drop for OnPanic<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("{} fails with: {hex}", self.0);
            }
        }
    }
    let _report = OnPanic(target.name, input);
    (target.run)(input);
}

macro_rules! replays {
    ($($name:ident)+) => {
        $(#[test] fn $name() { replay(stringify!($name)); })+

        #[test]
        fn no_target_is_left_out() {
            let here = [$(stringify!($name)),+];
            assert!(outlive_fuzz::TARGETS.iter().all(|target| here.contains(&target.name)));
        }
    };
}

replays! {
    packets replication channel heartbeats inspection icmp translation cookies endpoint blob migration tunnel stack settings
}
