//! Whose address counts. `X-Forwarded-For` is believed only from proxies the listener names; from anybody else it is
//! refused or ignored, so that CIDR bounds and the audit log cannot be fooled by a header.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let base: IpAddr = addr.parse().map_err(|_| format!("{addr:?} is not an IP address"))?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits
            .map_or(Ok(most), |bits| bits.parse().map_err(|_| format!("{bits:?} is not a prefix length")))?;
        if bits > most {
            Err(format!("prefix length {bits} is over {most}"))
        } else {
            Ok(Self { base, bits })
        }
    }
}

impl Cidr {
    /// Whether `addr` lies inside. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.base.to_canonical(), addr.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(addr)) => {
                let shift = 32 - u32::from(self.bits.min(32));
                u64::from(base.to_bits()) >> shift == u64::from(addr.to_bits()) >> shift
            }
            (IpAddr::V6(base), IpAddr::V6(addr)) => {
                let shift = 128 - u32::from(self.bits);
                base.to_bits().checked_shr(shift) == addr.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// A listener's rules for `X-Forwarded-For`.
#[derive(Clone, Debug, Default)]
pub struct ForwardedFor {
    /// Proxies whose word is taken. Empty: the header is ignored.
    pub authorized: Vec<Cidr>,
    /// Hops to skip from the right.
    pub hop_skips: usize,
    /// Refuse an authorized proxy that sends no header.
    pub rejects_absent: bool,
    /// Refuse everybody else who sends one.
    pub rejects_unauthorized: bool,
}

impl ForwardedFor {
    /// The client's address.
    ///
    /// # Errors
    /// A text for the caller when the rules refuse the request.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<SocketAddr, &'static str> {
        if self.authorized.is_empty() {
            return Ok(peer);
        }
        let sent: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        if !self.authorized.iter().any(|range| range.contains(peer.ip())) {
            let is_refused = self.rejects_unauthorized && !sent.is_empty();
            return if is_refused {
                Err("client address not authorized for X-Forwarded-For")
            } else {
                Ok(peer)
            };
        }
        if sent.is_empty() {
            return if self.rejects_absent { Err("missing X-Forwarded-For header") } else { Ok(peer) };
        }
        let hops: Vec<&str> = sent
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let wanted = hops.len().checked_sub(1 + self.hop_skips).and_then(|at| hops.get(at));
        let addr = wanted.ok_or("malformed X-Forwarded-For header")?;
        let ip = addr.parse::<IpAddr>().or_else(|_| addr.parse::<SocketAddr>().map(|addr| addr.ip()));
        ip.map(|ip| SocketAddr::new(ip, peer.port())).map_err(|_| "malformed X-Forwarded-For header")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &ForwardedFor, peer: &str, header: Option<&str>, want: Result<&str, &'static str>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("x-forwarded-for", value.parse().unwrap());
        }
        let got = rules
            .client(SocketAddr::new(peer.parse().unwrap(), 9), &headers)
            .map(|addr| addr.ip().to_string());
        assert_eq!(got, want.map(str::to_owned), "peer {peer}, header {header:?}");
    }

    #[test]
    fn nobody_is_believed_by_default() {
        check(&ForwardedFor::default(), "10.0.0.1", Some("1.2.3.4"), Ok("10.0.0.1"));
    }

    #[test]
    fn a_named_proxy_is_believed() {
        let rules =
            ForwardedFor { authorized: vec!["10.0.0.0/8".parse().unwrap()], ..ForwardedFor::default() };
        check(&rules, "10.9.9.9", Some("1.2.3.4"), Ok("1.2.3.4"));
        check(&rules, "10.9.9.9", Some("6.6.6.6, 1.2.3.4"), Ok("1.2.3.4"));
        check(&rules, "10.9.9.9", None, Ok("10.9.9.9"));
        check(&rules, "11.0.0.1", Some("1.2.3.4"), Ok("11.0.0.1"));
        check(&rules, "10.9.9.9", Some("garbage"), Err("malformed X-Forwarded-For header"));
        let strict = ForwardedFor { rejects_absent: true, rejects_unauthorized: true, hop_skips: 1, ..rules };
        check(&strict, "10.9.9.9", Some("1.2.3.4, 10.0.0.2"), Ok("1.2.3.4"));
        check(&strict, "10.9.9.9", None, Err("missing X-Forwarded-For header"));
        check(&strict, "11.0.0.1", Some("1.2.3.4"), Err("client address not authorized for X-Forwarded-For"));
    }

    #[test]
    fn ranges_have_edges() {
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("9.9.9.9".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let one: Cidr = "::1".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        assert!("1.2.3.4/33".parse::<Cidr>().is_err() && "x/8".parse::<Cidr>().is_err());
    }
}
