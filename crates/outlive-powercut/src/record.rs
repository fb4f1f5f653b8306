//! The record: what would survive.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What is written in one piece, so that a process that is killed leaves whole pieces.
const PIECE: usize = 1 << 20;

/// A disk and its record, as one process keeps it.
#[derive(Debug)]
pub(crate) struct Record {
    disk: PathBuf,
    directory: PathBuf,
    delay: Duration,
    /// Files (inodes) of which the content recorded is known to be their beginning: this process has recorded them
    /// before, and appended since.
    grows: HashSet<u64>,
}

/// A file that is about to be synchronised.
#[derive(Debug)]
pub(crate) enum Watched {
    /// With that length, which will be durable.
    File { inode: u64, len: u64 },
    /// The directory itself.
    Disk,
}

impl Record {
    /// By what the environment says: `DISK:RECORD`, and microseconds.
    pub(crate) fn new(setting: &str, delay_us: Option<&str>) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let (disk, directory) =
            setting.split_once(':').ok_or_else(|| invalid("not DISK:RECORD"))?;
        let delay = delay_us.map_or(Ok(0), str::parse).map_err(|_| invalid("not microseconds"))?;
        let directory = PathBuf::from(directory);
        fs::create_dir_all(directory.join("content"))?;
        let disk = fs::canonicalize(disk)?;
        let delay = Duration::from_micros(delay);
        Ok(Record { disk, directory, delay, grows: HashSet::new() })
    }

    /// Whether what is open there is on the disk; `path`: where it was opened. To be asked before it is synchronised.
    pub(crate) fn watched(&self, file: &File, path: &Path) -> io::Result<Option<Watched>> {
        if path == self.disk {
            return Ok(Some(Watched::Disk));
        }
        if path.parent() != Some(&self.disk) {
            return Ok(None);
        }
        let about = file.metadata()?;
        Ok(Some(Watched::File { inode: about.ino(), len: about.len() }))
    }

    /// The file has been given another length: what is recorded need not be its beginning any more.
    pub(crate) fn truncated(&mut self, file: &File) -> io::Result<()> {
        self.grows.remove(&file.metadata()?.ino());
        Ok(())
    }

    /// It has been synchronised. `path`: where it can be read. `appends`: what is written through it goes to its end.
    pub(crate) fn synchronised(
        &mut self,
        what: &Watched,
        path: &Path,
        appends: bool,
    ) -> io::Result<()> {
        thread::sleep(self.delay);
        match *what {
            Watched::Disk => self.keep_names(),
            Watched::File { inode, len } => {
                self.keep_content(inode, len, path)?;
                if appends {
                    self.grows.insert(inode);
                } else {
                    self.grows.remove(&inode);
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let line = format!("{} {len} {inode}\n", now.as_nanos());
                self.append("syncs")?.write_all(line.as_bytes())
            }
        }
    }

    fn keep_content(&self, inode: u64, len: u64, path: &Path) -> io::Result<()> {
        let kept = self.directory.join("content").join(inode.to_string());
        let mut file = File::open(path)?;
        let known = fs::metadata(&kept).map_or(0, |about| about.len());
        if self.grows.contains(&inode) && known <= len {
            let from = file.seek(SeekFrom::Start(known))?;
            let mut to = OpenOptions::new().append(true).open(&kept)?;
            return copy(&mut file, &mut to, len - from);
        }
        let (new, mut to) = self.new_file("content")?;
        copy(&mut file, &mut to, len)?;
        fs::rename(new, kept)
    }

    fn keep_names(&self) -> io::Result<()> {
        let (new, mut to) = self.new_file("names")?;
        for entry in fs::read_dir(&self.disk)? {
            let entry = entry?;
            writeln!(to, "{} {}", entry.ino(), entry.file_name().to_string_lossy())?;
        }
        fs::rename(new, self.directory.join("names"))
    }

    fn new_file(&self, name: &str) -> io::Result<(PathBuf, File)> {
        let path = self.directory.join(format!("{name}.new"));
        let file = File::create(&path)?;
        Ok((path, file))
    }

    fn append(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.directory.join(name))
    }
}

/// Exactly so many bytes.
fn copy(mut from: impl Read, to: &mut File, len: u64) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE.min(len as usize));
    let mut left = len;
    while left > 0 {
        piece.clear();
        let wanted = left.min(PIECE as u64);
        let count = (&mut from).take(wanted).read_to_end(&mut piece)? as u64;
        if count < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&piece)?;
        left -= count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is recorded of the content of the only file.
    fn kept(record: &Path) -> Vec<u8> {
        let mut files = fs::read_dir(record.join("content")).unwrap();
        let kept = fs::read(files.next().unwrap().unwrap().path()).unwrap();
        assert!(files.next().is_none());
        kept
    }

    #[test]
    fn the_content_is_as_it_was_when_it_was_synchronised() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, kept_in) = (directory.path().join("disk"), directory.path().join("record"));
        fs::create_dir(&disk).unwrap();
        let path = disk.join("log");
        let setting = format!("{}:{}", disk.display(), kept_in.display());
        let mut record = Record::new(&setting, None).unwrap();
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let synchronise = |record: &mut Record, file: &File, late: &[u8]| {
            let watched = record.watched(file, &path).unwrap().unwrap();
            // While it synchronises, more is written: nobody knows of that.
            (&*file).write_all(late).unwrap();
            record.synchronised(&watched, &path, true).unwrap();
        };

        file.write_all(b"one ").unwrap();
        synchronise(&mut record, &file, b"");
        file.write_all(b"two ").unwrap();
        assert_eq!(kept(&kept_in), b"one ");
        synchronise(&mut record, &file, b"late");
        assert_eq!(kept(&kept_in), b"one two ");

        // Shorter, and then as long as before: nothing of what was there is left.
        file.set_len(0).unwrap();
        record.truncated(&file).unwrap();
        file.write_all(b"another one ").unwrap();
        synchronise(&mut record, &file, b"");
        assert_eq!(kept(&kept_in), b"another one ");

        // Another process knows nothing of what this one has recorded.
        file.set_len(0).unwrap();
        file.write_all(b"once more, and longer ").unwrap();
        let mut record = Record::new(&setting, None).unwrap();
        synchronise(&mut record, &file, b"");
        assert_eq!(kept(&kept_in), b"once more, and longer ");

        let syncs = fs::read_to_string(kept_in.join("syncs")).unwrap();
        let lengths: Vec<&str> = syncs.lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
        assert_eq!(lengths, ["4", "8", "12", "22"]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let setting = format!("{}:{}", disk.display(), directory.path().join("record").display());
        let record = Record::new(&setting, Some("1")).unwrap();
        let file = tempfile::tempfile().unwrap();
        for path in [directory.path().join("file"), disk.join("below").join("file")] {
            assert!(record.watched(&file, &path).unwrap().is_none());
        }
        assert!(matches!(record.watched(&file, &disk).unwrap(), Some(Watched::Disk)));
        assert!(Record::new("no record", None).is_err());
        assert!(Record::new(&setting, Some("soon")).is_err());
    }
}
