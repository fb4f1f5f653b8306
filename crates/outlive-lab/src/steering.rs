//! Which processor handles a packet that a host receives.
//!
//! A network card chooses it by the packet's flow, so a flow stays in order. A veth pair leaves it to whichever
//! processor the sender happens to run on: when the scheduler moves the sender, segments overtake each other, and a lab whose links
//! lose nothing sees retransmissions. Receive packet steering makes a veth pair choose as a card does.

use std::{fs, thread};

/// Of the interfaces that are made in the namespace from now on. Since Linux 6.4.
const MASK: &str = "/proc/sys/net/core/rps_default_mask";

/// Has the flows of the namespace of the calling thread steered. An older kernel does without.
pub(crate) fn by_flow() {
    let processors = thread::available_parallelism().map_or(1, |number| number.get());
    let _ = fs::write(MASK, mask(processors));
}

/// So many bits set, in words of 32 bits, the highest first.
fn mask(processors: usize) -> String {
    let word = |bits: usize| format!("{:x}", (1_u64 << bits) - 1);
    let full = processors / 32;
    let rest = Some(processors % 32).filter(|rest| *rest > 0).map(word);
    let words: Vec<String> = rest.into_iter().chain((0..full).map(|_| word(32))).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn a_mask_has_a_bit_for_each_processor() {
        assert_eq!(mask(2), "3");
        assert_eq!(mask(32), "ffffffff");
        assert_eq!(mask(66), "3,ffffffff,ffffffff");
    }
}
