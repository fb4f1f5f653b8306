//! A running node.
#![forbid(unsafe_code)]
