//! gRPC by mutual TLS between the nodes of a cluster.
