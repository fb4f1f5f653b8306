//! Configurations that cannot work are refused, each for its own reason.

mod bench;

use std::time::Duration;

use bench::{config, inspecting};
use outlive_proxy::config::{Config, Invalid, PairConfig, PoolId, Route};

#[track_caller]
fn refused(change: impl FnOnce(&mut Config)) -> Invalid {
    let mut config = inspecting();
    change(&mut config);
    config.validate().unwrap_err()
}

#[test]
fn contradictions_are_named() {
    assert_eq!(inspecting().validate(), Ok(()));
    let name = || "web".to_owned();
    let address = config().listeners[0].address;
    assert_eq!(
        refused(|c| c.listeners.extend(config().listeners)),
        Invalid::OverlappingListeners(name(), name(), address)
    );
    let route = || Route { pool: PoolId(0), ..Route::default() };
    assert_eq!(
        refused(|c| {
            *c = config();
            c.listeners[0].routes = vec![route()];
        }),
        Invalid::RoutesOnDirect(name())
    );
    assert_eq!(refused(|c| c.listeners[0].default_pool = None), Invalid::Nowhere(name()));
    assert_eq!(
        refused(|c| c.listeners[0].default_pool = Some(PoolId(1))),
        Invalid::NoSuchPool(name())
    );
    assert_eq!(refused(|c| c.pools[0].servers.clear()), Invalid::EmptyPool(name()));
    assert_eq!(
        refused(|c| c.pools[0].servers[0].address.addr = [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
        Invalid::FamilyMismatch(name(), name())
    );
    let server = config().pools[0].servers[0].address;
    assert_eq!(refused(|c| c.source_addresses.clear()), Invalid::NoSourceAddress(name(), server));
}

#[test]
fn times_and_limits_out_of_range_are_refused() {
    let pair = PairConfig::default();
    assert_eq!(
        refused(|c| {
            let detection_timeout = pair.heartbeat_interval * 2 - Duration::from_micros(1);
            c.pair = PairConfig { detection_timeout, ..pair.clone() };
        }),
        Invalid::DetectionTooShort
    );
    let changes: [fn(&mut Config); 6] = [
        |c| c.pair = PairConfig { paths: 0, ..PairConfig::default() },
        |c| c.mtu = 575,
        |c| c.limits.sessions = 0,
        |c| c.limits.sessions = (1 << 28) + 1,
        |c| c.limits.openings = 0,
        |c| c.limits.openings = (1 << 24) + 1,
    ];
    for change in changes {
        assert!(matches!(refused(change), Invalid::OutOfRange(_)));
    }
}
