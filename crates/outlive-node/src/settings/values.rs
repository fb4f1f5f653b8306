//! Values from their text: addresses, times, numbers, and words out of a list.
//!
//! Each function reports what is wrong at the value's place and gives `None`, so that its caller
//! can go on and find more.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use toml::Spanned;

use super::{Place, Placed, Problems};

/// A text and where it stands.
pub type Text = Spanned<String>;

/// The longest time that makes sense anywhere in the file; also keeps arithmetic on instants far from
/// its limits.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A value, and where it stands in the text `source`.
pub fn placed<T, V>(source: &str, at: &Spanned<T>, value: V) -> Placed<V> {
    Placed { value, place: Some(Place::of(source, &at.span())) }
}

/// `10.0.0.1:443` or `[fd00::1]:443`, of one host.
pub fn socket_address(problems: &mut Problems<'_>, text: &Text) -> Option<SocketAddr> {
    let given = text.get_ref();
    let Ok(address) = given.parse::<SocketAddr>() else {
        problems.at(
            text.span(),
            format!("\"{given}\" is not an address with a port"),
            "write it as 10.0.0.100:443 or [fd00::100]:443 (host names are not looked up)",
        );
        return None;
    };
    if address.port() == 0 {
        problems.at(text.span(), "port 0 stands for no port", "give a port from 1 to 65535");
        return None;
    }
    host(problems, text, address.ip()).map(|_| address)
}

/// `10.0.0.1` or `fd00::1`, of one host.
pub fn address(problems: &mut Problems<'_>, text: &Text) -> Option<IpAddr> {
    let given = text.get_ref();
    let Ok(address) = given.parse::<IpAddr>() else {
        problems.at(
            text.span(),
            format!("\"{given}\" is not an address"),
            "write it as 10.0.0.101 or fd00::101, without a port or a prefix length",
        );
        return None;
    };
    host(problems, text, address)
}

fn host(problems: &mut Problems<'_>, text: &Text, address: IpAddr) -> Option<IpAddr> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() || address.is_multicast() || broadcast || mapped {
        problems.at(
            text.span(),
            format!("{address} is not the address of one host"),
            "give a unicast address; virtual addresses and the ways to the peer are named one by one",
        );
        return None;
    }
    Some(address)
}

/// `20ms`, `3h`, `1m 30s`; more than zero. The default where the key is not there.
pub fn duration(
    problems: &mut Problems<'_>,
    text: Option<&Text>,
    default: Duration,
) -> Option<Duration> {
    let Some(text) = text else { return Some(default) };
    let given = text.get_ref();
    let help = "write a number with a unit: 500us, 20ms, 5s, 10m, 3h, 1d";
    match humantime::parse_duration(given) {
        Err(_) => problems.at(text.span(), format!("\"{given}\" is not a time"), help),
        Ok(time) if time < Duration::from_micros(1) => {
            problems.at(text.span(), "the time must be more than zero", help);
        }
        Ok(time) if time > LONGEST => {
            problems.at(text.span(), format!("\"{given}\" is longer than a year"), help);
        }
        Ok(time) => return Some(time),
    }
    None
}

/// A whole number within `range`. The default where the key is not there.
pub fn number<T>(
    problems: &mut Problems<'_>,
    number: Option<&Spanned<i64>>,
    range: RangeInclusive<i64>,
    default: T,
) -> Option<T>
where
    T: TryFrom<i64>,
{
    let Some(number) = number else { return Some(default) };
    let given = *number.get_ref();
    let value = range.contains(&given).then(|| T::try_from(given).ok()).flatten();
    if value.is_none() {
        let (from, to) = (range.start(), range.end());
        problems.at(
            number.span(),
            format!("{given} is out of range"),
            format!("give a number from {from} to {to}"),
        );
    }
    value
}

/// One of a few words. The first is the default.
pub fn word<T: Copy>(
    problems: &mut Problems<'_>,
    text: Option<&Text>,
    words: &[(&str, T)],
) -> Option<T> {
    let Some(text) = text else { return words.first().map(|&(_, value)| value) };
    let given = text.get_ref();
    let found = words.iter().find(|(word, _)| word == given).map(|&(_, value)| value);
    if found.is_none() {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        problems.at(
            text.span(),
            format!("\"{given}\" is not known here"),
            format!("use {}", known.join(" or ")),
        );
    }
    found
}
