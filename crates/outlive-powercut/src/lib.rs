//! What of a program's files would survive a power cut, found out while the program runs unchanged.
//!
//! A shared library for `LD_PRELOAD`. It stands before `fsync`, `fdatasync` and `ftruncate` of the C library. For files
//! directly in one directory, the *disk*, it keeps in another one, the *record*, what their last `fsync` has made
//! durable. Who wants to see a power cut kills the program and puts that back: bytes written since, and names of files
//! whose directory was not synchronised since, are gone.
//!
//! | environment variable | is |
//! |---|---|
//! | `OUTLIVE_POWERCUT` | `DISK:RECORD`, two directories. Without it, nothing is done |
//! | `OUTLIVE_POWERCUT_DELAY_US` | so much longer takes each synchronisation |
//!
//! The record:
//!
//! | file | is |
//! |---|---|
//! | `content/INODE` | the content of that file at its last synchronisation |
//! | `names` | the files of the directory when it was last synchronised itself: a line `INODE NAME` for each |
//! | `syncs` | a line for each synchronisation of a file, written when it is complete and before the program learns of it: `NANOSECONDS LENGTH INODE`, by the wall clock, as packets are stamped |
//!
//! What counts is the file's length when the synchronisation began. A program that overwrites, rather than appends,
//! while another of its threads synchronises may find more of that surviving than is certain.
//!
//! If the record cannot be kept, the synchronisation fails (`EIO`): nobody can take what was not seen for durable.
//!
//! | module | owns |
//! |---|---|
//! | `record` | the record |
//! | `interpose` | the functions of the C library, and all unsafe code |

mod interpose;
mod record;
