//! The key that both nodes of a pair share: its file, and what is derived from it. Also the key of an external
//! detector, which is derived from it, too, but put into a file of its own: whoever watches a pair need not be able
//! to speak as one of its nodes. And the keys of targets, each of which can be used with that target only.
//!
//! The file is text, so that it survives being copied by hand: a first line that says what it
//! is, and 32 random bytes in hexadecimal. Whoever has it can speak as either node, so a file that
//! others may read is refused. Nothing uses the key itself: each purpose has a key of its own,
//! derived with HKDF-SHA-256 (RFC 5869) under a label, so that what one purpose reveals is of
//! no use to another.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use data_encoding::HEXLOWER_PERMISSIVE;
use hkdf::Hkdf;
use outlive_proxy::pair::heartbeat::HeartbeatKey;
use sha2::Sha256;

const FIRST_LINE: &str = "outlive pair key, version 1";
const WATCH_FIRST_LINE: &str = "outlive watch key, version 1";
const HOST_FIRST_LINE: &str = "outlive host key, version 1";
const SALT: &[u8] = b"outlive pair key 1";
const STATE_LABEL: &[u8] = b"state connection psk";
const HEARTBEAT_LABEL: &[u8] = b"heartbeat";
const WATCH_LABEL: &[u8] = b"external detector";
/// Followed by the target's name.
const HOST_LABEL: &[u8] = b"migration target ";
/// A valid file has less than a hundred bytes; what is longer is something else.
const LONGEST_FILE: u64 = 4_096;

/// The key that both nodes of a pair share.
#[derive(Clone, PartialEq, Eq)]
pub struct PairKey([u8; 32]);

impl PairKey {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// The operating system has none.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(PairKey(bytes))
    }

    /// The key as the text of a key file.
    pub fn to_text(&self) -> String {
        to_text(FIRST_LINE, &self.0)
    }

    /// Reads the text of a key file. Blank lines and blanks at the ends of lines are ignored.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`], [`KeyError::Damaged`].
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        from_text(FIRST_LINE, text).map(PairKey)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is not a key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_text(&read(path, FIRST_LINE)?)
    }

    /// Writes a new key file that only its owner may read (mode 0600).
    ///
    /// # Errors
    /// Whatever the system says; `AlreadyExists` if there is a file of that name: a key in use
    /// is never overwritten. What was begun is removed.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        save(path, &self.to_text())
    }

    /// The key of external detectors of this pair.
    pub fn watch(&self) -> WatchKey {
        WatchKey(self.derive(WATCH_LABEL))
    }

    /// The key of the target that the configuration of the nodes gives this name.
    pub fn host(&self, name: &str) -> HostKey {
        HostKey(self.derive(&[HOST_LABEL, name.as_bytes()].concat()))
    }

    /// The pre-shared key of the state connection's handshake.
    pub fn state_psk(&self) -> [u8; 32] {
        self.derive(STATE_LABEL)
    }

    /// The key under which heartbeats are authenticated.
    pub fn heartbeat(&self) -> HeartbeatKey {
        HeartbeatKey(self.derive(HEARTBEAT_LABEL))
    }

    fn derive<const N: usize>(&self, label: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        let derived = Hkdf::<Sha256>::new(Some(SALT), &self.0).expand(label, &mut out);
        // HKDF fails only beyond 255 hash lengths.
        assert!(derived.is_ok() && N > 0, "the length of a derived key is a constant in range");
        out
    }
}

/// Never shows the key.
impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKey")
    }
}

/// The key under which an external detector and the nodes of a pair talk. Nothing else can be learnt or done with
/// it: sessions, cookies and heartbeats are under other keys.
#[derive(Clone, PartialEq, Eq)]
pub struct WatchKey([u8; 32]);

impl WatchKey {
    /// The key as the text of a key file.
    pub fn to_text(&self) -> String {
        to_text(WATCH_FIRST_LINE, &self.0)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// As [`PairKey::load`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        from_text(WATCH_FIRST_LINE, &read(path, WATCH_FIRST_LINE)?).map(WatchKey)
    }

    /// Writes a new key file that only its owner may read (mode 0600).
    ///
    /// # Errors
    /// As [`PairKey::save`].
    pub fn save(&self, path: &Path) -> io::Result<()> {
        save(path, &self.to_text())
    }

    /// The key, as long as a block of SHA-256.
    pub(crate) fn block(&self) -> hmac::digest::Key<hmac::Hmac<Sha256>> {
        let mut block = hmac::digest::Key::<hmac::Hmac<Sha256>>::default();
        block[..self.0.len()].copy_from_slice(&self.0);
        block
    }
}

/// Never shows the key.
impl fmt::Debug for WatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchKey")
    }
}

/// The key under which the nodes of a pair and one target of migrations talk. The target can do nothing else with it,
/// and nothing with it elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey([u8; 32]);

impl HostKey {
    /// The key as the text of a key file.
    pub fn to_text(&self) -> String {
        to_text(HOST_FIRST_LINE, &self.0)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// As [`PairKey::load`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        from_text(HOST_FIRST_LINE, &read(path, HOST_FIRST_LINE)?).map(HostKey)
    }

    /// Writes a new key file that only its owner may read (mode 0600).
    ///
    /// # Errors
    /// As [`PairKey::save`].
    pub fn save(&self, path: &Path) -> io::Result<()> {
        save(path, &self.to_text())
    }

    /// The pre-shared key of the channel's handshake.
    pub fn psk(&self) -> [u8; 32] {
        self.0
    }
}

/// Never shows the key.
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey")
    }
}

fn to_text(first_line: &str, key: &[u8; 32]) -> String {
    format!("{first_line}\n{}\n", HEXLOWER_PERMISSIVE.encode(key))
}

fn from_text(first_line: &'static str, text: &str) -> Result<[u8; 32], KeyError> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    if lines.next() != Some(first_line) {
        return Err(KeyError::NotAKey { first_line });
    }
    let (Some(digits), None) = (lines.next(), lines.next()) else {
        return Err(KeyError::Damaged);
    };
    let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| KeyError::Damaged)?;
    bytes.try_into().map_err(|_| KeyError::Damaged)
}

fn read(path: &Path, first_line: &'static str) -> Result<String, KeyError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyError::Missing,
        kind => KeyError::Unreadable(kind),
    })?;
    let metadata = file.metadata().map_err(|error| KeyError::Unreadable(error.kind()))?;
    if !metadata.is_file() {
        return Err(KeyError::NotAKey { first_line });
    }
    // The open file's mode, not the path's: what is judged is what is read.
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::OthersMayRead { mode });
    }
    let mut text = String::new();
    match file.take(LONGEST_FILE).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeyError::NotAKey { first_line })
        }
        Err(error) => Err(KeyError::Unreadable(error.kind())),
    }
}

fn save(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Why a key file gives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not there.
    #[error("there is no such key file")]
    Missing,
    /// It cannot be opened or read.
    #[error("the key file cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// Others than the owner have access.
    #[error("the key file is open to others (mode {mode:04o})")]
    OthersMayRead {
        /// The lower nine bits of its mode.
        mode: u32,
    },
    /// It is something else, or a key for another purpose.
    #[error("the file is not such a key: its first line is not \"{first_line}\"")]
    NotAKey {
        /// What its first line should be.
        first_line: &'static str,
    },
    /// It is a key file, but not whole.
    #[error("the key file is damaged: 64 hexadecimal digits must follow its first line")]
    Damaged,
}

impl KeyError {
    /// What to do about it, for the key file at `path`.
    pub fn help(self, path: &Path) -> String {
        let path = path.display();
        match self {
            KeyError::Missing => {
                format!(
                    "make one with `outlive keygen --output {path}` and copy it to the other node"
                )
            }
            KeyError::Unreadable(_) => "run as the owner of the file".to_owned(),
            KeyError::OthersMayRead { .. } => format!("close it with `chmod 600 {path}`"),
            KeyError::NotAKey { .. } | KeyError::Damaged => {
                "name the file that `outlive keygen` made, or copy it again from the other node"
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOT_A_KEY: KeyError = KeyError::NotAKey { first_line: FIRST_LINE };
    const EXAMPLE: &str = "outlive pair key, version 1\n\
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

    #[test]
    fn a_saved_key_is_private_and_loads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pair.key");
        let key = PairKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(PairKey::load(&path).unwrap() == key);
        assert_eq!(key.save(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(PairKey::load(&path), Err(KeyError::OthersMayRead { mode: 0o640 }));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let bad = |text: &str| PairKey::from_text(text).unwrap_err();
        assert_eq!(bad(""), NOT_A_KEY);
        assert_eq!(bad("-----BEGIN PRIVATE KEY-----"), NOT_A_KEY);
        assert_eq!(bad(&EXAMPLE[..EXAMPLE.len() - 3]), KeyError::Damaged);
        assert_eq!(bad(&EXAMPLE.replace("0a", "zz")), KeyError::Damaged);
        assert_eq!(bad(&format!("{EXAMPLE}more")), KeyError::Damaged);
        assert_eq!(bad(FIRST_LINE), KeyError::Damaged);
        let missing = PairKey::load(Path::new("/nonexistent/pair.key")).unwrap_err();
        assert_eq!(missing, KeyError::Missing);
        assert_eq!(PairKey::load(Path::new("/")), Err(NOT_A_KEY));
    }

    #[test]
    fn the_watch_key_is_a_key_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watch.key");
        let key = PairKey::from_text(EXAMPLE).unwrap().watch();
        key.save(&path).unwrap();
        assert!(WatchKey::load(&path).unwrap() == key);
        assert_eq!(PairKey::load(&path), Err(NOT_A_KEY));
        assert_eq!(format!("{key:?}"), "WatchKey");
        // Golden, as below.
        assert_eq!(
            key.to_text(),
            "outlive watch key, version 1\n955c7dd8fcb613d2050b5f335da3754b5540b237efc4e31309d66418a14198f6\n"
        );
    }

    #[test]
    fn each_target_has_a_key_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.key");
        let pair = PairKey::from_text(EXAMPLE).unwrap();
        let key = pair.host("web1");
        key.save(&path).unwrap();
        assert!(HostKey::load(&path).unwrap() == key);
        assert_eq!(PairKey::load(&path), Err(NOT_A_KEY));
        assert!(key != pair.host("web2") && key.psk() != pair.watch().0);
        assert_eq!(format!("{key:?}"), "HostKey");
        // Golden, as below.
        assert_eq!(
            key.to_text(),
            "outlive host key, version 1\n8a90973ce1bd60d1f238002bacb76072cd178bdf213638a355c2a22433c85762\n"
        );
    }

    #[test]
    fn derived_keys_do_not_change() {
        let key = PairKey::from_text(&EXAMPLE.replace('\n', " \r\n\n")).unwrap();
        assert_eq!(PairKey::from_text(EXAMPLE).unwrap(), key);
        assert_eq!(key.to_text(), EXAMPLE);
        assert_eq!(format!("{key:?}"), "PairKey");
        // Golden: two versions of the program must derive the same.
        let hex = |bytes: &[u8]| HEXLOWER_PERMISSIVE.encode(bytes);
        assert_eq!(
            (hex(&key.state_psk()).as_str(), hex(&key.heartbeat().0).as_str()),
            (
                "6e252561f6d4f1d74e4597879dac2ed36b7c472e0d906c27ae4c07b94c6412cc",
                "8d095899582191cbff65c68e22fe335d"
            )
        );
    }
}
