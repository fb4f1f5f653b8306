//! A socket's state.

use std::{io, net::TcpStream};

use super::{
    Connection, Mute, ReceiveHalf, RepairError, SendHalf, Step,
    options::{self, Queue},
};

/// Takes an established connection out of the kernel. The socket is silent from now on; dropping the
/// [`Mute`] makes it vanish without a word, and letting it [speak](Mute::speak) takes it back.
///
/// Between the capture and the drop the connection's packets must be kept away: the kernel would
/// still acknowledge what is not in the capture.
///
/// # Errors
/// If the connection is not established the socket is dropped, which says FIN as ever; after any
/// other error, silently.
pub fn capture(stream: TcpStream) -> Result<(Connection, Mute), RepairError> {
    let failed = RepairError::at(Step::Socket);
    let (local, remote) = match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(remote)) => (local, remote),
        _ => return Err(RepairError::NotEstablished),
    };
    let agreed = options::negotiated(&stream).map_err(|_| RepairError::NotEstablished)?;
    if !agreed.is_established {
        return Err(RepairError::NotEstablished);
    }
    stream.set_nonblocking(true).map_err(failed)?;
    options::enter(&stream).map_err(RepairError::at(Step::Enter))?;
    // A FIN may have come in the meantime.
    let still = options::negotiated(&stream).map_err(RepairError::at(Step::Options))?;
    if !still.is_established {
        options::leave_silently(&stream).map_err(RepairError::at(Step::Leave))?;
        return Err(RepairError::NotEstablished);
    }
    let mss = options::maximum_segment_size(&stream).map_err(RepairError::at(Step::Options))?;
    let timestamp = match agreed.timestamps {
        true => Some(options::timestamp(&stream).map_err(RepairError::at(Step::Timestamp))?),
        false => None,
    };
    let (send, receive) = halves(&stream)?;
    let connection = Connection {
        local,
        remote,
        send_mss: u16::try_from(mss).unwrap_or(u16::MAX),
        scales: agreed.scales,
        sack: agreed.sack,
        timestamp,
        send,
        receive,
    };
    Ok((connection, Mute::of(stream)))
}

fn halves(stream: &TcpStream) -> Result<(SendHalf, ReceiveHalf), RepairError> {
    let windows = options::windows(stream).map_err(RepairError::at(Step::Window))?;
    let (outstanding, never_sent) =
        options::unacknowledged_and_unsent(stream).map_err(RepairError::at(Step::SendQueue))?;
    let (written, mut sent) = queue(stream, Queue::Send, outstanding, Step::SendQueue)?;
    let unsent = sent.split_off(sent.len().saturating_sub(never_sent));
    let unread = options::unread(stream).map_err(RepairError::at(Step::ReceiveQueue))?;
    let (next, data) = queue(stream, Queue::Receive, unread, Step::ReceiveQueue)?;
    let send = SendHalf {
        unacknowledged: written.wrapping_sub(outstanding as u32),
        sent,
        unsent,
        window: windows.snd_wnd,
        largest_window: windows.max_window,
        window_from: windows.snd_wl1,
    };
    let receive =
        ReceiveHalf { next, data, acknowledged: windows.rcv_wup, window: windows.rcv_wnd };
    Ok((send, receive))
}

/// The sequence number at the end of a queue, and the `len` bytes before it.
fn queue(
    stream: &TcpStream,
    queue: Queue,
    len: usize,
    step: Step,
) -> Result<(u32, Vec<u8>), RepairError> {
    options::select_queue(stream, queue).map_err(RepairError::at(step))?;
    let end = options::sequence(stream).map_err(RepairError::at(Step::Sequence))?;
    let mut bytes = vec![0; len];
    if len > 0 {
        let peeked = stream.peek(&mut bytes).map_err(RepairError::at(step))?;
        if peeked != len {
            let short = io::Error::from_raw_os_error(libc::EIO);
            return Err(RepairError::at(step)(short));
        }
    }
    options::select_queue(stream, Queue::None).map_err(RepairError::at(step))?;
    Ok((end, bytes))
}
