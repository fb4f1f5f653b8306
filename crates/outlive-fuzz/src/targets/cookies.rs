//! SYN cookies: what was made is accepted for what it was made for, as long as it lives; any other number, from
//! any other connection, is not.

use std::time::Duration;

use outlive_tcp::{
    cookie::{COOKIE_LIFETIME, CookieKey, CookieOptions},
    seq::Seq,
    wire::{Endpoint, FourTuple},
};

use crate::input::Input;

/// Makes a cookie, then offers it back, as it is and changed.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let key = CookieKey::new(input.array());
    let tuple = FourTuple {
        source: Endpoint::new(input.array::<4>().into(), input.u16()),
        destination: Endpoint::new(input.array::<4>().into(), input.u16()),
    };
    let irs = Seq(input.u32());
    let bits = input.byte();
    let offered = CookieOptions {
        mss: input.u16(),
        window_scale: (bits & 1 != 0).then(|| input.byte()),
        sack_permitted: bits & 2 != 0,
        timestamps: bits & 4 != 0,
    };
    let clock = input.u64() >> 1;
    let cookie = key.make(tuple, irs, offered, clock);
    assert_eq!(cookie.timestamp.is_some(), offered.timestamps);
    if let Some(timestamp) = cookie.timestamp {
        let behind = (clock as u32).wrapping_sub(timestamp);
        assert!(behind <= 64 || clock < 64, "{behind} behind the clock");
    }

    // A slot begins anew every half of the life at the latest, so half of it is certain.
    let age = u64::from(input.u16()) % (Duration::as_millis(&COOKIE_LIFETIME) as u64 / 2);
    let found = key.check(tuple, irs, cookie.iss, cookie.timestamp, clock + age);
    let found = found.expect("a cookie in its life");
    assert!(found.mss <= offered.mss || found.mss == 88 || found.mss == 216, "{}", found.mss);
    assert_eq!(found.window_scale, offered.window_scale.map(|scale| scale.min(14)));
    assert_eq!(found.sack_permitted, offered.sack_permitted);
    assert_eq!(found.timestamps, offered.timestamps);

    // Something else about it: only by a chance that the fuzzer cannot find.
    let old = clock + 2 * Duration::as_millis(&COOKIE_LIFETIME) as u64;
    assert_eq!(key.check(tuple, irs, cookie.iss, cookie.timestamp, old), None, "too old");
    let stranger = match input.below(4) {
        0 => (FourTuple { source: tuple.destination, destination: tuple.source }, irs),
        1 => (tuple, irs + input.u32()),
        2 => {
            (FourTuple::new(Endpoint::new(tuple.source.addr, input.u16()), tuple.destination), irs)
        }
        _ => {
            (FourTuple::new(tuple.source, Endpoint::new(tuple.destination.addr, input.u16())), irs)
        }
    };
    if stranger != (tuple, irs) {
        let found = key.check(stranger.0, stranger.1, cookie.iss, cookie.timestamp, clock);
        // 23 bits of authentication: a fuzzer's luck is not a fault, but nothing may panic.
        std::hint::black_box(found);
    }
    std::hint::black_box(key.check(tuple, irs, Seq(input.u32()), Some(input.u32()), input.u64()));
}
