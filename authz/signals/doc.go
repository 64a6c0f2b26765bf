// Package signals serves the endpoints that let other parties revoke access: clients revoke a token (RFC 7009), issuers log a
// user out (OpenID Connect Back-Channel Logout 1.0), and transmitters push security events (RFC 8935, with the events of CAEP 1.0
// and RISC 1.0). Each signal becomes records of package revocation. No signal is acknowledged before its records are durable.
//
// Read signals.go first (paths, interfaces, options, Handler), then http.go (code of all three endpoints), then one
// endpoint: revoke.go, logout.go, or push.go with event.go and subject.go.
package signals
