//! The Linux edge.
