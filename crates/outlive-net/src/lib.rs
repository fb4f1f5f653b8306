//! The Linux edge of Outlive: everything that touches the kernel, and all the
//! `unsafe` code of the workspace.
//!
//! | module | is |
//! |---|---|
//! | [`tun`] | a TUN or TAP device with `IFF_VNET_HDR`, whole super-segments in and out |
//! | [`netlink`] | a synchronous rtnetlink client: links, addresses, routes, rules, neighbours |
//! | [`netns`] | network namespaces as guards: run closures and programs inside |
//!
//! Nothing here knows what a session or a listener is, nothing here is asynchronous, and no
//! type of the libraries underneath is visible outside: descriptors are `AsFd`, errors are
//! enums that carry the errno.

mod errno;
mod mac;
pub mod netlink;
pub mod netns;
mod sys;
pub mod tun;

pub use errno::Errno;
pub use mac::{InvalidMacAddress, MacAddress};
