//! Programs built on the library, with the kernels of other machines as their clients: each test makes
//! its own network of namespaces. Without the privileges for that, a test says so and ends.

mod alone;
mod network;
mod pair;
mod regenerate;
mod waiting;
