//! A connection between a blob and Outlive's own endpoint: the `userspace` way to infuse one, and to send one on.
//!
//! The endpoint tells a window scale of zero from none as little as the wire does after the handshake: a blob made of an endpoint's
//! connection says that there is none.

use std::time::Duration;

use outlive_tcp::{
    endpoint::{Config, Connection, Negotiated, NotPortable, Portable},
    time::Time,
};

use super::{Blob, BlobError, MAX_DATA, Mapping, Scales, TcpState, TimestampState};

/// A smaller MSS is not believed by the endpoint: a few bytes would cost a packet each.
const LEAST_MSS: u16 = 64;

/// Why a connection does not go into an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotInfusible {
    /// Something that was sent to the client is not acknowledged, and a blob does not contain it.
    #[error("something is in flight to the client")]
    InFlight,
    /// The state contradicts itself.
    #[error(transparent)]
    State(#[from] BlobError),
}

/// Why a connection cannot be migrated on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotCaptured {
    /// Not now, or never.
    #[error(transparent)]
    Connection(#[from] NotPortable),
    /// The mapping does not suit it.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl Blob {
    /// The connection, in an endpoint. It is mute until [`Connection::poll_transmit`] is asked, which is for COMMIT; what was received is there
    /// to be read, not acknowledged. `age` is how long ago the state was captured, at least.
    ///
    /// # Errors
    /// It is not a state that an endpoint can go on from.
    pub fn infuse(
        &self,
        now: Time,
        age: Duration,
        config: Config,
    ) -> Result<Connection, NotInfusible> {
        let tcp = &self.tcp;
        if !self.is_consistent() {
            return Err(BlobError::Invalid.into());
        }
        if tcp.snd_una != tcp.snd_nxt {
            return Err(NotInfusible::InFlight);
        }
        let age_ms = age.as_millis().min(u128::from(u32::MAX / 4)) as u32;
        let scales = tcp.scales.unwrap_or(Scales { snd: 0, rcv: 0 });
        let state = Portable {
            tuple: self.ends.reversed(),
            negotiated: Negotiated {
                peer_mss: tcp.client_mss.max(LEAST_MSS),
                own_mss: tcp.own_mss.max(LEAST_MSS),
                send_scale: scales.snd,
                receive_scale: scales.rcv,
                timestamps: tcp.timestamps.is_some(),
                sack: tcp.sack,
                ecn: false,
            },
            timestamp: tcp.timestamps.map_or(0, |it| it.clock.wrapping_add(age_ms)),
            timestamp_recent: tcp.timestamps.map_or(0, |it| it.recent),
            iss: tcp.iss,
            sent: tcp.snd_nxt,
            window: tcp.snd_wnd,
            largest_window: tcp.snd_wnd_max,
            wl1: tcp.snd_wl1,
            wl2: tcp.snd_wl2,
            irs: tcp.irs,
            acknowledged: tcp.rcv_acked,
            receive_window: tcp.rcv_wnd,
            received: self.data.clone(),
        };
        Connection::from_portable(now, &state, config).ok_or(BlobError::Invalid.into())
    }

    /// The state of an endpoint's connection, to be migrated on. The endpoint must be mute from now on, and forgotten at COMMIT.
    ///
    /// What was received beyond [`MAX_DATA`] bytes is left to the client to repeat.
    ///
    /// # Errors
    /// It does not stand still, or cannot be told in a blob.
    pub fn capture(
        now: Time,
        connection: &Connection,
        mapping: Mapping,
    ) -> Result<Self, NotCaptured> {
        let mut state = connection.port(now)?;
        state.received.truncate(MAX_DATA);
        let agreed = &state.negotiated;
        let scaled = agreed.send_scale > 0 || agreed.receive_scale > 0;
        let tcp = TcpState {
            iss: state.iss,
            snd_una: state.sent,
            snd_nxt: state.sent,
            snd_wnd: state.window,
            snd_wnd_max: state.largest_window,
            snd_wl1: state.wl1,
            snd_wl2: state.wl2,
            irs: state.irs,
            rcv_acked: state.acknowledged,
            rcv_nxt: state.acknowledged + state.received.len() as u32,
            rcv_wnd: state.receive_window,
            client_mss: agreed.peer_mss,
            own_mss: agreed.own_mss,
            scales: scaled.then_some(Scales { snd: agreed.send_scale, rcv: agreed.receive_scale }),
            sack: agreed.sack,
            timestamps: agreed.timestamps.then_some(TimestampState {
                recent: state.timestamp_recent,
                // Whether the client has echoed the latest is not known; an older one must not be said again.
                echoed: state.timestamp,
                clock: state.timestamp,
            }),
        };
        let blob = Blob { tcp, ends: state.tuple.reversed(), mapping, data: state.received };
        if blob.is_consistent() { Ok(blob) } else { Err(BlobError::Invalid.into()) }
    }
}

#[cfg(test)]
mod tests;
