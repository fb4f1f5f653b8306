//! What a snapshot says of the sending half, and going on from one.

use std::time::Duration;

use super::{Sender, rack::Rack, recovery::Recovery, scoreboard::Sent};
use crate::{endpoint::capture::Snapshot, time::Time};

impl Sender {
    /// Writes itself down. The bytes that are not acknowledged go along if `output`, and the end of
    /// the stream with them. Gives whether the end is part of it, if the program has ended it.
    pub(in crate::endpoint) fn describe(&self, snapshot: &mut Snapshot, output: bool) -> bool {
        let micros = |time: Duration| time.as_micros().min(u32::MAX.into()) as u32;
        snapshot.iss = self.iss;
        snapshot.una = self.una;
        snapshot.nxt = self.nxt;
        // What is written is sent as soon as the window allows it; that is not worth a capture.
        let written = self.data_end() + u32::from(self.ended);
        snapshot.ack_limit = self.ack_limit.later(written);
        snapshot.send_edge = self.window.edge;
        snapshot.send_window = self.window.size;
        snapshot.largest_window = self.window.largest;
        snapshot.wl1 = self.window.wl1;
        snapshot.wl2 = self.window.wl2;
        snapshot.smoothed_rtt_us = self.rtt.smoothed().map_or(0, micros);
        snapshot.rtt_variation_us = micros(self.rtt.variation());
        snapshot.slow_start_threshold = self.congestion.ssthresh;
        snapshot.skip = self.skip;
        if output {
            snapshot.output = self.queue.slices(0, self.queue.len()).concat();
        }
        let keeps_end = output || self.fin_acknowledged();
        snapshot.ended = self.ended && keeps_end;
        // Where a former node has ended it matters until this one has done so, too.
        snapshot.output_end = self.output_end.filter(|_| !self.ended);
        if self.ended && !keeps_end {
            snapshot.output_end = Some(self.data_end());
        }
        keeps_end
    }

    /// Goes on from a snapshot; `self` is a sender whose handshake is over.
    ///
    /// What was sent is on the scoreboard again as far as it is held here, without the time at which
    /// it was sent. What was sent and is not held may be acknowledged.
    pub(in crate::endpoint) fn resume(&mut self, now: Time, snapshot: &Snapshot, sent_beyond: u32) {
        self.una = snapshot.una;
        self.queue_start = snapshot.output_start();
        self.queue.push(snapshot.output.clone().into());
        self.ended = snapshot.ended;
        self.output_end = snapshot.output_end;
        self.skip = snapshot.skip;
        self.resume_window(snapshot);
        let held = self.data_end() + u32::from(self.ended);
        self.nxt = snapshot.nxt.earlier(held).later(self.una);
        let beyond = self.window.edge + sent_beyond.min(1 << 30);
        self.ack_limit = snapshot.ack_limit.later(snapshot.nxt).later(beyond);
        if let Some(end) = self.output_end {
            // The former node has ended the stream there, and sent nothing behind its FIN.
            self.ack_limit = end + 1;
        }
        if self.una.before(self.nxt) {
            self.board.push(Sent {
                start: self.una,
                end: self.nxt,
                at: now,
                retransmitted: false,
                inherited: true,
                sacked: false,
                lost: false,
            });
        }
        self.rack = Rack::new(self.una);
        self.recovery = Recovery::new(self.una);
        (self.limited_until, self.small_until) = (self.una, self.una);
        self.cwr_until = self.una;
        let micros = |micros: u32| Duration::from_micros(micros.into());
        self.rtt.resume(micros(snapshot.smoothed_rtt_us), micros(snapshot.rtt_variation_us));
        self.congestion.ssthresh = snapshot.slow_start_threshold.max(2 * self.mss);
        self.echo_floor = Some(self.clock.value(now));
        self.expect_report();
    }

    /// No former node has sent anything beyond what this one knows of.
    pub(in crate::endpoint) fn sent_nothing_beyond(&mut self) {
        self.ack_limit = self.nxt;
    }

    fn resume_window(&mut self, snapshot: &Snapshot) {
        self.window.size = snapshot.send_window;
        self.window.largest = snapshot.largest_window;
        self.window.wl1 = snapshot.wl1;
        self.window.wl2 = snapshot.wl2;
        self.window.edge = snapshot.send_edge.later(snapshot.una);
    }
}
