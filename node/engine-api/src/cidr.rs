//! Address ranges that a token, a login or a credential is bound to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::EngineError;

/// An address or a range of addresses. Invariant: the prefix is not longer than the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    prefix: u32,
}

const fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number in the high bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Whom to count an address against: of IPv6 the network of 64 bits that one customer has all addresses of, of IPv4 the
/// address itself, also where it is written as IPv6.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Cidr {
    /// Whether `address` lies in it. IPv4 addresses written as IPv6 count as what they are.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let differing = (number(address) ^ number(self.network)).leading_zeros();
        address.is_ipv4() == self.network.is_ipv4() && differing >= self.prefix
    }

    /// With the length of its prefix, also when it is one address.
    #[must_use]
    pub fn to_block(&self) -> String {
        format!("{}/{}", self.network, self.prefix)
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix
            && self.network.is_ipv4() == other.network.is_ipv4()
            && (number(self.network) ^ number(other.network)).leading_zeros() >= self.prefix
    }

    /// Whether any of `ranges` holds `address`; no range at all stands for everywhere, and an address that is not
    /// known is nowhere.
    #[must_use]
    pub fn any_contains(ranges: &[Self], address: Option<IpAddr>) -> bool {
        ranges.is_empty() || address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
    }

    /// Reads a list of them.
    ///
    /// # Errors
    /// Names the field when an item is no address or range.
    pub fn parse_list(items: &[String], field: &str) -> Result<Vec<Self>, EngineError> {
        let parse = |item: &String| {
            item.parse().map_err(|()| EngineError::invalid(format!("{field}: not an address or CIDR range")))
        };
        items.iter().map(parse).collect()
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
        let address = address.parse::<IpAddr>().map_err(|_| ())?;
        let bits = bits_of(address);
        let prefix = match prefix {
            None => bits,
            Some(digits)
                if (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                digits.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
        };
        if prefix > bits { Err(()) } else { Ok(Self { network: address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits_of(self.network) {
            write!(f, "{}", self.network)
        } else {
            write!(f, "{}/{}", self.network, self.prefix)
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map_err(|()| "not an address or CIDR range")
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, address: &str, want: bool) {
        let range: Cidr = range.parse().unwrap();
        assert_eq!(range.contains(address.parse().unwrap()), want, "{address} in {range}");
    }

    #[test]
    fn ranges_hold_their_addresses() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.7", "10.0.0.7", true);
        check("10.0.0.7", "10.0.0.6", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("0.0.0.0/0", "255.1.2.3", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "10.0.0.1", false);
        check("2001:db8::/33", "2001:db8:7fff::1", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
    }

    #[test]
    fn a_customer_is_one_source() {
        for (address, want) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
            ("::1", "::"),
        ] {
            assert_eq!(source_of(address.parse().unwrap()).to_string(), want);
        }
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "10.0.0/8"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_covers_what_is_inside() {
        let covers =
            |outer: &str, inner: &str| outer.parse::<Cidr>().unwrap().covers(&inner.parse::<Cidr>().unwrap());
        assert!(covers("10.0.0.0/8", "10.1.0.0/16") && covers("10.1.2.3/8", "10.0.0.0/8"));
        assert!(covers("0.0.0.0/0", "192.0.2.1") && covers("::/0", "::1"));
        assert!(!covers("10.0.0.0/8", "10.0.0.0/7") && !covers("10.0.0.0/8", "11.0.0.0/8"));
        assert!(!covers("::/0", "10.0.0.0/8") && !covers("0.0.0.0/0", "::/0"));
    }

    #[test]
    fn an_unknown_address_is_nowhere() {
        let range: Vec<Cidr> = vec!["0.0.0.0/0".parse().unwrap()];
        assert!(!Cidr::any_contains(&range, None));
        assert!(Cidr::any_contains(&[], None));
    }
}
