//! Asking a running node.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{Done, Refusal, Report, Request};

/// A node whose event loop is alive answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a node gave no report.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens at the socket.
    #[error("no node is running here: nothing listens at the admin socket")]
    NotRunning,
    /// The socket is not for this user.
    #[error("the admin socket is not open to this user: ask as the user that the node runs as")]
    MayNot,
    /// It did not answer in time.
    #[error("the node does not answer: its event loop hangs")]
    NoAnswer,
    /// It does not know the question, or cannot do what it is told to.
    #[error("the node refuses: {0}")]
    Refused(String),
    /// It answered something else: another version.
    #[error("the node's answer is not understood; is it of another version? ({0})")]
    NotUnderstood(String),
    /// The system says so.
    #[error("the admin socket: {0}")]
    Io(io::Error),
}

/// Asks the node at the admin socket `path` how it is; gives the report, and its text as the node sent it.
///
/// # Errors
/// See [`AskError`].
pub fn ask(path: &Path) -> Result<(Report, String), AskError> {
    let answer = exchange(path, &Request::Status)?;
    let report = serde_json::from_str(&answer)
        .map_err(|error| AskError::NotUnderstood(error.to_string()))?;
    Ok((report, answer))
}

/// Tells the node at the admin socket `path` to do something; gives what it says that it has done.
///
/// # Errors
/// See [`AskError`].
pub fn order(path: &Path, request: &Request) -> Result<String, AskError> {
    let answer = exchange(path, request)?;
    let Done { done } = serde_json::from_str(&answer)
        .map_err(|error| AskError::NotUnderstood(error.to_string()))?;
    Ok(done)
}

fn exchange(path: &Path, request: &Request) -> Result<String, AskError> {
    let mut stream = UnixStream::connect(path).map_err(AskError::of)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(AskError::of)?;
    let mut question = serde_json::to_string(request)
        .map_err(|error| AskError::NotUnderstood(error.to_string()))?;
    question.push('\n');
    stream.write_all(question.as_bytes()).map_err(AskError::of)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(AskError::of)?;
    if let Ok(Refusal { error }) = serde_json::from_str(&answer) {
        return Err(AskError::Refused(error));
    }
    Ok(answer.trim_end().to_owned())
}

impl AskError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
            io::ErrorKind::PermissionDenied => AskError::MayNot,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::NoAnswer,
            _ => AskError::Io(error),
        }
    }
}
