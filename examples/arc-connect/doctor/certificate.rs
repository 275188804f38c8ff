//! [`issuer`]: who issued a certificate, read from its DER, so that a proxy which opens TLS is seen by its name.

/// The issuer's organization and common name, such as `Microsoft Corporation, Microsoft Azure RSA TLS Issuing CA 03`.
/// `None` when `der` is not a certificate.
pub fn issuer(der: &[u8]) -> Option<String> {
    let certificate = expect(&mut { der }, SEQUENCE)?;
    let body = expect(&mut { certificate }, SEQUENCE)?;
    let mut rest = body;
    if peek(rest)? == VERSION {
        expect(&mut rest, VERSION)?;
    }
    expect(&mut rest, INTEGER)?;
    expect(&mut rest, SEQUENCE)?;
    let mut name = expect(&mut rest, SEQUENCE)?;
    let (mut organization, mut common_name) = (None, None);
    while !name.is_empty() {
        let mut attributes = expect(&mut name, SET)?;
        while !attributes.is_empty() {
            let mut attribute = expect(&mut attributes, SEQUENCE)?;
            let kind = expect(&mut attribute, OBJECT_IDENTIFIER)?;
            let (_, value) = next(&mut attribute)?;
            match kind {
                ORGANIZATION => organization = Some(text(value)),
                COMMON_NAME => common_name = Some(text(value)),
                _ => {}
            }
        }
    }
    let parts: Vec<String> = organization.into_iter().chain(common_name).collect();
    Some(if parts.is_empty() {
        "an issuer without a name".to_owned()
    } else {
        parts.join(", ")
    })
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// 2.5.4.10.
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A name on one line of a terminal.
const MAX_NAME: usize = 100;

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .chars()
        .filter(|char| !char.is_control())
        .take(MAX_NAME)
        .collect()
}

fn peek(input: &[u8]) -> Option<u8> {
    input.first().copied()
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content) = next(input)?;
    (found == tag).then_some(content)
}

/// The next element: its tag and content. Tags of one byte and lengths of up to four are all that certificates have.
fn next<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().try_fold(0_usize, |length, byte| {
                length.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            authority.distinguished_name.push(kind.clone(), *name);
        }
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        let params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer);
        certificate.unwrap().der().to_vec()
    }

    #[test]
    fn the_issuer_is_named() {
        let der = certificate(&[
            (DnType::CountryName, "US"),
            (DnType::OrganizationName, "Zscaler Inc."),
            (DnType::CommonName, "Zscaler Intermediate Root CA"),
        ]);
        assert_eq!(
            issuer(&der).unwrap(),
            "Zscaler Inc., Zscaler Intermediate Root CA"
        );
        let der = certificate(&[(DnType::CommonName, "Größe\u{1b}[2J")]);
        assert_eq!(issuer(&der).unwrap(), "Größe[2J");
        assert_eq!(
            issuer(&certificate(&[])).unwrap(),
            "an issuer without a name"
        );
    }

    #[test]
    fn nothing_that_a_peer_sends_is_trusted_to_be_a_certificate() {
        let der = certificate(&[(DnType::CommonName, "CA")]);
        for end in 0..der.len() {
            let _ = issuer(&der[..end]);
        }
        for at in 0..der.len() {
            for value in [0, 0x30, 0x80, 0x84, 0xff] {
                let mut broken = der.clone();
                broken[at] = value;
                let _ = issuer(&broken);
            }
        }
        assert_eq!(issuer(b""), None);
        assert_eq!(issuer(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
