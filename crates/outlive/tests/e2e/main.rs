//! Programs that nobody here wrote, through a pair of nodes, while harm is done to the active one.
//!
//! Each test builds a small lab of its own (`world`): a client, two servers, two nodes, each in a
//! network namespace. Programs of the distribution run there as children of the test, with
//! everything they read or write in a directory that goes with the test. What they do is an
//! `Activity`: it must be under way when the fault comes, and end well afterwards.
//!
//! | module | is |
//! |---|---|
//! | `world`, `program`, `activity`, `files` | the lab of a test, its programs, what they are doing, what they move |
//! | `nginx`, `tls`, `ssh`, `postgres`, `rsync` | a program each, across a kill and a cut |
//! | `proxy_protocol` | the server learns the client's address |
//! | `bad_links` | all of them together, over bad links |
//! | `stalls` | ends that do not read, half-closed and idle connections |
//! | `flood`, `forged` | strangers who forge packets |
//! | `terminate` | listeners that are an endpoint to both ends |
//!
//! `OUTLIVE_E2E_FULL=1` moves as much as the project promises; without it, less, so that the suite
//! stays short. `OUTLIVE_E2E_REQUIRE=1` or `CI=true` makes a missing program a failure.

mod activity;
mod bad_links;
mod files;
mod flood;
mod forged;
mod nginx;
mod postgres;
mod program;
mod proxy_protocol;
mod rsync;
mod ssh;
mod stalls;
mod terminate;
mod tls;
mod world;
