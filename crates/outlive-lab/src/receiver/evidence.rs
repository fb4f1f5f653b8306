//! Acknowledgments held against synchronisations: none may come before the one that covers it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::disk::Sync;
use super::records::sender_of;
use crate::attack::{ACK, FIN, RST, SYN, Segment};

/// What a listener between senders and receivers has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    conversations: HashMap<SocketAddr, Conversation>,
}

/// A sender's connection.
#[derive(Debug, Default)]
struct Conversation {
    /// Of its SYN.
    isn: Option<u32>,
    /// Whose records it carries.
    sender: Option<usize>,
    /// The sequence number of its FIN.
    fin: Option<u32>,
    /// When what was acknowledged, each further than the one before.
    acknowledgments: Vec<(Duration, u32)>,
}

impl Heard {
    /// A segment passed, with as much of its payload as was captured; `next`: the sequence number behind all of it.
    pub(crate) fn segment(
        &mut self,
        at: Duration,
        segment: &Segment,
        next: u32,
        service: SocketAddr,
    ) {
        if segment.to == service {
            let conversation = self.conversations.entry(segment.from).or_default();
            if segment.flags & SYN != 0 {
                conversation.isn = Some(segment.seq);
            }
            if segment.flags & FIN != 0 {
                conversation.fin = Some(next.wrapping_sub(1));
            }
            let first = conversation.isn.map(|isn| isn.wrapping_add(1)) == Some(segment.seq);
            if conversation.sender.is_none() && first {
                conversation.sender = sender_of(&segment.payload);
            }
        } else if segment.from == service && segment.flags & (ACK | RST) == ACK {
            let conversation = self.conversations.entry(segment.to).or_default();
            let further = |(_, ack): &(Duration, u32)| {
                (1..=u32::MAX / 2).contains(&segment.ack.wrapping_sub(*ack))
            };
            if conversation.acknowledgments.last().is_none_or(further) {
                conversation.acknowledgments.push((at, segment.ack));
            }
        }
    }
}

/// A log: its bytes, and when how many of them were durable.
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    pub(crate) syncs: Vec<Sync>,
}

/// What came of holding them against each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Evidence {
    /// Acknowledgments of records, each of more than the one before it.
    pub(crate) acknowledgments: u64,
    /// Of these, sent before what they acknowledge was durable at either node.
    pub(crate) violations: u64,
    /// Connections of which the beginning was not heard, so that nothing can be said of their acknowledgments.
    pub(crate) unheard: u64,
    /// Synchronisations at both nodes.
    pub(crate) fsyncs: u64,
    /// The first violations, in words.
    #[serde(rename = "violations_found", skip_serializing_if = "Vec::is_empty")]
    pub(crate) findings: Vec<String>,
}

impl Evidence {
    /// Holds what was heard against the logs of both nodes.
    pub(crate) fn of(heard: &Heard, logs: &[Log]) -> Self {
        let durable = durable(logs);
        let fsyncs = logs.iter().map(|log| log.syncs.len() as u64).sum();
        let mut evidence = Evidence { fsyncs, ..Evidence::default() };
        for (peer, conversation) in &heard.conversations {
            let (Some(isn), Some(sender)) = (conversation.isn, conversation.sender) else {
                evidence.unheard += 1;
                continue;
            };
            let known = durable.get(&sender).map_or(&[][..], Vec::as_slice);
            for (at, ack) in &conversation.acknowledgments {
                let ended = conversation.fin.is_some_and(|fin| *ack == fin.wrapping_add(1));
                let position = u64::from(ack.wrapping_sub(isn.wrapping_add(1)));
                if position == 0 {
                    continue;
                }
                evidence.acknowledgments += 1;
                let before = known.partition_point(|mark| mark.at <= *at);
                let mark = before.checked_sub(1).map(|last| known[last]).unwrap_or_default();
                let covered = mark.position + u64::from(mark.ended && ended);
                if position > covered {
                    evidence.violations += 1;
                    if evidence.findings.len() < 5 {
                        evidence.findings.push(format!(
                            "sender {sender} ({peer}): {position} acknowledged, {covered} durable"
                        ));
                    }
                }
            }
        }
        evidence
    }
}

/// Up to where a stream is durable, from some time on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    at: Duration,
    position: u64,
    ended: bool,
}

/// By sender, in the order of time: what was durable in any of the logs.
fn durable(logs: &[Log]) -> HashMap<usize, Vec<Mark>> {
    let mut senders: HashMap<&[u8], usize> = HashMap::new();
    let mut marks: HashMap<&[u8], Vec<Mark>> = HashMap::new();
    for log in logs {
        let mut syncs = log.syncs.iter().peekable();
        for entry in Entries::of(&log.bytes) {
            // The first one that reached so far. Whatever is cut off a log later was in none.
            while syncs.next_if(|sync| sync.len < entry.end_in_log).is_some() {}
            let Some(sync) = syncs.peek() else { break };
            let position = entry.position + entry.bytes.len() as u64;
            let ended = entry.bytes.is_empty();
            marks.entry(entry.connection).or_default().push(Mark { at: sync.at, position, ended });
            if entry.position == 0
                && let Some(sender) = sender_of(entry.bytes)
            {
                senders.insert(entry.connection, sender);
            }
        }
    }
    let mut durable = HashMap::new();
    for (connection, mut marks) in marks {
        marks.sort_by_key(|mark| mark.at);
        let mut furthest = Mark::default();
        for mark in &mut marks {
            mark.position = mark.position.max(furthest.position);
            mark.ended |= furthest.ended;
            furthest = *mark;
        }
        if let Some(sender) = senders.get(connection) {
            durable.insert(*sender, marks);
        }
    }
    durable
}

/// An entry of a log, as the receiver writes it: see `examples/log-receiver/src/log.rs`.
struct Entry<'a> {
    connection: &'a [u8],
    position: u64,
    bytes: &'a [u8],
    /// Where in the log it ends.
    end_in_log: u64,
}

/// The entries of a log.
struct Entries<'a> {
    log: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    fn of(log: &'a [u8]) -> Self {
        Entries { log, at: 0 }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let rest = &self.log[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let mut fields = rest[..end].split(|byte| *byte == b' ');
        let connection = fields.next()?;
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        let (position, len) = (number()?, usize::try_from(number()?).ok()?);
        let bytes = rest.get(end + 1..)?.get(..len)?;
        self.at += end + 1 + len + 1;
        Some(Entry { connection, position, bytes, end_in_log: self.at as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "10.0.0.1:514";
    const CLIENT: &str = "10.0.0.2:40000";
    const ISN: u32 = u32::MAX - 3;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A connection whose first 10 bytes are acknowledged at 5 ms, all 16 at 9 ms, and its end at 20 ms.
    fn heard() -> Heard {
        let (service, client): (SocketAddr, SocketAddr) =
            (SERVICE.parse().unwrap(), CLIENT.parse().unwrap());
        let mut heard = Heard::default();
        let mut from_client = |at, offset: u32, flags, payload: &[u8]| {
            let seq = ISN.wrapping_add(offset);
            let payload = payload.to_vec();
            let next = seq.wrapping_add(payload.len() as u32 + u32::from(flags & FIN != 0));
            let segment = Segment { from: client, to: service, seq, ack: 0, flags, payload };
            heard.segment(at, &segment, next, service);
        };
        from_client(at(0), 0, SYN, b"");
        from_client(at(1), 1, ACK, b"@3 0 abcd.");
        from_client(at(1), 11, ACK | FIN, b"\n@3 1 ");
        for (ms, offset) in [(0, 1), (5, 11), (5, 11), (9, 17), (8, 11), (20, 18)] {
            let (seq, ack) = (0, ISN.wrapping_add(offset));
            let payload = Vec::new();
            let segment = Segment { from: service, to: client, seq, ack, flags: ACK, payload };
            heard.segment(at(ms), &segment, seq, service);
        }
        heard
    }

    fn log(entries: &[(u64, &str)], syncs: &[(u64, usize)]) -> Log {
        let mut log = Log { bytes: Vec::new(), syncs: Vec::new() };
        let mut ends = vec![0];
        for (position, bytes) in entries {
            let entry = format!("c-1 {position} {} 0123\n{bytes}\n", bytes.len());
            log.bytes.extend(entry.bytes());
            ends.push(log.bytes.len() as u64);
        }
        log.syncs = syncs.iter().map(|(ms, to)| Sync { at: at(*ms), len: ends[*to] }).collect();
        log
    }

    #[test]
    fn an_acknowledgment_before_its_fsync_is_found() {
        let entries = [(0, "@3 0 abcd."), (10, "\n@3 1 "), (16, "")];
        let judge = |syncs: &[(u64, usize)]| {
            let evidence = Evidence::of(&heard(), &[log(&entries, syncs)]);
            (evidence.acknowledgments, evidence.violations)
        };
        assert_eq!(judge(&[(4, 1), (9, 2), (15, 3)]), (3, 0));
        assert_eq!(judge(&[(0, 0), (3, 3)]), (3, 0), "together, and early");
        assert_eq!(judge(&[(6, 1), (9, 2), (15, 3)]), (3, 1), "the first too early");
        assert_eq!(judge(&[(4, 1), (10, 3)]), (3, 1), "the second too early");
        assert_eq!(judge(&[(4, 1), (9, 2), (21, 3)]), (3, 1), "the end too early");
        assert_eq!(judge(&[(4, 1), (9, 2)]), (3, 1), "the end never durable");
        assert_eq!(judge(&[]), (3, 3), "nothing durable at all");
    }

    #[test]
    fn either_log_may_cover_it() {
        let logs = [
            log(&[(0, "@3 0 abcd.")], &[(4, 1)]),
            log(&[(10, "\n@3 1 "), (16, "")], &[(9, 1), (18, 2)]),
        ];
        let evidence = Evidence::of(&heard(), &logs);
        assert_eq!((evidence.acknowledgments, evidence.violations), (3, 0), "{evidence:?}");
        assert_eq!((evidence.unheard, evidence.fsyncs), (0, 3));
    }

    #[test]
    fn of_what_was_not_heard_nothing_is_said() {
        let mut heard = heard();
        heard.conversations.values_mut().for_each(|conversation| conversation.isn = None);
        let evidence = Evidence::of(&heard, &[]);
        assert_eq!((evidence.acknowledgments, evidence.unheard), (0, 1));
    }
}
