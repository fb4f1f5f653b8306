//! What a network device did for a packet, or is asked to do.
//!
//! This is the meaning of a `virtio_net_hdr` without its layout; the Linux edge converts.

/// Checksum and segmentation of a packet, as the device says or is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The state of the TCP checksum.
    pub checksum: Checksum,
    /// Whether the packet stands for several.
    pub segmentation: Segmentation,
}

/// The state of a TCP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// It is in the packet. Nobody has verified it.
    #[default]
    Full,
    /// It is in the packet, and the device has verified it.
    Verified,
    /// The field holds the folded sum of the pseudo-header; the device completes it on the way out.
    Partial,
}

/// Whether a packet stands for several segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Segmentation {
    /// It stands for itself.
    #[default]
    None,
    /// A super-segment: the device cuts it, repeating the headers.
    Tcp {
        /// Payload bytes of each segment but the last.
        size: u16,
        /// CWR belongs to the first segment only (RFC 3168, section 6.1.2).
        ecn: bool,
    },
}
