//! The TUN (or TAP) device: where the kernel hands over packets for the virtual addresses, and
//! takes them back translated.
//!
//! The device is opened with `IFF_NO_PI | IFF_VNET_HDR`: each read and write is one packet
//! behind a [`VirtioNetHeader`] of [`VirtioNetHeader::LEN`] bytes. With offloads set, a packet
//! may be a whole super-segment (GSO) of up to 65,535 bytes, whose checksum may be partial. A
//! buffer of [`BUFFER_LEN`] bytes therefore never truncates.
//!
//! This module owns the descriptor. It does not set addresses, routes, MTU or queue length:
//! that is [`netlink`](crate::netlink)'s. The device is not persistent: it vanishes with the
//! descriptor, and its routes with it, so nothing is left behind by a killed process.

mod header;

use std::{
    ffi::c_short,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    mem::zeroed,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

pub use self::header::{GsoType, HeaderFlags, VirtioNetHeader};
use crate::{Errno, sys};

/// Room for the largest packet that can be read: the header and 65,535 bytes of IP, or of
/// Ethernet frame and IP in the case of a TAP.
pub const BUFFER_LEN: usize = VirtioNetHeader::LEN + 18 + 65_535;

const CLONE_DEVICE: &str = "/dev/net/tun";

bitflags::bitflags! {
    /// What the reader of the device can digest, so that the kernel need not do it before.
    ///
    /// The mask belongs to the device; it takes effect with the next packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Offload: u32 {
        /// Partial checksums (`TUN_F_CSUM`). Required by all others.
        const CHECKSUM = libc::TUN_F_CSUM;
        /// TCP super-segments over IPv4.
        const TSO4 = libc::TUN_F_TSO4;
        /// TCP super-segments over IPv6.
        const TSO6 = libc::TUN_F_TSO6;
        /// TCP super-segments with CWR set; without it they are announced as "no GSO" (seen on
        /// Linux 6.18), so whoever takes TSO should take this, too.
        const TSO_ECN = libc::TUN_F_TSO_ECN;
        /// Everything that TCP can use.
        const TCP = Self::CHECKSUM.bits() | Self::TSO4.bits() | Self::TSO6.bits()
            | Self::TSO_ECN.bits();
    }
}

/// Which layer the device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IP packets (`IFF_TUN`).
    Ip,
    /// Ethernet frames (`IFF_TAP`).
    Ethernet,
}

/// An open TUN or TAP device, non-blocking, with a single queue.
///
/// Belongs to the network namespace of the thread that opened it, whichever thread uses it
/// later.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Opens a device.
    ///
    /// `name`: of the interface, at most 15 bytes; a name with `%d` is completed by the kernel
    /// (`"outl%d"`), and [`Tun::name`] tells what became of it. The interface is down.
    pub fn open(layer: Layer, name: &str, offload: Offload) -> Result<Tun, TunError> {
        let file = open_driver()?;
        let name = attach(&file, layer, name)?;
        let tun = Tun { file, name };
        tun.set_header_len()?;
        tun.set_offload(offload)?;
        Ok(tun)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes what the reader can digest.
    pub fn set_offload(&self, offload: Offload) -> Result<(), TunError> {
        let mask = libc::c_ulong::from(offload.bits());
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        sys::check(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETOFFLOAD as _, mask) })
            .map_err(|error| TunError::Setup { step: "TUNSETOFFLOAD", errno: Errno::of(&error) })?;
        Ok(())
    }

    /// Reads one packet: [`VirtioNetHeader::LEN`] bytes of header, then the packet.
    ///
    /// Returns the length of both. A buffer shorter than [`BUFFER_LEN`] may truncate. Errors:
    /// `WouldBlock` when nothing is queued; `EIO` while the interface is down.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Hands one packet, in the form that [`Tun::recv`] gives, to the kernel, which takes it as
    /// received on this interface.
    ///
    /// A packet is taken whole or not at all. Errors: `InvalidInput` (`EINVAL`) for a header
    /// that contradicts the packet; `EIO` while the interface is down.
    pub fn send(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.file).write(packet)
    }

    fn set_header_len(&self) -> Result<(), TunError> {
        let len = VirtioNetHeader::LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int behind the pointer.
        sys::check(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &len) })
            .map_err(|error| TunError::Setup {
                step: "TUNSETVNETHDRSZ",
                errno: Errno::of(&error),
            })?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or the container does not show it.
    #[error(
        "{CLONE_DEVICE} is missing: load the kernel module `tun`, or pass the device into the container"
    )]
    NoDriver,
    /// The clone device may not be opened by this user.
    #[error("{CLONE_DEVICE} may not be opened by this user: run as root, or change its mode")]
    MayNotOpen,
    /// `CAP_NET_ADMIN` is missing in the network namespace.
    #[error("the TUN device {name} may not be created: CAP_NET_ADMIN is missing")]
    MayNotCreate {
        /// The name asked for.
        name: String,
    },
    /// Another process has a TUN device of that name open.
    #[error("the TUN device {name} is held by another process")]
    Held {
        /// The name asked for.
        name: String,
    },
    /// The name is not possible, or belongs to an interface that is not a TUN (or TAP) device
    /// of this kind.
    #[error(
        "no TUN device can be named {name}: not a valid name, or the name of another kind of interface"
    )]
    WrongName {
        /// The name asked for.
        name: String,
    },
    /// Something else; the step says which.
    #[error("setting up the TUN device, {step}: {errno}")]
    Setup {
        /// The ioctl that failed.
        step: &'static str,
        /// How.
        errno: Errno,
    },
}

impl TunError {
    fn open(error: &io::Error) -> TunError {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
            Some(libc::EACCES | libc::EPERM) => TunError::MayNotOpen,
            _ => TunError::Setup { step: "open", errno: Errno::of(error) },
        }
    }

    fn attach(error: &io::Error, name: &str) -> TunError {
        let name = name.to_owned();
        match error.raw_os_error() {
            Some(libc::EPERM) => TunError::MayNotCreate { name },
            Some(libc::EBUSY) => TunError::Held { name },
            Some(libc::EINVAL) => TunError::WrongName { name },
            _ => TunError::Setup { step: "TUNSETIFF", errno: Errno::of(error) },
        }
    }
}

/// Whether the TUN driver is there and may be opened; makes no device.
pub fn check_driver() -> Result<(), TunError> {
    open_driver().map(drop)
}

fn open_driver() -> Result<File, TunError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CLONE_DEVICE)
        .map_err(|error| TunError::open(&error))
}

/// Creates the interface (or attaches to a persistent one that nobody holds) and returns its
/// name.
fn attach(file: &File, layer: Layer, name: &str) -> Result<String, TunError> {
    // SAFETY: `ifreq` is plain data for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() || name.bytes().any(|byte| byte == 0) {
        return Err(TunError::WrongName { name: name.to_owned() });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let kind = match layer {
        Layer::Ip => libc::IFF_TUN,
        Layer::Ethernet => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq` behind the pointer.
    sys::check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })
        .map_err(|error| TunError::attach(&error, name))?;
    let given = request.ifr_name.iter().take_while(|&&byte| byte != 0);
    Ok(given.map(|&byte| byte as u8 as char).collect())
}
