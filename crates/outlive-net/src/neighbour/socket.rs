//! The packet sockets (packet(7)) that the responder listens on: one for ARP, one for neighbour
//! discovery, and the memberships that bring solicitations to this machine.

use std::{
    fs::File,
    io::{self, Write},
    mem::{size_of, zeroed},
    net::Ipv6Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use super::ndp;
use crate::{MacAddress, netlink::LinkIndex, sys};

/// A packet socket, bound to one protocol on one interface, non-blocking.
#[derive(Debug)]
pub(super) struct PacketSocket {
    /// A file only for its safe `write`.
    file: File,
    link: LinkIndex,
}

/// A frame that was received.
pub(super) enum Received {
    /// For this machine, or for everybody: so many bytes.
    Frame(usize),
    /// For another station, in another VLAN, or sent by this machine itself.
    NotForUs,
    /// Nothing is queued.
    Nothing,
}

impl PacketSocket {
    /// Listens for ARP.
    pub(super) fn arp(link: LinkIndex) -> io::Result<PacketSocket> {
        PacketSocket::open(link, libc::ETH_P_ARP as u16, None)
    }

    /// Listens for neighbour solicitations and advertisements; other IPv6 packets never wake
    /// the process.
    pub(super) fn ndp(link: LinkIndex) -> io::Result<PacketSocket> {
        PacketSocket::open(link, libc::ETH_P_IPV6 as u16, Some(&mut ndp_filter()))
    }

    fn open(
        link: LinkIndex,
        protocol: u16,
        filter: Option<&mut [libc::sock_filter]>,
    ) -> io::Result<PacketSocket> {
        // With protocol 0 nothing is received before filter and interface are set.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
        if let Some(filter) = filter {
            let len = filter.len() as libc::c_ushort;
            let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
            // The kernel copies the program, so its memory need not outlive the call.
            sys::set_socket_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        }
        // SAFETY: `sockaddr_ll` is plain data for which all zeros is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = link.0 as libc::c_int;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointer and length describe `address`, which the kernel only reads.
        sys::check(unsafe {
            libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len)
        })?;
        Ok(PacketSocket { file: socket.into(), link })
    }

    /// Takes one frame off the queue; one longer than `buffer` is cut.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // SAFETY: `sockaddr_ll` is plain data for which all zeros is valid.
        let mut from: libc::sockaddr_ll = unsafe { zeroed() };
        let mut from_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointers and lengths describe `buffer` and `from`, both writable and
        // borrowed for the call.
        let received = unsafe {
            libc::recvfrom(
                self.file.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                std::ptr::from_mut(&mut from).cast(),
                &mut from_len,
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                io::ErrorKind::Interrupted => Ok(Received::NotForUs),
                _ => Err(error),
            };
        }
        match from.sll_pkttype {
            libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST => {
                Ok(Received::Frame(received as usize))
            }
            _ => Ok(Received::NotForUs),
        }
    }

    /// Sends a whole frame.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(drop)
    }

    /// Makes the interface receive frames for a group address, or not any more.
    pub(super) fn set_membership(&self, group: MacAddress, member: bool) -> io::Result<()> {
        // SAFETY: `packet_mreq` is plain data for which all zeros is valid.
        let mut request: libc::packet_mreq = unsafe { zeroed() };
        request.mr_ifindex = self.link.0 as libc::c_int;
        request.mr_type = libc::PACKET_MR_MULTICAST as libc::c_ushort;
        request.mr_alen = group.0.len() as libc::c_ushort;
        request.mr_address[..group.0.len()].copy_from_slice(&group.0);
        let option =
            if member { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
        sys::set_socket_option(&self.file, libc::SOL_PACKET, option, &request)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Memberships in IPv6 groups, for which the kernel sends MLD reports (RFC 3810), so that
/// switches that snoop pass the group's frames on to this machine.
#[derive(Debug)]
pub(super) struct GroupMemberships {
    socket: File,
    link: LinkIndex,
}

impl GroupMemberships {
    pub(super) fn open(link: LinkIndex) -> io::Result<GroupMemberships> {
        let socket = sys::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
        Ok(GroupMemberships { socket: socket.into(), link })
    }

    pub(super) fn set(&self, group: Ipv6Addr, member: bool) -> io::Result<()> {
        let request = libc::ipv6_mreq {
            ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
            ipv6mr_interface: self.link.0 as libc::c_uint,
        };
        let option = if member { libc::IPV6_ADD_MEMBERSHIP } else { libc::IPV6_DROP_MEMBERSHIP };
        sys::set_socket_option(&self.socket, libc::IPPROTO_IPV6, option, &request)
    }
}

/// Classic BPF: ICMPv6 directly behind the IPv6 header, hop limit 255, type 135 or 136.
fn ndp_filter() -> [libc::sock_filter; 9] {
    let load = |at: usize| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: at as u32,
    };
    // Jumps count the instructions to skip.
    let equals = |value: u8, jt: u8, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt,
        jf,
        k: value.into(),
    };
    let keep = |bytes: u32| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: bytes,
    };
    [
        load(ndp::NEXT_HEADER_AT),
        equals(ndp::ICMPV6, 0, 6),
        load(ndp::HOP_LIMIT_AT),
        equals(ndp::HOP_LIMIT, 0, 4),
        load(ndp::TYPE_AT),
        equals(ndp::SOLICITATION, 1, 0),
        equals(ndp::ADVERTISEMENT, 0, 1),
        keep(u32::MAX),
        keep(0),
    ]
}
