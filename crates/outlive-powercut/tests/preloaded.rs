//! Preloaded into programs that know nothing of it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Cargo puts it beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("liboutlive_powercut.so")
}

/// Runs a program on the disk.
fn run(root: &Path, program: &str, arguments: &[&str]) {
    let setting = format!("{}:{}", root.join("disk").display(), root.join("record").display());
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root.join("disk"))
        .env("LD_PRELOAD", library())
        .env("OUTLIVE_POWERCUT", setting)
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

#[test]
fn files_and_names_are_recorded_when_they_are_synchronised_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("disk")).unwrap();
    let file = root.join("disk").join("file");
    let names = || fs::read_to_string(root.join("record").join("names"));
    let content = || {
        let inode = fs::metadata(&file).unwrap().ino().to_string();
        fs::read(root.join("record").join("content").join(inode))
    };

    fs::write(&file, "one").unwrap();
    run(root, "sync", &["file"]);
    assert_eq!(content().unwrap(), b"one");
    assert!(names().is_err(), "of the directory nothing is certain");

    fs::write(&file, "one, two").unwrap();
    assert_eq!(content().unwrap(), b"one");
    run(root, "sync", &["."]);
    let inode = fs::metadata(&file).unwrap().ino();
    assert_eq!(names().unwrap(), format!("{inode} file\n"));
    assert_eq!(content().unwrap(), b"one", "the directory's synchronisation is not the file's");

    run(root, "sync", &["--data", "file"]);
    assert_eq!(content().unwrap(), b"one, two");
    let syncs = fs::read_to_string(root.join("record").join("syncs")).unwrap();
    let said: Vec<Vec<u128>> = syncs
        .lines()
        .map(|line| line.split(' ').map(|field| field.parse().unwrap()).collect())
        .collect();
    assert!(said.iter().map(|line| line[0]).is_sorted(), "{syncs}");
    let about: Vec<_> = said.iter().map(|line| (line[1], line[2])).collect();
    assert_eq!(about, [(3, inode.into()), (8, inode.into())]);
}
