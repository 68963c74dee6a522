//! What a decision costs: the compiled lookup with few and many rules, and compiling a set.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use arca_engine_api::{Map, Operation, UnixMillis};
use arca_kernel::policy::acl::AclScope;
use arca_kernel::policy::parse::parse;
use arca_kernel::policy::{Acl, AclRequest, Policy};
use criterion::{Criterion, criterion_group, criterion_main};

const ROOT: AclScope<'static> = AclScope { namespace_id: "root", namespace_path: "" };

/// A third each of exact paths, prefixes, and patterns with a `+`.
fn policy(rules: usize) -> Arc<Policy> {
    let mut text = String::new();
    for at in 0..rules {
        let path = match at % 3 {
            0 => format!("secret/data/team-{at}/config"),
            1 => format!("secret/data/team-{at}/*"),
            _ => format!("secret/+/team-{at}/+/keys"),
        };
        writeln!(text, "path {path:?} {{ capabilities = [\"read\"] }}").unwrap();
    }
    Arc::new(parse("bench", &text).unwrap())
}

fn decisions(criterion: &mut Criterion) {
    let data = Map::new();
    for rules in [10, 1_000] {
        let policies = [policy(rules)];
        let acl = Acl::compile(ROOT, &policies, None, UnixMillis(0));
        let last = rules - 1;
        let paths = [
            ("exact", format!("secret/data/team-{}/config", last - last % 3)),
            ("prefix", format!("secret/data/team-{}/a/b", last - (last + 2) % 3)),
            ("segments", "secret/data/team-2/x/keys".to_owned()),
            ("none", "other/data/team/x".to_owned()),
        ];
        for (name, path) in paths {
            let request = AclRequest {
                operation: Operation::Read,
                path: &path,
                data: &data,
                fields: &[],
                wrap_ttl: None,
            };
            assert_eq!(acl.check(request).is_allowed, name != "none", "{path}");
            criterion.bench_function(&format!("policy/{rules} rules/{name}"), |bencher| {
                bencher.iter(|| black_box(&acl).check(black_box(request)).is_allowed);
            });
        }
        criterion.bench_function(&format!("policy/{rules} rules/compile"), |bencher| {
            bencher.iter(|| Acl::compile(ROOT, black_box(&policies), None, UnixMillis(0)));
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
