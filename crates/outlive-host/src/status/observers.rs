//! The threads that answer: JSON on a Unix socket, metrics over HTTP.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Shared, metrics};
use crate::settings::Settings;

/// What one who asks may take to ask, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request's line and headers; what is longer is no scraper's.
const LONGEST: usize = 8_192;
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The threads. Dropping it ends them.
pub(crate) struct Observers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    socket: PathBuf,
    metrics: Option<SocketAddr>,
}

impl Observers {
    pub(crate) fn start(settings: &Settings, shared: &Arc<Shared>) -> io::Result<Self> {
        let socket = settings.status_socket.clone();
        let unix = bind(&socket)?;
        let mut observers = Observers {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            socket,
            metrics: None,
        };
        let (stop, status) = (observers.stop.clone(), shared.clone());
        observers.spawn("status", move || {
            for stream in unix.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                // One that goes away is its own business.
                let _ = stream.and_then(|stream| tell(stream, &status));
            }
        })?;
        if let Some(address) = &settings.metrics {
            let listener = TcpListener::bind(address.value)?;
            observers.metrics = Some(address.value);
            let (stop, status) = (observers.stop.clone(), shared.clone());
            observers.spawn("metrics", move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    let _ = stream.and_then(|stream| scrape(stream, &status));
                }
            })?;
        }
        Ok(observers)
    }

    fn spawn(&mut self, name: &str, action: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(action)?);
        Ok(())
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Each waits for somebody to come.
        let woken = UnixStream::connect(&self.socket).is_ok();
        let others = self.metrics.is_none_or(|address| TcpStream::connect(address).is_ok());
        let _ = fs::remove_file(&self.socket);
        if woken && others {
            for thread in self.threads.drain(..) {
                // A thread that panicked has said so itself.
                let _ = thread.join();
            }
        }
    }
}

/// A file that a killed agent has left behind is replaced.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn tell(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{:#}", shared.latest().to_json())
}

fn scrape(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => request.extend_from_slice(&buffer[..len]),
        }
        if request.len() > LONGEST {
            return Ok(());
        }
    }
    let found = request.starts_with(b"GET /metrics ");
    let (status, body) = match found {
        true => ("200 OK", metrics::text(&shared.latest())),
        false => ("404 Not Found", "ask for /metrics\n".to_owned()),
    };
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}
