//! The policies every node knows without storing them.

/// What a token may do that was given nothing else: look after itself. Operators may overwrite it.
pub(super) const DEFAULT_TEXT: &str = r#"# Every token carries this policy unless it was made without it.

# A token may look at itself, stay alive and give itself up.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# A token may ask what it is allowed to do. User interfaces need it.
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }

# A token may see the entity it belongs to.
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }

# Whoever knows the id of a lease may look at it and renew it. The old path is for old clients.
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/renew" { capabilities = ["update"] }

# A token's own drawer. It goes when the token goes.
path "cubbyhole/*" { capabilities = ["create", "delete", "list", "read", "update"] }

# Wrapping: put an answer into a single-use token, look at the token, take the answer out.
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }

# Hashing gives nothing away.
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }

# Applications that log people in by OpenID Connect send them here.
path "identity/oidc/provider/+/authorize" { capabilities = ["read", "update"] }
"#;

/// What a wrapping token may do: hand out what it wraps, once.
pub(super) const RESPONSE_WRAPPING_TEXT: &str = r#"path "cubbyhole/response" { capabilities = ["create", "read"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"#;
