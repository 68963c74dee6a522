//! What every role of every auth method says about the tokens of its logins: the `token_*` fields, and the older
//! spellings of some of them.
//!
//! An auth method keeps a [`TokenParams`] in its role's record, flattened or as a field; calls [`TokenParams::update`]
//! when the role is written and [`TokenParams::show`] when it is read; puts [`fields`] behind its own fields in its
//! route table; and at a login asks [`TokenParams::check_address`] and begins its answer with [`TokenParams::login`].
//! [`TokenParams::renewal`] answers a renewal by what the role says now.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::{
    Cidr, Ctx, EngineError, Field, FieldKind, Fields, LeaseRecord, Login, Map, Request, Response, TokenKind,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How many fields [`fields`] adds.
pub const FIELDS_LEN: usize = 10;

const FIELDS: [Field; FIELDS_LEN] = [
    Field::new("token_bound_cidrs", FieldKind::List, "Addresses and ranges its tokens may be used from."),
    Field::new("token_explicit_max_ttl", FieldKind::Duration, "Lifetime that no renewal can pass."),
    Field::new("token_max_ttl", FieldKind::Duration, "Longest lifetime over all renewals."),
    Field::new("token_no_default_policy", FieldKind::Bool, "Leave out the policy named default."),
    Field::new("token_num_uses", FieldKind::Int, "Uses of a token before it ends; 0 for no limit."),
    Field::new("token_period", FieldKind::Duration, "Each renewal resets the lifetime to this; 0 for none."),
    Field::new("token_policies", FieldKind::List, "Policies of its tokens."),
    Field::new("token_strictly_bind_ip", FieldKind::Bool, "Bind each token to the address that logged in."),
    Field::new("token_ttl", FieldKind::Duration, "Lifetime of a token; 0 for the mount's."),
    Field::new("token_type", FieldKind::String, "service, batch, default, default-service or default-batch."),
];

/// A method's own fields with the `token_*` fields behind them, for a route table: `N` is the number of its own fields
/// and [`FIELDS_LEN`].
#[must_use]
pub const fn fields<const N: usize>(own: &[Field]) -> [Field; N] {
    assert!(N == own.len() + FIELDS_LEN, "N is the number of own fields and FIELDS_LEN");
    let [filler, ..] = FIELDS;
    let mut all = [filler; N];
    let (mut slots, mut own, mut common): (&mut [Field], &[Field], &[Field]) = (&mut all, own, &FIELDS);
    while let ([slot, rest @ ..], [field, left @ ..]) = (slots, own) {
        *slot = *field;
        (slots, own) = (rest, left);
    }
    slots = all.split_at_mut(N - FIELDS_LEN).1;
    while let ([slot, rest @ ..], [field, left @ ..]) = (slots, common) {
        *slot = *field;
        (slots, common) = (rest, left);
    }
    all
}

/// Older spellings of `token_*` fields: the same without `token_`. Which of them a method takes, it says itself.
pub mod deprecated {
    use arca_engine_api::{Field, FieldKind};

    /// Of `token_bound_cidrs`.
    pub const BOUND_CIDRS: Field =
        Field::new("bound_cidrs", FieldKind::List, "Old spelling of token_bound_cidrs, which wins.");
    /// Of `token_max_ttl`.
    pub const MAX_TTL: Field =
        Field::new("max_ttl", FieldKind::Duration, "Old spelling of token_max_ttl, which wins.");
    /// Of `token_num_uses`.
    pub const NUM_USES: Field =
        Field::new("num_uses", FieldKind::Int, "Old spelling of token_num_uses, which wins.");
    /// Of `token_period`.
    pub const PERIOD: Field =
        Field::new("period", FieldKind::Duration, "Old spelling of token_period, which wins.");
    /// Of `token_policies`.
    pub const POLICIES: Field =
        Field::new("policies", FieldKind::List, "Old spelling of token_policies, which wins.");
    /// Of `token_ttl`.
    pub const TTL: Field = Field::new("ttl", FieldKind::Duration, "Old spelling of token_ttl, which wins.");
}

/// The `token_*` fields of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenParams {
    /// Addresses a token may be used from, and a login may come from; empty for anywhere.
    #[serde(rename = "token_bound_cidrs", skip_serializing_if = "Vec::is_empty")]
    pub bound_cidrs: Vec<Cidr>,
    /// Zero for none.
    #[serde(
        rename = "token_explicit_max_ttl_s",
        with = "seconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub explicit_max_ttl: Duration,
    /// Zero for the mount's.
    #[serde(rename = "token_max_ttl_s", with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub max_ttl: Duration,
    /// Leave out the policy named default.
    #[serde(rename = "token_no_default_policy", skip_serializing_if = "is_false")]
    pub has_no_default_policy: bool,
    /// Zero for no limit.
    #[serde(rename = "token_num_uses", skip_serializing_if = "is_zero")]
    pub num_uses: u32,
    /// Zero for none.
    #[serde(rename = "token_period_s", with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub period: Duration,
    /// As given.
    #[serde(rename = "token_policies", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Bind each token to the address that logged in.
    #[serde(rename = "token_strictly_bind_ip", skip_serializing_if = "is_false")]
    pub binds_address: bool,
    /// Which kind of token.
    #[serde(rename = "token_type")]
    pub kind: TokenKind,
    /// Zero for the mount's.
    #[serde(rename = "token_ttl_s", with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub ttl: Duration,
    /// Fields that were last given by their older spelling, and are shown by it as well.
    #[serde(rename = "token_deprecated", skip_serializing_if = "BTreeSet::is_empty")]
    by_old_name: BTreeSet<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl TokenParams {
    /// Takes what a request says; what it does not mention stays. `old_names` are the older spellings the method takes
    /// ([`deprecated`]): the value of one counts unless the field itself is there too.
    ///
    /// # Errors
    /// When a value has the wrong type, or the values do not fit each other. Nothing may be stored then.
    pub fn update(&mut self, fields: Fields<'_>, old_names: &[Field]) -> Result<(), EngineError> {
        for field in FIELDS {
            let name = field.name;
            let old_name = name.strip_prefix("token_").unwrap_or(name);
            let has_old = old_names.iter().any(|old| old.name == old_name && fields.says(old));
            if fields.says(&field) {
                self.set(fields, name, name)?;
                self.note_spelling(old_name, has_old);
            } else if has_old {
                self.set(fields, name, old_name)?;
                self.note_spelling(old_name, true);
            }
        }
        self.check()
    }

    fn note_spelling(&mut self, old_name: &str, is_old: bool) {
        if is_old {
            self.by_old_name.insert(old_name.to_owned());
        } else {
            self.by_old_name.remove(old_name);
        }
    }

    /// Sets the field `name` to the value sent as `sent`.
    fn set(&mut self, fields: Fields<'_>, name: &str, sent: &str) -> Result<(), EngineError> {
        match name {
            "token_bound_cidrs" => {
                self.bound_cidrs = Cidr::parse_list(&fields.bounds(sent)?.unwrap_or_default(), sent)?;
            }
            "token_explicit_max_ttl" => self.explicit_max_ttl = whole_seconds(fields, sent)?,
            "token_max_ttl" => self.max_ttl = whole_seconds(fields, sent)?,
            "token_no_default_policy" => {
                self.has_no_default_policy = fields.boolean(sent)?.unwrap_or_default();
            }
            "token_num_uses" => self.num_uses = count(fields, sent)?,
            "token_period" => self.period = whole_seconds(fields, sent)?,
            "token_policies" if name == sent => self.policies = fields.list(sent)?.unwrap_or_default(),
            "token_policies" => self.policies = canonical(&fields.list(sent)?.unwrap_or_default()),
            "token_strictly_bind_ip" => self.binds_address = fields.boolean(sent)?.unwrap_or_default(),
            "token_ttl" => self.ttl = whole_seconds(fields, sent)?,
            "token_type" => self.kind = kind_named(&fields.string(sent)?.unwrap_or_default())?,
            other => return Err(EngineError::Bug(format!("no token parameter {other:?}"))),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EngineError> {
        let is_batch = matches!(self.kind, TokenKind::Batch | TokenKind::DefaultBatch);
        let batch = "'token_type' cannot be 'batch' or 'default_batch' when set to generate";
        if is_batch && !self.period.is_zero() {
            return Err(EngineError::invalid(format!("{batch} periodic tokens")));
        }
        if is_batch && self.num_uses != 0 {
            return Err(EngineError::invalid(format!("{batch} tokens with limited use count")));
        }
        if !self.max_ttl.is_zero() && self.ttl > self.max_ttl {
            return Err(EngineError::invalid("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if self.binds_address && !self.bound_cidrs.is_empty() {
            let text = "'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one";
            return Err(EngineError::invalid(text));
        }
        Ok(())
    }

    /// Takes the kinds that are meant for mounts as what they come to on a role; says so, if it was one of them.
    pub fn settle_kind(&mut self) -> Option<&'static str> {
        let (kind, warning) = match self.kind {
            TokenKind::DefaultBatch => {
                (TokenKind::Batch, "default-batch has no useful meaning; adjusting to batch")
            }
            TokenKind::DefaultService => {
                (TokenKind::Service, "default-service has no useful meaning; adjusting to service")
            }
            _ => return None,
        };
        self.kind = kind;
        Some(warning)
    }

    /// Adds the fields to what is shown of the role, with those that were given by their older spelling.
    pub fn show(&self, data: &mut Map) {
        for Field { name, .. } in FIELDS {
            let value = self.shown(name);
            let old_name = name.strip_prefix("token_").unwrap_or(name);
            let says_something = value != json!(0) && value != json!([]);
            if self.by_old_name.contains(old_name) && says_something {
                data.insert(old_name.to_owned(), value.clone());
            }
            data.insert(name.to_owned(), value);
        }
    }

    /// One field as it is shown, by its name or its older spelling; null if there is none such.
    #[must_use]
    pub fn shown(&self, name: &str) -> Value {
        match name.strip_prefix("token_").unwrap_or(name) {
            "bound_cidrs" => json!(self.bound_cidrs),
            "explicit_max_ttl" => json!(self.explicit_max_ttl.as_secs()),
            "max_ttl" => json!(self.max_ttl.as_secs()),
            "no_default_policy" => json!(self.has_no_default_policy),
            "num_uses" => json!(self.num_uses),
            "period" => json!(self.period.as_secs()),
            "policies" => json!(self.policies),
            "strictly_bind_ip" => json!(self.binds_address),
            "ttl" => json!(self.ttl.as_secs()),
            "type" => json!(kind_name(self.kind)),
            _ => Value::Null,
        }
    }

    /// Sets a field back to what a new role has.
    pub fn reset(&mut self, name: &str) {
        match name {
            "token_bound_cidrs" => self.bound_cidrs.clear(),
            "token_explicit_max_ttl" => self.explicit_max_ttl = Duration::ZERO,
            "token_max_ttl" => self.max_ttl = Duration::ZERO,
            "token_no_default_policy" => self.has_no_default_policy = false,
            "token_num_uses" => self.num_uses = 0,
            "token_period" => self.period = Duration::ZERO,
            "token_policies" => self.policies.clear(),
            "token_strictly_bind_ip" => self.binds_address = false,
            "token_ttl" => self.ttl = Duration::ZERO,
            "token_type" => self.kind = TokenKind::Default,
            _ => {}
        }
        self.note_spelling(name.strip_prefix("token_").unwrap_or(name), false);
    }

    /// Refuses a login from where its token could not be used.
    ///
    /// # Errors
    /// [`EngineError::Denied`].
    pub fn check_address(&self, request: &Request) -> Result<(), EngineError> {
        self.check_address_of(request.remote_addr)
    }

    /// The same where the request is past.
    ///
    /// # Errors
    /// [`EngineError::Denied`].
    pub fn check_address_of(&self, client: Option<IpAddr>) -> Result<(), EngineError> {
        let is_good = Cidr::any_contains(&self.bound_cidrs, client);
        if is_good { Ok(()) } else { Err(EngineError::Denied) }
    }

    /// A login by this role. The method adds the alias, names, metadata and what it needs at a renewal.
    ///
    /// # Errors
    /// When the token is to be bound to an address that is not known.
    pub fn login(&self, request: &Request) -> Result<Login, EngineError> {
        self.login_of(request.remote_addr)
    }

    /// The same where the request is past.
    ///
    /// # Errors
    /// As [`Self::login`].
    pub fn login_of(&self, client: Option<IpAddr>) -> Result<Login, EngineError> {
        let bound_cidrs = if self.binds_address {
            vec![client.ok_or(EngineError::Denied)?.to_canonical().to_string()]
        } else {
            self.bound_cidrs.iter().map(ToString::to_string).collect()
        };
        Ok(Login {
            policies: self.policies.clone(),
            no_default_policy: self.has_no_default_policy,
            ttl: self.ttl,
            max_ttl: self.max_ttl,
            explicit_max_ttl: self.explicit_max_ttl,
            period: self.period,
            num_uses: self.num_uses,
            token_kind: self.kind,
            bound_cidrs,
            is_renewable: true,
            ..Login::default()
        })
    }

    /// The answer to a renewal: the lifetimes the role gives now.
    #[must_use]
    pub fn renewal(&self, _lease: &LeaseRecord) -> Response {
        let login = Login { ttl: self.ttl, max_ttl: self.max_ttl, period: self.period, ..Login::default() };
        Response { login: Some(login), ..Response::default() }
    }
}

/// Says that a role's tokens cannot live as long as it says, if so.
#[must_use]
pub fn warn_of_max_ttl(ctx: &Ctx<'_>, token: &TokenParams, response: Response) -> Response {
    if token.max_ttl <= ctx.mount.max_lease_ttl {
        return response;
    }
    response.with_warning(
        "token_max_ttl is greater than the backend mount's maximum TTL value; issued tokens' max TTL value will be truncated",
    )
}

/// Whether two lists name the same policies, whatever their order and spelling; `default` counts for nothing, since it
/// comes and goes by other rules.
#[must_use]
pub fn are_equivalent(left: &[String], right: &[String]) -> bool {
    let without_default =
        |names: &[String]| canonical(names).into_iter().filter(|name| name != "default").collect::<Vec<_>>();
    without_default(left) == without_default(right)
}

/// Lower-case, sorted, each once.
fn canonical(names: &[String]) -> Vec<String> {
    let names: BTreeSet<String> = names.iter().map(|name| name.trim().to_lowercase()).collect();
    names.into_iter().collect()
}

/// A lifetime without a fraction of a second: that is what is shown.
fn whole_seconds(fields: Fields<'_>, name: &str) -> Result<Duration, EngineError> {
    Ok(Duration::from_secs(fields.duration(name)?.unwrap_or_default().as_secs()))
}

fn count(fields: Fields<'_>, name: &str) -> Result<u32, EngineError> {
    let number = fields.integer(name)?.unwrap_or_default();
    if number < 0 {
        return Err(EngineError::invalid(format!("'{name}' cannot be negative")));
    }
    u32::try_from(number).map_err(|_| EngineError::invalid(format!("'{name}' is too large")))
}

fn kind_named(name: &str) -> Result<TokenKind, EngineError> {
    match name {
        "" | "default" => Ok(TokenKind::Default),
        "batch" => Ok(TokenKind::Batch),
        "default-batch" => Ok(TokenKind::DefaultBatch),
        "default-service" => Ok(TokenKind::DefaultService),
        "service" => Ok(TokenKind::Service),
        _ => Err(EngineError::invalid("invalid 'token_type' value")),
    }
}

const fn kind_name(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Batch => "batch",
        TokenKind::Default => "default",
        TokenKind::DefaultBatch => "default-batch",
        TokenKind::DefaultService => "default-service",
        TokenKind::Service => "service",
    }
}

/// Durations in records: whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        span.as_secs().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[Field] =
        &[deprecated::POLICIES, deprecated::TTL, deprecated::MAX_TTL, deprecated::BOUND_CIDRS];

    /// Sends `bodies` one after the other and looks at the fields `names`.
    #[track_caller]
    fn check(bodies: &[Value], names: &str, want: &str) {
        let mut params = TokenParams::default();
        for body in bodies {
            if let Err(err) = params.update(Fields::new(body.as_object().unwrap()), OLD) {
                assert_eq!(format!("error: {err}"), want);
                return;
            }
        }
        let stored = serde_json::to_vec(&params).unwrap();
        assert_eq!(serde_json::from_slice::<TokenParams>(&stored).unwrap(), params);
        let mut data = Map::new();
        params.show(&mut data);
        data.retain(|name, _| names.split(' ').any(|wanted| wanted == name));
        assert_eq!(Value::Object(data).to_string(), want);
    }

    #[test]
    fn a_new_role_says_nothing() {
        let mut data = Map::new();
        TokenParams::default().show(&mut data);
        let want = r#"{"token_bound_cidrs":[],"token_explicit_max_ttl":0,"token_max_ttl":0,"token_no_default_policy":false,"token_num_uses":0,"token_period":0,"token_policies":[],"token_strictly_bind_ip":false,"token_ttl":0,"token_type":"default"}"#;
        assert_eq!(Value::Object(data).to_string(), want);
    }

    #[test]
    fn old_spellings_are_shown_if_they_were_used() {
        let policies = "policies token_policies";
        let both = r#"{"policies":["a","b"],"token_policies":["a","b"]}"#;
        check(&[json!({"policies": "B,a,b"})], policies, both);
        let given = json!({"policies": "x", "token_policies": "b,A"});
        check(&[given], policies, r#"{"policies":["b","A"],"token_policies":["b","A"]}"#);
        let then_new = [json!({"policies": "x"}), json!({"token_policies": "b"})];
        check(&then_new, policies, r#"{"token_policies":["b"]}"#);
        let then_other = [json!({"policies": "x"}), json!({"token_ttl": 5})];
        check(&then_other, policies, r#"{"policies":["x"],"token_policies":["x"]}"#);
        check(&[json!({"ttl": "1m", "max_ttl": 0})], "ttl max_ttl", r#"{"ttl":60}"#);
        check(&[json!({"num_uses": 3})], "num_uses token_num_uses", r#"{"token_num_uses":0}"#);
    }

    #[test]
    fn ranges_are_shown_as_given() {
        let cidrs = json!({"token_bound_cidrs": ["127.0.0.1/32", "10.1.2.3/8", "::1"]});
        check(&[cidrs], "token_bound_cidrs", r#"{"token_bound_cidrs":["127.0.0.1","10.1.2.3/8","::1"]}"#);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |body: Value, want: &str| check(&[body], "", &format!("error: {want}"));
        refused(
            json!({"token_ttl": 10, "token_max_ttl": 5}),
            "'token_ttl' cannot be greater than 'token_max_ttl'",
        );
        refused(json!({"ttl": 10, "max_ttl": 5}), "'token_ttl' cannot be greater than 'token_max_ttl'");
        refused(json!({"token_num_uses": -1}), "'token_num_uses' cannot be negative");
        refused(json!({"token_num_uses": 5_000_000_000_u64}), "'token_num_uses' is too large");
        refused(json!({"token_type": "canary"}), "invalid 'token_type' value");
        let batch = "'token_type' cannot be 'batch' or 'default_batch' when set to generate";
        refused(json!({"token_type": "batch", "token_period": 1}), &format!("{batch} periodic tokens"));
        refused(
            json!({"token_type": "default-batch", "token_num_uses": 1}),
            &format!("{batch} tokens with limited use count"),
        );
        refused(
            json!({"token_bound_cidrs": [""]}),
            "field validation failed: error converting input for field \"token_bound_cidrs\": expected a list without \
             empty items",
        );
        refused(
            json!({"token_bound_cidrs": "10.0.0.0/33"}),
            "token_bound_cidrs: not an address or CIDR range",
        );
        refused(
            json!({"token_bound_cidrs": "10.0.0.0/8", "token_strictly_bind_ip": true}),
            "'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one",
        );
    }

    #[test]
    fn null_clears_all_but_lifetimes() {
        let full = json!({
            "token_bound_cidrs": "10.0.0.0/8", "token_no_default_policy": true, "token_num_uses": 3,
            "token_policies": "a", "token_ttl": "1h", "token_max_ttl": "2h", "token_type": "service",
        });
        let nulls: Map = FIELDS.iter().map(|field| (field.name.to_owned(), Value::Null)).collect();
        let mut params = TokenParams::default();
        params.update(Fields::new(full.as_object().unwrap()), &[]).unwrap();
        params.update(Fields::new(&nulls), &[]).unwrap();
        let (ttl, max_ttl) = (Duration::from_secs(3_600), Duration::from_secs(7_200));
        assert_eq!(params, TokenParams { ttl, max_ttl, ..TokenParams::default() });
    }

    #[test]
    fn default_and_order_do_not_count() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(are_equivalent(&list("b A default"), &list("a b a")));
        assert!(are_equivalent(&[], &list("default")));
        assert!(!are_equivalent(&[], &list("a")));
    }

    #[test]
    fn own_fields_come_first() {
        const ALL: [Field; FIELDS_LEN + 1] = fields(&[deprecated::TTL]);
        let names: Vec<&str> = ALL.iter().map(|field| field.name).collect();
        assert_eq!(names.first(), Some(&"ttl"));
        assert_eq!(names.get(1), Some(&"token_bound_cidrs"));
        assert_eq!(names.last(), Some(&"token_type"));
    }
}
