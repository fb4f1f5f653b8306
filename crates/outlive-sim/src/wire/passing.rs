//! A packet that went into a node, and what came out of it: what the one says must follow from the other.
//!
//! Positions in the streams are the measure, so nothing here knows how the node translates.

use outlive_tcp::wire::{Flags, FourTuple};

use super::{Wire, leg::Leg};
use crate::{
    ledger::{Ledger, Rule},
    packet::Seen,
};

impl Wire {
    /// A node got `came` from a host, and passes it on as `goes`.
    pub(crate) fn passed(&mut self, ledger: &mut Ledger, came: &Seen, goes: &Seen) {
        if came.has(Flags::SYN) || came.has(Flags::RST) || came.flags != goes.flags {
            return;
        }
        let to = goes.tuple.reversed();
        let Some((from_leg, prefix)) = self.sender(ledger, came.tuple, to) else { return };
        let both_acted = self.both_acted;
        let Some(leg) = self.leg_mut(&to) else { return };
        let mut wrong = Vec::new();
        check_window(&from_leg, leg, prefix, came, goes, &mut wrong);
        check_sack(&from_leg, leg, prefix, came, goes, &mut wrong);
        check_stamps(leg, both_acted, came, goes, &mut wrong);
        for (rule, what) in wrong {
            ledger.violate(rule, format!("{what}: {came} became {goes}"));
        }
    }

    /// The connection of the host that sent a packet which goes to another one, if both belong to one flow
    /// that is under the rules; and how much was put before the client's words on the way of
    /// acknowledgments.
    fn sender(&self, ledger: &Ledger, from: FourTuple, to: FourTuple) -> Option<(Leg, i64)> {
        let (server, client, towards_client) = match self.clients.get(&from) {
            Some(client) => (to, client, false),
            None => (from, self.clients.get(&to)?, true),
        };
        let flow = client.flow?;
        let linked = self.by_flow.get(&flow) == Some(&server);
        if !linked || ledger.flows[flow.0].exempt {
            return None;
        }
        let prefix = ledger.flows[flow.0].prefix.len() as i64;
        match towards_client {
            true => Some((self.servers.get(&from)?.clone(), prefix)),
            false => Some((client.clone(), 0)),
        }
    }

    fn leg_mut(&mut self, key: &FourTuple) -> Option<&mut Leg> {
        match self.clients.get_mut(key) {
            Some(leg) => Some(leg),
            None => self.servers.get_mut(key),
        }
    }
}

type Wrong = Vec<(Rule, String)>;

/// The right edge that a sender sees is the one that the receiver has shown, up to the scale's steps.
fn check_window(from: &Leg, to: &Leg, prefix: i64, came: &Seen, goes: &Seen, wrong: &mut Wrong) {
    let (Some(came_ack), Some(goes_ack)) =
        (came.ack.and_then(|ack| from.of_own(ack)), goes.ack.and_then(|ack| to.of_host(ack)))
    else {
        return;
    };
    let step = 1 << to.scales().1;
    let offered = came_ack - prefix + (i64::from(came.window) << from.scales().0);
    let shown = goes_ack + i64::from(goes.window) * step;
    let said_all = goes.window == u16::MAX;
    if shown > offered.max(goes_ack) {
        let what = format!("window up to {shown}, {offered} were offered");
        wrong.push((Rule::Window, what));
    } else if shown <= offered - step && !said_all {
        let what = format!("window up to {shown} only, {offered} were offered");
        wrong.push((Rule::Window, what));
    }
}

/// What is reported as received was reported by the receiver.
fn check_sack(from: &Leg, to: &Leg, prefix: i64, came: &Seen, goes: &Seen, wrong: &mut Wrong) {
    let blocks = goes.options.sack;
    if blocks.as_slice().is_empty() {
        return;
    }
    if !to.understands_sack() {
        wrong.push((Rule::Selective, "SACK blocks for an end that does not know them".into()));
    }
    let reported: Vec<_> = came
        .options
        .sack
        .as_slice()
        .iter()
        .filter_map(|b| Some((from.of_own(b.start)? - prefix, from.of_own(b.end)? - prefix)))
        .collect();
    // What lies in the inserted prefix is not the sender's.
    let is_reported = |start, end| {
        reported.iter().any(|(s, e)| {
            (*s, *e) == (start, end) || prefix > 0 && (*s.max(&0), *e.max(&0)) == (start, end)
        })
    };
    for block in blocks.as_slice() {
        let (Some(start), Some(end)) = (to.of_host(block.start), to.of_host(block.end)) else {
            return;
        };
        if !is_reported(start, end) {
            let what = format!("{start} to {end} reported as received, {reported:?} were");
            wrong.push((Rule::Selective, what));
        }
    }
}

/// Timestamps are shifted by constants, whichever node does it; what is made up never runs back (if two nodes
/// act and do not hear each other, neither can know what the other makes up).
fn check_stamps(to: &mut Leg, both_acted: bool, came: &Seen, goes: &Seen, wrong: &mut Wrong) {
    let Some(goes_stamps) = goes.options.timestamps else { return };
    let Some(came_stamps) = came.options.timestamps else {
        if let Some(last) = to.last_stamp
            && (goes_stamps.value.wrapping_sub(last) as i32) < 0
            && !both_acted
        {
            let what = format!("timestamp {} after {last}", goes_stamps.value);
            wrong.push((Rule::Clock, what));
        }
        return;
    };
    let value = goes_stamps.value.wrapping_sub(came_stamps.value);
    let echo = goes_stamps.echo.wrapping_sub(came_stamps.echo);
    let known = (*to.stamps.0.get_or_insert(value), *to.stamps.1.get_or_insert(echo));
    if known != (value, echo) {
        let what = format!("timestamps shifted by {:?}, before by {known:?}", (value, echo));
        wrong.push((Rule::Clock, what));
    }
}
