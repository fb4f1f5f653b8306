//! The coverage-guided fuzzer: libFuzzer around the target that the environment names. See `./fuzz`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outlive_fuzz::Target;

/// libFuzzer takes the arguments for itself.
static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("OUTLIVE_FUZZ_TARGET").unwrap_or_default();
    let known = || outlive_fuzz::TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(" ");
    outlive_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("OUTLIVE_FUZZ_TARGET must be one of: {}", known());
        std::process::exit(2)
    })
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
