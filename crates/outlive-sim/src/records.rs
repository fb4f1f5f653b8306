//! Reads on the state connection which sessions and migrated connections the standby is told of, by the documented layout and
//! independently of the code that writes it.

use std::net::Ipv6Addr;

use outlive_tcp::wire::{Endpoint, FourTuple};

const SNAPSHOT: u8 = 3;
const CHANGES: u8 = 4;
const OPENED: u8 = 1;
/// A terminated session.
const JOINED: u8 = 32;
const MIGRATED: u8 = 7;
/// Where the client's initial sequence number stands in what is told of a migrated connection.
const MIGRATED_ISN: usize = 4 * ENDPOINT + 16 + 8 + 4;
const ENDPOINT: usize = 18;
/// Length of a leg: two endpoints, two sequence numbers, the segment size, two scales.
const LEG: usize = 2 * ENDPOINT + 4 + 4 + 2 + 2;

/// One of the two connections of a session: the tuple of its end's packets, and the end's initial sequence
/// number.
pub(crate) type ConnectionName = (FourTuple, u32);

/// Calls `found` with both connections of each session that `message` opens, and with the client's of each that is
/// migrated.
pub(crate) fn sessions_opened(message: &[u8], mut found: impl FnMut(ConnectionName)) {
    let mut changes = match message {
        [SNAPSHOT, rest @ ..] => rest,
        [CHANGES, rest @ ..] => rest.get(8..).unwrap_or_default(),
        _ => return,
    };
    while let [kind, high, low, rest @ ..] = changes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((body, rest)) = rest.split_at_checked(len) else { return };
        if [OPENED, JOINED].contains(kind) {
            for leg in [0, LEG] {
                let end = endpoint(body, leg);
                let own = endpoint(body, leg + ENDPOINT);
                let isn = body.get(leg + 2 * ENDPOINT..).and_then(|b| b.first_chunk::<4>());
                if let (Some(end), Some(own), Some(isn)) = (end, own, isn) {
                    found((FourTuple::new(end, own), u32::from_be_bytes(*isn)));
                }
            }
        }
        if *kind == MIGRATED {
            let ends = endpoint(body, 0).zip(endpoint(body, ENDPOINT));
            let isn = body.get(MIGRATED_ISN..).and_then(|b| b.first_chunk::<4>());
            if let (Some((client, own)), Some(isn)) = (ends, isn) {
                found((FourTuple::new(client, own), u32::from_be_bytes(*isn)));
            }
        }
        changes = rest;
    }
}

fn endpoint(body: &[u8], at: usize) -> Option<Endpoint> {
    let bytes = body.get(at..at + ENDPOINT)?;
    let address: [u8; 16] = bytes[..16].try_into().ok()?;
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    Some(Endpoint::new(Ipv6Addr::from(address).to_canonical(), port))
}
