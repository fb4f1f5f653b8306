//! The configuration file as it is written: names of tables and keys, nothing of their meaning.

use outlive_node::settings::values::Text;
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) watch: Watch,
    pub(super) node: Nodes,
    pub(super) check: Option<Check>,
    #[serde(default)]
    pub(super) switch: Vec<Spanned<Switch>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    pub(super) key_file: Text,
    pub(super) interval: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) failures: Option<Spanned<i64>>,
    pub(super) force_after: Option<Text>,
    pub(super) when_standby_hears: Option<Text>,
    pub(super) log: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nodes {
    pub(super) a: Node,
    pub(super) b: Node,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) addresses: Spanned<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub(super) address: Text,
    pub(super) interval: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) failures: Option<Spanned<i64>>,
    pub(super) send: Option<String>,
    pub(super) on_failure: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) driver: Text,
    // Of the driver "route".
    pub(super) destinations: Option<Spanned<Vec<Text>>>,
    pub(super) via: Option<Spanned<Via>>,
    pub(super) table: Option<Spanned<i64>>,
    pub(super) metric: Option<Spanned<i64>>,
    // Of the driver "exec".
    pub(super) command: Option<Spanned<Vec<Text>>>,
    pub(super) timeout: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Via {
    pub(super) a: Vec<Text>,
    pub(super) b: Vec<Text>,
}
