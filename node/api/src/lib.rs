//! HTTP: server, TLS, handlers, status codes.
