//! Connections that talk with an echo server all the time, and notice every byte that is lost or wrong.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use outlive_net::netns::Namespace;

use crate::common::connect;

/// A connection that is silent for this long is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Conversations under way.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    conversations: Vec<Conversation>,
}

struct Conversation {
    what: String,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Traffic {
    /// Opens `each` small conversations with each address from `host`, and one that moves much.
    pub(crate) fn start(host: &Namespace, addresses: [IpAddr; 2], port: u16, each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut conversations = Vec::new();
        for address in addresses {
            for number in 0..=each {
                let size = if number == each { 400_000 } else { 100 };
                let stream = connect(host, address, port);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let rounds = Arc::new(AtomicU64::new(0));
                let (counted, stopped) = (rounds.clone(), stop.clone());
                let work = move || talk(stream, size, &counted, &stopped);
                conversations.push(Conversation {
                    what: format!("{number} with {address}"),
                    rounds,
                    thread: thread::spawn(work),
                });
            }
        }
        let traffic = Traffic { stop, conversations };
        traffic.goes_on();
        traffic
    }

    /// Waits until each conversation has made progress since this call.
    pub(crate) fn goes_on(&self) {
        let start = Instant::now();
        for conversation in &self.conversations {
            let before = conversation.rounds.load(SeqCst);
            // The round that was under way may have been heard of before; the next one was not.
            while conversation.rounds.load(SeqCst) < before + 2 {
                let what = &conversation.what;
                assert!(!conversation.thread.is_finished(), "conversation {what} has ended");
                assert!(start.elapsed() < PATIENCE, "conversation {what} hangs");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Ends all conversations; how many were lost, or heard something wrong.
    pub(crate) fn finish(self) -> usize {
        self.stop.store(true, SeqCst);
        let mut lost = 0;
        for conversation in self.conversations {
            if let Err(error) = conversation.thread.join().unwrap() {
                eprintln!("conversation {}: {error}", conversation.what);
                lost += 1;
            }
        }
        lost
    }
}

fn talk(
    mut stream: TcpStream,
    size: usize,
    rounds: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut answer = vec![0; size];
    for round in 0_u64.. {
        if stop.load(SeqCst) {
            break;
        }
        let words: Vec<u8> =
            (0..size as u64).map(|at| (at * 31 + round * 7 + at / 251) as u8).collect();
        let mut writer = stream.try_clone()?;
        thread::scope(|scope| {
            let writing = scope.spawn(|| writer.write_all(&words));
            stream.read_exact(&mut answer)?;
            writing.join().unwrap()
        })?;
        if answer != words {
            return Err(io::Error::other("bytes are wrong"));
        }
        rounds.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(10));
    }
    // Both ends say that they are done.
    stream.shutdown(std::net::Shutdown::Write)?;
    match stream.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more came than was sent")),
    }
}
