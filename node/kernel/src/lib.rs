//! The request pipeline: router, mounts, tokens, policy, leases, audit, sys.
