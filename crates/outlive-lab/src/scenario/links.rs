//! Does an impaired link do what it says, and does a cut drop everything while the carrier stays?

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::Settings;
use crate::clock::wait_until;
use crate::error::LabError;
use crate::host::Host;
use crate::impairment::Impairment;
use crate::link::{Cut, INTERFACE, LinkKind};
use crate::report::{Report, milliseconds};
use crate::topology::Lab;
use crate::traffic::{Book, Client, Plan, Server, Side};

const PORT: u16 = 7000;
const DATAGRAMS: u32 = 20_000;

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let mut report = Report::new("links", &lab);
    let plain = lab.host("plain", 10, LinkKind::Plain)?;
    delay(&lab, &plain, &mut report)?;
    chance(&lab, &plain, &mut report)?;
    rate(&lab, &plain, &mut report)?;
    cut_plain(&lab, &plain, &mut report)?;
    for kind in [LinkKind::Plain, LinkKind::impaired(Impairment::default())] {
        cut_one_way(&lab, &plain, kind, &mut report)?;
    }
    Ok(report)
}

/// A key and its echo over 20 ms each way.
fn delay(lab: &Lab, plain: &Host, report: &mut Report) -> Result<(), LabError> {
    let one_way = Duration::from_millis(20);
    let far = lab.host("far", 20, LinkKind::impaired(Impairment::delayed(one_way)))?;
    let book = Arc::new(Book::default());
    let server = Server::start(&far, &book, &[PORT])?;
    let client = Client::start(plain, &book, lab.seed())?;
    let plan = Plan::Interactive { every: Duration::from_millis(10) };
    let keys = client.open("far", 5, far.socket(false, PORT), &plan);
    wait_until(Duration::from_secs(10), || keys.latency.lock().expect("no panics").len() >= 200);
    client.finish(Duration::from_secs(5));
    server.finish(Duration::from_secs(5));
    report.add_book(&book);
    let latency = keys.latency.lock().expect("no panics");
    let (least, median) = (latency.min(), latency.value_at_quantile(0.5));
    report.measure("rtt_ms", milliseconds(Duration::from_micros(median)));
    let rtt = (2 * one_way).as_micros() as u64;
    report.require(least >= rtt * 99 / 100, || format!("an echo came after {least} µs"));
    // A busy machine takes its time; ten times as long would be another link.
    report.require(median <= rtt * 10, || format!("half the echoes took {median} µs or more"));
    Ok(())
}

/// Numbered datagrams through the bad link: as many as it says are lost, doubled, overtaken.
fn chance(lab: &Lab, plain: &Host, report: &mut Report) -> Result<(), LabError> {
    let bad = lab.host("bad", 21, LinkKind::impaired(Impairment::bad()))?;
    let receiver = bad.enter(|| udp(PORT))??;
    let sender = plain.enter(|| udp(PORT))??;
    let received = AtomicU32::new(0);
    let arrived = std::thread::scope(|scope| {
        let counting = scope.spawn(|| count(&receiver, DATAGRAMS, &received));
        // A mistake in sending shows in the count.
        let _ = send(&sender, bad.socket(false, PORT), DATAGRAMS, &received);
        counting.join().expect("counting does not panic")
    });
    let share = |count: u32| f64::from(count) / f64::from(DATAGRAMS);
    let (loss, duplicates) = (share(arrived.missing), share(arrived.repeated));
    report.measure("loss", loss);
    report.measure("duplicated", duplicates);
    report.measure("overtaken", share(arrived.overtaken));
    let near = |share: f64| (0.007..=0.013).contains(&share);
    report.require(near(loss), || format!("1 % should be lost, {loss} was"));
    report.require(near(duplicates), || format!("1 % should come twice, {duplicates} did"));
    report.require(arrived.overtaken > 0, || "nothing was overtaken".to_owned());
    Ok(())
}

/// A bulk stream through a link of 100 Mbit/s, and one through a wire without a limit.
fn rate(lab: &Lab, plain: &Host, report: &mut Report) -> Result<(), LabError> {
    let limit = 100_000_000;
    let narrow = Impairment { rate: Some(limit), queue: 256 << 10, ..Impairment::default() };
    let kinds = [("narrow_mbit_s", narrow, 20), ("wire_mbit_s", Impairment::default(), 512)];
    for (name, impairment, megabytes) in kinds {
        let far = lab.host("far", 22, LinkKind::impaired(impairment.clone()))?;
        let book = Arc::new(Book::default());
        let server = Server::start(&far, &book, &[PORT])?;
        let client = Client::start(plain, &book, lab.seed())?;
        client.open(name, 1, far.socket(true, PORT), &Plan::download(megabytes << 20));
        client.wait(Duration::from_secs(30));
        client.finish(Duration::ZERO);
        server.finish(Duration::from_secs(5));
        report.add_book(&book);
        // The server is done when its kernel has everything, the client when it has read it.
        let records = book.records();
        let read = records.iter().find(|record| record.side == Side::Client);
        let took = read.map_or(Duration::MAX, |record| record.ended - record.opened);
        let mbit_s = (megabytes << 20) as f64 * 8e-6 / took.as_secs_f64();
        report.measure(name, mbit_s);
        if let Some(limit) = impairment.rate {
            let share = mbit_s / (limit as f64 * 1e-6);
            // Headers take 5 %, so more would be too fast. How much less it is, is also a matter of
            // what else the machine does.
            report.require((0.1..0.96).contains(&share), || format!("{mbit_s} of 100 Mbit/s"));
        }
    }
    Ok(())
}

/// A plain cable that is cut: nothing passes either way, both ends see a carrier, and a connection
/// goes on afterwards.
fn cut_plain(lab: &Lab, plain: &Host, report: &mut Report) -> Result<(), LabError> {
    let other = lab.host("other", 23, LinkKind::Plain)?;
    let book = Arc::new(Book::default());
    let server = Server::start(&other, &book, &[PORT])?;
    let client = Client::start(plain, &book, lab.seed())?;
    let plan = Plan::Interactive { every: Duration::from_millis(10) };
    let keys = client.open("cut", 1, other.socket(false, PORT), &plan);
    let echoes = || keys.latency.lock().expect("no panics").len();
    wait_until(Duration::from_secs(5), || echoes() > 5);

    let pair = [plain.enter(|| udp(PORT))??, other.enter(|| udp(PORT))??];
    let ends = [plain.socket(false, PORT), other.socket(false, PORT)];
    report
        .require(passes(&pair[0], &pair[1], ends[1], true), || "no way before the cut".to_owned());
    other.link().cut(Cut::Both)?;
    let cut_at = lab.clock().now();
    let carrier = other.namespace().netlink()?.link(INTERFACE)?.has_carrier;
    report.require(carrier, || "the carrier went away with the cut".to_owned());
    report.require(!passes(&pair[0], &pair[1], ends[1], false), || {
        "a way in during the cut".to_owned()
    });
    report.require(!passes(&pair[1], &pair[0], ends[0], false), || {
        "a way out during the cut".to_owned()
    });
    other.link().restore()?;
    let restored_at = lab.clock().now();
    report.require(passes(&pair[0], &pair[1], ends[1], true), || "no way after the cut".to_owned());
    let before = echoes();
    let again = wait_until(Duration::from_secs(10), || echoes() > before);
    report.require(again, || "the connection did not go on after the cut".to_owned());

    client.finish(Duration::from_secs(10));
    server.finish(Duration::from_secs(5));
    report.add_book(&book);
    let cut_for = restored_at - cut_at;
    let waits = book.records();
    let longest = waits.iter().map(|record| record.longest_wait(cut_at, Duration::MAX)).max();
    report.measure("cut_ms", milliseconds(cut_for));
    report.measure("longest_wait_ms", milliseconds(longest.unwrap_or_default()));
    report.require(longest >= Some(cut_for), || "somebody passed the cut".to_owned());
    Ok(())
}

/// A cut of one direction leaves the other alone.
fn cut_one_way(
    lab: &Lab,
    plain: &Host,
    kind: LinkKind,
    report: &mut Report,
) -> Result<(), LabError> {
    let other = lab.host("half", 24, kind)?;
    let pair = [plain.enter(|| udp(PORT))??, other.enter(|| udp(PORT))??];
    let ends = [plain.socket(false, PORT), other.socket(false, PORT)];
    // Both ends know each other's address now, so no answer to a question about it is missed.
    report.require(passes(&pair[0], &pair[1], ends[1], true), || "no way to begin with".to_owned());
    report.require(passes(&pair[1], &pair[0], ends[0], true), || "no way back".to_owned());
    for cut in [Cut::FromHost, Cut::ToHost, Cut::Both] {
        other.link().cut(cut)?;
        let expected = (cut == Cut::FromHost, cut == Cut::ToHost);
        let way_in = passes(&pair[0], &pair[1], ends[1], expected.0);
        let way_out = passes(&pair[1], &pair[0], ends[0], expected.1);
        report.require((way_in, way_out) == expected, || {
            format!("{cut:?}: in {way_in}, out {way_out}")
        });
        other.link().restore()?;
    }
    report.require(passes(&pair[1], &pair[0], ends[0], true), || "no way afterwards".to_owned());
    Ok(())
}

fn udp(port: u16) -> Result<UdpSocket, LabError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    };
    open().map_err(|error| LabError::Traffic("opening a datagram socket", error))
}

/// Whether a datagram gets from one to the other. One that is `expected` is repeated until it
/// does, for a while; of one that is not, half a second's silence is enough.
fn passes(from: &UdpSocket, to: &UdpSocket, address: SocketAddr, expected: bool) -> bool {
    let once = || one_passes(from, to, address);
    if expected { wait_until(Duration::from_secs(10), once) } else { once() }
}

fn one_passes(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> bool {
    let _ = from.send_to(b"there?", address);
    let mut buffer = [0; 16];
    let arrived = to.recv(&mut buffer).is_ok();
    // Leave nothing behind for the next question.
    while to.set_nonblocking(true).is_ok() && to.recv(&mut buffer).is_ok() {}
    let _ = to.set_nonblocking(false);
    arrived
}

/// Sends numbered datagrams, never so many at once that a queue other than the link's own could
/// overflow, however slow the receiver is.
fn send(socket: &UdpSocket, to: SocketAddr, count: u32, received: &AtomicU32) -> io::Result<()> {
    for number in 0..count {
        socket.send_to(&number.to_be_bytes(), to)?;
        if number % 20 == 0 {
            // As many are lost as come twice, so nearly as many arrive as are sent. The receiver's
            // kernel holds more than this; if so many are missing, the rest may as well be, too.
            let enough = number.saturating_sub(120);
            if !wait_until(Duration::from_secs(5), || received.load(Relaxed) >= enough) {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Arrived {
    missing: u32,
    repeated: u32,
    overtaken: u32,
}

/// Counts numbered datagrams until none has come for a while.
fn count(socket: &UdpSocket, expected: u32, received: &AtomicU32) -> Arrived {
    let mut seen = vec![0u8; expected as usize];
    let (mut highest, mut overtaken) = (0, 0);
    let mut buffer = [0; 16];
    while let Ok(4) = socket.recv(&mut buffer) {
        received.fetch_add(1, Relaxed);
        let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        if let Some(times) = seen.get_mut(number as usize) {
            overtaken += u32::from(*times == 0 && number < highest);
            *times += 1;
            highest = highest.max(number);
        }
    }
    let repeated = seen.iter().filter(|&&times| times > 1).count() as u32;
    let missing = seen.iter().filter(|&&times| times == 0).count() as u32;
    Arrived { missing, repeated, overtaken }
}
