//! What is counted: everything that happens to a packet or a session, each under one name.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// Every counter, in the order in which they are shown.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)+];

            /// The name under which operators see it.
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            /// What it counts.
            pub fn help(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

counters! {
    /// Packets read from the device.
    PacketsIn => "packets_in",
    /// Packets translated and passed on.
    Forwarded => "packets_forwarded",
    /// Established sessions left to the fast path.
    FastPathInstalled => "fast_path_installed",
    /// Attempts to do so when it had no room.
    FastPathFull => "fast_path_full",
    /// Packets that the node made itself.
    Made => "packets_made",
    /// Sessions whose translation was fixed.
    SessionsOpened => "sessions_opened",
    /// Sessions that ended with a FIN in each direction, acknowledged.
    SessionsFinished => "sessions_finished",
    /// Sessions that a valid reset ended.
    SessionsReset => "sessions_reset",
    /// Sessions forgotten because nothing was heard for the idle timeout.
    SessionsIdle => "sessions_idle",
    /// Connections reset because no record of them had reached this node when it took over.
    SessionsLost => "sessions_lost",
    /// Sessions in TIME-WAIT that gave way to a new one.
    SessionsRecycled => "sessions_recycled",
    /// SYN-ACKs sent with a cookie.
    CookiesSent => "cookies_sent",
    /// Handshakes completed with a valid cookie.
    CookiesAccepted => "cookies_accepted",
    /// Handshakes adopted whose cookie the other node had made.
    CookiesAdopted => "cookies_adopted",
    /// Connections refused by a server.
    ServerRefused => "server_refused",
    /// Servers that did not answer a SYN in time.
    ServerTimeout => "server_timeout",
    /// Clients turned away because no server of the pool could be reached.
    NoServer => "no_server",
    /// Clients turned away because there was no standby, and the listener insists on one.
    NoStandby => "no_standby",
    /// Clients turned away because their data matched no route.
    NoRoute => "no_route",
    /// Times that nine tenths of this node's source ports towards a server came to be in use.
    PortsLow => "source_ports_low",
    /// Connections not opened because every source port towards the server is taken.
    PortsExhausted => "source_ports_exhausted",
    /// Inserted PROXY headers sent again because their acknowledgment did not come.
    PrefixRepeated => "prefix_repeated",
    /// Connections that a target was asked to take.
    MigrationsBegun => "migrations_begun",
    /// Targets that refused a connection before it was committed.
    MigrationRefused => "migrations_refused",
    /// Targets that did not answer in time, or were lost meanwhile, before a connection was committed.
    MigrationTimeout => "migrations_timeout",
    /// Connections that speak at their target.
    MigrationsCompleted => "migrations_completed",
    /// Connections whose target lost them after they were committed.
    MigrationsLost => "migrations_lost",
    /// Migrated connections that both ends closed.
    MigratedFinished => "migrated_finished",
    /// Migrated connections that were reset.
    MigratedReset => "migrated_reset",
    /// Migrated connections of which nothing was heard for the idle timeout.
    MigratedIdle => "migrated_idle",
    /// Packets of migrated connections led to their targets.
    Tunnelled => "packets_tunnelled",
    /// Resets sent for segments of unknown connections.
    ResetsSent => "resets_sent",
    /// ICMP errors passed to the end that they concern.
    IcmpTranslated => "icmp_translated",
    /// Pings answered.
    EchoReplies => "echo_replies",
    /// ICMP port unreachable sent.
    Unreachables => "unreachables_sent",
    /// Standbys that came back soon enough to be told only what they had missed.
    Resumed => "standby_resumed",
    /// Takeovers by this node.
    Takeovers => "takeovers",
    /// Probes sent after a takeover to wake up busy sessions.
    WakeUps => "wake_ups",
    /// Resets swallowed because one of our own probes had provoked them.
    ProbeResets => "probe_resets_swallowed",
    /// Sessions handed over to the standby, as planned.
    HandedOver => "sessions_handed_over",
    /// Late segments passed on after a handover, as the other node would have.
    LatePassed => "late_segments_passed",
    /// Packets of others that the peer relayed to this node after a handover.
    RelayedIn => "packets_relayed_in",
    /// Dropped: too many packets wait to be relayed to the node that has taken over.
    DropRelayFull => "drop_relay_full",
    /// Dropped: not a well-formed IP packet, or TCP header.
    DropMalformed => "drop_malformed",
    /// Dropped: IP fragments of a flow.
    DropFragment => "drop_fragment",
    /// Dropped: wrong TCP checksum.
    DropChecksum => "drop_checksum",
    /// Dropped: not for any address of ours, or of a protocol that is not answered.
    DropForeign => "drop_foreign",
    /// Dropped: this node is not active.
    DropPassive => "drop_passive",
    /// Dropped: this node stood still and must first ask whether it is still active.
    DropUnsure => "drop_unsure",
    /// Dropped in silence: a segment of an unknown connection when a reset might hit one that lives elsewhere.
    DropSilent => "drop_silent",
    /// Dropped: the session waits for its standby's confirmation.
    DropUnconfirmed => "drop_unconfirmed",
    /// Dropped: the first data of a session that waits for its standby, because too much of it waits. Its client repeats it.
    DropFirstData => "drop_first_data",
    /// Dropped: the connection is still being opened.
    DropOpening => "drop_opening",
    /// Dropped: an acknowledgment with no valid cookie.
    DropCookie => "drop_cookie",
    /// Dropped: SYN with TCP MD5 or TCP-AO, which cannot be proxied.
    DropAuthenticated => "drop_authenticated",
    /// Dropped: too many connections are being opened.
    DropOpenings => "drop_openings_full",
    /// Dropped: of a connection on its way to its target, without room to keep it; or a SYN of one that is there.
    DropMigrating => "drop_migrating",
    /// Dropped: the session table is full.
    DropTableFull => "drop_sessions_full",
    /// Dropped: terminated sessions hold as much as they may together; its sender has it still.
    DropTerminatedMemory => "drop_terminated_memory",
    /// Seen: a reset that does not stand where its stream does (RFC 5961), passed on to the end, which judges it; no effect on the session.
    ResetOutside => "reset_outside_window",
}

/// A value for each [`Counter`].
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// One more.
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// `n` more.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] = self.0[counter as usize].wrapping_add(n);
    }

    /// How many so far.
    pub fn value(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Every counter with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|c| (*c, self.value(*c)))
    }
}
