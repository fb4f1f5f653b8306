//! Directories of a lab: gone when it ends, and those of a lab that was killed when the next one starts.
//!
//! The name says whose a directory is: `outlive-lab-PID-...`. One whose process is no more can be
//! nobody's.

use std::path::Path;
use std::sync::Once;
use std::{fs, io, process};

use tempfile::TempDir;

const PREFIX: &str = "outlive-lab-";

/// A new directory, removed when dropped. The first one of a process also removes what others left.
pub(crate) fn directory() -> io::Result<TempDir> {
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| sweep(&std::env::temp_dir()));
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", process::id())).tempdir()
}

/// Removes the directories in `parent` whose owners have ended. What cannot be removed belongs to
/// somebody else.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        let Some(owner) = owner.and_then(|(id, _)| id.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_owns_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
            path
        };
        // No process has an id above the kernel's highest limit.
        let dead = make(format!("{PREFIX}{}-a1b2", (1 << 22) + 1));
        let mine = make(format!("{PREFIX}{}-a1b2", process::id()));
        let nobody_knows = make(format!("{PREFIX}a1b2"));
        let others = make("something-else".to_owned());
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(mine.exists() && nobody_knows.exists() && others.exists());
    }
}
