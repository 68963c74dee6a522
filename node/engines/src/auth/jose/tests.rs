//! Tokens, good and bad.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::keys::testing::{ALL, hmac_token, signer};
use super::{Alg, Jws, Key, TOKEN_MAX};

fn keys() -> Vec<Key> {
    ALL.iter().map(|(name, _)| Key::from_pem(&signer(name).pem()).unwrap()).collect()
}

/// The claims of a token by the keys there are, or what is wrong.
fn read(token: &str) -> String {
    match Jws::parse(token).and_then(|jws| jws.claims(&keys())) {
        Ok(claims) => Value::Object(claims).to_string(),
        Err(err) => format!("{err:?}"),
    }
}

#[track_caller]
fn check(token: &str, want: &str) {
    assert_eq!(read(token), want, "{token}");
}

#[test]
fn every_algorithm_goes_with_its_keys_only() {
    for (name, algs) in ALL {
        for alg in algs.iter() {
            check(&signer(name).token(alg, &Value::Null, &json!({"sub": "s"})), r#"{"sub":"s"}"#);
        }
        let key = Key::from_pem(&signer(name).pem()).unwrap();
        let suits = |alg: &&str| key.suits(Alg::named(alg).unwrap());
        let suited: Vec<&str> = ALL.iter().flat_map(|(_, algs)| algs.iter().copied()).filter(suits).collect();
        assert_eq!(suited, *algs, "{name}");
    }
}

#[test]
fn the_same_keys_come_as_jwks() {
    for (name, algs) in ALL {
        let jwk = signer(name).jwk("k");
        let key = Key::from_jwk(&jwk).unwrap();
        let token = signer(name).token(algs[0], &json!({"kid": "k"}), &json!({"sub": "s"}));
        assert!(Jws::parse(&token).unwrap().claims([&key]).is_ok(), "{name}");
        for (field, value) in [("use", json!("enc")), ("key_ops", json!(["sign"])), ("alg", json!("HS256"))] {
            let mut jwk = jwk.clone();
            jwk[field] = value;
            assert_eq!(Key::from_jwk(&jwk), None, "{name} {field}");
        }
        let mut other = jwk.clone();
        other["alg"] = json!(if algs[0] == "RS256" { "PS256" } else { "RS256" });
        assert!(Jws::parse(&token).unwrap().claims(&Key::from_jwk(&other)).is_err(), "{name}");
    }
    assert_eq!(Key::from_jwk(&json!({"kty": "oct", "k": "c2VjcmV0"})), None);
    assert_eq!(Key::from_jwk(&json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"})), None);
}

/// A token that is signed, but not by what it says, or by what nobody should take.
#[test]
fn no_header_chooses_how_it_is_checked() {
    let claims = json!({"sub": "s"});
    let rsa = signer("rsa");
    // The public key, in each of its spellings, as the secret of an HMAC.
    for secret in [rsa.pem(), rsa.pem().trim().to_owned(), rsa.jwk("k")["n"].to_string()] {
        check(&hmac_token(secret.as_bytes(), &claims), "Algorithm");
    }
    for alg in ["none", "None", "NONE", "", "HS256", "rs256", "RS1", "ES256K", "dir", "RSA-OAEP"] {
        check(&rsa.token(alg, &Value::Null, &claims), "Algorithm");
    }
    let unsigned = rsa.token("none", &Value::Null, &claims);
    check(&format!("{}.", unsigned.rsplit_once('.').unwrap().0), "Algorithm");
    check(&rsa.token_of("RS256", r#"{"alg":["RS256"]}"#, "{}"), "Header");
    check(&rsa.token_of("RS256", r#"{"typ":"JWT"}"#, "{}"), "Algorithm");
    // Signed by a key of another kind, or in another way, than the header says.
    check(&rsa.token_of("RS256", r#"{"alg":"ES256"}"#, "{}"), "Signature");
    check(&rsa.token_of("RS256", r#"{"alg":"PS256"}"#, "{}"), "Signature");
    check(&rsa.token_of("RS512", r#"{"alg":"RS256"}"#, "{}"), "Signature");
    check(&signer("p256").token_of("", r#"{"alg":"ES384"}"#, "{}"), "Signature");
    check(&signer("ed25519").token_of("", r#"{"alg":"ES256"}"#, "{}"), "Signature");
    // Keys that come with the token.
    let own = signer("other-rsa");
    for more in [
        json!({"jwk": own.jwk("k")}),
        json!({"jku": "https://evil/jwks"}),
        json!({"x5u": "https://evil/crt"}),
        json!({"x5c": ["AAAA"]}),
        json!({"kid": "../../dev/null"}),
        json!({"kid": "' OR 1=1"}),
    ] {
        check(&own.token("RS256", &more, &claims), "Signature");
    }
    check(&rsa.token("RS256", &json!({"kid": 5}), &claims), "Header");
    for more in [json!({"crit": ["x"], "x": 1}), json!({"crit": []}), json!({"crit": ["b64"], "b64": false})]
    {
        check(&rsa.token("RS256", &more, &claims), "Critical");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let rsa = signer("rsa");
    let good = rsa.token("RS256", &Value::Null, &json!({"sub": "s"}));
    check(&format!(" {good}\n"), r#"{"sub":"s"}"#);
    for (token, want) in [
        ("".to_owned(), "ThreeParts"),
        ("a".to_owned(), "ThreeParts"),
        ("a.b".to_owned(), "ThreeParts"),
        ("..".to_owned(), "Header"),
        ("a.b.c".to_owned(), "Base64"),
        // Five parts are an encrypted token.
        ("a.b.c.d.e".to_owned(), "ThreeParts"),
        (format!("{good}."), "ThreeParts"),
        (format!("{good}="), "Base64"),
        (good.replace('.', " ."), "Base64"),
        ("a".repeat(TOKEN_MAX + 1), "TooLong"),
        // JSON serialization.
        (json!({"payload": "", "signatures": []}).to_string(), "ThreeParts"),
    ] {
        check(&token, want);
    }
    let signed = |payload: &str| rsa.token_of("RS256", r#"{"alg":"RS256"}"#, payload);
    let nested = signed(&format!("\"{good}\""));
    for token in [signed(""), signed("x"), signed("[1]"), signed(r#"{"sub":"a","sub":"b"}"#), nested] {
        check(&token, "Payload");
    }
    check(&rsa.token_of("RS256", r#"{"alg":"none","alg":"RS256"}"#, "{}"), "Header");
}

#[test]
fn keys_are_public_and_of_a_known_kind() {
    for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(Key::from_pem(text), None, "{text}");
    }
    let private = signer("rsa").pem().replace("PUBLIC", "PRIVATE");
    assert_eq!(Key::from_pem(&private), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever letter of a token changes, its claims are not read: not even where the letter holds bits that count for
    /// nothing.
    #[test]
    fn a_changed_token_is_no_token(which in 0..ALL.len(), at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]") {
        let (name, algs) = ALL[which];
        let good = signer(name).token(algs[0], &json!({"kid": "k"}), &json!({"sub": "s", "exp": 5}));
        let mut changed = good.clone();
        let at = at.index(good.len());
        changed.replace_range(at..=at, &letter);
        prop_assume!(changed != good);
        let got = Jws::parse(&changed).and_then(|jws| jws.claims(&keys()));
        prop_assert!(got.is_err(), "{changed}");
    }

    /// No text is a token that makes the reader fall over.
    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        prop_assert!(Jws::parse(&text).and_then(|jws| jws.claims(&keys())).is_err());
    }
}
