//! The state of a connection whose client has been answered with a cookie.

use outlive_migration::blob::{Blob, Mapping, Scales, TcpState, TimestampState};
use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    time::Time,
    wire::{Flags, Options, Timestamps},
};

use super::Transfer;
use crate::{
    opening::{FIRST_WINDOW, Meeting, Opening, SHOWN_SCALE},
    proxy::Proxy,
};

const DEFAULT_MSS: u16 = 536;

impl Proxy {
    /// Compiles the state of the connection in `slot`, from the top of the stack down: TCP, IP, the mapping; and what was received.
    /// `None` if it is not one whose client was answered, or cannot be moved.
    pub(super) fn capture(&self, now: Time, slot: usize, transfer: &Transfer) -> Option<Vec<u8>> {
        let opening = &self.openings[slot];
        let Meeting::Answered { iss, timestamp, data, .. } = &opening.meeting else { return None };
        let (iss, irs) = (*iss, opening.irs);
        let options = &opening.options;
        let ipv4 = opening.tuple.source.addr.is_ipv4();
        let shown = self.pools.traits(self.pools_of(opening.listener), ipv4);
        let clock = self.clock.timestamp(now);
        let tcp = TcpState {
            iss,
            snd_una: iss + 1,
            snd_nxt: iss + 1,
            snd_wnd: opening.window,
            snd_wnd_max: opening.window,
            snd_wl1: irs + 1,
            snd_wl2: iss + 1,
            irs,
            rcv_acked: irs + 1,
            rcv_nxt: irs + 1 + data.len() as u32,
            rcv_wnd: FIRST_WINDOW.into(),
            client_mss: options.mss.unwrap_or(DEFAULT_MSS),
            own_mss: shown.mss,
            scales: options.window_scale.map(|snd| Scales { snd, rcv: SHOWN_SCALE }),
            sack: options.sack_permitted,
            timestamps: options.timestamps.map(|_| TimestampState {
                recent: opening.timestamp,
                echoed: *timestamp,
                clock,
            }),
        };
        let mapping = Mapping { flow: transfer.flow, tunnel: transfer.tunnel.target };
        Blob { tcp, ends: opening.tuple, mapping, data: data.clone() }.encode().ok()
    }
}

/// The client's FIN, if it has come: it is not part of the state, and follows it.
pub(super) fn fin_of(opening: &Opening) -> Option<Vec<u8>> {
    let Meeting::Answered { iss, timestamp, data, fin: true } = &opening.meeting else {
        return None;
    };
    let scale = opening.options.window_scale.unwrap_or(0);
    let segment = Segment {
        tuple: opening.tuple,
        seq: opening.irs + 1 + data.len() as u32,
        ack: Some(*iss + 1),
        flags: Flags::FIN,
        window: u16::try_from(opening.window >> scale).unwrap_or(u16::MAX),
        options: Options {
            timestamps: opening
                .options
                .timestamps
                .map(|_| Timestamps { value: opening.timestamp, echo: *timestamp }),
            ..Options::default()
        },
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    let mut packet = Vec::new();
    segment.emit(&mut packet);
    Some(packet)
}
