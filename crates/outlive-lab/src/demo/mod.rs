//! The demo: what a newcomer runs first.
//!
//! A download, an upload, somebody typing and some hundred idle connections run through a pair of
//! nodes; the active node is killed, comes back, and then the other one's cable is cut. Owns: the
//! order of events (`play`), what everybody can see of them (`board`), the display while they
//! happen (`live`, `lines`) and the verdict (`verdict`, `summary`). The hosts, the traffic and the
//! book-keeping are the lab's.
//!
//! One thread plays and builds up and takes down the lab; the calling one shows and watches the
//! time. They share a `Board` only, so whatever hangs, there is a verdict.

mod ansi;
mod board;
mod graph;
mod lines;
mod live;
mod play;
mod probe;
mod summary;
mod svg;
mod verdict;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::board::{Board, Snapshot};
use self::lines::Lines;
use self::live::Live;
pub use self::verdict::Verdict;
use crate::error::LabError;

/// Building, waiting for the pair twice, winding up: what may be added to the transfers' time.
const SLACK: Duration = Duration::from_secs(60);

/// How long the play may take to end once it was told to.
const GRACE: Duration = Duration::from_secs(15);

/// What is played.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The Outlive program.
    pub program: PathBuf,
    /// Decides what the streams carry.
    pub seed: u64,
    /// Bytes of the download and of the upload.
    pub size: u64,
    /// Idle connections.
    pub idle: u64,
    /// How long the transfers last if nothing holds them up; they are paced accordingly.
    pub time: Duration,
}

/// Where the course of the demo is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// On standard output, where the verdict goes, too.
    Output,
    /// On standard error: standard output is for the verdict only.
    Error,
}

impl Demo {
    /// Plays it, and shows it meanwhile: live on a terminal, unless `plain`, else line by line.
    ///
    /// Ends by itself, also if something hangs, and leaves nothing behind. An error means that it
    /// could not begin; what went wrong later is in the verdict. SIGINT, SIGTERM and SIGHUP end it
    /// early from the first call on.
    pub fn run(&self, display: Display, plain: bool) -> Result<Verdict, LabError> {
        raise_file_limit();
        let give_up = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, give_up.clone())
                .map_err(|error| LabError::Traffic("waiting for signals", error))?;
        }
        let board = Arc::new(Board::new(give_up, self.time));
        let play = {
            let (demo, board) = (self.clone(), board.clone());
            thread::Builder::new()
                .name("play".to_owned())
                .spawn(move || play::play(&demo, &board))
                .map_err(|error| LabError::Traffic("starting a thread", error))?
        };
        let mut screen = Screen::open(display, plain);
        let mut deadline = Instant::now() + self.time * 3 + SLACK;
        let mut told = false;
        while !play.is_finished() && Instant::now() < deadline + GRACE {
            if Instant::now() >= deadline && !told {
                board.time_is_up();
            }
            if board.is_given_up() && !told {
                told = true;
                deadline = deadline.min(Instant::now());
            }
            if screen.show(&board.snapshot()) == Wish::End {
                board.interrupt();
            }
        }
        screen.show(&board.snapshot());
        drop(screen);
        if !play.is_finished() {
            return Ok(Verdict::of_a_hanging_play(self, &board.snapshot()));
        }
        play.join().unwrap_or_else(|_| Ok(Verdict::of_a_hanging_play(self, &board.snapshot())))
    }
}

/// What the one who watches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// To see more.
    Continue,
    /// To stop.
    End,
}

/// The display: one call shows one frame and lasts as long as one.
enum Screen {
    Live(Box<Live>),
    Lines(Lines),
}

impl Screen {
    fn open(display: Display, plain: bool) -> Self {
        let is_terminal = match display {
            Display::Output => io::stdout().is_terminal(),
            Display::Error => io::stderr().is_terminal(),
        };
        let live = (is_terminal && !plain).then(|| Live::open(display)).flatten();
        live.map_or_else(|| Self::Lines(Lines::new(display)), |live| Self::Live(Box::new(live)))
    }

    fn show(&mut self, snapshot: &Snapshot) -> Wish {
        match self {
            Self::Live(live) => live.show(snapshot),
            Self::Lines(lines) => {
                lines.show(snapshot);
                Wish::Continue
            }
        }
    }
}

/// Both ends of every connection are sockets of this process.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it is refused, opening connections will say what is missing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
