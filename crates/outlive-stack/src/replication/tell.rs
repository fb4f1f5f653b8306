//! The stack's side of the conversation: what becomes a record, and what a confirmation lets happen.

use outlive_proxy::pair::{Epoch, heartbeat::Role};
use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};

use super::{
    Item, Leaving, Link, LinkEvent, MAX_STATE_MESSAGE, Owed, Phase, StateError,
    message::{Hello, Message, PART_HEADER},
    record::{self, Record, Update},
};
use crate::{
    conn::{Stage, Told},
    id::ConnectionId,
    stack::{Release, Stack},
};

/// Output that the standby holds though it is acknowledged, before it is told so.
const STALE_OUTPUT: usize = 64 << 10;

impl Stack {
    /// Something of the connection is to be told to the standby, if there is one.
    pub(crate) fn changed(&mut self, now: Time, slot: usize) {
        // It may have ended by what has taken effect.
        let Some(conn) = self.table.get(slot) else { return };
        let early = matches!(conn.stage, Stage::Mute | Stage::Opening);
        if !self.link.is_telling() || early || conn.to_be_told {
            return;
        }
        let id = conn.id;
        self.table[slot].to_be_told = true;
        self.link.push(now, Item::Connection(id));
    }

    /// The other end has acknowledged all output.
    pub(crate) fn output_acknowledged(&mut self, now: Time, slot: usize) {
        if self.table[slot].told.is_some_and(|told| told.held > STALE_OUTPUT) {
            self.changed(now, slot);
        }
    }

    /// A message came on the state connection.
    pub(crate) fn hear(
        &mut self,
        now: Time,
        message: &[u8],
    ) -> Result<Option<LinkEvent>, StateError> {
        match (Message::decode(message)?, self.link.phase) {
            (Message::Hello(hello), Phase::Greeting) => self.greeted(now, hello),
            (Message::Begin { clock_us }, Phase::Holding) => {
                self.link.held.clear();
                self.link.got = 0;
                self.clock.follow(now, clock_us);
                Ok(None)
            }
            (Message::Part { number, last, bytes }, Phase::Holding) => {
                self.link.expect(number)?;
                let ended = self.link.held.part(bytes, last, &self.config)?;
                if let Some((ends, irs)) = ended {
                    self.spent.insert(now, &ends.reversed(), irs);
                }
                if last {
                    self.link.got = number;
                    self.link.confirm = true;
                }
                Ok(None)
            }
            (Message::Complete { number, key }, Phase::Holding) => {
                self.link.expect(number)?;
                self.link.got = number;
                self.link.confirm = true;
                self.link.held.complete = true;
                Ok(Some(LinkEvent::Synchronised(key)))
            }
            (Message::Confirm { number }, Phase::Telling) => self.confirmed(now, number),
            _ => Err(StateError::Unexpected),
        }
    }

    fn greeted(&mut self, now: Time, hello: Hello) -> Result<Option<LinkEvent>, StateError> {
        let mine = self.pair.beliefs();
        if hello.node == mine.node {
            return Err(StateError::SameName);
        }
        self.link.peer = hello.process;
        match (mine.role, hello.active) {
            (Role::Active, false) => {
                self.begin_telling(now);
                Ok(None)
            }
            (Role::Standby, true) => {
                // If it is a later epoch than the one of which this node holds everything.
                self.pair.told_of(hello.epoch);
                self.link.phase = Phase::Holding;
                Ok(None)
            }
            _ => Ok(Some(LinkEvent::TooEarly)),
        }
    }

    /// Everything is to be told.
    fn begin_telling(&mut self, now: Time) {
        self.link.phase = Phase::Telling;
        self.link.begin = true;
        for slot in self.table.all() {
            let conn = &mut self.table[slot];
            (conn.told, conn.to_be_told, conn.again) = (None, false, false);
            if !matches!(conn.stage, Stage::Mute | Stage::Opening) && !conn.is_over() {
                conn.missing = true;
                self.link.missing += 1;
                self.changed(now, slot);
            }
        }
        self.converge(now);
    }

    /// If the standby knows of every connection, only changes are left to tell; from now on none of
    /// them has an effect before it is told.
    fn converge(&mut self, now: Time) {
        if self.link.missing == 0 && !self.link.is_complete() {
            self.posture.release = Release::Confirmed;
            self.link.complete = true;
            self.link.push(now, Item::Complete);
        }
    }

    /// The connection need not be told any more for the standby to have everything.
    pub(crate) fn not_missing(&mut self, now: Time, slot: usize) {
        if std::mem::take(&mut self.table[slot].missing) {
            self.link.missing -= 1;
            self.converge(now);
        }
    }

    /// The next message; false if there is none.
    pub(crate) fn say(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        if let Some(hello) = self.link.hello.take() {
            Message::Hello(hello).encode(out);
            return true;
        }
        match self.link.phase {
            Phase::Telling if std::mem::take(&mut self.link.begin) => {
                Message::Begin { clock_us: self.clock.micros(now) }.encode(out);
                true
            }
            Phase::Telling => self.link.say_part(out) || self.say_next(now, out),
            Phase::Holding if std::mem::take(&mut self.link.confirm) => {
                Message::Confirm { number: self.link.got }.encode(out);
                true
            }
            _ => false,
        }
    }

    fn say_next(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        while let Some(item) = self.link.queue.pop_front() {
            self.link.waiting_since = (!self.link.queue.is_empty()).then_some(now);
            let made = match item {
                Item::Connection(id) => self.make_record(now, id),
                Item::Ended(id) => {
                    self.link.ended -= 1;
                    let mut bytes = Vec::new();
                    Record::Ended(id).encode(&mut bytes);
                    self.link.leave(now, bytes, None);
                    true
                }
                Item::Complete => {
                    self.say_complete(now, out);
                    return true;
                }
            };
            if made {
                self.counters.records += 1;
                return self.link.say_part(out);
            }
        }
        false
    }

    fn say_complete(&mut self, now: Time, out: &mut Vec<u8>) {
        let epoch: Epoch = self.pair.epoch().next_of_active(self.config.node);
        let key = self.epoch_key(epoch);
        let number = self.link.number(now, None);
        self.link.completing = Some((number, key));
        Message::Complete { number, key }.encode(out);
    }

    /// Makes the record of what the connection is now. Returns whether there is one.
    fn make_record(&mut self, now: Time, id: ConnectionId) -> bool {
        let Some(slot) = self.table.named(id) else { return false };
        let conn = &mut self.table[slot];
        conn.to_be_told = false;
        if conn.under_way.is_some() {
            // What waits is told when that is confirmed.
            conn.again = true;
            return false;
        }
        let Some((mut capture, acknowledged, written)) = conn.capture(now) else {
            // With what waits it ends: there is nothing to tell, and the program learns of it.
            if !conn.is_over() {
                self.take_effect(now, slot);
            }
            return false;
        };
        let output = record::output_len(&capture).unwrap_or(0);
        let told = conn.told.replace(Told { written, state: true, held: output });
        let unacknowledged_from = written - output as u64;
        let held_of = |told: Told| told.written.saturating_sub(unacknowledged_from) as usize;
        // None of the output is told if the program computes it again.
        let kept = told.map_or(0, held_of).min(output);
        record::cut(&mut capture, kept);
        let told_once = told.is_some() && fault::on(Fault::StateNotTold);
        let news = told.is_none_or(|told| !told.state) && !told_once;
        let update = Update {
            id,
            full: told.is_none(),
            released: conn.stage == Stage::Released,
            regenerates: conn.regeneration.is_some(),
            clock_us: self.clock.micros(now),
            irs: conn.irs,
            acknowledged,
            written,
            state: news.then_some(conn.state.as_ref()),
            kept: kept as u32,
            capture: &capture,
        };
        let mut bytes = Vec::new();
        Record::Connection(update).encode(&mut bytes);
        let batch = std::mem::take(&mut conn.waiting);
        let number = self.link.leave(now, bytes, Some(id));
        if fault::on(Fault::TransactionUnconfirmed) && !batch.is_empty() {
            self.table[slot].take_effect(batch);
            self.effective(now, slot);
            self.not_missing(now, slot);
            return true;
        }
        let conn = &mut self.table[slot];
        if let Some(regeneration) = &mut conn.regeneration {
            regeneration.note_told(written);
        }
        let waits = conn.stage == Stage::Announced || conn.regeneration.is_some();
        if fault::on(Fault::TransactionUnconfirmed) && !batch.is_empty() {
            self.table[slot].take_effect(batch);
            self.effective(now, slot);
            self.not_missing(now, slot);
            return true;
        }
        let conn = &mut self.table[slot];
        if !batch.is_empty() || waits {
            conn.under_way = Some((number, batch));
        }
        self.not_missing(now, slot);
        true
    }

    /// The standby holds everything up to `number`.
    fn confirmed(&mut self, now: Time, number: u64) -> Result<Option<LinkEvent>, StateError> {
        if number > self.link.last_number {
            return Err(StateError::Unexpected);
        }
        while let Some(owed) = self.link.owed.pop_front_if(|owed| owed.number <= number) {
            let slot = owed.what.and_then(|id| self.table.named(id));
            if let Some(slot) = slot {
                self.record_confirmed(now, slot, owed.number);
            }
        }
        let paired = self.link.completing.take_if(|(complete, _)| *complete <= number);
        Ok(paired.map(|(_, key)| LinkEvent::Paired(key)))
    }

    fn record_confirmed(&mut self, now: Time, slot: usize, number: u64) {
        let conn = &mut self.table[slot];
        if let Some((_, batch)) = conn.under_way.take_if(|(under_way, _)| *under_way == number) {
            let has_effect = !batch.is_empty();
            if let Some(regeneration) = &mut conn.regeneration {
                regeneration.note_confirmed();
            }
            conn.take_effect(batch);
            if conn.stage == Stage::Announced {
                self.queue(slot);
            }
            if has_effect {
                self.effective(now, slot);
            }
            let again = self.table.get(slot).is_some_and(|conn| conn.again);
            if again {
                self.table[slot].again = false;
                if !self.run_ahead(now, slot) {
                    self.changed(now, slot);
                }
            }
        }
    }
}

impl Link {
    /// The number of the next thing that is to be confirmed.
    fn number(&mut self, now: Time, what: Option<ConnectionId>) -> u64 {
        self.last_number += 1;
        self.owed.push_back(Owed { number: self.last_number, since: now, what });
        self.last_number
    }

    fn leave(&mut self, now: Time, bytes: Vec<u8>, what: Option<ConnectionId>) -> u64 {
        let number = self.number(now, what);
        self.leaving = Some(Leaving { number, bytes, at: 0 });
        number
    }

    /// The next part of the record that leaves, if one does.
    fn say_part(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(leaving) = &mut self.leaving else { return false };
        let rest = &leaving.bytes[leaving.at..];
        let len = rest.len().min(MAX_STATE_MESSAGE - PART_HEADER);
        let last = len == rest.len();
        let part = Message::Part { number: leaving.number, last, bytes: &rest[..len] };
        part.encode(out);
        leaving.at += len;
        if last {
            self.leaving = None;
        }
        true
    }

    fn expect(&self, number: u64) -> Result<(), StateError> {
        let expected = self.got + 1;
        if number == expected { Ok(()) } else { Err(StateError::Gap { expected, got: number }) }
    }
}
