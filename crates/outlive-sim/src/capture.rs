//! A capture of a world's packets, for Wireshark: whole IP packets with the world's time.

use std::{fs::File, io::BufWriter, path::Path, time::Duration};

use anyhow::Context;
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};

use outlive_tcp::time::Time;

/// A file that packets are written to.
pub(crate) struct Capture {
    writer: PcapWriter<BufWriter<File>>,
}

impl Capture {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("{} not created", path.display()))?;
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)?;
        Ok(Capture { writer })
    }

    /// A packet leaves whoever has sent it. What cannot be written is missing.
    pub(crate) fn note(&mut self, now: Time, packet: &[u8]) {
        let at = Duration::from_micros(now.as_micros());
        let _ = self.writer.write_packet(&PcapPacket::new(at, packet.len() as u32, packet));
    }
}
