//! The kernel as the core's [fast path](outlive_proxy::fast_path): its sessions put into the program of
//! [`outlive_net::fast_path`], and what that has learnt brought back.

use std::{
    cell::RefCell, collections::HashMap, io, net::IpAddr, os::fd::BorrowedFd, process::Command,
    rc::Rc, time::Duration,
};

use outlive_net::{
    fast_path::{self as kernel, FastPath, FastPathError, Passed, Place, Stream, Tuple},
    keeper::Keeper,
    netlink::{Netlink, NetlinkError},
};
use outlive_proxy::{
    Node,
    fast_path::{self as core, Splice, StreamProgress},
};
use outlive_tcp::{
    seq::Seq,
    time::Time,
    translation::TimestampTranslation,
    wire::{Endpoint, FourTuple},
};

/// How often a node that has left sessions to the kernel asks what there is to say of them.
pub const ASK_EVERY: Duration = Duration::from_millis(25);
/// Sessions looked at in one turn because the kernel said so.
const BUDGET: usize = 1_024;

/// Why there is no fast path. The node works without.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The kernel's part.
    #[error(transparent)]
    Kernel(#[from] FastPathError),
    /// The interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// None of the interfaces has frames that the program understands.
    #[error("none of the interfaces is an Ethernet interface")]
    NoEthernet,
}

/// The node's end of the fast path.
#[derive(Debug)]
pub struct KernelPath {
    table: Rc<RefCell<Table>>,
    serving: bool,
    count: Count,
}

impl KernelPath {
    /// Loads the program with room for `sessions`, and attaches it to the interfaces by name; `device` is the TUN
    /// device. It passes nothing on before [`serve`](Self::serve).
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn open(sessions: u32, device: &str, interfaces: &[&str]) -> Result<Self, Unavailable> {
        let netlink = Netlink::open()?;
        let mut path = FastPath::load(sessions, netlink.index_of(device)?.0)?;
        let mut attached = false;
        for interface in interfaces {
            let link = netlink.link(interface)?;
            // The program expects an Ethernet header; what comes elsewhere stays with the process.
            if link.is_ethernet {
                path.attach(link.index.0)?;
                attached = true;
            }
        }
        if !attached {
            return Err(Unavailable::NoEthernet);
        }
        let owners = vec![(0, 0); sessions as usize];
        let table = Table {
            path,
            places: HashMap::new(),
            owners,
            of_withdrawn: Passed::default(),
            news: None,
        };
        Ok(KernelPath {
            table: Rc::new(RefCell::new(table)),
            serving: false,
            count: Count::default(),
        })
    }

    /// What the core is given.
    pub fn for_core(&self) -> Box<dyn core::FastPath> {
        Box::new(ForCore(self.table.clone()))
    }

    /// Has `command` [keep](outlive_net::keeper) the program attached, and `device`, for a moment if this process is killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn keep(&self, command: &mut Command, device: BorrowedFd<'_>) -> io::Result<Keeper> {
        let table = self.table.borrow();
        let held: Vec<_> = table.path.links().chain([device]).collect();
        Keeper::start(command, &held)
    }

    /// Lets the program go on until `until` (by [`monotonic`](kernel::monotonic)), or, with `None`, no longer. Every
    /// packet that the core has handled must have been written.
    pub fn serve(&mut self, until: Option<Duration>) {
        self.table.borrow_mut().tell_news();
        match until {
            Some(until) => self.table.borrow().path.serve_until(until),
            None if self.serving => self.table.borrow().path.stop(),
            None => {}
        }
        self.serving = until.is_some();
    }

    /// Hands over what the program has to say. Returns whether there is more.
    pub fn report(&self, now: Time, node: &mut Node) -> bool {
        for _ in 0..BUDGET {
            let mut table = self.table.borrow_mut();
            let Some(place) = table.path.poll_event() else { return false };
            let (slot, serial) = table.owners[place.index as usize];
            let current = table.places.get(&slot) == Some(&place);
            // The core may want to withdraw the session.
            drop(table);
            if current {
                node.handle_fast_path(now, slot, serial);
            }
        }
        true
    }

    /// What the program has passed, when that was [counted](Self::count_passed) last.
    pub fn passed(&self) -> Passed {
        self.count.last
    }

    /// Goes on with counting what the program has passed, over up to `places` of its places: a million sessions must not
    /// hold up the packets of any. Returns whether that was all.
    pub fn count_passed(&mut self, places: usize) -> bool {
        let (table, count) = (self.table.borrow(), &mut self.count);
        if count.next == 0 {
            count.sum = table.of_withdrawn;
        }
        let end = count.next.saturating_add(places).min(table.owners.len());
        for index in count.next..end {
            let place = table.places.get(&table.owners[index].0);
            if let Some(place) = place.filter(|place| place.index as usize == index) {
                count.sum += table.path.passed(*place);
            }
        }
        count.next = if end == table.owners.len() { 0 } else { end };
        if count.next > 0 {
            return false;
        }
        // Sessions that were taken back before their turn came are missing until the next time.
        count.last.packets = count.last.packets.max(count.sum.packets);
        count.last.bytes = count.last.bytes.max(count.sum.bytes);
        true
    }
}

/// A count of what the program has passed, under way.
#[derive(Debug, Default)]
struct Count {
    /// The place to go on with.
    next: usize,
    sum: Passed,
    last: Passed,
}

#[derive(Debug)]
struct Table {
    path: FastPath,
    /// Where the session in a slot is.
    places: HashMap<u32, Place>,
    /// Slot and serial of the session at an index.
    owners: Vec<(u32, u32)>,
    /// What had passed of sessions that were taken back.
    of_withdrawn: Passed,
    /// What the core has learnt of a session from the packet that it handles at the moment.
    news: Option<(Place, [Stream; 2])>,
}

impl Table {
    /// Tells the program what the core had learnt from an earlier packet. Not before that has been written: the program
    /// would let the next one overtake it.
    fn tell_news(&mut self) {
        if let Some((place, streams)) = self.news.take() {
            self.path.learn(place, &streams);
        }
    }
}

#[derive(Debug)]
struct ForCore(Rc<RefCell<Table>>);

impl core::FastPath for ForCore {
    fn install(&mut self, slot: u32, splice: &Splice) -> bool {
        let mut table = self.0.borrow_mut();
        table.tell_news();
        let directions = [direction(&splice.directions[0]), direction(&splice.directions[1])];
        let streams = [&splice.directions[0], &splice.directions[1]].map(|d| stream(&d.stream));
        // With the packet at hand still to come, as far as the program knows. (Of a session that is opening nothing is
        // under way.)
        let before = |stream: Stream| Stream { next: stream.acked, ..stream };
        let known = if splice.opening { streams } else { streams.map(before) };
        let Some(place) = table.path.install(&directions, &known, splice.opening) else {
            return false;
        };
        table.news = (!splice.opening).then_some((place, streams));
        table.owners[place.index as usize] = (slot, splice.serial);
        table.places.insert(slot, place);
        true
    }

    fn progress(&self, slot: u32) -> ([StreamProgress; 2], Option<Duration>) {
        self.0.borrow_mut().tell_news();
        let table = self.0.borrow();
        let Some(place) = table.places.get(&slot) else { return Default::default() };
        (table.path.streams(*place).map(progress), table.path.idle_for(*place))
    }

    fn learn(&mut self, slot: u32, streams: &[StreamProgress; 2]) {
        let mut table = self.0.borrow_mut();
        table.tell_news();
        if let Some(place) = table.places.get(&slot).copied() {
            table.news = Some((place, [stream(&streams[0]), stream(&streams[1])]));
        }
    }

    fn withdraw(&mut self, slot: u32) {
        let mut table = self.0.borrow_mut();
        table.tell_news();
        if let Some(place) = table.places.remove(&slot) {
            let passed = table.path.passed(place);
            table.of_withdrawn += passed;
            table.path.withdraw(place);
        }
    }
}

fn direction(direction: &core::Direction) -> kernel::Direction {
    let translation = &direction.translation;
    // Sessions whose ends differ in timestamps are not left to anybody.
    let (value_delta, echo_delta) = match translation.timestamps {
        TimestampTranslation::Shift { value_delta, echo_delta } => (value_delta, echo_delta),
        _ => (0, 0),
    };
    kernel::Direction {
        from: tuple(&direction.tuple),
        to: tuple(&translation.tuple),
        seq_delta: translation.seq_delta,
        ack_delta: translation.ack_delta,
        value_delta,
        echo_delta,
        window_from: translation.window_from,
        window_to: translation.window_to,
        segment_limit: direction.segment_limit,
    }
}

fn tuple(tuple: &FourTuple) -> Tuple {
    let end = |endpoint: Endpoint| -> (IpAddr, u16) { (endpoint.addr, endpoint.port) };
    Tuple { source: end(tuple.source), destination: end(tuple.destination) }
}

fn stream(progress: &StreamProgress) -> Stream {
    Stream {
        next: progress.next.0,
        fin: progress.fin.map(|fin| fin.0),
        acked: progress.acked.0,
        edge: progress.edge.0,
        fin_acked: progress.fin_acked,
        bytes: progress.bytes,
    }
}

fn progress(stream: Stream) -> StreamProgress {
    StreamProgress {
        next: Seq(stream.next),
        acked: Seq(stream.acked),
        edge: Seq(stream.edge),
        fin: stream.fin.map(Seq),
        fin_acked: stream.fin_acked,
        bytes: stream.bytes,
    }
}
