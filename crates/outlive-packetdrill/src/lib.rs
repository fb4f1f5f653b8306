//! Outlive's TCP endpoint as a shared library for [packetdrill](https://github.com/google/packetdrill),
//! a tool that runs scripts of system calls, packets and times against a TCP.
//!
//! The tool loads the library (`--so_filename`), makes its system calls here instead of in the
//! kernel, and hands packets over by function calls. Time is virtual, for the tool asks the library
//! for it: a script runs as fast as it can be computed, and every run gives the same.
//!
//! | module | owns |
//! |---|---|
//! | `table` | the C interface |
//! | `interface` | its functions, and all unsafe code |
//! | `session` | who waits: virtual time, and calls that block |
//! | `stack` | sockets, listeners, routing of packets to connections |
//! | `sockopt` | socket options |
//! | `settings` | what `--so_flags` says |
//!
//! `docs/conformance.md` says how to build and run it. Scripts are not part of this repository.

mod interface;
mod session;
mod settings;
mod sockopt;
mod stack;
mod table;
#[cfg(test)]
mod tests;
