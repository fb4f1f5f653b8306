//! Metrics in the Prometheus text format, over HTTP.
//!
//! A thread of its own speaks with whoever asks, however slowly. The event loop is asked for a [`Report`] only then, and
//! counts its sessions a little at a time, so that a million of them hold up no packet.
//!
//! | part | is |
//! |---|---|
//! | [`Metrics`] | the event loop's side |
//! | `http` | the thread |
//! | [`text`] | a report as Prometheus reads it |

mod http;
#[cfg(test)]
mod tests;
pub mod text;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use mio::Waker;
use outlive_proxy::survey::Survey;

use crate::admin::Report;

/// The event loop's side. Dropping it ends the thread.
pub struct Metrics {
    shared: Arc<Shared>,
    reports: mpsc::Sender<Report>,
    survey: Option<Survey>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Somebody waits for a report.
    wanted: AtomicBool,
    stop: AtomicBool,
}

impl Metrics {
    /// Listens, in the network namespace of the calling thread, and starts the thread. `main` wakes the event loop.
    ///
    /// # Errors
    /// The address cannot be had, or there can be no thread.
    pub fn start(listen: SocketAddr, main: Arc<Waker>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let shared =
            Arc::new(Shared { wanted: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let (reports, incoming) = mpsc::channel();
        let server = http::Server::new(listener, shared.clone(), incoming, main)?;
        let waker = server.waker();
        let thread =
            std::thread::Builder::new().name("metrics".to_owned()).spawn(move || server.run())?;
        Ok(Metrics { shared, reports, survey: None, waker, thread: Some(thread) })
    }

    /// The survey to go on with, if somebody wants a report. When it is complete, [`give`](Self::give) one.
    pub fn wanted(&mut self) -> Option<&mut Survey> {
        if self.survey.is_none() && self.shared.wanted.swap(false, Ordering::Acquire) {
            self.survey = Some(Survey::new());
        }
        self.survey.as_mut()
    }

    /// A report for whoever asked.
    pub fn give(&mut self, report: Report) {
        // The thread ends only with this.
        let _ = self.reports.send(report);
        self.survey = None;
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Without it the thread looks within a second.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}
