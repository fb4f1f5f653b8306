//! Obeying a changed file while the node runs.
//!
//! Each node reads its own file, which is also what it will read when it starts: nothing is obeyed that is not written
//! down on the machine. The node that is told asks its peer to do the same, and both compare a fingerprint of what they
//! obey, so that a file that was changed on one machine only is noticed.

use std::{collections::BTreeSet, net::IpAddr};

use mio::Registry;
use outlive_proxy::Node;
use outlive_tcp::time::Time;

use crate::{
    edge::Edge,
    preflight::{self, Plan},
    settings::{Problem, Settings, TargetSettings},
    targets::{TargetConfig, TargetLinks},
};

/// Reads the file of `settings` again, checks everything, and then obeys it. Gives what is different now, in words.
///
/// # Errors
/// All that is wrong with the file, or cannot be obeyed without a restart. Nothing was changed.
pub(crate) fn reload(
    now: Time,
    settings: &mut Settings,
    node: &mut Node,
    edge: &mut Edge,
    targets: &mut TargetLinks,
    registry: &Registry,
) -> Result<String, Vec<Problem>> {
    let new = Settings::load(&settings.file)?;
    let fixed = settings.fixed_changes(&new);
    if !fixed.is_empty() {
        return Err(fixed);
    }
    let plan = preflight::inspect(&new)?;
    let changes = settings.describe_changes(&new);
    if changes.is_empty() {
        return Ok("nothing is different".to_owned());
    }
    let refused = |message: String| {
        let help = "remove what is in the way, and reload; nothing was changed".to_owned();
        vec![Problem { file: new.file.clone(), place: None, message, help }]
    };
    edge.require(&new, &plan).map_err(|error| refused(error.to_string()))?;
    // The new addresses beside the old ones: what fails, fails before anything is given up.
    let mut all: BTreeSet<IpAddr> = node.addresses().iter().copied().collect();
    all.extend(new.proxy.virtual_addresses());
    let all: Vec<IpAddr> = all.into_iter().collect();
    let before = node.addresses().to_vec();
    edge.set_addresses(&all, &plan.claims, registry).map_err(|error| refused(error.to_string()))?;
    let mut config = new.proxy.clone();
    config.mtu = plan.mtu;
    if let Err(reason) = node.reconfigure(now, config) {
        let problems = refused(reason.to_string());
        // They were there a moment ago.
        let _ = edge.set_addresses(&before, &[], registry);
        return Err(problems);
    }
    for left in targets.configure(target_configs(&new, &plan)) {
        node.handle_agent_closed(now, left.into());
    }
    *settings = new;
    Ok(changes)
}

/// How the targets of these settings are reached; none without the key, which `plan` has if there are any.
pub(crate) fn target_configs(settings: &Settings, plan: &Plan) -> Vec<TargetConfig> {
    let Some(key) = &plan.key else { return Vec::new() };
    let config = |target: &TargetSettings| TargetConfig {
        name: target.name.clone(),
        control: target.control,
        psk: key.host(&target.name).psk(),
    };
    settings.targets.iter().map(config).collect()
}
