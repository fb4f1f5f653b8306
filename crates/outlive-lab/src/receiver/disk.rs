//! A disk that can lose its power.
//!
//! A directory, and beside it the record that `outlive-powercut`, preloaded into the program, keeps of what is durable.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How much longer a synchronisation takes than it would: what does not wait for it would hardly show otherwise.
const DELAY: Duration = Duration::from_millis(2);

/// A directory of a program's files.
#[derive(Debug)]
pub(crate) struct Disk {
    files: PathBuf,
    record: PathBuf,
    /// The library that records what is durable; nothing if nobody wants to know.
    library: Option<PathBuf>,
}

/// A synchronisation of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sync {
    /// When it was complete, since 1970 by the wall clock.
    pub(crate) at: Duration,
    /// Bytes of the file that were durable then.
    pub(crate) len: u64,
}

impl Disk {
    /// An empty disk in that directory.
    pub(crate) fn new(directory: &Path, library: Option<&Path>) -> io::Result<Self> {
        let (files, record) = (directory.join("disk"), directory.join("record"));
        fs::create_dir(&files)?;
        fs::create_dir_all(record.join("content"))?;
        Ok(Disk { files, record, library: library.map(Path::to_owned) })
    }

    /// Where a file of that name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// Lets the program that `command` starts record what is durable, if that is wanted.
    pub(crate) fn equip(&self, command: &mut Command) {
        if let Some(library) = &self.library {
            let both = format!("{}:{}", self.files.display(), self.record.display());
            command.env("LD_PRELOAD", library);
            command.env("OUTLIVE_POWERCUT", both);
            command.env("OUTLIVE_POWERCUT_DELAY_US", DELAY.as_micros().to_string());
        }
    }

    /// Takes away what was not durable, when the program is gone: bytes since the last synchronisation of each file,
    /// files since that of the directory. Gives how many bytes that were.
    pub(crate) fn cut(&self) -> io::Result<u64> {
        let names = self.names()?;
        let mut lost = 0;
        for entry in fs::read_dir(&self.files)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let before = entry.metadata()?.len();
            let kept = self.kept(entry.ino());
            if names.get(&name) != Some(&entry.ino()) {
                fs::remove_file(entry.path())?;
                lost += before;
            } else if kept.exists() {
                // The same file, with another content: it stays the one that its directory knows.
                let mut file = OpenOptions::new().write(true).truncate(true).open(entry.path())?;
                let after = io::copy(&mut File::open(kept)?, &mut file)?;
                lost += before.saturating_sub(after);
            } else {
                OpenOptions::new().write(true).truncate(true).open(entry.path())?;
                lost += before;
            }
        }
        Ok(lost)
    }

    /// All synchronisations of that file so far, in their order.
    pub(crate) fn syncs(&self, name: &str) -> io::Result<Vec<Sync>> {
        let inode = fs::metadata(self.path(name))?.ino();
        let told = read_if_there(&self.record.join("syncs"))?;
        let sync = |line: &str| {
            let mut fields = line.split(' ').map(str::parse);
            let (Some(Ok(at)), Some(Ok(len)), Some(Ok(of))) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            Ok((of == inode).then_some(Sync { at: Duration::from_nanos(at), len }))
        };
        told.lines().filter_map(|line| sync(line).transpose()).collect()
    }

    /// What the directory is known to hold: inodes by name.
    fn names(&self) -> io::Result<HashMap<String, u64>> {
        let told = read_if_there(&self.record.join("names"))?;
        let entry = |line: &str| {
            let (inode, name) = line.split_once(' ')?;
            Some((name.to_owned(), inode.parse().ok()?))
        };
        Ok(told.lines().filter_map(entry).collect())
    }

    fn kept(&self, inode: u64) -> PathBuf {
        self.record.join("content").join(inode.to_string())
    }
}

fn read_if_there(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_leaves_what_was_durable_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path(), None).unwrap();
        let inode = |name| fs::metadata(disk.path(name)).unwrap().ino();
        for (name, content) in [("whole", "abc"), ("half", "abcdef"), ("empty", "x"), ("new", "y")]
        {
            fs::write(disk.path(name), content).unwrap();
        }
        let record = directory.path().join("record");
        let names = ["whole", "half", "empty"].map(|name| format!("{} {name}\n", inode(name)));
        fs::write(record.join("names"), names.concat()).unwrap();
        fs::write(disk.kept(inode("whole")), "abc").unwrap();
        fs::write(disk.kept(inode("half")), "abcd").unwrap();
        fs::write(disk.kept(inode("new")), "y").unwrap();
        let syncs = [(7, 1, "half"), (8, 3, "whole"), (9, 4, "half")]
            .map(|(at, len, name)| format!("{at} {len} {}\n", inode(name)));
        fs::write(record.join("syncs"), syncs.concat()).unwrap();

        assert_eq!(disk.cut().unwrap(), 2 + 1 + 1);
        let content = |name| fs::read_to_string(disk.path(name)).ok();
        let left = ["whole", "half", "empty", "new"].map(content);
        assert_eq!(left, [Some("abc"), Some("abcd"), Some(""), None].map(|c| c.map(Into::into)));
        let sync = |at, len| Sync { at: Duration::from_nanos(at), len };
        assert_eq!(disk.syncs("half").unwrap(), [sync(7, 1), sync(9, 4)]);
        assert_eq!(disk.cut().unwrap(), 0);
    }
}
