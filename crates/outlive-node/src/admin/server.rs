//! The node's end of the admin socket: a few clients at a time, none of which can make it wait.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mio::{
    Interest, Registry, Token,
    net::{UnixListener, UnixStream},
};

use super::{Answer, Request};

/// Clients at a time; others are turned away.
const CLIENTS: usize = 8;
/// Bytes of a request, and of answers that a client has not read.
const MAX_REQUEST: usize = 4_096;
const MAX_BACKLOG: usize = 1 << 20;

/// The listening socket and its clients. Dropping it removes the socket's file.
pub struct AdminServer {
    path: PathBuf,
    /// A directory that was made for it.
    made_directory: Option<PathBuf>,
    registry: Registry,
    first_token: usize,
    listener: UnixListener,
    acceptable: bool,
    clients: [Option<Client>; CLIENTS],
}

struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    answers: Vec<u8>,
    ready: bool,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A node listens there.
    #[error("another node is running: it listens at the admin socket {}", .0.display())]
    InUse(PathBuf),
    /// There is a file of that name that is not a socket.
    #[error("{} is in the way of the admin socket", .0.display())]
    InTheWay(PathBuf),
    /// The system says so.
    #[error("the admin socket {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

impl AdminServer {
    /// How many tokens it uses, from the first one on.
    pub const TOKENS: usize = CLIENTS + 1;

    /// Listens at `path`, for the node's own user only. The file of a node that was killed is replaced;
    /// a missing directory is made.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, registry: &Registry, first_token: usize) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io { path: path.to_owned(), error };
        let made_directory = make_directory(path).map_err(failed)?;
        remove_leftover(path)?;
        let mut listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let registry = registry.try_clone().map_err(failed)?;
        let token = Token(first_token);
        registry.register(&mut listener, token, Interest::READABLE).map_err(failed)?;
        Ok(AdminServer {
            path: path.to_owned(),
            made_directory,
            registry,
            first_token,
            listener,
            acceptable: true,
            clients: [const { None }; CLIENTS],
        })
    }

    /// Remembers that a socket is ready. Tokens of others are ignored.
    pub fn handle_ready(&mut self, token: Token) {
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.acceptable = true,
            Some(number) => {
                if let Some(Some(client)) = self.clients.get_mut(number - 1) {
                    client.ready = true;
                }
            }
            None => {}
        }
    }

    /// Accepts, reads and answers as far as that is possible now. `fulfil` is asked for each request, and again later
    /// if it has no answer yet. Returns whether somebody waits for one.
    pub fn drive(&mut self, mut fulfil: impl FnMut(Request) -> Option<Answer>) -> bool {
        let mut waits = false;
        while self.acceptable {
            match self.listener.accept() {
                Ok((stream, _)) => self.accepted(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.acceptable = false,
            }
        }
        for place in &mut self.clients {
            let Some(client) = place.as_mut().filter(|client| client.ready) else { continue };
            match client.drive(&mut fulfil) {
                Ok(()) => waits |= client.ready,
                Err(()) => {
                    if let Some(mut client) = place.take() {
                        // Closing the descriptor would do, too.
                        let _ = self.registry.deregister(&mut client.stream);
                    }
                }
            }
        }
        waits
    }

    fn accepted(&mut self, mut stream: UnixStream) {
        let Some(number) = self.clients.iter().position(Option::is_none) else { return };
        let token = Token(self.first_token + 1 + number);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut stream, token, interest).is_ok() {
            self.clients[number] =
                Some(Client { stream, received: Vec::new(), answers: Vec::new(), ready: true });
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // Best effort; a leftover is replaced at the next start.
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = &self.made_directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Client {
    /// # Errors
    /// The client is done, or not one of ours.
    fn drive(&mut self, fulfil: &mut impl FnMut(Request) -> Option<Answer>) -> Result<(), ()> {
        let mut buffer = [0; 1_024];
        let mut ended = false;
        let mut waits = self.answer(fulfil)?;
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
            waits = self.answer(fulfil)?;
        }
        while !self.answers.is_empty() {
            match self.stream.write(&self.answers) {
                Ok(len) => drop(self.answers.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
        self.ready = waits;
        if ended && !waits && self.answers.is_empty() { Err(()) } else { Ok(()) }
    }

    /// Answers what has been asked, in order. Returns whether the answer to something has to be waited for.
    fn answer(&mut self, fulfil: &mut impl FnMut(Request) -> Option<Answer>) -> Result<bool, ()> {
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let answer = match serde_json::from_slice(&self.received[..end]) {
                Ok(request) => fulfil(request),
                Err(error) => Some(Answer::refusal(error)),
            };
            let Some(answer) = answer else { return Ok(true) };
            self.received.drain(..=end);
            self.answers.extend(serde_json::to_vec(&answer).map_err(|_| ())?);
            self.answers.push(b'\n');
        }
        let too_much = self.received.len() > MAX_REQUEST || self.answers.len() > MAX_BACKLOG;
        if too_much { Err(()) } else { Ok(false) }
    }
}

/// Makes the directory of `path` if it is not there; says which one it made.
fn make_directory(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() && !directory.exists() => {
            fs::create_dir(directory)?;
            Ok(Some(directory.to_owned()))
        }
        _ => Ok(None),
    }
}

fn remove_leftover(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(OpenError::InTheWay(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(OpenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| OpenError::Io { path: path.to_owned(), error })
        }
        Err(error) => Err(OpenError::Io { path: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        time::Duration,
    };

    use mio::{Events, Poll};

    use super::*;
    use crate::admin::{AskError, ask, order, report::tests::example};

    /// Serves from a directory of its own while `ask_it` runs.
    fn with_server(ask_it: impl FnOnce(&Path) + Send) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made").join("admin.sock");
        let mut poll = Poll::new().unwrap();
        let mut server = AdminServer::open(&path, poll.registry(), 5).unwrap();
        let (done, looks) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ask_it(&path);
                done.store(true, Ordering::Release);
            });
            let mut events = Events::with_capacity(8);
            while !done.load(Ordering::Acquire) {
                poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
                events.iter().for_each(|event| server.handle_ready(event.token()));
                while server.drive(|request| {
                    Some(match request {
                        // It takes some looking.
                        Request::Status if looks.fetch_add(1, Ordering::Relaxed) % 3 < 2 => {
                            return None;
                        }
                        Request::Status => Box::new(example()).into(),
                        Request::Reload => Answer::done("nothing is different"),
                        Request::Drain { .. } | Request::Undrain { .. } => Answer::done("0"),
                        Request::HandOver => Answer::refusal("not now"),
                    })
                }) {}
            }
        });
        drop(server);
        assert!(!path.parent().unwrap().exists(), "something was left behind");
    }

    #[test]
    fn a_question_is_answered_as_often_as_it_is_asked() {
        with_server(|path| {
            for _ in 0..20 {
                let (report, text) = ask(path).unwrap();
                assert_eq!(report, example());
                assert!(text.starts_with('{') && !text.contains('\n'));
            }
            assert_eq!(order(path, &Request::Reload).unwrap(), "nothing is different");
            let refused = order(path, &Request::HandOver);
            assert!(matches!(refused, Err(AskError::Refused(reason)) if reason == "not now"));
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }

    #[test]
    fn what_is_not_a_question_is_refused_and_does_no_harm() {
        with_server(|path| {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            stream.write_all(b"{\"command\":\"reboot\"}\nnonsense\n").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            assert_eq!(answers.lines().count(), 2);
            assert!(answers.lines().all(|line| line.starts_with("{\"error\":")), "{answers}");
            // One that never ends is cut off.
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            while stream.write_all(&[b'x'; 1_000]).is_ok() {}
            // Clients that say nothing take their places only.
            let silent: Vec<_> = (0..CLIENTS - 1)
                .map(|_| std::os::unix::net::UnixStream::connect(path).unwrap())
                .collect();
            assert!(ask(path).is_ok());
            drop(silent);
        });
    }

    #[test]
    fn a_running_node_is_not_replaced_but_a_leftover_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        assert!(matches!(ask(&path), Err(AskError::NotRunning)));
        let poll = Poll::new().unwrap();
        let first = AdminServer::open(&path, poll.registry(), 0).unwrap();
        let second = AdminServer::open(&path, poll.registry(), 20);
        assert!(matches!(second.err(), Some(OpenError::InUse(_))));
        drop(first);
        // As a killed process leaves it: a socket that nobody listens at.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(AdminServer::open(&path, poll.registry(), 40).is_ok());
        fs::write(&path, "mine").unwrap();
        let in_the_way = AdminServer::open(&path, poll.registry(), 60);
        assert!(matches!(in_the_way.err(), Some(OpenError::InTheWay(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
