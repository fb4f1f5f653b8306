//! What a listener does for the survival of its sessions.

use outlive_proxy::config::{Protection, Replication, Synchronise, WithoutStandby};

use super::Builder;
use crate::settings::{file, values};

impl Builder<'_, '_> {
    pub(super) fn protection(&mut self, listener: &file::Listener) -> Option<Protection> {
        let words = [("sync", Replication::Sync), ("async", Replication::Async)];
        let replication = values::word(self.problems, listener.replication.as_ref(), &words)?;
        let words = [("serve", WithoutStandby::Serve), ("refuse", WithoutStandby::Refuse)];
        let without_standby =
            values::word(self.problems, listener.without_standby.as_ref(), &words)?;
        let words =
            [("establishment", Synchronise::Establishment), ("first-data", Synchronise::FirstData)];
        let synchronise = values::word(self.problems, listener.synchronise.as_ref(), &words)?;
        Some(Protection { replication, without_standby, synchronise })
    }
}
