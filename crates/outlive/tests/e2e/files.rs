//! Files with random content, and their comparison.

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::Path,
};

/// Writes a file of `len` bytes that `seed` determines.
pub(crate) fn write_random(path: &Path, len: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut chunk = vec![0; 64 << 10];
    let mut left = len;
    while left > 0 {
        let part = left.min(chunk.len());
        random.fill(&mut chunk[..part]);
        file.write_all(&chunk[..part]).unwrap();
        left -= part;
    }
    file.flush().unwrap();
}

/// Makes a directory tree of about `len` bytes: many small files, a few large ones, a link, an empty
/// directory.
pub(crate) fn write_random_tree(root: &Path, len: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut left = len;
    for number in 0.. {
        let directory = root.join(format!("{}/{}", number % 7, number % 3));
        fs::create_dir_all(&directory).unwrap();
        let size = if number % 20 == 0 { len / 8 } else { random.usize(0..len / 200) };
        let size = size.min(left);
        write_random(&directory.join(format!("file-{number}")), size, random.u64(..));
        left -= size;
        if left == 0 {
            break;
        }
    }
    fs::create_dir(root.join("empty")).unwrap();
    std::os::unix::fs::symlink("0/0/file-0", root.join("link")).unwrap();
}

/// Both files must have the same content.
pub(crate) fn assert_same_file(one: &Path, other: &Path) {
    let mut files = [one, other]
        .map(|path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let names = format!("{} and {}", one.display(), other.display());
    let lens = files.each_ref().map(|file| file.metadata().unwrap().len());
    assert_eq!(lens[0], lens[1], "lengths of {names}");
    let mut chunks = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut at = 0;
    while at < lens[0] {
        let part = (lens[0] - at).min(1 << 20) as usize;
        for (file, chunk) in files.iter_mut().zip(&mut chunks) {
            file.read_exact(&mut chunk[..part]).unwrap();
        }
        let [left, right] = chunks.each_ref().map(|chunk| &chunk[..part]);
        if left != right {
            let first = left.iter().zip(right).position(|(left, right)| left != right);
            panic!("{names} differ at byte {}", at + first.unwrap_or(0) as u64);
        }
        at += part as u64;
    }
}

/// Both trees must have the same entries with the same content; returns how many.
pub(crate) fn assert_same_tree(one: &Path, other: &Path) -> usize {
    let entries = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let names = entries(one);
    assert_eq!(names, entries(other), "in {} and {}", one.display(), other.display());
    let mut count = names.len();
    for name in names {
        let (one, other) = (one.join(&name), other.join(&name));
        let kinds = [&one, &other].map(|path| fs::symlink_metadata(path).unwrap().file_type());
        assert_eq!(kinds[0], kinds[1], "{}", other.display());
        if kinds[0].is_dir() {
            count += assert_same_tree(&one, &other);
        } else if kinds[0].is_symlink() {
            assert_eq!(fs::read_link(&one).unwrap(), fs::read_link(&other).unwrap());
        } else {
            assert_same_file(&one, &other);
        }
    }
    count
}
