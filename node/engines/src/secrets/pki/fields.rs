//! Fields of the paths, in the order of the alphabet. Read next: [`super::routes`].

use arca_engine_api::{Field, FieldKind};

pub(super) const ACME_ACCOUNT_SAFETY_BUFFER: Field = Field::new(
    "acme_account_safety_buffer",
    FieldKind::Duration,
    "For ACME accounts, which are not there yet.",
);
pub(super) const ADD_BASIC_CONSTRAINTS: Field =
    Field::new("add_basic_constraints", FieldKind::Bool, "Ask for an authority in the request.");
pub(super) const AFTER: Field = Field::new("after", FieldKind::String, "Only names behind this one.");
pub(super) const AIA_PATH: Field = Field::new(
    "aia_path",
    FieldKind::String,
    "Where the cluster serves certificates and lists, for templates.",
);
pub(super) const ALLOWED_DOMAINS: Field =
    Field::new("allowed_domains", FieldKind::List, "Domains the other settings are about.");
pub(super) const ALLOWED_DOMAINS_TEMPLATE: Field =
    Field::new("allowed_domains_template", FieldKind::Bool, "Allowed domains are templates.");
pub(super) const ALLOWED_IP_SANS_CIDR: Field =
    Field::new("allowed_ip_sans_cidr", FieldKind::List, "Ranges that network addresses lie in.");
pub(super) const ALLOWED_OTHER_SANS: Field =
    Field::new("allowed_other_sans", FieldKind::List, "`OID;UTF8:pattern`, or `*`.");
pub(super) const ALLOWED_SERIAL_NUMBERS: Field =
    Field::new("allowed_serial_numbers", FieldKind::List, "Patterns of serial numbers in the subject.");
pub(super) const ALLOWED_URI_SANS: Field =
    Field::new("allowed_uri_sans", FieldKind::List, "Patterns of URIs.");
pub(super) const ALLOWED_URI_SANS_TEMPLATE: Field =
    Field::new("allowed_uri_sans_template", FieldKind::Bool, "Patterns of URIs are templates.");
pub(super) const ALLOWED_USER_IDS: Field =
    Field::new("allowed_user_ids", FieldKind::List, "Patterns of user ids in the subject.");
pub(super) const ALLOW_ANY_NAME: Field = Field::new("allow_any_name", FieldKind::Bool, "Any name.");
pub(super) const ALLOW_BARE_DOMAINS: Field =
    Field::new("allow_bare_domains", FieldKind::Bool, "The allowed domains themselves.");
pub(super) const ALLOW_EXPIRED_CERT_REVOCATION: Field =
    Field::new("allow_expired_cert_revocation", FieldKind::Bool, "Take ended certificates into lists.");
pub(super) const ALLOW_GLOBS_IN_IDENTITY_TEMPLATES: Field =
    Field::new("allow_globs_in_identity_templates", FieldKind::Bool, "What fills a template may have a `*`.");
pub(super) const ALLOW_GLOB_DOMAINS: Field =
    Field::new("allow_glob_domains", FieldKind::Bool, "Allowed domains are patterns with `*`.");
pub(super) const ALLOW_IP_SANS: Field =
    Field::new("allow_ip_sans", FieldKind::Bool, "Network addresses as alternative names.");
pub(super) const ALLOW_LOCALHOST: Field =
    Field::new("allow_localhost", FieldKind::Bool, "`localhost` and `localdomain`.");
pub(super) const ALLOW_SUBDOMAINS: Field =
    Field::new("allow_subdomains", FieldKind::Bool, "Names below the allowed domains, wildcards included.");
pub(super) const ALLOW_WILDCARD_CERTIFICATES: Field =
    Field::new("allow_wildcard_certificates", FieldKind::Bool, "Names with `*`.");
pub(super) const ALT_NAMES: Field =
    Field::new("alt_names", FieldKind::List, "Host names and mail addresses.");
pub(super) const AUTO_REBUILD: Field =
    Field::new("auto_rebuild", FieldKind::Bool, "Make lists before they expire, not with each revocation.");
pub(super) const AUTO_REBUILD_GRACE_PERIOD: Field = Field::new(
    "auto_rebuild_grace_period",
    FieldKind::Duration,
    "How long before the end a list is made anew.",
);
pub(super) const BASIC_CONSTRAINTS_VALID_FOR_NON_CA: Field = Field::new(
    "basic_constraints_valid_for_non_ca",
    FieldKind::Bool,
    "Say in the certificate that it is no authority's.",
);
pub(super) const CERTIFICATE: Field = Field::new("certificate", FieldKind::String, "A certificate in PEM.");
pub(super) const CLIENT_FLAG: Field = Field::new("client_flag", FieldKind::Bool, "For clients of TLS.");
pub(super) const CN_VALIDATIONS: Field =
    Field::new("cn_validations", FieldKind::List, "What a common name may be: email, hostname, or disabled.");
pub(super) const CODE_SIGNING_FLAG: Field =
    Field::new("code_signing_flag", FieldKind::Bool, "For signing code.");
pub(super) const COMMON_NAME: Field = Field::new("common_name", FieldKind::String, "The common name.");
pub(super) const COUNTRY: Field = Field::new("country", FieldKind::List, "Countries of the subject.");
pub(super) const CRLS: Field = Field::new("crls", FieldKind::List, "Lists in PEM.");
pub(super) const CRL_DISTRIBUTION_POINTS: Field =
    Field::new("crl_distribution_points", FieldKind::List, "Where the list of revoked certificates is.");
pub(super) const CRL_NUMBER: Field = Field::new("crl_number", FieldKind::Int, "The number of the list.");
pub(super) const CSR: Field = Field::new("csr", FieldKind::String, "A request in PEM.");
pub(super) const DEFAULT: Field = Field::new("default", FieldKind::String, "A reference: an id or a name.");
pub(super) const DEFAULT_FOLLOWS_LATEST_ISSUER: Field = Field::new(
    "default_follows_latest_issuer",
    FieldKind::Bool,
    "The issuer that comes last is the default.",
);
pub(super) const DELTA_CRL_BASE_NUMBER: Field = Field::new(
    "delta_crl_base_number",
    FieldKind::Int,
    "The list that the delta goes with; -1 for no delta.",
);
pub(super) const DELTA_CRL_DISTRIBUTION_POINTS: Field =
    Field::new("delta_crl_distribution_points", FieldKind::List, "Where the delta list is.");
pub(super) const DELTA_REBUILD_INTERVAL: Field =
    Field::new("delta_rebuild_interval", FieldKind::Duration, "How often the delta is made anew.");
pub(super) const DISABLE: Field = Field::new("disable", FieldKind::Bool, "Leave the lists empty.");
pub(super) const EMAIL_PROTECTION_FLAG: Field =
    Field::new("email_protection_flag", FieldKind::Bool, "For mail.");
pub(super) const ENABLED: Field = Field::new("enabled", FieldKind::Bool, "Whether it is done.");
pub(super) const ENABLE_AIA_URL_TEMPLATING: Field =
    Field::new("enable_aia_url_templating", FieldKind::Bool, "The URLs are templates.");
pub(super) const ENABLE_DELTA: Field = Field::new("enable_delta", FieldKind::Bool, "Make delta lists.");
pub(super) const ENABLE_TEMPLATING: Field =
    Field::new("enable_templating", FieldKind::Bool, "The URLs are templates.");
pub(super) const ENFORCE_HOSTNAMES: Field =
    Field::new("enforce_hostnames", FieldKind::Bool, "Only what is a host name.");
pub(super) const EXCLUDE_CN_FROM_SANS: Field = Field::new(
    "exclude_cn_from_sans",
    FieldKind::Bool,
    "Leave the common name out of the alternative names.",
);
pub(super) const EXPIRY: Field = Field::new("expiry", FieldKind::Duration, "How long a list holds.");
pub(super) const EXTENSIONS: Field =
    Field::new("extensions", FieldKind::List, "Objects with id, critical, value.");
pub(super) const EXTERNAL_KEY_REF: Field =
    Field::new("external_key_ref", FieldKind::String, "Refused: keys lie here.");
pub(super) const EXT_KEY_USAGE: Field = Field::new("ext_key_usage", FieldKind::List, "Purposes by name.");
pub(super) const EXT_KEY_USAGE_OIDS: Field =
    Field::new("ext_key_usage_oids", FieldKind::List, "Purposes by object identifier.");
pub(super) const FORMAT: Field = Field::new("format", FieldKind::String, "pem (default), der or pem_bundle.");
pub(super) const GENERATE_LEASE: Field =
    Field::new("generate_lease", FieldKind::Bool, "Lease certificates; the end of the lease revokes.");
pub(super) const INTERVAL_DURATION: Field =
    Field::new("interval_duration", FieldKind::Duration, "From one run to the next.");
pub(super) const IP_SANS: Field = Field::new("ip_sans", FieldKind::List, "Network addresses.");
pub(super) const ISSUER_NAME: Field = Field::new("issuer_name", FieldKind::String, "The name of the issuer.");
pub(super) const ISSUER_REF: Field =
    Field::new("issuer_ref", FieldKind::String, "Which issuer: default, an id or a name.");
pub(super) const ISSUER_SAFETY_BUFFER: Field =
    Field::new("issuer_safety_buffer", FieldKind::Duration, "How long after their end issuers stay.");
pub(super) const ISSUING_CERTIFICATES: Field =
    Field::new("issuing_certificates", FieldKind::List, "Where the issuer's certificate is.");
pub(super) const KEY_BITS: Field =
    Field::new("key_bits", FieldKind::Int, "Size of the key; 0 for the usual.");
pub(super) const KEY_NAME: Field = Field::new("key_name", FieldKind::String, "The name of the key.");
pub(super) const KEY_REF: Field =
    Field::new("key_ref", FieldKind::String, "Which key: default, an id or a name.");
pub(super) const KEY_TYPE: Field =
    Field::new("key_type", FieldKind::String, "rsa (default), ec, ed25519; for roles also any.");
pub(super) const KEY_USAGE: Field = Field::new("key_usage", FieldKind::List, "What the key may be used for.");
pub(super) const LEAF_NOT_AFTER_BEHAVIOR: Field = Field::new(
    "leaf_not_after_behavior",
    FieldKind::String,
    "What is done about certificates that would outlive the issuer: err, truncate or permit.",
);
pub(super) const LIMIT: Field = Field::new("limit", FieldKind::Int, "At most so many.");
pub(super) const LOCALITY: Field = Field::new("locality", FieldKind::List, "Localities of the subject.");
pub(super) const MAINTAIN_STORED_CERTIFICATE_COUNTS: Field =
    Field::new("maintain_stored_certificate_counts", FieldKind::Bool, "Noted, without effect.");
pub(super) const MANUAL_CHAIN: Field =
    Field::new("manual_chain", FieldKind::List, "The chain to show, the issuer itself first.");
pub(super) const MAX_PATH_LENGTH: Field =
    Field::new("max_path_length", FieldKind::Int, "How many authorities may follow; -1 for any number.");
pub(super) const MAX_TTL: Field = Field::new("max_ttl", FieldKind::Duration, "Longest lifetime.");
pub(super) const NEXT_UPDATE: Field =
    Field::new("next_update", FieldKind::Duration, "How long the list holds.");
pub(super) const NOT_AFTER: Field = Field::new("not_after", FieldKind::String, "End, in RFC 3339 text.");
pub(super) const NOT_AFTER_BOUND: Field =
    Field::new("not_after_bound", FieldKind::String, "permit, forbid, ttl-limited, or a moment.");
pub(super) const NOT_BEFORE: Field =
    Field::new("not_before", FieldKind::String, "Beginning, in RFC 3339 text.");
pub(super) const NOT_BEFORE_BOUND: Field =
    Field::new("not_before_bound", FieldKind::String, "permit, forbid or duration.");
pub(super) const NOT_BEFORE_DURATION: Field =
    Field::new("not_before_duration", FieldKind::Duration, "How long before now certificates begin.");
pub(super) const NO_STORE: Field = Field::new("no_store", FieldKind::Bool, "Do not store certificates.");
pub(super) const OCSP_DISABLE: Field = Field::new("ocsp_disable", FieldKind::Bool, "Answer no OCSP.");
pub(super) const OCSP_EXPIRY: Field =
    Field::new("ocsp_expiry", FieldKind::Duration, "How long an OCSP answer holds; 0 for no end.");
pub(super) const OCSP_REQUEST: Field = Field::new(
    "ocsp_request",
    FieldKind::String,
    "A request in Base64; the body itself with application/ocsp-request.",
);
pub(super) const OCSP_SERVERS: Field = Field::new("ocsp_servers", FieldKind::List, "Where OCSP is answered.");
pub(super) const ORGANIZATION: Field =
    Field::new("organization", FieldKind::List, "Organizations of the subject.");
pub(super) const OTHER_SANS: Field = Field::new("other_sans", FieldKind::List, "`OID;UTF8:text`.");
pub(super) const OU: Field = Field::new("ou", FieldKind::List, "Units of the subject.");
pub(super) const PAGE_SIZE: Field = Field::new("page_size", FieldKind::Int, "Entries in one step.");
pub(super) const PATH: Field =
    Field::new("path", FieldKind::String, "Where the cluster serves this mount, for templates.");
pub(super) const PAUSE_DURATION: Field =
    Field::new("pause_duration", FieldKind::Duration, "Noted: a step is taken each minute.");
pub(super) const PEM_BUNDLE: Field =
    Field::new("pem_bundle", FieldKind::String, "Certificates and keys in PEM.");
pub(super) const PERMITTED_DNS_DOMAINS: Field =
    Field::new("permitted_dns_domains", FieldKind::List, "Domains the authority may sign below.");
pub(super) const POLICY_IDENTIFIERS: Field =
    Field::new("policy_identifiers", FieldKind::List, "Policies certificates are issued under.");
pub(super) const POSTAL_CODE: Field =
    Field::new("postal_code", FieldKind::List, "Postal codes of the subject.");
pub(super) const PRIVATE_KEY: Field =
    Field::new("private_key", FieldKind::String, "The certificate's key in PEM.");
pub(super) const PRIVATE_KEY_FORMAT: Field =
    Field::new("private_key_format", FieldKind::String, "der (default: the key's own form), pem or pkcs8.");
pub(super) const PROVINCE: Field = Field::new("province", FieldKind::List, "Provinces of the subject.");
pub(super) const PUBLISH_STORED_CERTIFICATE_COUNT_METRICS: Field =
    Field::new("publish_stored_certificate_count_metrics", FieldKind::Bool, "Noted, without effect.");
pub(super) const REMOVE_ROOTS_FROM_CHAIN: Field =
    Field::new("remove_roots_from_chain", FieldKind::Bool, "Leave roots out of the chain.");
pub(super) const REQUIRE_CN: Field =
    Field::new("require_cn", FieldKind::Bool, "A common name has to be given.");
pub(super) const REQUIRE_MATCHING_CERTIFICATE_ALGORITHMS: Field = Field::new(
    "require_matching_certificate_algorithms",
    FieldKind::Bool,
    "Refuse keys of another type than the issuer's.",
);
pub(super) const REVOCATION_SIGNATURE_ALGORITHM: Field =
    Field::new("revocation_signature_algorithm", FieldKind::String, "How lists and OCSP answers are signed.");
pub(super) const REVOKED_CERTS: Field =
    Field::new("revoked_certs", FieldKind::List, "Objects with serial_number, revocation_time, extensions.");
pub(super) const REVOKED_SAFETY_BUFFER: Field = Field::new(
    "revoked_safety_buffer",
    FieldKind::Duration,
    "How long after their end revoked certificates stay.",
);
pub(super) const ROLE: Field = Field::new("role", FieldKind::String, "A role whose times hold.");
pub(super) const SAFETY_BUFFER: Field =
    Field::new("safety_buffer", FieldKind::Duration, "How long after their end certificates stay.");
pub(super) const SERIAL_NUMBER: Field = Field::new("serial_number", FieldKind::String, "A serial number.");
pub(super) const SERVER_FLAG: Field = Field::new("server_flag", FieldKind::Bool, "For servers of TLS.");
pub(super) const SIGNATURE_BITS: Field = Field::new(
    "signature_bits",
    FieldKind::Int,
    "Size of the digest for RSA: 256, 384, 512, or 0 for the usual.",
);
pub(super) const SKID: Field = Field::new("skid", FieldKind::String, "The id of the key, in hexadecimal.");
pub(super) const STREET_ADDRESS: Field =
    Field::new("street_address", FieldKind::List, "Street addresses of the subject.");
pub(super) const TIDY_ACME: Field =
    Field::new("tidy_acme", FieldKind::Bool, "For ACME, which is not there yet.");
pub(super) const TIDY_CERT_STORE: Field =
    Field::new("tidy_cert_store", FieldKind::Bool, "Remove certificates that ended.");
pub(super) const TIDY_EXPIRED_ISSUERS: Field =
    Field::new("tidy_expired_issuers", FieldKind::Bool, "Remove issuers that ended.");
pub(super) const TIDY_INVALID_CERTS: Field =
    Field::new("tidy_invalid_certs", FieldKind::Bool, "Remove what is no certificate.");
pub(super) const TIDY_MOVE_LEGACY_CA_BUNDLE: Field =
    Field::new("tidy_move_legacy_ca_bundle", FieldKind::Bool, "Noted: there is none.");
pub(super) const TIDY_REVOCATION_LIST: Field =
    Field::new("tidy_revocation_list", FieldKind::Bool, "Another name of `tidy_revoked_certs`.");
pub(super) const TIDY_REVOKED_CERTS: Field =
    Field::new("tidy_revoked_certs", FieldKind::Bool, "Remove revoked certificates that ended.");
pub(super) const TIDY_REVOKED_CERT_ISSUER_ASSOCIATIONS: Field = Field::new(
    "tidy_revoked_cert_issuer_associations",
    FieldKind::Bool,
    "Find issuers of revoked certificates.",
);
pub(super) const TTL: Field = Field::new("ttl", FieldKind::Duration, "Lifetime.");
pub(super) const URI_SANS: Field = Field::new("uri_sans", FieldKind::List, "URIs.");
pub(super) const USAGE: Field =
    Field::new("usage", FieldKind::List, "read-only, issuing-certificates, crl-signing, ocsp-signing.");
pub(super) const USER_IDS: Field = Field::new("user_ids", FieldKind::List, "User ids of the subject.");
pub(super) const USE_CSR_COMMON_NAME: Field =
    Field::new("use_csr_common_name", FieldKind::Bool, "Take the common name of the request.");
pub(super) const USE_CSR_SANS: Field =
    Field::new("use_csr_sans", FieldKind::Bool, "Take the alternative names of the request.");
pub(super) const USE_CSR_VALUES: Field =
    Field::new("use_csr_values", FieldKind::Bool, "Take subject and extensions of the request as they are.");
pub(super) const USE_PSS: Field = Field::new("use_pss", FieldKind::Bool, "Sign by PSS with RSA.");
