//! bad_links
