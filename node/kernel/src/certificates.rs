//! The one thing the kernel reads in a client's certificate: its serial number, for the audit log.

/// The serial number of the first certificate as colon-separated hex; `None` when it has none we could find.
pub(crate) fn serial(certificates: &[Vec<u8>]) -> Option<String> {
    // Certificate ::= SEQUENCE { TBSCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber INTEGER, … } … }
    let (_, certificate, _) = element(certificates.first()?)?;
    let (_, tbs, _) = element(certificate)?;
    let (tag, content, rest) = element(tbs)?;
    let (tag, content) =
        if tag == 0xA0 { element(rest).map(|(tag, content, _)| (tag, content))? } else { (tag, content) };
    if tag != 0x02 || content.is_empty() || content.len() > 64 {
        return None;
    }
    let digits = match content {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let pairs: Vec<String> = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(pairs.join(":"))
}

/// Tag, content and rest of the first DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) =
            rest.split_at_checked(usize::from(first & 0x7F)).filter(|(bytes, _)| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(der: &[u8], want: Option<&str>) {
        assert_eq!(serial(&[der.to_vec()]).as_deref(), want);
    }

    #[test]
    fn finds_the_serial_number() {
        let versioned = [0x30, 0x0B, 0x30, 0x09, 0xA0, 3, 2, 1, 2, 0x02, 2, 0x1A, 0x0F];
        check(&versioned, Some("1a:0f"));
        check(&versioned[..12], None); // Cut short.
        check(&[0x30, 6, 0x30, 4, 0x02, 2, 0, 0x8F], Some("8f"));
        check(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF], None);
        check(&[], None);
    }
}
