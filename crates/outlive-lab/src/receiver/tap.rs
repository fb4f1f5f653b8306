//! A listener at a host's interface: what passes between senders and receivers, with its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use outlive_net::capture::Capture;

use super::evidence::Heard;
use crate::attack::Segment;
use crate::error::LabError;
use crate::host::Host;
use crate::link::INTERFACE;

/// All headers, and enough of a payload to see whose it is.
const CAPTURED: usize = 512;

/// How long it waits for a frame before it looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

/// Listens until it is asked what it has heard.
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<(Heard, u32)>>,
}

impl Tap {
    /// Begins to listen at `host`.
    pub(crate) fn on(host: &Host, service: SocketAddr) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("listening to an interface", error);
        let link = host.namespace().netlink()?.link(INTERFACE)?.index;
        let capture = host.enter(|| Capture::open(link, GLANCE))?.map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || listen(&capture, service, &asked))
            .map_err(failed)?;
        Ok(Tap { stop, thread })
    }

    /// What it has heard, and how many frames it has missed.
    pub(crate) fn finish(self) -> Result<(Heard, u32), LabError> {
        self.stop.store(true, Ordering::Release);
        let panicked = || std::io::Error::other("the listener has panicked");
        let heard = self.thread.join().unwrap_or_else(|_| Err(panicked()));
        heard.map_err(|error| LabError::Traffic("listening to an interface", error))
    }
}

/// Until it is asked to stop and nothing is left.
fn listen(
    capture: &Capture,
    service: SocketAddr,
    stop: &AtomicBool,
) -> std::io::Result<(Heard, u32)> {
    let mut heard = Heard::default();
    let mut buffer = [0; CAPTURED];
    loop {
        match capture.receive(&mut buffer)? {
            Some(frame) => {
                if let Some((segment, next)) = Segment::captured(&buffer[..frame.len]) {
                    heard.segment(frame.at, &segment, next, service);
                }
            }
            None if stop.load(Ordering::Acquire) => return Ok((heard, capture.missed()?)),
            None => {}
        }
    }
}
