//! The Linux edge of Outlive: everything that touches the kernel, and all the
//! `unsafe` code of the workspace.
//!
//! | module | is |
//! |---|---|
//! | [`tun`] | a TUN or TAP device with `IFF_VNET_HDR`, whole super-segments in and out |
//! | [`netlink`] | a synchronous rtnetlink client: links, addresses, routes, rules, neighbours |
//! | [`neighbour`] | answers ARP and neighbour solicitations for the virtual addresses, announces them |
//! | [`edge`] | the routes of the virtual addresses: put, activated, withdrawn, leftovers removed |
//! | [`fast_path`] | an eBPF program that translates the packets of established sessions |
//! | [`arrival`] | datagrams with the time at which they arrived |
//! | [`capture`] | what passes an interface, with the time at which it did |
//! | [`sending`] | what the kernel says of a TCP socket's sender |
//! | [`diag`] | which TCP connections the kernel has, and which have ended |
//! | [`repair`] | connections put into the kernel's TCP, and taken out of it (`TCP_REPAIR`) |
//! | [`keeper`] | a program that holds descriptors for a moment longer than the process that started it |
//! | [`sysctl`] | settings under `/proc/sys`: what is required, what is found |
//! | [`privilege`] | what this process may not do; real-time priority, locked memory |
//! | [`netns`] | network namespaces as guards: run closures and programs inside |
//! | [`program`] | programs that must not outlive the one that started them |
//! | [`user_namespace`] | an ordinary user becomes the root of namespaces of its own |
//!
//! Nothing here knows what a session or a listener is, nothing here is asynchronous, and no
//! type of the libraries underneath is visible outside: descriptors are `AsFd`, errors are
//! enums that carry the errno.

pub mod arrival;
pub mod capture;
pub mod diag;
pub mod edge;
mod errno;
pub mod fast_path;
pub mod keeper;
mod mac;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod privilege;
pub mod program;
pub mod repair;
pub mod sending;
mod sys;
pub mod sysctl;
pub mod tun;
pub mod user_namespace;

pub use errno::Errno;
pub use mac::{InvalidMacAddress, MacAddress};
