//! Stacks in virtual time: see `world`.

mod alone;
mod bounds;
mod pair;
mod regenerate;
mod world;
