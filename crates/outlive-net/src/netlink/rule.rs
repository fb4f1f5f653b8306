//! Routing rules: which table a packet's route is looked up in.

use std::fmt;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};

use super::{Netlink, NetlinkError, ROUTE_PROTOCOL, absent_is_fine, address::family_of};

/// A rule: packets that match all that is given look up their route in `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the rule stands in the order: lower first. The main table's rule is at 32,766.
    pub priority: u32,
    /// Packets from this network, which also decides the address family.
    pub from: IpNet,
    /// Packets that came in on this interface; `lo` for those of this machine itself.
    pub incoming: Option<String>,
    /// TCP packets from this port.
    pub tcp_source_port: Option<u16>,
    /// The table to look up.
    pub table: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: from {}", self.priority, self.from)?;
        if let Some(incoming) = &self.incoming {
            write!(f, " iif {incoming}")?;
        }
        if let Some(port) = self.tcp_source_port {
            write!(f, " ipproto tcp sport {port}")?;
        }
        write!(f, " lookup {}", self.table)
    }
}

impl Netlink {
    /// Adds a rule, marked as ours ([`ROUTE_PROTOCOL`]). `EEXIST` if it is there already.
    pub fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, || format!("adding rule {rule}"))
    }

    /// Removes a rule of ours.
    pub fn delete_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRule(rule_message(rule));
        self.request(message, 0, || format!("removing rule {rule}"))
    }

    /// Removes a rule of ours if it is there.
    pub fn delete_rule_if_present(&self, rule: &Rule) -> Result<(), NetlinkError> {
        absent_is_fine(self.delete_rule(rule))
    }

    /// The rules that are marked as ours and look up a table.
    pub fn own_rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let message = RouteNetlinkMessage::GetRule(RuleMessage::default());
        self.dump(message, || "listing rules".to_owned(), own_rule_of)
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_of(rule.from.addr());
    message.header.src_len = rule.from.prefix_len();
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    if rule.from.prefix_len() > 0 {
        attributes.push(RuleAttribute::Source(rule.from.network()));
    }
    if let Some(incoming) = &rule.incoming {
        attributes.push(RuleAttribute::Iifname(incoming.clone()));
    }
    if let Some(port) = rule.tcp_source_port {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Tcp));
        attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port }));
    }
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    message
}

fn own_rule_of(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let mut source = match message.header.family {
        AddressFamily::Inet => [0; 4].into(),
        AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let mut incoming = None;
    let mut tcp_source_port = None;
    let mut table = u32::from(message.header.table);
    let mut priority = 0;
    let mut protocol = 0;
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = address,
            RuleAttribute::Iifname(name) => incoming = Some(name),
            RuleAttribute::SourcePortRange(ports) => tcp_source_port = Some(ports.start),
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::Priority(number) => priority = number,
            RuleAttribute::Protocol(number) => protocol = u8::from(number),
            _ => {}
        }
    }
    let from = IpNet::new(source, message.header.src_len).ok()?;
    let rule = Rule { priority, from, incoming, tcp_source_port, table };
    (protocol == ROUTE_PROTOCOL).then_some(rule)
}
