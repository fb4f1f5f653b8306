//! Packets and their translations, written out. They were computed apart from this code; a change
//! of any of them means that two versions of a node would not make the same packet.

use super::*;

/// Everything at once: numbers that wrap, a window of another scale, timestamps, SACK edges at odd
/// offsets.
fn golden(tuple: FourTuple) -> Translation {
    Translation {
        tuple,
        seq_delta: 0x1234_5678,
        ack_delta: 0xfedc_ba98,
        ack_floor: None,
        timestamps: TimestampTranslation::Shift {
            value_delta: 0x00ab_cdef,
            echo_delta: 0xff00_0001,
        },
        sack: true,
        window_from: 7,
        window_to: 5,
    }
}

fn assert_golden(before: &str, after: &str, translation: &Translation) {
    let mut bytes = buffer(&hex(before));
    let mut packet = parse(&mut bytes, Checksum::Full).unwrap();
    assert!(packet.checksum_ok());
    packet.translate(translation).unwrap();
    assert_eq!(packet.bytes(), hex(after));
}

#[test]
fn ipv4() {
    assert_golden(
        "450200591c4640003906bf1acb007107c6336401c82201bbfffffff010000000d01801f5
         30bf00000101080afff0000000abc1230105121000040010000a00100010001000160001
         474554202f20485454502f312e310d0a0d",
        "450200591c464000390611390a0100090a010014870720fb123456680edcba98d01807d4
         dc3700000101080a009bcdefffabc1240105120edcbe980edcc4980edcca980edcd09801
         474554202f20485454502f312e310d0a0d",
        &golden(tuple("10.1.0.9:34567", "10.1.0.20:8443")),
    );
}

#[test]
fn ipv6() {
    assert_golden(
        "6025a5a50045063920010db800070000000000000000000720010db80000000000000000
         00000001c82201bbfffffff010000000d01801f53b7b00000101080afff0000000abc123
         0105121000040010000a00100010001000160001474554202f20485454502f312e310d0a
         0d",
        "6025a5a500450639fd000001000000000000000000000009fd0000010000000000000000
         00000020870720fb123456680edcba98d01807d4f62900000101080a009bcdefffabc124
         0105120edcbe980edcc4980edcca980edcd09801474554202f20485454502f312e310d0a
         0d",
        &golden(tuple("[fd00:1::9]:34567", "[fd00:1::20]:8443")),
    );
}
