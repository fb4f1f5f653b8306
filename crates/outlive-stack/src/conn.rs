//! A connection with what its program and the standby have to do with it.

use bytes::Bytes;
use outlive_tcp::{
    endpoint::{Connection, Contents, End, Read, State},
    fault::{self, Fault},
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple},
};

use crate::{
    id::ConnectionId,
    outcome::{Chunk, Closed, CommitError},
    regenerate::Regeneration,
    transaction::{Batch, Transaction},
};

/// How far a connection is on its way to its program, and from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// It has come here in the middle, and may not speak yet.
    Mute,
    /// The handshake is not complete.
    Opening,
    /// The standby has not confirmed that it knows of it.
    Announced,
    /// It waits to be accepted.
    Queued,
    /// It is the program's.
    Open,
    /// The program has let it go.
    Released,
}

/// One connection.
///
/// What the program decides goes into `waiting`. While a standby must know of it first, that becomes
/// `under_way` with the number of the record that tells it, and takes effect when the number is
/// confirmed; what comes meanwhile waits, and is told together.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    /// The other end's initial sequence number.
    pub(crate) irs: Seq,
    pub(crate) tcp: Connection,
    pub(crate) stage: Stage,
    pub(crate) resumed: bool,
    /// Another TCP has carried it before.
    pub(crate) admitted: bool,
    /// Where the next byte that is read stands in the other end's stream.
    pub(crate) read: u64,
    /// Up to where that stream is acknowledged, or may be.
    pub(crate) acknowledged: u64,
    /// How much was sent, or may be.
    pub(crate) written: u64,
    /// The program's state, with all that waits.
    pub(crate) state: Bytes,
    pub(crate) waiting: Batch,
    pub(crate) under_way: Option<(u64, Batch)>,
    /// The numbers of the last transaction, and of the last one that has taken effect.
    pub(crate) issued: u64,
    pub(crate) effective: u64,
    /// The program was told that there is no room.
    pub(crate) wants_room: bool,
    /// The program has read the end of the stream.
    pub(crate) end_read: bool,
    /// Own stream ended, or about to be.
    pub(crate) ending: bool,
    pub(crate) end_acknowledged: bool,
    /// What regenerating its output needs, if the program does that.
    pub(crate) regeneration: Option<Regeneration>,
    pub(crate) closed: Option<Closed>,
    /// Since when received bytes wait for their acknowledgment.
    pub(crate) withheld_since: Option<Time>,
    /// What the standby has, if anything.
    pub(crate) told: Option<Told>,
    /// It is in the queue of what is to be told.
    pub(crate) to_be_told: bool,
    /// More is to be told once what is under way is confirmed.
    pub(crate) again: bool,
    /// The standby must be told of it before it has everything.
    pub(crate) missing: bool,
    /// It is in the queue of what may have something to send.
    pub(crate) ready: bool,
}

/// What the standby has of a connection, once it has read everything that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// How much output.
    pub(crate) written: u64,
    /// It has the program's latest state.
    pub(crate) state: bool,
    /// Bytes of output that it holds.
    pub(crate) held: usize,
}

impl Conn {
    pub(crate) fn new(id: ConnectionId, irs: Seq, tcp: Connection, stage: Stage) -> Self {
        Conn {
            id,
            irs,
            tcp,
            stage,
            resumed: false,
            admitted: false,
            read: 0,
            acknowledged: 0,
            written: 0,
            state: Bytes::new(),
            waiting: Batch::default(),
            under_way: None,
            issued: 0,
            effective: 0,
            wants_room: false,
            end_read: false,
            ending: false,
            end_acknowledged: false,
            regeneration: None,
            closed: None,
            withheld_since: None,
            told: None,
            to_be_told: false,
            again: false,
            missing: false,
            ready: false,
        }
    }

    /// As packets sent have them.
    pub(crate) fn tuple(&self) -> FourTuple {
        self.tcp.tuple()
    }

    pub(crate) fn local(&self) -> Endpoint {
        self.tuple().source
    }

    pub(crate) fn is_over(&self) -> bool {
        self.tcp.state() == State::Closed || self.closed.is_some()
    }

    /// It goes on at the other node: nothing may be sent on it here.
    pub(crate) fn has_moved(&self) -> bool {
        self.closed == Some(Closed::Moved)
    }

    /// The next bytes for the program.
    pub(crate) fn read(&mut self, max: usize) -> Result<Chunk, Closed> {
        let position = self.read;
        if self.has_moved() {
            return Err(Closed::Moved);
        }
        match self.tcp.read(max) {
            Read::Data(bytes) => {
                self.read += bytes.len() as u64;
                Ok(Chunk::Data { position, bytes })
            }
            Read::End => {
                self.end_read = true;
                Ok(Chunk::End { position })
            }
            Read::Blocked => Ok(Chunk::Blocked),
            Read::Closed(end) => Err(self.closed.unwrap_or(Closed::of(end))),
        }
    }

    /// Bytes that the program has read and not acknowledged.
    pub(crate) fn outstanding(&self) -> u64 {
        self.read - self.acknowledged - u64::from(self.pending(|batch| batch.acknowledge as usize))
    }

    fn pending(&self, of: impl Fn(&Batch) -> usize) -> u32 {
        let under_way = self.under_way.as_ref().map_or(0, |(_, batch)| of(batch));
        (under_way + of(&self.waiting)) as u32
    }

    /// Bytes that the program can send now.
    pub(crate) fn room(&self) -> usize {
        let taken = self.pending(|batch| batch.output_len) as usize;
        self.tcp.write_capacity().saturating_sub(taken)
    }

    /// Whether `transaction` can be. `state_limit` in bytes; `send_buffer` is the most there can be
    /// room for.
    pub(crate) fn check(
        &self,
        transaction: &Transaction,
        state_limit: usize,
        send_buffer: usize,
    ) -> Result<(), CommitError> {
        if let Some(closed) = self.closed {
            return Err(closed.into());
        }
        let outstanding = self.outstanding();
        let wanted = transaction.acknowledge;
        if u64::from(wanted) > outstanding {
            return Err(CommitError::BeyondRead { wanted, outstanding });
        }
        if transaction.acknowledge_end && !(self.end_read && outstanding == u64::from(wanted)) {
            return Err(CommitError::NotAtEnd);
        }
        let state = transaction.state.as_ref().map_or(0, Bytes::len);
        if state > state_limit {
            return Err(CommitError::StateTooLong { len: state, limit: state_limit });
        }
        let len = transaction.output.len();
        if len > 0 && self.ending {
            return Err(CommitError::Ended);
        }
        if len > send_buffer {
            return Err(CommitError::OutputTooLong { len, limit: send_buffer });
        }
        if len > self.room() {
            return Err(CommitError::NoRoom);
        }
        Ok(())
    }

    /// Takes a transaction that [can be](Self::check). Gives its number.
    pub(crate) fn add(&mut self, transaction: Transaction) -> u64 {
        if self.is_decision(&transaction) {
            self.waiting.note_decision();
        }
        self.ending |= transaction.end;
        self.end_acknowledged |= transaction.acknowledge_end;
        if let Some(state) = &transaction.state {
            self.state = state.clone();
            if let Some(told) = &mut self.told {
                told.state = false;
            }
        }
        self.issued += 1;
        self.waiting.add(transaction, self.issued);
        self.issued
    }

    /// It changes what the output of a program is computed from that computes it again. What was decided
    /// before a takeover may be repeated after it.
    fn is_decision(&self, transaction: &Transaction) -> bool {
        transaction.acknowledge > 0
            || (transaction.acknowledge_end && !self.end_acknowledged)
            || transaction.state.as_ref().is_some_and(|state| *state != self.state)
    }

    /// Everything that waits takes effect.
    pub(crate) fn release_all(&mut self) {
        if let Some((_, batch)) = self.under_way.take() {
            self.take_effect(batch);
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.take_effect(waiting);
    }

    /// What is under way was not confirmed, and never will be: it waits again.
    pub(crate) fn take_back(&mut self) {
        if let Some(regeneration) = &mut self.regeneration {
            regeneration.standby_lost();
        }
        if let Some((_, mut batch)) = self.under_way.take() {
            batch.append(std::mem::take(&mut self.waiting));
            self.waiting = batch;
        }
    }

    /// A batch takes effect.
    pub(crate) fn take_effect(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        if self.is_over() {
            self.effective = batch.last;
            return;
        }
        let regenerating = self.is_regenerating();
        apply(&mut self.tcp, &batch, regenerating);
        if self.tcp.end() == Some(End::OutputDiverged) {
            // It has no effect but that.
            return;
        }
        self.effective = batch.last;
        self.acknowledged += u64::from(batch.acknowledge);
        self.written += batch.output_len as u64;
        if batch.acknowledge > 0 {
            self.withheld_since = None;
        }
        if let Some(regeneration) = &mut self.regeneration {
            regeneration.under_way &= batch.is_output();
        }
    }

    /// The program is writing again what it had written at the other node.
    fn is_regenerating(&self) -> bool {
        self.regeneration.is_some_and(|regeneration| regeneration.under_way)
    }

    /// How much of the own stream the other end has acknowledged.
    pub(crate) fn delivered(&self) -> u64 {
        self.written - self.tcp.unacknowledged() as u64
    }

    /// The state that the connection has once what waits has taken effect, with all output that is not
    /// acknowledged then, unless that is regenerated; up to where it is acknowledged; and where the
    /// program goes on to write. `None`: it is over.
    pub(crate) fn capture(&self, now: Time) -> Option<(Vec<u8>, u64, u64)> {
        let (acknowledged, mut written) = (
            self.acknowledged + u64::from(self.waiting.acknowledge),
            self.written + self.waiting.output_len as u64,
        );
        let regenerates = self.regeneration.is_some();
        let contents = if regenerates { Contents::NUMBERS } else { Contents::COMMITTED };
        let of = |tcp: &Connection| {
            let bytes = tcp.capture(now, contents).ok()?;
            Some((bytes, tcp.unacknowledged() as u64))
        };
        let (bytes, unacknowledged) = if self.waiting.is_empty() {
            of(&self.tcp)?
        } else {
            let mut then = self.tcp.clone();
            if fault::on(Fault::OutputNotTold) {
                let without = Batch { output: Vec::new(), ..self.waiting.clone() };
                apply(&mut then, &without, self.is_regenerating());
            } else {
                apply(&mut then, &self.waiting, self.is_regenerating());
            }
            of(&then)?
        };
        if regenerates {
            written -= unacknowledged;
        }
        Some((bytes, acknowledged, written))
    }
}

/// The connection itself does what was decided. All of it was checked before.
fn apply(tcp: &mut Connection, batch: &Batch, regenerating: bool) {
    let again = if regenerating { batch.decided.unwrap_or(batch.output.len()) } else { 0 };
    let (again, new) = batch.output.split_at(again);
    write(tcp, again);
    if regenerating && batch.decided.is_some() {
        tcp.output_is_complete();
    }
    if tcp.state() == State::Closed {
        // It is another output than before.
        return;
    }
    let acknowledged = tcp.acknowledge(batch.acknowledge);
    debug_assert!(acknowledged.is_ok(), "{acknowledged:?}");
    write(tcp, new);
    if batch.end {
        tcp.shutdown();
        if regenerating {
            tcp.output_is_complete();
        }
    }
    if batch.acknowledge_end {
        let acknowledged = tcp.acknowledge_end();
        debug_assert!(acknowledged.is_ok(), "{acknowledged:?}");
    }
    if batch.release {
        tcp.close();
    }
}

fn write(tcp: &mut Connection, output: &[Bytes]) {
    for output in output {
        let written = tcp.write(output.clone());
        debug_assert!(written.is_err() || written == Ok(output.len()), "there was room");
    }
}
