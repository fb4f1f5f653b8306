//! Cookies are accepted from whom they were given, for a while, and from nobody else.

use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::testing::{any_tuple, tuple};

const KEY: CookieKey = CookieKey::new(*b"sixteen byte key");

fn any_options() -> impl Strategy<Value = CookieOptions> {
    (any::<u16>(), proptest::option::of(0u8..=14), any::<bool>(), any::<bool>()).prop_map(
        |(mss, window_scale, sack_permitted, timestamps)| CookieOptions {
            mss,
            window_scale,
            sack_permitted,
            timestamps,
        },
    )
}

proptest! {
    // Every forged cookie has its small chance; a fixed seed keeps it from failing a run one day.
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn a_cookie_lives_for_this_slot_and_the_next(
        tuple in any_tuple(),
        irs: u32,
        options in any_options(),
        clock_ms in prop_oneof![any::<u32>().prop_map(u64::from), 0u64..100, 1u64 << 40..1 << 44],
        age in 0u64..4 * SLOT_MS,
    ) {
        let irs = Seq(irs);
        let cookie = KEY.make(tuple, irs, options, clock_ms);
        let checked = KEY.check(tuple, irs, cookie.iss, cookie.timestamp, clock_ms + age);
        if (clock_ms + age) / SLOT_MS <= clock_ms / SLOT_MS + 1 {
            let checked = checked.expect("a living cookie");
            prop_assert_eq!(CookieOptions { mss: options.mss, ..checked }, options);
            prop_assert!(checked.mss <= options.mss || options.mss < 216);
        } else {
            prop_assert_eq!(checked, None);
        }
        prop_assert!(age < 2 * SLOT_MS || checked.is_none(), "older than the lifetime");
        prop_assert!(age > SLOT_MS || checked.is_some(), "younger than half of it");
    }

    #[test]
    fn a_cookie_is_nobody_elses(
        (tuple, other) in (any_tuple(), any_tuple()),
        (irs, other_irs) in any::<(u32, u32)>(),
        options in any_options(),
        other_key: [u8; 16],
        flip in 0u32..32,
        clock_ms in 0u64..1 << 44,
    ) {
        prop_assume!(other != tuple && other_irs != irs);
        let (irs, other_irs) = (Seq(irs), Seq(other_irs));
        let SynCookie { iss, timestamp } = KEY.make(tuple, irs, options, clock_ms);
        let forged = [
            CookieKey::new(other_key).check(tuple, irs, iss, timestamp, clock_ms),
            KEY.check(other, irs, iss, timestamp, clock_ms),
            KEY.check(tuple.reversed(), irs, iss, timestamp, clock_ms),
            KEY.check(tuple, other_irs, iss, timestamp, clock_ms),
            KEY.check(tuple, irs, Seq(iss.0 ^ 1 << flip), timestamp, clock_ms),
            // The same options bits in another place, or changed.
            KEY.check(tuple, irs, iss, timestamp.map_or(Some(0), |_| None), clock_ms),
            KEY.check(tuple, irs, iss, timestamp.map(|value| value ^ 1 << (flip % 6)), clock_ms)
                .filter(|_| timestamp.is_some()),
        ];
        prop_assert_eq!(forged, [None; 7]);
    }

    #[test]
    fn timestamps_follow_the_clock(tuple in any_tuple(), options in any_options(), clock_ms: u64) {
        let options = CookieOptions { timestamps: true, ..options };
        let value = KEY.make(tuple, Seq(1), options, clock_ms).timestamp.unwrap();
        prop_assert!((clock_ms as u32).wrapping_sub(value) < 64);
    }
}

#[test]
fn segment_sizes_are_rounded_down() {
    let remembered = |mss: u16, timestamps: bool| {
        let options = CookieOptions { mss, window_scale: None, sack_permitted: false, timestamps };
        let tuple = tuple("10.0.0.1:4000", "10.0.0.2:80");
        let cookie = KEY.make(tuple, Seq(1), options, 1_000_000);
        KEY.check(tuple, Seq(1), cookie.iss, cookie.timestamp, 1_000_000).unwrap().mss
    };
    for (mss, with_timestamps, without) in [
        (65_535, 8960, 8960),
        (8960, 8960, 8960),
        (1460, 1460, 1460),
        (1459, 1452, 1440),
        (1220, 1220, 1220),
        (535, 216, 216),
        (100, 88, 216),
        (0, 88, 216),
    ] {
        assert_eq!(remembered(mss, true), with_timestamps);
        assert_eq!(remembered(mss, false), without);
    }
}

#[test]
fn initial_sequence_numbers_go_on_with_the_clock() {
    let (key, tuple) = (*b"sixteen byte key", tuple("10.0.0.1:4000", "10.0.0.2:80"));
    let at = |clock_us| initial_sequence(&key, tuple, clock_us);
    assert_eq!(at(4_000_000).distance(at(0)), 1_000_000);
    assert_eq!(at(4 << 32), at(0));
    assert_ne!(initial_sequence(&key, tuple.reversed(), 0), at(0));
    assert_ne!(initial_sequence(b"another such key", tuple, 0), at(0));
}

/// Written out, and computed apart from this code: the two nodes of a pair, perhaps of different
/// versions, must accept each other's cookies.
#[test]
fn golden_cookies() {
    let key = CookieKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let v4 = tuple("203.0.113.7:51234", "198.51.100.1:443");
    let v6 = tuple("[2001:db8:7::7]:51234", "[2001:db8::1]:443");
    let offer = |mss, window_scale, sack_permitted, timestamps| CookieOptions {
        mss,
        window_scale,
        sack_permitted,
        timestamps,
    };
    let cookie = |tuple, irs, options, clock_ms| {
        let cookie = key.make(tuple, Seq(irs), options, clock_ms);
        (cookie.iss.0, cookie.timestamp)
    };
    let (first, second) = (1_000_000_123, 1_000_032_123);
    assert_eq!(
        cookie(v4, 0x0102_0304, offer(1460, Some(7), true, true), first),
        (0x70d7_95f2, Some(0x3b9a_ca5e))
    );
    assert_eq!(
        cookie(v4, 0x0102_0304, offer(1460, None, false, false), second),
        (0xe788_2ad5, None)
    );
    assert_eq!(
        cookie(v6, 0xfffe_fdfc, offer(1440, Some(14), true, false), first),
        (0x5f27_8335, None)
    );
    assert_eq!(
        cookie(v6, 0xfffe_fdfc, offer(1300, None, true, true), second),
        (0xafa4_7a2d, Some(0x3b9b_473e))
    );
    let key = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    assert_eq!(initial_sequence(&key, v4, 123_456_789_012), Seq(0x72de_e8e9));
}
